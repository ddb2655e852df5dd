//! The parts of the page, in their order.

use admission::report::{Blame, List, Moment, OwnFault, Point, Report, Series, Span, Stretch};
use admission::verdict::{Class, Feature};

use super::html::{Html, isolated};
use super::plot::{self, Frame, Line};
use super::words::{Clock, DATED, Words, class_name, count, counted, name, percent};
use super::{ReportForm, ReportPage, ReportPhase};

/// Most points of a plot, and rows of its table.
const POINTS_MAX: usize = 180;
/// Most rows of a list.
const ROWS_MAX: usize = 60;
const DAY_MS: u64 = 86_400_000;
/// A start is on time if it is off by less, milliseconds.
const ON_TIME_MS: u64 = 1_000;

const CLASSES: [Class; 6] =
    [Class::Crowd, Class::L7, Class::L34, Class::SelfInflicted, Class::Mixed, Class::Insufficient];

/// Everything within `<main>`.
pub(super) fn body(page: &ReportPage<'_>, form: ReportForm, words: &Words, title: &str) -> Html {
    let report = page.report;
    let state = match page.phase {
        ReportPhase::Running => "live",
        ReportPhase::Closing => "hold",
        ReportPhase::Final => "ended",
    };
    let dated = report.covers.is_some_and(|covers| covers.until.since(covers.from) > DAY_MS);
    let sheet = Sheet { report, words, clock: Clock { dated }, form };
    let mut out = Html::default();
    masthead(&mut out, page.title, title, state);
    out.raw("<p class=\"when\">").add(&words.say("announced", &[("time", DATED.show(report.announced_at))]));
    out.raw("</p>\n");
    sheet.broken(&mut out);
    sheet.covered(&mut out, page.phase);
    if page.phase == ReportPhase::Running {
        sheet.now(&mut out);
    }
    sheet.short(&mut out);
    sheet.figures(&mut out);
    sheet.plots(&mut out);
    sheet.ours(&mut out);
    sheet.done(&mut out);
    sheet.happened(&mut out);
    sheet.verdicts(&mut out);
    sheet.check(&mut out);
    sheet.meanings(&mut out);
    if form == ReportForm::Served {
        back(&mut out, &report.event, words);
    }
    out
}

/// What the page is, and of what.
pub(super) fn masthead(out: &mut Html, (title, language): (&str, &str), kind: &str, state: &'static str) {
    out.raw("<p class=\"pill\" data-state=\"").raw(state).raw("\">").text(kind).raw("</p>\n<h1><bdi lang=\"");
    out.text(language).raw("\">").text(title).raw("</bdi></h1>\n");
}

/// The way back to the event.
pub(super) fn back(out: &mut Html, event: &str, words: &Words) {
    out.raw("<p class=\"links\"><a href=\"/e/").text(event).raw("?lang=").text(words.language.tag());
    out.raw("\">").text(words.get("back")).raw("</a></p>\n");
}

struct Sheet<'a> {
    report: &'a Report,
    words: &'a Words,
    clock: Clock,
    form: ReportForm,
}

impl Sheet<'_> {
    fn get(&self, key: &str) -> &'static str {
        self.words.get(key)
    }

    fn time(&self, moment: Moment) -> Html {
        self.clock.show(moment)
    }

    fn title(&self, out: &mut Html, key: &'static str) {
        out.raw("<section aria-labelledby=\"h-").raw(key).raw("\">\n<h2 id=\"h-").raw(key).raw("\">");
        out.text(self.get(key)).raw("</h2>\n");
    }

    fn paragraph(&self, out: &mut Html, key: &str) {
        out.element("<p>", self.get(key), "</p>\n");
    }

    fn broken(&self, out: &mut Html) {
        let Some(fault) = &self.report.integrity.fault else { return };
        let mut what = Html::default();
        what.raw("<bdi lang=\"en\">").text(&fault.what).raw("</bdi>");
        let values = [("line", counted(fault.line)), ("offset", counted(fault.offset)), ("what", what)];
        out.raw("<p class=\"problem\" role=\"alert\">").add(&self.words.say("broken", &values)).raw("</p>\n");
    }

    fn covered(&self, out: &mut Html, phase: ReportPhase) {
        out.raw("<p>");
        match self.report.covers {
            None => out.text(self.get("covers.nothing")),
            Some(Span { from, until }) => {
                let key = match phase {
                    ReportPhase::Running => "covers.running",
                    ReportPhase::Closing => "covers.closing",
                    ReportPhase::Final => "covers.final",
                };
                out.add(&self.words.say(key, &[("from", self.time(from)), ("until", self.time(until))]))
            }
        };
        out.raw("</p>\n");
    }

    fn now(&self, out: &mut Html) {
        let Some(latest) = &self.report.latest else { return };
        self.title(out, "now");
        let certainty = if latest.class == Class::Insufficient {
            String::new()
        } else {
            format!(" ({})", self.certainty(latest.confidence_bp, latest.quotable))
        };
        let facts = [
            ("fact.listening", count(latest.listening)),
            ("fact.waiting", count(latest.waiting)),
            ("fact.arrivals_now", count(latest.arrivals)),
            ("fact.refused_now", count(latest.refused)),
            ("fact.level", count(latest.level)),
            ("fact.verdict", format!("{}{certainty}", self.words.class(latest.class))),
        ];
        self.facts(out, &facts);
        out.raw("</section>\n");
    }

    fn facts(&self, out: &mut Html, facts: &[(&str, String)]) {
        out.raw("<dl class=\"figures\">\n");
        for (key, value) in facts {
            out.element("<div><dt>", self.get(key), "</dt><dd>").add(&isolated(value)).raw("</dd></div>\n");
        }
        out.raw("</dl>\n");
    }

    fn figures(&self, out: &mut Html) {
        let (totals, peaks) = (&self.report.totals, &self.report.peaks);
        self.title(out, "facts");
        let facts = [
            ("fact.peak", count(peaks.listening.value)),
            ("fact.arrivals", count(totals.arrivals)),
            ("fact.admitted", count(totals.admitted)),
            ("fact.refused", count(totals.refused)),
            ("fact.most_waiting", count(peaks.waiting.value)),
            ("fact.highest", count(peaks.level.value)),
        ];
        self.facts(out, &facts);
        let by = &totals.refused_by;
        let reasons = [
            ("refused.full", by.full),
            ("refused.prefix", by.prefix),
            ("refused.forged", by.forged),
            ("refused.expired", by.expired),
            ("refused.excess", by.excess),
        ];
        if totals.refused > 0 {
            out.raw("<details id=\"d-refused\"><summary>").text(self.get("refused.title"));
            out.raw("</summary>\n");
            let mut table = Table::new(out, self.words, &["column.why", "column.count"]);
            for (key, number) in reasons.into_iter().filter(|(_, number)| *number > 0) {
                table.row(&[Cell::Text(self.get(key)), Cell::Number(count(number))]);
            }
            table.end(0);
            out.raw("</details>\n");
        }
        out.raw("</section>\n");
    }

    /// What happened in a few sentences.
    fn short(&self, out: &mut Html) {
        let report = self.report;
        self.title(out, "short");
        out.raw("<ul class=\"short\">\n");
        let mut sentence = |key: &str, values: &[(&str, Html)]| {
            out.raw("<li>").add(&self.words.say(key, values)).raw("</li>\n");
        };
        match (report.live_at, report.late_ms) {
            (None, _) => sentence("start.none", &[]),
            (Some(at), None) => sentence("start.unseen", &[("time", self.time(at))]),
            (Some(at), Some(late)) if late.unsigned_abs() < ON_TIME_MS => {
                sentence("start.on_time", &[("time", self.time(at))]);
            }
            (Some(at), Some(late)) => {
                let by = self.words.lasting(late.unsigned_abs());
                let (key, value) = if late > 0 { ("start.late", "late") } else { ("start.early", "early") };
                sentence(key, &[("time", self.time(at)), (value, by)]);
            }
        }
        let (totals, peak) = (&report.totals, report.peaks.listening);
        match peak.at {
            Some(at) => {
                let minutes = totals.listening_minutes;
                let hours = format!("{}.{}", count(minutes / 60), minutes % 60 / 6);
                let values =
                    [("peak", counted(peak.value)), ("time", self.time(at)), ("hours", isolated(&hours))];
                sentence("audience", &values);
            }
            None => sentence("audience.none", &[]),
        }
        let values = [
            ("arrivals", counted(totals.arrivals)),
            ("admitted", counted(totals.admitted)),
            ("refused", counted(totals.refused)),
        ];
        sentence("coming", &values);
        match report.peaks.level.value {
            0 => sentence("stepped.none", &[]),
            level => {
                let words = isolated(self.level(level));
                sentence("stepped", &[("level", counted(level)), ("words", words)]);
            }
        }
        let of = |class| report.time_of(class);
        let (l7, l34, mixed) = (of(Class::L7), of(Class::L34), of(Class::Mixed));
        let named_s = l7.quotable_s.saturating_add(l34.quotable_s);
        let unsure_s = l7.seconds.saturating_add(l34.seconds).saturating_sub(named_s);
        if named_s > 0 {
            sentence("attack.named", &[("time", self.seconds(named_s))]);
        }
        if unsure_s > 0 {
            sentence("attack.unsure", &[("time", self.seconds(unsure_s))]);
        }
        if mixed.seconds > 0 {
            sentence("caveat.mixed", &[("time", self.seconds(mixed.seconds))]);
        }
        if named_s + unsure_s + mixed.seconds == 0 {
            sentence("attack.none", &[]);
        }
        match report.ours.items.len() as u64 + report.ours.left_out {
            0 => sentence("own.none", &[]),
            faults => sentence("own", &[("count", counted(faults))]),
        }
        out.raw("</ul>\n");
        let insufficient = of(Class::Insufficient).seconds;
        if insufficient > 0 {
            let all = totals.bins.saturating_mul(10);
            let values = [("time", self.seconds(insufficient)), ("all", self.seconds(all))];
            out.raw("<p class=\"notice\">").add(&self.words.say("caveat", &values)).raw("</p>\n");
        }
        out.raw("</section>\n");
    }

    fn seconds(&self, seconds: u64) -> Html {
        self.words.lasting(seconds.saturating_mul(1_000))
    }

    fn level(&self, level: u64) -> &'static str {
        self.get(&format!("level.{}", level.min(6)))
    }

    fn plots(&self, out: &mut Html) {
        let report = self.report;
        let Some(covers) = report.covers else { return };
        let frame = Frame::new(covers, report.announced_at);
        let series = report.series.at_most(POINTS_MAX);
        self.title(out, "plots");
        self.paragraph(out, "axis");

        let lines = [
            Line { name: "listening", value: |point| point.listening, is_filled: true },
            Line { name: "waiting", value: |point| point.waiting, is_filled: false },
        ];
        self.figure(out, "people", &self.words.say("plot.people.words", &[]));
        self.legend(out, &lines);
        let about = self.about("plot.people", &series, &lines, covers);
        out.add(&plot::lines(
            "people",
            &frame,
            &series,
            &lines,
            (self.get("plot.people"), &about),
            self.words,
        ));
        self.table(out, "d-people", &series, &lines);
        out.raw("</figure>\n");

        let lines = [
            Line { name: "arrivals", value: |point| point.arrivals, is_filled: true },
            Line { name: "admitted", value: |point| point.admitted, is_filled: false },
            Line { name: "refused", value: |point| point.refused, is_filled: false },
        ];
        let step = self.seconds(series.step_s);
        self.figure(out, "flow", &self.words.say("plot.flow.words", &[("step", step)]));
        self.legend(out, &lines);
        let whole = self.whole(&series);
        let about = self.about("plot.flow", &series, &lines, covers);
        out.add(&plot::lines("flow", &frame, &whole, &lines, (self.get("plot.flow"), &about), self.words));
        self.table(out, "d-flow", &series, &lines);
        out.raw("</figure>\n");

        self.figure(out, "ladder", &self.words.say("plot.ladder.words", &[]));
        let line = Line { name: "level", value: |point| point.level, is_filled: true };
        let about = self.about("plot.ladder", &series, &[line], covers);
        out.add(&plot::ladder(
            "ladder",
            &frame,
            &report.ladder,
            (self.get("plot.ladder"), &about),
            self.words,
        ));
        self.ladder_table(out);
        out.raw("</figure>\n");

        let times = CLASSES.map(|class| report.time_of(class));
        let named: Vec<Class> = times.iter().filter(|time| time.seconds > 0).map(|time| time.class).collect();
        self.figure(out, "load", &self.words.say("plot.load.words", &[]));
        let each = named.iter().map(|class| {
            let lasted = self.words.duration(report.time_of(*class).seconds.saturating_mul(1_000));
            format!("{}: {lasted}", self.words.class(*class))
        });
        let each = each.collect::<Vec<_>>().join("; ");
        let about = self.words.say_plainly(
            "plot.desc.load",
            &[
                ("from", &self.clock.write_utc(covers.from)),
                ("until", &self.clock.write_utc(covers.until)),
                ("classes", &each),
            ],
        );
        let said = (self.get("plot.load"), about.as_str());
        out.add(&plot::lanes("load", &frame, &report.verdicts, &named, said, self.words));
        out.raw("<dl class=\"classes\">\n");
        for class in &named {
            out.raw("<div><dt><span class=\"swatch c-").raw(class_name(*class)).raw("\"></span>");
            out.text(self.words.class(*class)).raw(" · ");
            out.add(&self.seconds(report.time_of(*class).seconds)).raw("</dt><dd>");
            out.text(self.get(&format!("class.{}.words", class_name(*class)))).raw("</dd></div>\n");
        }
        out.raw("</dl>\n</figure>\n</section>\n");
    }

    /// Without the last point, if more of it is to come: it would look as if everybody had stopped coming.
    fn whole(&self, series: &Series) -> Series {
        let mut whole = series.clone();
        let full = series.step_s / 10;
        if !self.report.integrity.closed
            && series.points.len() > 1
            && whole.points.last().is_some_and(|last| last.bins < full)
        {
            whole.points.pop();
        }
        whole
    }

    fn figure(&self, out: &mut Html, plot: &'static str, explained: &Html) {
        out.raw("<figure id=\"f-").raw(plot).raw("\">\n<figcaption><h3>");
        out.text(self.get(&format!("plot.{plot}"))).raw("</h3>\n<p>").add(explained);
        out.raw("</p></figcaption>\n");
    }

    fn legend(&self, out: &mut Html, lines: &[Line]) {
        out.raw("<ul class=\"legend\">\n");
        for line in lines {
            out.raw("<li><svg width=\"28\" height=\"10\" aria-hidden=\"true\"><path class=\"line s-");
            out.raw(line.name).raw("\" d=\"M2 5H26\"/></svg> ");
            out.text(self.get(&format!("series.{}", line.name))).raw("</li>\n");
        }
        out.raw("</ul>\n");
    }

    /// A plot in words, for who does not see it.
    fn about(&self, plot: &str, series: &Series, lines: &[Line], covers: Span) -> String {
        let (from, until) = (self.clock.write_utc(covers.from), self.clock.write_utc(covers.until));
        let mut said = self.get(&format!("{plot}.words")).to_owned();
        if said.contains('{') {
            let step = self.words.duration(series.step_s.saturating_mul(1_000));
            said = self.words.say_plainly(&format!("{plot}.words"), &[("step", &step)]);
        }
        for line in lines {
            let highest = series.points.iter().rev().max_by_key(|point| (line.value)(point));
            let named = self.get(&format!("series.{}", line.name));
            said.push(' ');
            said.push_str(&match highest.filter(|point| (line.value)(point) > 0) {
                Some(point) => self.words.say_plainly(
                    "plot.desc",
                    &[
                        ("from", &from),
                        ("until", &until),
                        ("name", named),
                        ("peak", &count((line.value)(point))),
                        ("time", &self.clock.write_utc(point.at)),
                    ],
                ),
                None => self
                    .words
                    .say_plainly("plot.desc.flat", &[("from", &from), ("until", &until), ("name", named)]),
            });
        }
        said
    }

    fn table(&self, out: &mut Html, id: &'static str, series: &Series, lines: &[Line]) {
        out.raw("<details id=\"").raw(id).raw("\"><summary>").text(self.get("table")).raw("</summary>\n<p>");
        out.add(&self.words.say("table.words", &[("step", self.seconds(series.step_s))])).raw("</p>\n");
        let columns: Vec<String> = lines.iter().map(|line| format!("column.{}", line.name)).collect();
        let columns: Vec<&str> =
            std::iter::once("column.time").chain(columns.iter().map(String::as_str)).collect();
        let mut table = Table::new(out, self.words, &columns);
        let row = |point: &Point| {
            let cells = lines.iter().map(|line| Cell::Number(count((line.value)(point))));
            std::iter::once(Cell::Time(self.clock.write(point.at))).chain(cells).collect::<Vec<_>>()
        };
        series.points.iter().for_each(|point| table.row(&row(point)));
        table.end(0);
        out.raw("</details>\n");
    }

    fn ladder_table(&self, out: &mut Html) {
        out.raw("<details id=\"d-ladder\"><summary>").text(self.get("table")).raw("</summary>\n");
        let columns = ["column.from", "column.until", "column.level", "column.what"];
        let mut table = Table::new(out, self.words, &columns);
        let steps = &self.report.ladder;
        for step in steps.items.iter().take(ROWS_MAX) {
            table.row(&[
                Cell::Time(self.clock.write(step.from)),
                Cell::Time(self.clock.write(step.until)),
                Cell::Number(count(step.level)),
                Cell::Text(self.level(step.level)),
            ]);
        }
        table.end(left_out(steps));
        out.raw("</details>\n");
    }

    fn ours(&self, out: &mut Html) {
        self.title(out, "ours");
        self.paragraph(out, "ours.words");
        let ours = &self.report.ours;
        if ours.items.is_empty() {
            self.paragraph(out, "ours.none");
        } else {
            let columns = ["column.from", "column.until", "column.what", "column.worst"];
            let mut table = Table::new(out, self.words, &columns);
            for blame in ours.items.iter().take(ROWS_MAX) {
                let mut worst = self.worst(blame);
                if blame.under_attack {
                    worst = format!("{worst} ({})", self.get("ours.attack"));
                }
                table.row(&[
                    Cell::Time(self.clock.write(blame.from)),
                    Cell::Time(self.clock.write(blame.until)),
                    Cell::Text(self.get(&format!("fault.{}", name(blame.fault)))),
                    Cell::Text(&worst),
                ]);
            }
            table.end(left_out(ours));
        }
        out.raw("</section>\n");
    }

    /// How bad it was.
    fn worst(&self, blame: &Blame) -> String {
        let worst = match blame.fault {
            OwnFault::LateStart => self.words.duration(blame.worst),
            OwnFault::Named => percent(blame.worst),
            OwnFault::NotCounted => self.words.duration(blame.total.saturating_mul(10_000)),
            OwnFault::SlowDisk | OwnFault::LateLoop => self.words.duration(blame.worst / 1_000),
            OwnFault::LostProcesses | OwnFault::ServerErrors | OwnFault::QueueOverflow => count(blame.worst),
        };
        let values = [("worst", worst.as_str()), ("total", &count(blame.total))];
        self.words.say_plainly(&format!("worst.{}", name(blame.fault)), &values)
    }

    fn done(&self, out: &mut Html) {
        self.title(out, "done");
        let measures = &self.report.measures;
        if measures.is_empty() {
            self.paragraph(out, "done.none");
        } else {
            self.paragraph(out, "done.words");
            let columns = ["column.what", "column.cause", "column.count", "column.from", "column.until"];
            let mut table = Table::new(out, self.words, &columns);
            for taken in measures {
                table.row(&[
                    Cell::Text(self.get(&format!("measure.{}", name(taken.measure)))),
                    Cell::Text(self.get(&format!("cause.{}", name(taken.cause)))),
                    Cell::Number(count(taken.count)),
                    Cell::Time(self.clock.write(taken.first)),
                    Cell::Time(self.clock.write(taken.last)),
                ]);
            }
            table.end(0);
        }
        out.raw("</section>\n");
    }

    fn happened(&self, out: &mut Html) {
        self.title(out, "happened");
        let marks = &self.report.marks;
        if marks.items.is_empty() {
            self.paragraph(out, "happened.none");
        } else {
            let mut table = Table::new(out, self.words, &["column.time", "column.what"]);
            for happened in marks.items.iter().take(ROWS_MAX) {
                table.row(&[
                    Cell::Time(self.clock.write(happened.at)),
                    Cell::Text(self.get(&format!("mark.{}", name(happened.mark)))),
                ]);
            }
            table.end(left_out(marks));
        }
        out.raw("</section>\n");
    }

    fn verdicts(&self, out: &mut Html) {
        self.title(out, "verdicts");
        self.paragraph(out, "verdicts.words");
        let verdicts = &self.report.verdicts;
        let mut shown: Vec<&Stretch> = verdicts.items.iter().collect();
        if shown.len() > ROWS_MAX {
            // What names something goes first, then what lasted longest.
            shown.sort_by_key(|stretch| {
                let calm = matches!(stretch.class, Class::Crowd | Class::Insufficient);
                (calm, std::cmp::Reverse(stretch.until.since(stretch.from)))
            });
            shown.truncate(ROWS_MAX);
            shown.sort_by_key(|stretch| stretch.from);
        }
        out.raw("<details id=\"d-verdicts\"><summary>").text(self.get("table")).raw("</summary>\n");
        let columns = ["column.from", "column.until", "column.class", "column.sure", "column.why"];
        let mut table = Table::new(out, self.words, &columns);
        for stretch in shown {
            let certainty = if stretch.class == Class::Insufficient {
                String::new()
            } else {
                self.certainty(stretch.confidence_bp, stretch.quotable)
            };
            table.row(&[
                Cell::Time(self.clock.write(stretch.from)),
                Cell::Time(self.clock.write(stretch.until)),
                Cell::Text(self.words.class(stretch.class)),
                Cell::Text(&certainty),
                Cell::Html(self.why(stretch)),
            ]);
        }
        table.end(left_out(verdicts));
        out.raw("</details>\n</section>\n");
    }

    fn certainty(&self, confidence_bp: u64, quotable: bool) -> String {
        let key = if quotable { "sure" } else { "unsure" };
        self.words.say_plainly(key, &[("percent", &percent(confidence_bp))])
    }

    fn why(&self, stretch: &Stretch) -> Html {
        let mut out = Html::default();
        out.raw("<ul>");
        for why in &stretch.reasons {
            let in_words = |value: u64| match why.feature {
                Feature::SlowDisk | Feature::LateLoop => self.words.duration(value / 1_000),
                Feature::Wary => count(value),
                _ => percent(value),
            };
            let values = [
                ("value", isolated(&in_words(why.value))),
                ("threshold", isolated(&in_words(why.threshold))),
            ];
            out.raw("<li>").text(self.get(&format!("feature.{}", name(why.feature)))).raw(": ");
            out.add(&self.words.say("value", &values)).raw("</li>");
        }
        out.raw("</ul>");
        out
    }

    fn check(&self, out: &mut Html) {
        let (integrity, event) = (&self.report.integrity, &self.report.event);
        self.title(out, "check");
        if integrity.holds {
            self.paragraph(out, "ledger.holds");
        }
        if integrity.key == admission::report::KeyFrom::Ledger {
            self.paragraph(out, "ledger.key_own");
        }
        out.raw("<dl class=\"ledger\">\n");
        let mut fact = |key: &str, value: &Html| {
            out.element("<div><dt>", self.get(key), "</dt><dd>").add(value).raw("</dd></div>\n");
        };
        fact("ledger.lines", &counted(integrity.lines));
        let mut head = Html::default();
        head.raw("<code dir=\"ltr\">").text(&integrity.head).raw("</code>");
        fact("ledger.head", &head);
        let closed = if integrity.closed { "ledger.closed.yes" } else { "ledger.closed.no" };
        fact("ledger.closed", &self.words.say(closed, &[]));
        let missing = self.seconds(integrity.missing_bins.saturating_mul(10));
        let places = counted(integrity.gaps.items.len() as u64 + integrity.gaps.left_out);
        fact(
            "ledger.gaps",
            &match integrity.missing_bins {
                0 => self.words.say("ledger.gaps.none", &[]),
                _ => self.words.say("ledger.gaps.some", &[("time", missing), ("places", places)]),
            },
        );
        fact("ledger.rules", &counted(self.report.thresholds));
        out.raw("</dl>\n");
        self.paragraph(out, "check.words");
        out.raw("<pre dir=\"ltr\"><code>minassa verdict check ").text(event);
        out.raw(".jsonl --keys minassa-keys.json</code></pre>\n");
        self.paragraph(out, "check.again");
        out.raw("<pre dir=\"ltr\"><code>minassa report ").text(event);
        out.raw(".jsonl --keys minassa-keys.json --lang ").text(self.words.language.tag());
        out.raw(" --out report.html</code></pre>\n");
        if self.form == ReportForm::Served {
            self.paragraph(out, "check.keys");
            out.raw("<ul class=\"downloads\">\n<li><a href=\"/api/events/").text(event);
            out.raw("/ledger.jsonl\" download=\"")
                .text(event)
                .raw(".jsonl\">")
                .text(self.get("check.ledger"));
            out.raw("</a></li>\n<li><a href=\"/.well-known/minassa-keys.json?event=").text(event);
            out.raw("\" download=\"minassa-keys.json\">").text(self.get("check.key_file"));
            out.raw("</a></li>\n<li><a href=\"/api/events/").text(event).raw("/report.json\">");
            out.text(self.get("check.json")).raw("</a></li>\n</ul>\n");
        }
        out.raw("</section>\n");
    }

    fn meanings(&self, out: &mut Html) {
        self.title(out, "words");
        out.raw("<ul>\n");
        for key in ["words.arrival", "words.listening", "words.waiting", "words.refused", "words.privacy"] {
            out.element("<li>", self.get(key), "</li>\n");
        }
        out.raw("</ul>\n</section>\n");
    }
}

/// How many of a list are not shown.
fn left_out<T>(list: &List<T>) -> u64 {
    list.left_out.saturating_add(list.items.len().saturating_sub(ROWS_MAX) as u64)
}

enum Cell<'a> {
    Text(&'a str),
    Number(String),
    Time(String),
    Html(Html),
}

/// A table that scrolls by itself where the page is narrow.
struct Table<'a> {
    out: &'a mut Html,
    words: &'a Words,
}

impl<'a> Table<'a> {
    fn new(out: &'a mut Html, words: &'a Words, columns: &[&str]) -> Self {
        out.raw("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
        for key in columns {
            out.element("<th scope=\"col\">", words.get(key), "</th>");
        }
        out.raw("</tr></thead>\n<tbody>\n");
        Self { out, words }
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        self.out.raw("<tr>");
        for cell in cells {
            match cell {
                Cell::Text(text) => self.out.element("<td>", text, "</td>"),
                Cell::Number(number) => self.out.element("<td class=\"number\">", number, "</td>"),
                Cell::Time(time) => {
                    self.out.element("<td class=\"time\"><bdi dir=\"ltr\">", time, "</bdi></td>")
                }
                Cell::Html(html) => self.out.raw("<td>").add(html).raw("</td>"),
            };
        }
        self.out.raw("</tr>\n");
    }

    /// Ends it, and says how many rows are not there.
    fn end(self, left_out: u64) {
        self.out.raw("</tbody></table></div>\n");
        if left_out > 0 {
            let said = self.words.say("more", &[("count", counted(left_out))]);
            self.out.raw("<p>").add(&said).raw("</p>\n");
        }
    }
}
