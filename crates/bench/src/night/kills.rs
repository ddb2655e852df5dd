//! Line 6: `kill -9` of control, of an edge, of everything but origin, while people listen and others come: on a calm
//! evening, amid a crowd that there is no room for, and amid attacks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rehearse::crowd::clock_us;

use super::figures::{Figures, HEAD, LET_IN_MIN, Line};
use super::hall::{Hall, HallSetup};
use super::{Listening, Place, describe, say};
use crate::attack::Attack;
use crate::suite::sheet::Sheet;

const EDGES: usize = 2;
const RAMP: f64 = 1_000.0;
const SETTLE_S: f64 = 4.0;
/// Seconds of calm before, and of what comes after.
const BEFORE_S: f64 = 3.0;
const AFTER_S: f64 = 20.0;
/// A role is back within this time.
const BACK: Duration = Duration::from_secs(20);
/// All who were cut off hear again within this time, ms.
const HEARD_MS: u64 = 15_000;

/// Places of an edge, and those of one that has few: who listens and a few hundred more.
const ROOM: usize = 15_000;
const LITTLE_ROOM: usize = 3_000;
/// Times as many newcomers as otherwise make a crowd.
const TIMES: f64 = 10.0;
/// How long newcomers wait to be let in, s; who comes to a crowd looks at the line twice.
const PATIENCE_S: f64 = 10.0;
const LONG_PATIENCE_S: f64 = 20.0;
/// How long newcomers listen.
const LISTEN_S: f64 = 4.0;

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amid {
    Calm,
    /// More come than there is room for.
    Crowd,
    Attack(Attack),
}

/// Who is killed, and amid what.
const VICTIMS: [(&str, &[&str], Amid); 7] = [
    ("control", &["control"], Amid::Calm),
    ("an edge of two", &["edge-0"], Amid::Calm),
    ("everything but origin", EVERYTHING, Amid::Calm),
    ("everything but origin, amid a crowd", EVERYTHING, Amid::Crowd),
    ("control, amid requests for tickets", &["control"], Amid::Attack(Attack::Tickets)),
    ("an edge of two, amid slow headers", &["edge-0"], Amid::Attack(Attack::SlowHeaders)),
    ("everything but origin, amid held connections", EVERYTHING, Amid::Attack(Attack::Held)),
];
const EVERYTHING: &[&str] = &["control", "edge-0", "edge-1"];

/// One after the other, each in a fresh hall.
pub(crate) fn kills(place: &Place, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Kills");
    let calm = once(place, "nobody", &[], Amid::Calm)?;
    let mut rows = vec![calm.figures.row(None)];
    for (name, roles, amid) in VICTIMS {
        match once(place, name, roles, amid) {
            Ok(run) => {
                say(sheet, &judge(&run, amid));
                for deeds in &run.figures.deeds {
                    sheet.say(&format!("  attacker, {:.0} s: {}", deeds.seconds, deeds.notes));
                }
                describe(sheet, Some(&run.figures.crowd), &run.figures.guests);
                if let Some(why) = run.figures.void() {
                    sheet.say(&format!("  VOID: {why}"));
                }
                rows.push(run.figures.row(Some(&calm.figures)));
            }
            Err(error) => sheet.say(&format!("\nkill of {name} could not be measured: {error:#}")),
        }
    }
    sheet.say("");
    sheet.table(&HEAD, &rows);
    Ok(())
}

struct Run {
    figures: Figures,
    /// Origin is the process it was.
    same_origin: bool,
    /// How long the slowest role took to run again, or which do not.
    back: Result<Duration, String>,
    /// When they were killed, on the machine's clock, µs.
    moment_us: u64,
}

impl Run {
    /// How long after the kill all who were cut off heard again, ms; `None` if they never did.
    fn heard_ms(&self) -> Option<u64> {
        let base = &self.figures.crowd.base;
        if base.counts.lost == 0 {
            return Some(0);
        }
        let reached_us = self.figures.crowd.begun_us + 1_000 * base.back.reached(base.counts.lost)?;
        Some((reached_us + 1_000).saturating_sub(self.moment_us) / 1_000)
    }
}

fn judge(run: &Run, amid: Amid) -> Vec<Line> {
    let figures = &run.figures;
    let void = figures.void().is_some();
    let judged = |holds: bool| (holds || !void).then_some(holds);
    let line = |what: &str, found: String, allowed: &str, holds: Option<bool>| Line {
        what: format!("kill -9 of {}: {what}", figures.name),
        found,
        allowed: allowed.to_owned(),
        holds,
    };
    let counts = &figures.crowd.base.counts;
    let heard = run.heard_ms();
    let everyone = counts.steady == figures.listeners;
    let notes = &figures.guests.book.notes;
    let placeless = notes.of("gave up without a place");
    let newcomers = match amid {
        // There is no room for them; what they are owed is a place.
        Amid::Crowd => line(
            "newcomers have a place",
            format!(
                "{} let in, {} with a place, {placeless} without",
                notes.of("let in"),
                notes.of("gave up with a place")
            ),
            "at most 5 % without",
            judged(
                figures.guests.begun > 0
                    && placeless as f64 <= (1.0 - LET_IN_MIN) * figures.guests.begun as f64,
            ),
        ),
        Amid::Calm | Amid::Attack(_) => line(
            "newcomers let in",
            format!("{:.2} % of {}", 100.0 * figures.guests.let_in(), figures.guests.begun),
            "at least 95 %",
            judged(figures.guests.begun > 0 && figures.guests.let_in() >= LET_IN_MIN),
        ),
    };
    vec![
        line(
            "origin and recording",
            format!(
                "{}, {}, {} parts missing, the speaker connected {} times again",
                if run.same_origin { "the same process" } else { "another process" },
                if figures.kept.complete { "complete" } else { "not complete" },
                figures.kept.gaps,
                figures.kept.connections.saturating_sub(figures.connections),
            ),
            "untouched",
            Some(run.same_origin && figures.kept.complete && figures.stage_holds()),
        ),
        line(
            "the rest runs again by itself",
            match &run.back {
                Ok(back) => format!("after {:.1} s", back.as_secs_f64()),
                Err(missing) => format!("not: {missing}"),
            },
            "20 s",
            Some(run.back.is_ok()),
        ),
        line(
            &format!("the {} cut off hear again", counts.lost),
            format!(
                "{}; {} of {} hear at the end, {} parts missed",
                heard.map_or_else(|| "not all".to_owned(), |ms| format!("after {ms} ms")),
                counts.steady,
                figures.listeners,
                counts.missed
            ),
            match amid {
                Amid::Crowd => "95 % (they hold no tickets, and are newcomers again)",
                Amid::Calm | Amid::Attack(_) => "15 s, all",
            },
            judged(match amid {
                Amid::Crowd => counts.steady as f64 >= LET_IN_MIN * figures.listeners as f64,
                Amid::Calm | Amid::Attack(_) => everyone && heard.is_some_and(|ms| ms <= HEARD_MS),
            }),
        ),
        newcomers,
    ]
}

fn once(place: &Place, name: &str, roles: &[&str], amid: Amid) -> Result<Run> {
    let flags = &place.flags;
    let (room, per_second) = match amid {
        Amid::Crowd => (LITTLE_ROOM, TIMES * flags.newcomers),
        Amid::Calm | Amid::Attack(_) => (ROOM, flags.newcomers),
    };
    let setup =
        HallSetup { tls: false, edges: EDGES, listeners_max: room, starts_in_s: 4.0, core: place.core() };
    let hall = Hall::open(&place.minassa, &setup)?;
    hall.wait_live()?;
    let crowd = Listening {
        listeners: flags.listeners,
        ramp: RAMP,
        settle_s: SETTLE_S,
        window_s: BEFORE_S + AFTER_S,
    };
    let connections = hall.connections();
    let origin = hall.server.pid("origin")?;
    let (watch, lookout) = (hall.watch(), hall.look()?);
    let listening = place.crowd(&hall, &crowd)?;
    std::thread::sleep(Duration::from_secs_f64(crowd.until_window_s()));
    let coming = place.newcomers(
        &hall,
        &[
            ("--per-second", per_second),
            ("--seconds", BEFORE_S + AFTER_S / 2.0),
            ("--listen", LISTEN_S),
            ("--turnover", 1.0),
            ("--patience", if amid == Amid::Crowd { LONG_PATIENCE_S } else { PATIENCE_S }),
        ],
    )?;
    let attackers = match amid {
        Amid::Attack(attack) => {
            place.attackers(&hall, attack, super::siege::count(attack), BEFORE_S + AFTER_S / 2.0)?
        }
        Amid::Calm | Amid::Crowd => Vec::new(),
    };
    std::thread::sleep(Duration::from_secs_f64(BEFORE_S));
    let (moment_us, killed) = (clock_us(), Instant::now());
    let dead: Vec<(&str, u32)> =
        roles.iter().map(|role| Ok((*role, hall.server.kill(role)?))).collect::<Result<_>>()?;
    let missing: Vec<String> = dead
        .iter()
        .filter_map(|(role, pid)| hall.server.wait_replaced(role, *pid, BACK).err())
        .map(|error| format!("{error:#}"))
        .collect();
    let back = if missing.is_empty() { Ok(killed.elapsed()) } else { Err(missing.join("; ")) };
    let crowd = listening.report().context("of those who listen")?;
    let guests = coming.report()?;
    let deeds = attackers.into_iter().map(super::Reporter::report).collect::<Result<_>>()?;
    let (peaks, seen) = (watch.end(), lookout.end());
    let same_origin = hall.server.pid("origin").is_ok_and(|pid| pid == origin);
    let kept = hall.close()?;
    let figures = Figures {
        name: name.to_owned(),
        crowd,
        listeners: flags.listeners as u64,
        guests,
        deeds,
        kept,
        connections,
        peaks,
        seen,
    };
    Ok(Run { figures, same_origin, back, moment_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten listen from second 50 on; at second 60 four are cut off, and they are back one a second.
    fn good() -> Run {
        let mut figures = Figures { listeners: 10, connections: 1, ..Figures::default() };
        figures.crowd.begun_us = 50_000_000;
        figures.crowd.base.counts.steady = 10;
        figures.crowd.base.counts.lost = 4;
        figures.crowd.base.back = (1..=4).map(|second| (10_000 + 1_000 * second, 1)).collect();
        figures.guests.begun = 100;
        figures.guests.book.notes.add("let in", 96);
        (figures.kept.complete, figures.kept.connections) = (true, 1);
        Run { figures, same_origin: true, back: Ok(Duration::from_secs(1)), moment_us: 60_000_000 }
    }

    #[test]
    fn a_kill_that_nobody_minds_holds() {
        assert_eq!(good().heard_ms(), Some(4_001));
        for amid in [Amid::Calm, Amid::Crowd, Amid::Attack(Attack::Held)] {
            assert!(judge(&good(), amid).iter().all(|line| line.holds == Some(true)));
        }
        let mut run = good();
        run.figures.guests.book.notes.add("gave up without a place", 6);
        assert_eq!(judge(&run, Amid::Crowd)[3].holds, Some(false));
    }

    #[test]
    fn whatever_is_spoilt_is_seen() {
        type Spoil = fn(&mut Run);
        let cases: [(usize, Spoil); 8] = [
            (0, |run| run.same_origin = false),
            (0, |run| run.figures.kept.complete = false),
            (0, |run| run.figures.kept.gaps = 1),
            (0, |run| run.figures.kept.connections = 2),
            (1, |run| run.back = Err("edge-0".to_owned())),
            (2, |run| run.figures.crowd.base.counts.lost = 5),
            (2, |run| run.figures.crowd.base.counts.steady = 9),
            (3, |run| run.figures.guests.begun = 200),
        ];
        for (index, spoil) in cases {
            let mut run = good();
            spoil(&mut run);
            let holds: Vec<_> = judge(&run, Amid::Calm).into_iter().map(|line| line.holds).collect();
            let mut expected = [Some(true); 4];
            expected[index] = Some(false);
            assert_eq!(holds, expected);
        }
    }
}
