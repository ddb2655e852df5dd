//! Line 3: everybody leaves at once, half come again, and a third of those do not wait as they are told.
//!
//! *Goodput* is audio: bytes of the stream that arrive, a second and a head of those who want to hear. Peak is what
//! everyone got before the exit.

use anyhow::Result;

use super::figures::{HEAD, Line};
use super::guests::GuestsReport;
use super::hall::{Hall, HallSetup};
use super::{Place, describe, say};
use crate::suite::sheet::Sheet;

/// Guests a second that come.
const RAMP: f64 = 400.0;
/// Seconds all sit before they leave.
const SIT_S: f64 = 10.0;
/// Seconds in which goodput must be back, and some more.
const BACK_S: usize = 30;
const AFTER_S: f64 = 36.0;
/// The share of the peak.
const GOODPUT_MIN: f64 = 0.9;
/// Seconds over which goodput is averaged.
const MEAN_S: usize = 5;

/// What became of those who came again.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Return {
    /// Goodput before, bytes a second and head.
    before: f64,
    /// The same, 30 s after.
    after: f64,
    /// Seconds until 90 % of those who come again hear.
    heard_s: Option<usize>,
    /// How many come again.
    heads: u64,
}

impl Return {
    fn of(report: &GuestsReport, exit_s: usize) -> Self {
        let book = &report.book;
        let heads = book.notes.of("left to come again");
        let mean = |to: usize| {
            let range = to.saturating_sub(MEAN_S)..to;
            range.map(|second| book.bytes.get(second).copied().unwrap_or(0)).sum::<u64>() as f64
                / MEAN_S as f64
        };
        let sat = exit_s.checked_sub(1).and_then(|second| book.hearing.get(second)).copied().unwrap_or(0);
        let enough = GOODPUT_MIN * heads as f64;
        // The second of the exit has those who had not left yet, and the next those who are still to go.
        let heard_s = (2..book.hearing.len().saturating_sub(exit_s))
            .find(|second| book.hearing[exit_s + second] as f64 >= enough);
        Self {
            before: mean(exit_s) / sat.max(1) as f64,
            after: mean(exit_s + BACK_S) / heads.max(1) as f64,
            heard_s: heard_s.filter(|_| heads > 0),
            heads,
        }
    }

    fn share(&self) -> f64 {
        if self.before > 0.0 { self.after / self.before } else { 0.0 }
    }

    fn holds(&self) -> bool {
        self.heads > 0 && self.share() >= GOODPUT_MIN && self.heard_s.is_some_and(|s| s <= BACK_S)
    }
}

/// Everybody leaves.
pub(crate) fn exit(place: &Place, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Exit and return");
    let leaving = place.flags.leaving;
    let setup =
        HallSetup { tls: false, edges: 1, listeners_max: 15_000, starts_in_s: 4.0, core: place.core() };
    let hall = Hall::open(&place.minassa, &setup)?;
    hall.wait_live()?;
    let connections = hall.connections();
    let (watch, lookout) = (hall.watch(), hall.look()?);
    let come_s = leaving as f64 / RAMP;
    let exit_s = (come_s + SIT_S).ceil();
    let guests: GuestsReport = place
        .newcomers(
            &hall,
            &[
                ("--per-second", RAMP),
                ("--guests", leaving as f64),
                ("--seconds", come_s + 1.0),
                ("--listen", 600.0),
                ("--patience", 30.0),
                ("--exit", exit_s),
                ("--end", exit_s + AFTER_S),
            ],
        )?
        .report()?;
    let (peaks, seen) = (watch.end(), lookout.end());
    let kept = hall.close()?;
    let back = Return::of(&guests, exit_s as usize);
    let figures = super::figures::Figures {
        name: format!("{leaving} leave"),
        guests,
        kept,
        connections,
        peaks,
        seen,
        ..Default::default()
    };
    let void = figures.void();
    let holds = back.holds();
    let heard = back.heard_s.map_or_else(|| "never".to_owned(), |s| format!("after {s} s"));
    let line = |what: &str, found: String, allowed: &str, holds| Line {
        what: format!("{leaving} leave at once: {what}"),
        found,
        allowed: allowed.to_owned(),
        holds,
    };
    say(
        sheet,
        &[
            line(
                &format!("goodput of the {} who come again, of the peak", back.heads),
                format!(
                    "{:.0} % after {BACK_S} s ({:.0} of {:.0} bytes a second and head); 90 % hear {heard}",
                    100.0 * back.share(),
                    back.after,
                    back.before
                ),
                "at least 90 % within 30 s",
                (holds || void.is_none()).then_some(holds),
            ),
            line(
                "recording, and stage gap",
                format!(
                    "{}, {} parts",
                    if figures.kept.complete { "complete" } else { "not complete" },
                    figures.kept.gaps
                ),
                "complete, 0",
                Some(figures.kept.complete && figures.stage_holds()),
            ),
        ],
    );
    describe(sheet, None, &figures.guests);
    if let Some(why) = void {
        sheet.say(&format!("  VOID: {why}"));
    }
    sheet.say("");
    sheet.table(&HEAD, &[figures.row(None)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 sit until second 20 and get 6,000 bytes a second each; 50 come again.
    fn report(again: impl Fn(usize) -> u64) -> GuestsReport {
        let mut report = GuestsReport::default();
        report.book.notes.add("left to come again", 50);
        let hearing = |second: usize| if second <= 20 { 100 } else { again(second - 20) };
        report.book.hearing = (0..56).map(hearing).collect();
        report.book.bytes = report.book.hearing.iter().map(|heads| 6_000 * heads).collect();
        report
    }

    #[test]
    fn those_who_are_back_hold() {
        let back = Return::of(&report(|second| (10 * second as u64).min(50)), 20);
        assert_eq!((back.before, back.after, back.heard_s, back.heads), (6_000.0, 6_000.0, Some(5), 50));
        assert!(back.holds());
    }

    #[test]
    fn those_who_stay_out_do_not() {
        assert!(!Return::of(&report(|_| 44), 20).holds());
        assert!(!Return::of(&report(|second| if second > 31 { 50 } else { 10 }), 20).holds());
        assert!(!Return::of(&GuestsReport::default(), 20).holds());
        // Nobody counts twice who had not left yet.
        assert_eq!(Return::of(&report(|second| if second < 2 { 100 } else { 0 }), 20).heard_s, None);
    }
}
