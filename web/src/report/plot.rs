//! Plots as SVG.
//!
//! A writer of our own: of the libraries looked at, plotters writes colours and fonts into attributes, so that no sheet
//! can turn them dark, and poloto lays everything out at a fixed size with a style element inside, which the pages'
//! policy forbids. What is needed is little: lines, steps and bars over time.
//!
//! ```text
//!  <svg class="chart">              no viewBox: texts keep their size, percentages place them
//!    ├─ lines and texts             x in %, y in pixels
//!    └─ <svg viewBox="0 0 1000 …">  stretched to the width; paths with strokes that do not stretch
//! ```

use admission::report::{List, Moment, Point, Series, Span, Step, Stretch};
use admission::verdict::Class;

use super::html::Html;
use super::words::{Words, class_name, count};
use crate::Language;

/// Pixels above, of and below the drawing.
const ABOVE: f64 = 40.0;
const HEIGHT: f64 = 170.0;
const BELOW: f64 = 26.0;
/// Width of the stretched drawing, in its own units; its height is the same.
const UNITS: f64 = 1_000.0;
/// Most marks on an axis.
const TIMES_MAX: u64 = 6;
const TICKS_MAX: u64 = 4;
/// Widths between marks of the time, milliseconds.
const EVERY: [u64; 15] = [
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    604_800_000,
    2_592_000_000,
];
const DAY_MS: u64 = 86_400_000;
/// Height of a bar and of what belongs to it, pixels.
const BAR: f64 = 14.0;
const LANE: f64 = 38.0;

/// The time that a plot covers, and what it marks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    from: u64,
    until: u64,
    announced: u64,
}

/// One line of a plot.
pub(super) struct Line {
    /// Its key: `series.{name}`, and `s-{name}` in the sheet.
    pub(super) name: &'static str,
    pub(super) value: fn(&Point) -> u64,
    /// Whether what is below it is filled.
    pub(super) is_filled: bool,
}

impl Frame {
    /// At least five minutes long.
    pub(super) fn new(covers: Span, announced: Moment) -> Self {
        let from = covers.from.as_millis();
        let until = covers.until.as_millis().max(from.saturating_add(300_000));
        Self { from, until, announced: announced.as_millis() }
    }

    /// Where a moment lies, from 0 to 1.
    fn at(&self, millis: u64) -> f64 {
        let (past, all) = (millis.saturating_sub(self.from), self.until - self.from);
        (past as f64 / all as f64).min(1.0)
    }

    fn x(&self, millis: u64) -> f64 {
        self.at(millis) * UNITS
    }
}

/// Beginning of a chart: its element, title and description.
fn begin(out: &mut Html, id: &'static str, height: f64, title: &str, description: &str) {
    out.raw("<svg class=\"chart\" role=\"img\" width=\"100%\" height=\"").number(height);
    out.raw("\" aria-labelledby=\"").raw(id).raw("-title ").raw(id).raw("-words\">\n<title id=\"").raw(id);
    out.raw("-title\">").text(title).raw("</title>\n<desc id=\"").raw(id).raw("-words\">");
    out.text(description).raw("</desc>\n");
}

/// Lines over time.
pub(super) fn lines(
    id: &'static str,
    frame: &Frame,
    series: &Series,
    lines: &[Line],
    (title, description): (&str, &str),
    words: &Words,
) -> Html {
    let highest = |line: &Line| series.points.iter().map(line.value).max().unwrap_or(0);
    let ticks = Ticks::up_to(lines.iter().map(highest).max().unwrap_or(0));
    let mut out = Html::default();
    begin(&mut out, id, ABOVE + HEIGHT + BELOW, title, description);
    ticks.draw(&mut out, |_| true);
    times(&mut out, frame, ABOVE, HEIGHT);
    start(&mut out, frame, ABOVE, HEIGHT, words);
    stretched(&mut out, ABOVE, HEIGHT);
    for line in lines {
        let runs = runs(frame, series, line, &ticks);
        if line.is_filled {
            out.raw("<path class=\"fill s-").raw(line.name).raw("\" d=\"");
            for run in &runs {
                let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
                trace(&mut out, run);
                out.raw("L").number(short(*last)).raw(" ").number(UNITS);
                out.raw("L").number(short(*first)).raw(" ").number(UNITS).raw("Z");
            }
            out.raw("\"/>\n");
        }
        out.raw("<path class=\"line s-").raw(line.name).raw("\" d=\"");
        runs.iter().for_each(|run| trace(&mut out, run));
        out.raw("\"/>\n");
    }
    out.raw("</svg>\n");
    if let Some(line) = lines.first() {
        peak(&mut out, frame, series, line, &ticks);
    }
    out.raw("</svg>\n");
    out
}

/// Where a line is drawn: a run of points for each time without a break.
fn runs(frame: &Frame, series: &Series, line: &Line, ticks: &Ticks) -> Vec<Vec<(f64, f64)>> {
    let step_ms = series.step_s.saturating_mul(1_000);
    let follows = |a: &Point, b: &Point| a.at.as_millis().saturating_add(step_ms) == b.at.as_millis();
    let place = |point: &Point| {
        let middle = point.at.as_millis().saturating_add(step_ms / 2);
        (frame.x(middle.max(frame.from)), UNITS - ticks.share((line.value)(point)) * UNITS)
    };
    series.points.chunk_by(follows).map(|run| run.iter().map(place).collect()).collect()
}

fn trace(out: &mut Html, run: &[(f64, f64)]) {
    for (at, (x, y)) in run.iter().enumerate() {
        out.raw(if at == 0 { "M" } else { "L" }).number(short(*x)).raw(" ").number(short(*y));
    }
    if run.len() == 1 {
        // A line of no length whose round ends are a dot.
        out.raw("h0");
    }
}

/// A dot and a number at the highest point of a line.
fn peak(out: &mut Html, frame: &Frame, series: &Series, line: &Line, ticks: &Ticks) {
    let highest = series.points.iter().rev().max_by_key(|point| (line.value)(point));
    let Some(point) = highest.filter(|point| (line.value)(point) > 0) else { return };
    let value = (line.value)(point);
    let middle = point.at.as_millis().saturating_add(series.step_s.saturating_mul(500));
    let (at, y) = (frame.at(middle), ABOVE + HEIGHT * (1.0 - ticks.share(value)));
    out.raw("<circle class=\"dot s-").raw(line.name).raw("\" cx=\"").number(short(at * 100.0));
    out.raw("%\" cy=\"").number(short(y)).raw("\" r=\"4\"/>\n<text class=\"peak\" x=\"");
    out.number(short(at * 100.0)).raw("%\" y=\"").number(short((y - 9.0).max(11.0)));
    out.raw("\" text-anchor=\"").raw(anchor(at)).raw("\">").text(&count(value)).raw("</text>\n");
}

/// The ladder: level over time.
pub(super) fn ladder(
    id: &'static str,
    frame: &Frame,
    steps: &List<Step>,
    (title, description): (&str, &str),
    words: &Words,
) -> Html {
    let ticks = Ticks { each: 1, count: 6 };
    let mut out = Html::default();
    begin(&mut out, id, ABOVE + HEIGHT + BELOW, title, description);
    ticks.draw(&mut out, |tick| tick % 2 == 0);
    times(&mut out, frame, ABOVE, HEIGHT);
    start(&mut out, frame, ABOVE, HEIGHT, words);
    stretched(&mut out, ABOVE, HEIGHT);
    let place = |step: &Step| {
        let (from, until) = (frame.x(step.from.as_millis()), frame.x(step.until.as_millis()));
        (short(from), short(until), short(UNITS - ticks.share(step.level) * UNITS))
    };
    out.raw("<path class=\"fill s-level\" d=\"");
    for (from, until, y) in steps.items.iter().filter(|step| step.level > 0).map(place) {
        out.raw("M").number(&from).raw(" ").number(UNITS).raw("V").number(&y).raw("H").number(&until);
        out.raw("V").number(UNITS).raw("Z");
    }
    out.raw("\"/>\n<path class=\"line s-level\" d=\"");
    let mut before: Option<Moment> = None;
    for step in &steps.items {
        let (from, until, y) = place(step);
        if before == Some(step.from) {
            out.raw("V").number(&y);
        } else {
            out.raw("M").number(&from).raw(" ").number(&y);
        }
        out.raw("H").number(&until);
        before = Some(step.until);
    }
    out.raw("\"/>\n</svg>\n</svg>\n");
    out
}

/// The classes: a lane each, for those that occur.
pub(super) fn lanes(
    id: &'static str,
    frame: &Frame,
    stretches: &List<Stretch>,
    classes: &[Class],
    (title, description): (&str, &str),
    words: &Words,
) -> Html {
    let height = LANE * classes.len() as f64;
    let mut out = Html::default();
    begin(&mut out, id, height + BELOW, title, description);
    times(&mut out, frame, 0.0, height);
    // Below one another, so that colour is not all that tells them apart.
    for (lane, class) in classes.iter().enumerate() {
        let top = LANE * lane as f64;
        let (x, side) = if words.language == Language::Ar { ("100%", "end") } else { ("0", "start") };
        out.raw("<text class=\"lane\" x=\"").raw(x).raw("\" y=\"").number(top + 16.0);
        out.raw("\" text-anchor=\"").raw(side).raw("\">").text(words.class(*class)).raw("</text>\n");
        for stretch in stretches.items.iter().filter(|stretch| stretch.class == *class) {
            let from = frame.at(stretch.from.as_millis()) * 100.0;
            let width = (frame.at(stretch.until.as_millis()) * 100.0 - from).max(0.3);
            out.raw("<rect class=\"bar c-").raw(class_name(*class));
            out.raw(if stretch.quotable { "" } else { " pale" }).raw("\" x=\"").number(short(from));
            out.raw("%\" y=\"").number(top + 21.0).raw("\" width=\"").number(short(width));
            out.raw("%\" height=\"").number(BAR).raw("\"/>\n");
        }
    }
    out.raw("</svg>\n");
    out
}

/// Beginning of the part that is stretched to the width.
fn stretched(out: &mut Html, top: f64, height: f64) {
    out.raw("<svg y=\"").number(top).raw("\" width=\"100%\" height=\"").number(height);
    out.raw("\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" overflow=\"visible\">\n");
}

/// Marks of the time, with their lines.
fn times(out: &mut Html, frame: &Frame, top: f64, height: f64) {
    let span = frame.until - frame.from;
    let fits = |every: &u64| span / every <= TIMES_MAX;
    let every = EVERY.into_iter().find(fits).unwrap_or_else(|| span.div_ceil(TIMES_MAX).max(1));
    out.raw("<g class=\"times\">\n");
    let first = frame.from.div_ceil(every);
    let marks = (first..).map(|n| n.saturating_mul(every)).take_while(|at| *at <= frame.until);
    for millis in marks.take(TIMES_MAX as usize + 2) {
        let at = frame.at(millis);
        let text = Moment::from_millis(millis).to_string();
        let text = if every >= DAY_MS { text.get(5..10) } else { text.get(11..16) };
        out.raw("<line x1=\"").number(short(at * 100.0)).raw("%\" x2=\"").number(short(at * 100.0));
        out.raw("%\" y1=\"").number(top).raw("\" y2=\"").number(top + height + 5.0).raw("\"/>\n");
        out.raw("<text x=\"").number(short(at * 100.0)).raw("%\" y=\"").number(top + height + 20.0);
        out.raw("\" text-anchor=\"").raw(anchor(at)).raw("\">").text(text.unwrap_or_default());
        out.raw("</text>\n");
    }
    out.raw("</g>\n");
}

/// The announced start, if it is in the frame.
fn start(out: &mut Html, frame: &Frame, top: f64, height: f64, words: &Words) {
    if !(frame.from..=frame.until).contains(&frame.announced) {
        return;
    }
    let at = frame.at(frame.announced);
    out.raw("<line class=\"start\" x1=\"").number(short(at * 100.0)).raw("%\" x2=\"");
    out.number(short(at * 100.0)).raw("%\" y1=\"").number(top - 22.0).raw("\" y2=\"").number(top + height);
    out.raw("\"/>\n<text class=\"start\" x=\"").number(short(at * 100.0)).raw("%\" y=\"").number(top - 28.0);
    out.raw("\" text-anchor=\"").raw(anchor(at)).raw("\">").text(words.get("plot.start")).raw("</text>\n");
}

/// On which side of its place a text goes, so that it stays inside.
fn anchor(at: f64) -> &'static str {
    if at < 0.12 {
        "start"
    } else if at > 0.88 {
        "end"
    } else {
        "middle"
    }
}

/// A coordinate with one digit after the point.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// Marks of the values: multiples of `each`, from 0 on.
struct Ticks {
    each: u64,
    count: u64,
}

impl Ticks {
    /// As few round numbers as reach `highest`.
    fn up_to(highest: u64) -> Self {
        let mut power = 1_u64;
        loop {
            for factor in [1, 2, 5] {
                let each = power.saturating_mul(factor);
                if highest <= each.saturating_mul(TICKS_MAX) {
                    return Self { each, count: highest.div_ceil(each).max(1) };
                }
            }
            power = power.saturating_mul(10);
        }
    }

    /// How far up a value lies, from 0 to 1.
    fn share(&self, value: u64) -> f64 {
        (value as f64 / self.each.saturating_mul(self.count) as f64).min(1.0)
    }

    fn draw(&self, out: &mut Html, is_named: impl Fn(u64) -> bool) {
        out.raw("<g class=\"grid\">\n");
        for tick in 0..=self.count {
            let value = tick.saturating_mul(self.each);
            let y = ABOVE + HEIGHT * (1.0 - self.share(value));
            out.raw("<line x1=\"0\" x2=\"100%\" y1=\"").number(short(y)).raw("\" y2=\"").number(short(y));
            out.raw("\"/>\n");
            if is_named(tick) && tick > 0 {
                out.raw("<text x=\"0\" y=\"").number(short(y - 4.0)).raw("\">").text(&count(value));
                out.raw("</text>\n");
            }
        }
        out.raw("</g>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_round() {
        for (highest, each, count) in [
            (0, 1, 1),
            (1, 1, 1),
            (4, 1, 4),
            (5, 2, 3),
            (17, 5, 4),
            (1_001, 500, 3),
            (8_000_000, 2_000_000, 4),
        ] {
            let ticks = Ticks::up_to(highest);
            assert_eq!((ticks.each, ticks.count), (each, count), "{highest}");
            assert!(ticks.share(highest) <= 1.0);
        }
        assert!(Ticks::up_to(u64::MAX).share(u64::MAX) <= 1.0);
    }

    #[test]
    fn times_are_few_however_long_it_was() {
        for minutes in [1, 5, 7, 60, 135, 600, 3_000, 100_000, 10_000_000] {
            let from = Moment::from_millis(1_795_377_123_000);
            let until = Moment::from_millis(from.as_millis() + minutes * 60_000);
            let frame = Frame::new(Span { from, until }, from);
            let mut out = Html::default();
            times(&mut out, &frame, 0.0, 10.0);
            let marks = out.into_string().matches("<text").count();
            assert!((1..=8).contains(&marks), "{minutes} min: {marks}");
        }
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(
            ["12", "0.3", "-1"],
            [short(12.0), short(0.333), short(-1.0)].each_ref().map(String::as_str)
        );
    }
}
