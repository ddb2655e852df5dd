//! Line 7: how many listen, as everybody is told, beside how many do; connections that take nothing are nobody.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::figures::{Figures, HEAD, Line};
use super::hall::{Hall, HallSetup};
use super::{Listening, Place, describe, say};
use crate::attack::Attack;
use crate::suite::sheet::Sheet;

const EDGES: usize = 2;
const ROOM: usize = 15_000;
const RAMP: f64 = 1_000.0;
/// Audio of the last ten seconds counts, beyond what the kernel keeps for who takes nothing, which may be seven: whoever takes
/// nothing is not counted any more by then.
const SETTLE_S: f64 = 20.0;
/// Looks, one a second.
const LOOKS: usize = 15;
const APART_MAX: f64 = 0.01;

/// Counts once with those who listen alone, and once beside two thousand connections that never read.
pub(crate) fn census(place: &Place, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("How many listen");
    let mut rows = Vec::new();
    for attack in [None, Some(Attack::SlowReaders)] {
        let (figures, told) = once(place, attack)?;
        say(sheet, &[judge(&figures, &told)]);
        describe(sheet, Some(&figures.crowd), &figures.guests);
        rows.push(figures.row(None));
    }
    sheet.say("");
    sheet.table(&HEAD, &rows);
    Ok(())
}

fn judge(figures: &Figures, told: &[u64]) -> Line {
    let true_count = figures.crowd.base.counts.steady;
    let apart = |told: &u64| told.abs_diff(true_count) as f64 / true_count.max(1) as f64;
    let worst = told.iter().max_by(|a, b| apart(a).total_cmp(&apart(b)));
    let holds = worst.is_some_and(|told| true_count > 0 && apart(told) <= APART_MAX);
    Line {
        what: format!("{}: listeners as they are told, of those there are", figures.name),
        found: worst.map_or_else(
            || "nothing was told".to_owned(),
            |told| format!("at worst {told} of {true_count}, {:.2} % apart", 100.0 * apart(told)),
        ),
        allowed: "1 % apart".to_owned(),
        holds: (holds || figures.void().is_none()).then_some(holds),
    }
}

/// A run, and how many were said to listen, second by second.
fn once(place: &Place, attack: Option<Attack>) -> Result<(Figures, Vec<u64>)> {
    let setup =
        HallSetup { tls: false, edges: EDGES, listeners_max: ROOM, starts_in_s: 4.0, core: place.core() };
    let hall = Hall::open(&place.minassa, &setup)?;
    hall.wait_live()?;
    let listeners = place.flags.listeners;
    let crowd = Listening { listeners, ramp: RAMP, settle_s: SETTLE_S, window_s: LOOKS as f64 + 2.0 };
    let connections = hall.connections();
    let (watch, lookout) = (hall.watch(), hall.look()?);
    let begun = Instant::now();
    let attackers = match attack {
        Some(attack) => place.attackers(&hall, attack, 1, crowd.until_window_s() + crowd.window_s)?,
        None => Vec::new(),
    };
    let listening = place.crowd(&hall, &crowd)?;
    std::thread::sleep(Duration::from_secs_f64(crowd.until_window_s()).saturating_sub(begun.elapsed()));
    let told = (0..LOOKS)
        .map(|_| {
            std::thread::sleep(Duration::from_secs(1));
            hall.listeners()
        })
        .collect::<Result<Vec<u64>>>()?;
    let crowd = listening.report().context("of those who listen")?;
    let deeds = attackers.into_iter().map(super::Reporter::report).collect::<Result<_>>()?;
    let (peaks, seen) = (watch.end(), lookout.end());
    let kept = hall.close()?;
    let figures = Figures {
        name: attack.map_or_else(|| "nobody else".to_owned(), Attack::name),
        crowd,
        listeners: listeners as u64,
        deeds,
        kept,
        connections,
        peaks,
        seen,
        ..Figures::default()
    };
    Ok((figures, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_second_is_judged() {
        let mut figures = Figures { listeners: 1_000, ..Figures::default() };
        figures.crowd.base.counts.steady = 1_000;
        let holds = |told: &[u64]| judge(&figures, told).holds;
        assert_eq!(holds(&[1_000, 990, 1_010]), Some(true));
        assert_eq!([holds(&[1_000, 989]), holds(&[1_011, 1_000])], [Some(false); 2]);
        assert_eq!(holds(&[]), Some(false));
    }
}
