//! What a listener costs: the edge against floors and peers, in pairs that take turns.

use anyhow::Result;
use rehearse::crowd::{CrowdReport, Failures};

use super::lab::{Crowd, Lab};
use super::peers;
use super::scenarios::harm;
use super::servers::{EdgeSetup, Edges, Floor};
use super::sheet::{Sheet, Spread};

/// Joins a second in a ramp, slow enough for whoever is measured.
pub(crate) const RAMP: u32 = 2_500;
/// What the edge may cost of nginx with HLS.
const NGINX_FACTOR: f64 = 0.6;
/// Pairs of runs that a verdict needs, where there were as many.
const PAIRS_MIN: usize = 3;
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
    /// Failures, losses, missed parts, broken streams and stalls.
    harm: u64,
    /// What went wrong.
    failures: Failures,
}

impl Figure {
    fn of(report: &CrowdReport) -> Self {
        Self {
            cpu: report.server.cpu_us_per_listener_s,
            core: report.server.core_us_per_listener_s,
            generator: report.generator.core_busy.unwrap_or(report.generator.cpu),
            void: report.generator.void,
            harm: harm(&report.base),
            failures: report.failures.clone(),
        }
    }

    /// The work was done, and the generator could see it.
    fn is_good(&self) -> bool {
        !self.void && self.harm == 0
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
        self.figures.iter().filter(|figure| figure.is_good())
    }

    fn core(&self) -> Option<Spread> {
        Spread::of(self.good().map(|figure| figure.core))
    }

    /// Runs that followed each other, where both did all of their work.
    fn pairs<'r>(&'r self, other: &'r Self) -> impl Iterator<Item = (&'r Figure, &'r Figure)> {
        let pairs = self.figures.iter().zip(&other.figures);
        pairs.filter(|(mine, theirs)| mine.is_good() && theirs.is_good() && theirs.core > 0.0)
    }

    /// Medians of their ratios.
    fn ratio_to(&self, other: &Self) -> Option<Spread> {
        Spread::of(self.pairs(other).map(|(mine, theirs)| mine.core / theirs.core))
    }

    /// Whether there are enough good pairs to judge by: three, or all of fewer.
    fn enough_pairs(&self, other: &Self) -> bool {
        let all = self.figures.len().min(other.figures.len());
        all > 0 && self.pairs(other).count() >= all.min(PAIRS_MIN)
    }

    fn cells(&self, judge: Option<&Self>) -> Vec<String> {
        let text = |spread: Option<Spread>| {
            spread.map_or_else(|| "no good run".to_owned(), |spread| spread.to_string())
        };
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
         in which its core was not idle; median of {} (least–greatest), turn by turn, void runs and those with harm left \
         out. Harm: failures, losses, missed \
         parts, broken streams and stalls of all runs. The ratio is to the floor that judges: the independent one where it is there, \
         or else ours, at the same cadence.\n",
        lab.listeners, lab.repeats
    ));
    let mut verdicts = Vec::new();
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
        }
        sheet.say(if tls { "TLS" } else { "Plain" });
        sheet.say("");
        sheet.table(&HEAD, &rows);
    }
    if lab.peers {
        let rows = peers_in_turn(lab)?;
        sheet.say("Peers. Each claim beside them has its delay: pages and segments as they say, a flush of a tier.\n");
        sheet.table(&HEAD, &rows.iter().map(|row| row.cells(None)).collect::<Vec<_>>());
        let named = |name: &str| rows.iter().find(|row| row.name == name);
        if let (Some(edge), Some(nginx)) = (named(Subject::Edge.name()), named(Subject::NginxTls.name())) {
            verdicts.push(against_nginx(edge, nginx));
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
        (Some(edge_core), Some(floor_core)) if edge.enough_pairs(judge) => {
            let ratio = edge.ratio_to(judge).map_or(0.0, |ratio| ratio.median);
            let found = format!("{:.1} µs to {:.1} µs, {ratio:.2} ×", edge_core.median, floor_core.median);
            (what, found, limit, Some(edge_core.median <= factor * floor_core.median + 1.0))
        }
        _ => (what, few(edge, judge), limit, None),
    }
}

fn against_nginx(edge: &Row, nginx: &Row) -> Verdict {
    let what = "TLS, tier 2, against nginx TLS HLS 2 s".to_owned();
    let ratio = edge.ratio_to(nginx).filter(|_| edge.enough_pairs(nginx));
    let found = ratio.map_or_else(|| few(edge, nginx), |ratio| format!("{ratio:.2}"));
    (what, found, NGINX_FACTOR.to_string(), ratio.map(|ratio| ratio.median <= NGINX_FACTOR))
}

fn few(one: &Row, other: &Row) -> String {
    format!("{} good pairs of {}", one.pairs(other).count(), one.figures.len().min(other.figures.len()))
}

/// All contenders of one setting, turn by turn.
fn contest(lab: &Lab, tls: bool, tier: u64) -> Result<Vec<Row>> {
    let mut rows: Vec<(Contender, Row)> = Contender::ALL
        .into_iter()
        .filter(|contender| match contender {
            Contender::Edge => !tls || lab.edge_tls,
            Contender::Independent => lab.tools.is_some(),
            Contender::Floor => !lab.judged || lab.tools.is_none(),
            Contender::Sliced => !lab.judged,
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

/// Who takes turns with peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// An edge that flushes twice in two seconds, to be compared with segments as long.
    Edge,
    Icecast {
        page_ms: u32,
    },
    NginxTls,
    Nginx,
}

impl Subject {
    const ALL: [Self; 5] = [
        Self::Edge,
        Self::NginxTls,
        Self::Nginx,
        Self::Icecast { page_ms: 200 },
        Self::Icecast { page_ms: 1_000 },
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Edge => Contender::Edge.name(),
            Self::Icecast { .. } => "Icecast",
            Self::NginxTls => "nginx TLS",
            Self::Nginx => "nginx",
        }
    }

    fn setting(self) -> String {
        match self {
            Self::Edge => "TLS, tier 2".to_owned(),
            Self::Icecast { page_ms } => format!("Ogg pages of {page_ms} ms"),
            Self::NginxTls => "HLS segments of 2 s".to_owned(),
            Self::Nginx => "HLS segments of 2 s, sendfile off".to_owned(),
        }
    }

    fn run(self, lab: &Lab) -> Result<Figure> {
        let peer = match self {
            Self::Edge => return once(lab, Contender::Edge, true, 2),
            Self::Icecast { page_ms } => peers::icecast(lab, page_ms)?,
            Self::NginxTls => peers::nginx(lab, true)?,
            Self::Nginx => peers::nginx(lab, false)?,
        };
        let mut crowd = Crowd::of(&peer.url, lab.listeners)
            .with("ramp", if self == Self::NginxTls { RAMP / 2 } else { RAMP })
            .with("settle", 5)
            .with("window", if lab.quick { PEER_WINDOW / 2.0 } else { PEER_WINDOW });
        if matches!(self, Self::NginxTls | Self::Nginx) {
            crowd = crowd.with("kind", "hls");
        }
        Ok(Figure::of(&lab.crowd(&crowd, &peer.running)?))
    }
}

fn peers_in_turn(lab: &Lab) -> Result<Vec<Row>> {
    let subjects = Subject::ALL.into_iter().filter(|subject| *subject != Subject::Edge || lab.edge_tls);
    let row = |subject: Subject| Row {
        name: subject.name().to_owned(),
        setting: subject.setting(),
        figures: Vec::new(),
    };
    let mut rows: Vec<(Subject, Row)> = subjects.map(|subject| (subject, row(subject))).collect();
    for _ in 0..lab.repeats {
        for (subject, row) in &mut rows {
            let mut figure = subject.run(lab)?;
            if figure.void {
                // Something else may have had the generator's core.
                figure = subject.run(lab)?;
            }
            progress(&row.name, &row.setting, &figure);
            row.figures.push(figure);
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
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
        let edge = row("edge", &[12.0, 99.0, 10.0, 11.0, 11.0]);
        let floor = row("floor", &[10.0, 10.0, 10.0, 99.0, 10.0]);
        assert_eq!(edge.ratio_to(&floor).unwrap().greatest, 1.2);
        let (.., holds) = against_floor(true, 1, &edge, &floor);
        assert_eq!(holds, Some(true));
        let (.., holds) = against_floor(false, 1, &row("edge", &[13.1]), &row("floor", &[10.0]));
        assert_eq!(holds, Some(false));
        let (.., holds) = against_floor(false, 1, &row("edge", &[99.0]), &row("floor", &[10.0]));
        assert_eq!(holds, None);
    }
    #[test]
    fn who_did_not_do_the_work_is_not_judged() {
        let harmed =
            |row: &mut Row, which: &[usize]| which.iter().for_each(|index| row.figures[*index].harm = 1);
        let (mut edge, mut floor) = (row("edge", &[10.0; 5]), row("floor", &[10.0; 5]));
        harmed(&mut edge, &[0]);
        harmed(&mut floor, &[1]);
        assert_eq!(against_floor(true, 1, &edge, &floor).3, Some(true));
        harmed(&mut floor, &[2]);
        let (_, found, _, holds) = against_floor(true, 1, &edge, &floor);
        assert_eq!((found.as_str(), holds), ("2 good pairs of 5", None));
        // Of two all must be good, and of none nothing can be.
        let two = row("edge", &[10.0, 99.0]);
        assert_eq!(against_floor(true, 1, &two, &row("floor", &[10.0, 10.0])).3, None);
        assert_eq!(against_floor(true, 1, &row("edge", &[]), &row("floor", &[])).3, None);
    }

    #[test]
    fn nginx_is_compared_pair_by_pair() {
        let nginx = row("nginx TLS", &[20.0, 40.0, 20.0]);
        assert_eq!(against_nginx(&row("edge", &[12.0, 24.0, 12.0]), &nginx).3, Some(true));
        assert_eq!(against_nginx(&row("edge", &[12.1, 24.2, 12.1]), &nginx).3, Some(false));
        assert_eq!(against_nginx(&row("edge", &[12.0, 99.0, 12.0]), &nginx).3, None);
    }
}
