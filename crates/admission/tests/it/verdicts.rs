//! What the verdict must hold: a thousand nights of each kind from each set of distributions. `--nocapture` prints what
//! was said and how soon, and for each set a table of what was said first of which kind.

use std::collections::BTreeMap;
use std::sync::Mutex;

use minassa_admission::ledger::BIN_MS;
use minassa_admission::verdict::{CONFIDENT, Class, Verdict, judge};

use crate::scenario::{Kind, Nights, Run};

const NIGHTS: u64 = 1_000;
/// From its beginning, milliseconds.
const NAMED_WITHIN_MS: u64 = 30_000;
/// From a bin's end to its verdict, milliseconds: that long control waits for the bins of processes.
const MERGED_MS: u64 = 2_000;

/// Whether the verdict says what is to be said of a night of this kind once it has begun.
fn is_named(kind: Kind, verdict: &Verdict) -> bool {
    match kind {
        Kind::L7 | Kind::L34 | Kind::Mixed => verdict.names_attack(),
        Kind::Own => verdict.names_own_fault(),
        Kind::Crowd | Kind::Mimics => false,
    }
}

/// What a thousand nights of a kind came to.
#[derive(Default)]
struct Tally {
    /// Nights on which an attack was named before it began, or where there was none.
    false_alarms: Vec<String>,
    /// Nights on which nothing was named in time.
    missed: Vec<String>,
    /// Nights on which machines were called a crowd with confidence.
    confident: Vec<String>,
    /// How long it took, of those that were named in time; milliseconds.
    named_after_ms: Vec<u64>,
    /// First class in time that names anything, otherwise the last in time.
    first: BTreeMap<Class, u64>,
    /// Classes of all verdicts from the beginning on, and those of [`Class::Crowd`] with confidence.
    verdicts: BTreeMap<Class, u64>,
    confident_crowds: u64,
}

impl Tally {
    fn add(&mut self, kind: Kind, run: &Run) {
        let Run { name, opening, bins, by_machines, begins_ms } = run;
        let verdicts = judge(opening, bins);
        let said = |verdict: &Verdict| verdict.at_ms.as_millis() + BIN_MS + MERGED_MS;
        let has_attack = !matches!(kind, Kind::Crowd | Kind::Own);
        let early = |verdict: &&Verdict| !has_attack || said(verdict) <= begins_ms + MERGED_MS;
        if let Some(wrong) = verdicts.iter().filter(early).find(|verdict| verdict.names_attack()) {
            self.false_alarms.push(format!("{name}: {}", wrong.to_json()));
        }
        let in_time = |verdict: &&Verdict| {
            let end = said(verdict) - MERGED_MS;
            end > *begins_ms && said(verdict) <= begins_ms + NAMED_WITHIN_MS
        };
        match verdicts.iter().filter(in_time).find(|verdict| is_named(kind, verdict)) {
            Some(verdict) => self.named_after_ms.push(said(verdict) - begins_ms),
            None => self.missed.push(name.clone()),
        }
        let says = |verdict: &&Verdict| verdict.names_attack() || verdict.names_own_fault();
        let mut timely = verdicts.iter().filter(in_time);
        if let Some(first) = timely.clone().find(says).or(timely.next_back()) {
            *self.first.entry(first.class).or_default() += 1;
        }
        let since = |(verdict, _): &(&Verdict, &bool)| verdict.at_ms.as_millis() >= *begins_ms;
        for (verdict, by_machines) in verdicts.iter().zip(by_machines).filter(since) {
            *self.verdicts.entry(verdict.class).or_default() += 1;
            if verdict.class == Class::Crowd && verdict.confidence_bp >= CONFIDENT {
                self.confident_crowds += 1;
                if kind == Kind::Mimics && *by_machines {
                    self.confident.push(format!("{name}: {}", verdict.to_json()));
                }
            }
        }
    }

    fn report(&mut self, kind: Kind) -> String {
        self.named_after_ms.sort_unstable();
        let named = &self.named_after_ms;
        let after =
            |percent: usize| named.get(named.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
        let some =
            |list: &[String]| list.iter().take(5).fold(String::new(), |text, line| text + "\n    " + line);
        format!(
            "{kind:?}: {} false alarms, {} named in time (after {} ms, 95 % {} ms, at most {} ms), {} machines called a \
             crowd with confidence; first said {:?}; verdicts {:?}, crowd with confidence {}{}{}",
            self.false_alarms.len(),
            named.len(),
            after(50),
            after(95),
            after(100),
            self.confident.len(),
            self.first,
            self.verdicts,
            self.confident_crowds,
            some(&self.false_alarms),
            some(&self.confident),
        )
    }
}

/// Rows of the tables, by set and kind.
static ROWS: Mutex<BTreeMap<(&str, Kind), String>> = Mutex::new(BTreeMap::new());

/// Adds a row to a set's table, and prints it with the last one.
fn tabulate(set: &'static str, kind: Kind, tally: &Tally) {
    const CLASSES: [Class; 6] =
        [Class::Crowd, Class::L7, Class::L34, Class::SelfInflicted, Class::Mixed, Class::Insufficient];
    let cells = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let said = CLASSES.map(|class| tally.first.get(&class).copied().unwrap_or(0).to_string());
    let [alarms, missed, confident] =
        [&tally.false_alarms, &tally.missed, &tally.confident].map(|list| list.len().to_string());
    let missed = if matches!(kind, Kind::Crowd | Kind::Mimics) { "–".to_owned() } else { missed };
    let row = cells(&[&[format!("{kind:?}")], &said[..], &[alarms, missed, confident]].concat());
    let mut rows = ROWS.lock().expect("no panic while it is held");
    rows.insert((set, kind), row);
    let table: Vec<&String> = Kind::ALL.iter().filter_map(|kind| rows.get(&(set, *kind))).collect();
    if table.len() == Kind::ALL.len() {
        let names = CLASSES.map(|class| class.to_string());
        let columns = [
            &["Kind".to_owned()],
            &names[..],
            &["False alarms", "Missed", "Called a crowd"].map(str::to_owned),
        ];
        let header = cells(&columns.concat());
        let line = cells(&vec!["---".to_owned(); 10]);
        eprintln!("\n{set}\n\n{header}{line}{}", table.into_iter().map(String::as_str).collect::<String>());
    }
}

fn holds(set: &'static str, kind: Kind, run: Nights) {
    let mut tally = Tally::default();
    (0..NIGHTS).for_each(|seed| tally.add(kind, &run(kind, seed)));
    let report = tally.report(kind);
    eprintln!("{report}");
    tabulate(set, kind, &tally);
    assert!(tally.false_alarms.is_empty(), "{report}");
    assert!(tally.confident.is_empty(), "{report}");
    if !matches!(kind, Kind::Crowd | Kind::Mimics) {
        assert!(
            tally.missed.len() as u64 * 20 <= NIGHTS,
            "more than 5 % missed: {report}\n{:?}",
            tally.missed
        );
    }
}

macro_rules! nights {
    ($($name:ident: $kind:ident;)*) => {
        mod tuning {
            $(#[test]
            fn $name() {
                super::holds("tuning", super::Kind::$kind, crate::scenario::tuning::run);
            })*
        }

        mod validation {
            $(#[test]
            fn $name() {
                super::holds("validation", super::Kind::$kind, crate::scenario::validation::run);
            })*
        }

        mod validation_two {
            $(#[test]
            fn $name() {
                super::holds("validation_two", super::Kind::$kind, crate::scenario::validation_two::run);
            })*
        }

        mod held_out {
            $(#[test]
            fn $name() {
                super::holds("held_out", super::Kind::$kind, crate::scenario::held_out::run);
            })*
        }
    };
}

nights! {
    no_crowd_is_called_an_attack: Crowd;
    attacks_with_requests_are_named: L7;
    attacks_with_packets_are_named: L34;
    what_is_mixed_is_named: Mixed;
    our_own_faults_are_named: Own;
    mimics_are_no_crowd_with_confidence: Mimics;
}
