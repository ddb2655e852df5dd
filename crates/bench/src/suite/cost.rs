//! What a listener costs: the edge against floors and peers, in pairs that take turns.

use anyhow::Result;
use rehearse::crowd::{CrowdReport, Failures};

use super::lab::{Crowd, Lab};
use super::peers;
use super::servers::{EdgeSetup, Edges, Floor};
use super::sheet::{Sheet, Spread};

/// Joins a second in a ramp, slow enough for whoever is measured.
pub(crate) const RAMP: u32 = 2_500;
/// Width of the slices of our floor where it is spread as an edge is, ms.
const SLICE_MS: u64 = 2;
/// Icecast and players of HLS have no tier; their window is as long.
const PEER_WINDOW: f64 = 8.0;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Edge,
    /// The floor that judges: everything at once.
    Independent,
    Floor,
    /// Ours again, in slices as narrow as an edge's.
    Sliced,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Edge, Self::Independent, Self::Floor, Self::Sliced];

    fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Independent => "independent floor",
            Self::Floor => "floor",
            Self::Sliced => "floor, slices of 2 ms",
        }
    }
}

/// What one run came to, µs a listener and second.
#[derive(Clone, Debug)]
struct Figure {
    cpu: f64,
    core: f64,
    generator: f64,
    void: bool,
    /// Listeners lost, failed, with missed parts, and stalls.
    harm: u64,
    /// What went wrong.
    failures: Failures,
}

impl Figure {
    fn of(report: &CrowdReport) -> Self {
        let counts = report.base.counts;
        Self {
            cpu: report.server.cpu_us_per_listener_s,
            core: report.server.core_us_per_listener_s,
            generator: report.generator.core_busy.unwrap_or(report.generator.cpu),
            void: report.generator.void,
            harm: counts.failed + counts.lost + counts.lost_early + counts.missed + counts.stalls,
            failures: report.failures.clone(),
        }
    }
}

/// Figures of one contender in one setting.
struct Row {
    name: String,
    setting: String,
    figures: Vec<Figure>,
}

impl Row {
    fn good(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| !figure.void)
    }

    fn core(&self) -> Option<Spread> {
        Spread::of(self.good().map(|figure| figure.core))
    }

    /// Medians of the ratios of runs that followed each other.
    fn ratio_to(&self, other: &Self) -> Option<Spread> {
        let pairs = self.figures.iter().zip(&other.figures);
        let fair = pairs.filter(|(mine, theirs)| !mine.void && !theirs.void && theirs.core > 0.0);
        Spread::of(fair.map(|(mine, theirs)| mine.core / theirs.core))
    }

    fn cells(&self, judge: Option<&Self>) -> Vec<String> {
        let text =
            |spread: Option<Spread>| spread.map_or_else(|| "void".to_owned(), |spread| spread.to_string());
        let ratio = judge.filter(|judge| judge.name != self.name).and_then(|judge| self.ratio_to(judge));
        let per_core = self.core().filter(|core| core.median > 0.0).map(|core| 1e6 / core.median);
        vec![
            self.name.clone(),
            self.setting.clone(),
            text(Spread::of(self.good().map(|figure| figure.cpu))),
            text(self.core()),
            ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median)),
            per_core.map_or_else(String::new, |count| format!("{:.0}k", count / 1e3)),
            Spread::of(self.figures.iter().map(|figure| figure.generator))
                .map_or_else(String::new, |busy| format!("{:.0} %", 100.0 * busy.greatest)),
            self.figures.iter().map(|figure| figure.harm).sum::<u64>().to_string(),
        ]
    }
}

const HEAD: [&str; 8] =
    ["server", "setting", "CPU proc µs", "CPU core µs", "ratio", "a core carries", "generator", "harm"];

/// Line 1 of what must hold.
pub(crate) fn measure(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Cost of a listener");
    sheet.say(&format!(
        "{} listeners, opus-48; µs of one core a listener and second, as billed to the server's processes and as time \
         in which its core was not idle; median of {} (least–greatest), turn by turn. Harm: failures, losses, missed \
         parts and stalls of all runs. The ratio is to the floor that judges: the independent one where it is there, \
         or else ours, at the same cadence.\n",
        lab.listeners, lab.repeats
    ));
    let mut verdicts = Vec::new();
    let mut edge_at_two = None;
    for tls in [true, false] {
        let mut rows = Vec::new();
        for &tier in &lab.tiers {
            let of_tier = contest(lab, tls, tier)?;
            let judge = judge(&of_tier);
            rows.extend(of_tier.iter().map(|row| row.cells(judge)));
            let edge = of_tier.iter().find(|row| row.name == Contender::Edge.name());
            if let (Some(edge), Some(judge)) = (edge, judge) {
                verdicts.push(against_floor(tls, tier, edge, judge));
            }
            if tls && tier == 2 {
                edge_at_two = edge.and_then(Row::core);
            }
        }
        sheet.say(if tls { "TLS" } else { "Plain" });
        sheet.say("");
        sheet.table(&HEAD, &rows);
    }
    if lab.peers {
        let rows = peers_in_turn(lab)?;
        sheet.say("Peers. Each claim beside them has its delay: pages and segments as they say, a flush of a tier.\n");
        sheet.table(&HEAD, &rows.iter().map(|row| row.cells(None)).collect::<Vec<_>>());
        let nginx = rows.iter().find(|row| row.name.contains("nginx TLS")).and_then(Row::core);
        if let (Some(edge), Some(nginx)) = (edge_at_two, nginx) {
            let ratio = edge.median / nginx.median;
            verdicts.push((
                "TLS, tier 2, against nginx TLS HLS 2 s".to_owned(),
                format!("{ratio:.2}"),
                "0.60".to_owned(),
                Some(ratio <= 0.6),
            ));
        }
    }
    for (what, found, limit, holds) in verdicts {
        sheet.verdict(&what, &found, &limit, holds);
    }
    Ok(())
}

fn judge(rows: &[Row]) -> Option<&Row> {
    let named = |contender: Contender| rows.iter().find(|row| row.name == contender.name());
    named(Contender::Independent).or_else(|| named(Contender::Floor))
}

type Verdict = (String, String, String, Option<bool>);

fn against_floor(tls: bool, tier: u64, edge: &Row, judge: &Row) -> Verdict {
    let factor = if tls { 1.25 } else { 1.2 };
    let what = format!("{}, tier {tier}, against the {}", if tls { "TLS" } else { "plain" }, judge.name);
    let limit = format!("{factor} × and 1 µs");
    match (edge.core(), judge.core()) {
        (Some(edge_core), Some(floor_core)) => {
            let ratio = edge.ratio_to(judge).map_or(0.0, |ratio| ratio.median);
            let found = format!("{:.1} µs to {:.1} µs, {ratio:.2} ×", edge_core.median, floor_core.median);
            (what, found, limit, Some(edge_core.median <= factor * floor_core.median + 1.0))
        }
        _ => (what, "void".to_owned(), limit, None),
    }
}

/// All contenders of one setting, turn by turn.
fn contest(lab: &Lab, tls: bool, tier: u64) -> Result<Vec<Row>> {
    let mut rows: Vec<(Contender, Row)> = Contender::ALL
        .into_iter()
        .filter(|contender| match contender {
            Contender::Edge => !tls || lab.edge_tls,
            Contender::Independent => lab.tools.is_some(),
            Contender::Floor | Contender::Sliced => true,
        })
        .map(|contender| {
            let setting =
                format!("{} tier {tier}, {:.2} s", if tls { "TLS" } else { "plain" }, 0.48 * tier as f64);
            (contender, Row { name: contender.name().to_owned(), setting, figures: Vec::new() })
        })
        .collect();
    for _ in 0..lab.repeats {
        for (contender, row) in &mut rows {
            let mut figure = once(lab, *contender, tls, tier)?;
            if figure.void {
                // Something else may have had the generator's core.
                figure = once(lab, *contender, tls, tier)?;
            }
            progress(&row.name, &row.setting, &figure);
            row.figures.push(figure);
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn progress(name: &str, setting: &str, figure: &Figure) {
    use std::io::Write as _;
    let void = if figure.void { ", VOID" } else { "" };
    writeln!(std::io::stderr(), "  {name}, {setting}: {:.1}/{:.1} µs{void}", figure.cpu, figure.core).ok();
    for (kind, times) in &figure.failures {
        writeln!(std::io::stderr(), "    {kind}: {times}").ok();
    }
}

/// The crowd of an ordinary run.
pub(crate) fn ordinary(lab: &Lab, url: &str, tier: u64) -> Crowd {
    Crowd::of(url, lab.listeners)
        .with("ramp", RAMP)
        .with("tier", tier)
        .with("settle", 3.0 + 2.0 * 0.48 * tier as f64)
        .with("window", lab.window(tier))
}

fn once(lab: &Lab, contender: Contender, tls: bool, tier: u64) -> Result<Figure> {
    let floor = match contender {
        Contender::Edge => {
            let edges = Edges::start(lab, &EdgeSetup::new(tls))?;
            let report = lab.crowd(&ordinary(lab, &edges.push("opus-48"), tier), &edges.running)?;
            return Ok(Figure::of(&report));
        }
        Contender::Floor => Some(Floor::start(lab, tls, tier, 1)?),
        Contender::Sliced => Some(Floor::start(lab, tls, tier, 480 * tier / SLICE_MS)?),
        Contender::Independent => Floor::start_independent(lab, tls, tier)?,
    };
    let Some(floor) = floor else { anyhow::bail!("the independent floor is not there") };
    Ok(Figure::of(&lab.crowd(&ordinary(lab, &floor.url, tier), &floor.running)?))
}

fn peers_in_turn(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = [
        ("Icecast", "Ogg pages of 200 ms"),
        ("Icecast", "Ogg pages of 1 s"),
        ("nginx TLS", "HLS segments of 2 s"),
        ("nginx", "HLS segments of 2 s, sendfile off"),
    ]
    .map(|(name, setting)| Row { name: name.to_owned(), setting: setting.to_owned(), figures: Vec::new() })
    .into();
    for _ in 0..lab.repeats {
        for (index, row) in rows.iter_mut().enumerate() {
            let peer = match index {
                0 => peers::icecast(lab, 200)?,
                1 => peers::icecast(lab, 1_000)?,
                2 => peers::nginx(lab, true)?,
                _ => peers::nginx(lab, false)?,
            };
            let mut crowd = Crowd::of(&peer.url, lab.listeners)
                .with("ramp", if index == 2 { RAMP / 2 } else { RAMP })
                .with("settle", 5)
                .with("window", if lab.quick { PEER_WINDOW / 2.0 } else { PEER_WINDOW });
            if index >= 2 {
                crowd = crowd.with("kind", "hls");
            }
            let figure = Figure::of(&lab.crowd(&crowd, &peer.running)?);
            progress(&row.name, &row.setting, &figure);
            row.figures.push(figure);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cores: &[f64]) -> Row {
        let figure = |core: &f64| Figure {
            cpu: *core,
            core: *core,
            generator: 0.5,
            void: *core > 90.0,
            harm: 0,
            failures: Failures::new(),
        };
        Row { name: name.to_owned(), setting: String::new(), figures: cores.iter().map(figure).collect() }
    }

    #[test]
    fn pairs_are_compared_and_void_ones_left_out() {
        let (edge, floor) = (row("edge", &[12.0, 99.0, 10.0, 11.0]), row("floor", &[10.0, 10.0, 10.0, 99.0]));
        assert_eq!(edge.ratio_to(&floor).unwrap().greatest, 1.2);
        let (.., holds) = against_floor(true, 1, &edge, &floor);
        assert_eq!(holds, Some(true));
        let (.., holds) = against_floor(false, 1, &row("edge", &[13.1]), &row("floor", &[10.0]));
        assert_eq!(holds, Some(false));
        let (.., holds) = against_floor(false, 1, &row("edge", &[99.0]), &row("floor", &[10.0]));
        assert_eq!(holds, None);
    }
}
