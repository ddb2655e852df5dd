//! Line 4: attacks while people listen and others come.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::figures::{Figures, HEAD, judge};
use super::hall::{Hall, HallSetup};
use super::{Listening, Place, describe, inside, say, why_not};
use crate::attack::{Attack, Deeds, syn};
use crate::suite::sheet::Sheet;

/// Edges, and room of each: for all who are wanted, with something to spare.
const EDGES: usize = 2;
const ROOM: usize = 15_000;
/// Joins a second of those who listen.
const RAMP: f64 = 1_000.0;
/// Seconds between the last join and the window.
const SETTLE_S: f64 = 4.0;
/// How much earlier than the attack newcomers come, and how much longer than it the window is, s.
const BEFORE_S: f64 = 2.0;
/// How long a newcomer listens, and waits to be let in, s.
const LISTEN_S: f64 = 4.0;
const PATIENCE_S: f64 = 10.0;
/// Held connections: more than two edges have files for.
const HOLDERS: u8 = 3;

/// Each of these, after the same without any.
pub(crate) fn siege(place: &Place, sheet: &mut Sheet, attacks: &[Attack]) -> Result<()> {
    sheet.heading("Attacks");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for tls in [false, true] {
        let of_it: Vec<Attack> = attacks
            .iter()
            .copied()
            .filter(|attack| attack.needs_tls() == tls && why_not(*attack).is_none())
            .collect();
        if of_it.is_empty() {
            continue;
        }
        let (near, far): (Vec<Attack>, Vec<Attack>) =
            of_it.into_iter().partition(|attack| *attack != Attack::Syn || syn::is_inside());
        for attack in far {
            apart(place, sheet, attack);
        }
        if near.is_empty() {
            continue;
        }
        let base = match once(place, tls, None) {
            Ok(base) => base,
            Err(error) => {
                sheet.say(&format!("\nthe run without an attack could not be measured: {error:#}"));
                continue;
            }
        };
        finish(place, sheet, &base, None, &mut rows);
        for attack in near {
            match once(place, tls, Some(attack)) {
                Ok(run) => finish(place, sheet, &run, Some(&base), &mut rows),
                Err(error) => sheet.say(&format!("\n{} could not be measured: {error:#}", attack.name())),
            }
            // What has been found is kept, whatever comes.
            sheet.write(&place.flags.out)?;
        }
    }
    for (attack, why) in attacks.iter().filter_map(|attack| Some((attack, why_not(*attack)?))) {
        sheet.verdict(&attack.name(), &format!("not run: {why}"), "as all", None);
    }
    sheet.say("\nRatios in brackets are to the run without an attack.\n");
    sheet.table(&HEAD, &rows);
    Ok(())
}

/// In a network namespace, by this program again.
fn apart(place: &Place, sheet: &mut Sheet, attack: Attack) {
    let out = place.flags.out.with_file_name(format!("night-{}.md", attack.name()));
    match syn::enter(&inside(place, attack, &out)) {
        Ok(()) => sheet.say(&format!(
            "\n{}: in a network namespace of its own, see {}",
            attack.name(),
            out.display()
        )),
        Err(error) => sheet.verdict(&attack.name(), &format!("not run: {error:#}"), "as all", None),
    }
}

fn finish(
    place: &Place,
    sheet: &mut Sheet,
    run: &Figures,
    base: Option<&Figures>,
    rows: &mut Vec<Vec<String>>,
) {
    sheet.say("");
    say(sheet, &judge(run, &|role| place.budget(role)));
    if let Some(attack) = run.deeds.first().map(|deeds| deeds.attack.as_str())
        && attack == Attack::Forge.name()
    {
        let accepted: u64 = run.deeds.iter().map(|deeds| deeds.notes.of("answered 200")).sum();
        let made: u64 = run.deeds.iter().map(|deeds| deeds.notes.of("requests")).sum();
        sheet.verdict("forge: forged tickets that opened a door", &format!("{accepted} of {made}"), "0", {
            (made > 0).then_some(accepted == 0)
        });
    }
    for deeds in &run.deeds {
        sheet.say(&format!("  attacker, {:.0} s: {}", deeds.seconds, deeds.notes));
    }
    describe(sheet, Some(&run.crowd), &run.guests);
    if let Some(why) = run.void() {
        sheet.say(&format!("  VOID: {why}"));
    }
    rows.push(run.row(base));
}

/// How many attackers of a kind.
pub(super) fn count(attack: Attack) -> u8 {
    if attack == Attack::Held { HOLDERS } else { 1 }
}

/// ```text
/// 0 ─ ramp ─┬ settle ┬ BEFORE ┬──────── attack ────────┬─ …
///           │        ├─────── window, newcomers ───────┤
/// ```
fn once(place: &Place, tls: bool, attack: Option<Attack>) -> Result<Figures> {
    let flags = &place.flags;
    let setup = HallSetup { tls, edges: EDGES, listeners_max: ROOM, starts_in_s: 4.0, core: place.core() };
    let hall = Hall::open(&place.minassa, &setup)?;
    hall.wait_live()?;
    let crowd = Listening {
        listeners: flags.listeners,
        ramp: RAMP,
        settle_s: SETTLE_S,
        window_s: BEFORE_S + flags.seconds + BEFORE_S,
    };
    let connections = hall.connections();
    let (watch, lookout) = (hall.watch(), hall.look()?);
    let listening = place.crowd(&hall, &crowd)?;
    std::thread::sleep(Duration::from_secs_f64(crowd.until_window_s()));
    let coming = place.newcomers(
        &hall,
        &[
            ("--per-second", flags.newcomers),
            ("--seconds", BEFORE_S + flags.seconds),
            ("--listen", LISTEN_S),
            ("--patience", PATIENCE_S),
        ],
    )?;
    std::thread::sleep(Duration::from_secs_f64(BEFORE_S));
    let attackers = match attack {
        Some(attack) => place.attackers(&hall, attack, count(attack), flags.seconds)?,
        None => Vec::new(),
    };
    let deeds: Vec<Deeds> = attackers.into_iter().map(super::Reporter::report).collect::<Result<_>>()?;
    let crowd = listening.report().context("of those who listen")?;
    let guests = coming.report()?;
    let (peaks, seen) = (watch.end(), lookout.end());
    let kept = hall.close()?;
    Ok(Figures {
        name: attack.map_or_else(|| if tls { "none, TLS" } else { "none" }.to_owned(), Attack::name),
        crowd,
        listeners: flags.listeners as u64,
        guests,
        deeds,
        kept,
        connections,
        peaks,
        seen,
    })
}
