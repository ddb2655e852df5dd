//! Line 5, for real: evenings with a crowd, an attack, both, or a fault of our own, and what the ledger that each leaves
//! says of it. The ledgers stay beside the page, so that anybody can check them, with either implementation.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use backend::clock::unix_now;
use serde::Deserialize;

use super::hall::{Hall, HallSetup};
use super::{Listening, Place, Reporter, siege};
use crate::attack::{Attack, Deeds};
use crate::suite::sheet::Sheet;

const EDGES: usize = 2;
const ROOM: usize = 15_000;
/// Who listens all the time, and how many come each second of an ordinary evening.
const LISTENERS: usize = 500;
const USUAL: f64 = 30.0;
/// Times as many in a crowd.
const TIMES: f64 = 8.0;
/// Seconds before anything happens: what is usual takes six bins, and the first is not whole.
const CALM_S: f64 = 85.0;
/// How long it lasts at least, s: three bins and what lies before the first whole one.
const HAPPENS_S: f64 = 40.0;
/// Seconds from its end until all lines of the ledger are written.
const AFTER_S: f64 = 16.0;
/// How long a newcomer listens on the whole, and waits to be let in, s.
const LISTEN_S: f64 = 12.0;
const PATIENCE_S: f64 = 10.0;
/// What happens is named within this time of its beginning, ms.
const NAMED_MS: i64 = 30_000;
/// A verdict is there so long after the end of its bin, ms.
const TOLD_MS: i64 = 4_000;
const BIN_MS: i64 = 10_000;

/// What happens in an evening.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Evening {
    name: &'static str,
    /// Whether many more come than usual.
    crowd: bool,
    attack: Option<Attack>,
    /// Whether an edge crashes whenever it is started.
    fault: bool,
}

const EVENINGS: [Evening; 12] = {
    const fn attack(name: &'static str, attack: Attack) -> Evening {
        Evening { name, crowd: false, attack: Some(attack), fault: false }
    }
    [
        Evening { name: "crowd", crowd: true, attack: None, fault: false },
        attack("slow-headers", Attack::SlowHeaders),
        attack("slow-readers", Attack::SlowReaders),
        attack("held", Attack::Held),
        attack("handshakes", Attack::Handshakes),
        attack("bad-tokens", Attack::BadTokens),
        attack("far-parts", Attack::FarParts),
        attack("forge", Attack::Forge),
        attack("stun", Attack::Stun),
        attack("rtp", Attack::Rtp),
        Evening { name: "crowd-and-bad-tokens", crowd: true, attack: Some(Attack::BadTokens), fault: false },
        Evening { name: "edge-crashes", crowd: false, attack: None, fault: true },
    ]
};

/// What `minassa verdict check --json` says.
#[derive(Debug, Deserialize)]
struct Checked {
    holds: bool,
    verdicts: Vec<Told>,
}

/// A verdict, as it is published.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    at_ms: i64,
    class: String,
    confidence_bp: u64,
    reasons: Vec<Why>,
}

#[derive(Clone, Debug, Deserialize)]
struct Why {
    feature: String,
    sign: String,
}

impl Told {
    fn names(&self, signs: &[&str]) -> bool {
        self.reasons.iter().any(|reason| signs.contains(&reason.sign.as_str()))
    }
}

/// What came of an evening.
#[derive(Debug)]
struct Outcome {
    /// From the beginning until it was named, ms; nothing where there is nothing to name.
    named_ms: Option<i64>,
    /// Verdicts that name what there was not, or before it began.
    alarms: usize,
}

const ATTACK: [&str; 2] = ["l7", "l34"];

/// `begun_ms`: when it began, on the wall clock.
fn judge(evening: Evening, verdicts: &[Told], begun_ms: i64) -> Outcome {
    let wanted: &[&str] = match evening {
        Evening { attack: Some(_), .. } => &ATTACK,
        Evening { fault: true, .. } => &["own"],
        Evening { .. } => &[],
    };
    let since = |told: &Told| told.at_ms + BIN_MS + TOLD_MS - begun_ms;
    let is_alarm =
        |told: &&Told| told.names(&ATTACK) && (evening.attack.is_none() || told.at_ms + BIN_MS < begun_ms);
    Outcome {
        named_ms: verdicts.iter().find(|told| since(told) > TOLD_MS && told.names(wanted)).map(since),
        alarms: verdicts.iter().filter(is_alarm).count(),
    }
}

/// All of them, one after the other.
pub(crate) fn evenings(place: &Place, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Evenings, and their verdicts");
    let directory = place.flags.out.with_file_name("ledgers");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let wanted = &place.flags.evenings;
    if let Some(unknown) = wanted.iter().find(|name| !EVENINGS.iter().any(|evening| evening.name == **name)) {
        bail!("there is no evening {unknown:?}: {}", EVENINGS.map(|evening| evening.name).join(", "));
    }
    for evening in EVENINGS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == evening.name) {
            continue;
        }
        if let Err(error) = once(place, sheet, evening, &directory) {
            sheet.say(&format!("\n{} could not be measured: {error:#}", evening.name));
        }
        sheet.write(&place.flags.out)?;
    }
    sheet.say(&format!("\nThe ledgers are in {}.\n", directory.display()));
    Ok(())
}

fn once(place: &Place, sheet: &mut Sheet, evening: Evening, directory: &Path) -> Result<()> {
    let flags = &place.flags;
    let seconds = if flags.quick { flags.seconds } else { flags.seconds.max(HAPPENS_S) };
    // With TLS: the fingerprints of those who come are among what is looked at.
    let setup =
        HallSetup { tls: true, edges: EDGES, listeners_max: ROOM, starts_in_s: 4.0, core: place.core() };
    let hall = Hall::open(&place.minassa, &setup)?;
    hall.wait_live()?;
    let crowd =
        Listening { listeners: LISTENERS, ramp: 200.0, settle_s: 1.0, window_s: CALM_S + seconds + AFTER_S };
    let listening = place.crowd(&hall, &crowd)?;
    let usual = come(place, &hall, USUAL, CALM_S + seconds + AFTER_S / 2.0)?;
    std::thread::sleep(Duration::from_secs_f64(CALM_S));
    let begun_ms = unix_now().as_millis();
    let more = evening.crowd.then(|| come(place, &hall, TIMES * USUAL, seconds)).transpose()?;
    let attackers = match evening.attack {
        Some(attack) => place.attackers(&hall, attack, siege::count(attack), seconds)?,
        None => Vec::new(),
    };
    let (begun, mut killed) = (Instant::now(), None);
    while begun.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_millis(500));
        // Each of its lives is short, and between them the supervisor waits longer each time.
        if evening.fault && hall.server.pid("edge-1").ok() != killed {
            killed = hall.server.kill("edge-1").ok();
        }
    }
    let deeds: Vec<Deeds> = attackers.into_iter().map(Reporter::report).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs_f64(AFTER_S));
    let path = directory.join(format!("{}.jsonl", evening.name));
    fetch(&hall, &path)?;
    let checked = check(&place.minassa, &path)?;
    let outcome = judge(evening, &checked.verdicts, begun_ms);
    tell(sheet, evening, &checked, &outcome, begun_ms);
    for deeds in &deeds {
        sheet.say(&format!("  attacker, {:.0} s: {}", deeds.seconds, deeds.notes));
    }
    drop((listening, usual, more));
    hall.close().map(drop)
}

fn come(place: &Place, hall: &Hall, per_second: f64, seconds: f64) -> Result<Reporter> {
    let flags = [
        ("--per-second", per_second),
        ("--seconds", seconds),
        ("--listen", LISTEN_S),
        ("--turnover", 1.0),
        ("--patience", PATIENCE_S),
    ];
    place.newcomers(hall, &flags)
}

fn fetch(hall: &Hall, path: &PathBuf) -> Result<()> {
    let url = hall.server.url("control", &format!("/api/events/{}/ledger.jsonl", hall.event.event))?;
    let answer = hall.agent(Duration::from_secs(10))?.get(&url).call().context("the ledger cannot be had")?;
    let mut file = std::fs::File::create(path)?;
    std::io::copy(&mut answer.into_body().into_reader(), &mut file)?;
    Ok(())
}

/// By the command that anybody has.
fn check(minassa: &Path, ledger: &Path) -> Result<Checked> {
    let mut command = Command::new(minassa);
    command.args(["verdict", "check", "--json"]).arg(ledger).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("cannot run minassa verdict check")?;
    let checked: Checked = serde_json::from_slice(&output.stdout).context("what the check says")?;
    if !checked.holds {
        bail!("{} does not hold", ledger.display());
    }
    Ok(checked)
}

fn tell(sheet: &mut Sheet, evening: Evening, checked: &Checked, outcome: &Outcome, begun_ms: i64) {
    let named = match outcome.named_ms {
        Some(ms) => format!("named after {:.1} s", ms as f64 / 1_000.0),
        None => "not named".to_owned(),
    };
    sheet.say("");
    if evening.attack.is_some() || evening.fault {
        let holds = outcome.named_ms.is_some_and(|ms| ms <= NAMED_MS);
        sheet.verdict(&format!("{}: what it is", evening.name), &named, "within 30 s", Some(holds));
    }
    let alarms = format!("{} verdicts of {}", outcome.alarms, checked.verdicts.len());
    sheet.verdict(
        &format!("{}: an attack named that there was not", evening.name),
        &alarms,
        "0",
        Some(outcome.alarms == 0),
    );
    for told in &checked.verdicts {
        let reasons: Vec<_> = told.reasons.iter().map(|reason| reason.feature.as_str()).collect();
        sheet.say(&format!(
            "  {:+4} s  {} {:.2}  {}",
            (told.at_ms - begun_ms) / 1_000,
            told.class,
            told.confidence_bp as f64 / 10_000.0,
            reasons.join(", "),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at_s: i64, sign: &str) -> Told {
        let reasons = vec![Why { feature: "a_rule".to_owned(), sign: sign.to_owned() }];
        Told { at_ms: 1_000 * at_s, class: "L7".to_owned(), confidence_bp: 7_000, reasons }
    }

    #[test]
    fn what_is_named_in_time_and_what_is_an_alarm() {
        let [crowd, attack, fault] = [EVENINGS[0], EVENINGS[1], EVENINGS[11]];
        let calm = [told(0, "people"), told(10, "doubt"), told(20, "people")];
        let outcome = judge(crowd, &calm, 15_000);
        assert_eq!((outcome.named_ms, outcome.alarms), (None, 0));
        assert_eq!(judge(crowd, &[told(20, "l34")], 15_000).alarms, 1);
        // The bin in which it begins may name it; one that was over names what was not there.
        let outcome = judge(attack, &[told(0, "people"), told(10, "l7")], 15_000);
        assert_eq!((outcome.named_ms, outcome.alarms), (Some(9_000), 0));
        let outcome = judge(attack, &[told(0, "l7"), told(30, "l7")], 15_000);
        assert_eq!((outcome.named_ms, outcome.alarms), (Some(29_000), 1));
        let outcome = judge(fault, &[told(20, "l7"), told(30, "own")], 15_000);
        assert_eq!((outcome.named_ms, outcome.alarms), (Some(29_000), 1));
    }
}
