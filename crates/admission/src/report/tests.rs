//! Reports of synthetic ledgers.

use ed25519_dalek::SigningKey;
use serde_json::Value;

use super::*;
use crate::ledger::{
    BIN_MS, BinStart, Closing, Damage, Entry, Head, Kernel, Merger, Opening, PrefixTag, ProcessBin, append,
};

/// 2026-11-22T20:00:00Z, the announced start; bins begin ten minutes before.
const ANNOUNCED_MS: u64 = 1_795_377_600_000;
const FIRST: u64 = ANNOUNCED_MS / BIN_MS - 60;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A ledger as it is written.
struct Pen {
    head: Head,
    merger: Merger,
    text: String,
}

impl Pen {
    fn new() -> Self {
        let mut pen = Self { head: Head::EMPTY, merger: Merger::new(), text: String::new() };
        let doors_ms = FIRST * BIN_MS;
        let event = "an-evening".parse().unwrap();
        let opening = Opening::new(&event, &key().verifying_key(), doors_ms, ANNOUNCED_MS, None);
        pen.write(&Entry::Open(Box::new(opening)));
        pen
    }

    fn write(&mut self, entry: &Entry) {
        let (line, head) = append(&self.head, entry, &key()).unwrap();
        self.text.push_str(&line);
        self.text.push('\n');
        self.head = head;
    }

    /// Bins, by their number, of a usual evening; `change` makes more of each.
    fn evening(mut self, bins: impl IntoIterator<Item = u64>, change: impl Fn(u64, &mut ProcessBin)) -> Self {
        for number in bins {
            let start = BinStart::try_from((FIRST + number) * BIN_MS).unwrap();
            let mut bin = ProcessBin::new(start, 0, 0);
            for network in 0..5 {
                let ja4 = "t13d1516h2_8daaf6152771_02713d6af862".parse().unwrap();
                bin.arrive(PrefixTag(network), Some(ja4), 40);
            }
            let c = &mut bin.counts;
            (c.door.connections, c.door.requests) = (400, 2_000);
            (c.door.handshakes_started, c.door.handshakes_finished) = (400, 390);
            (c.tickets.asked, c.tickets.given, c.tickets.used) = (200, 200, 190);
            (c.audio.opened, c.audio.followed, c.audio.listeners) = (190, 170, 1_000);
            (c.audio.bytes_due, c.audio.bytes_acked) = (33_000_000, 32_000_000);
            (c.own.cpu_bp, c.own.loop_late_us, c.own.disk_write_us) = (2_000, 500, 3_000);
            c.own.capacity = 5_000;
            bin.kernel = Some(Kernel::default());
            change(number, &mut bin);
            let merged = self.merger.merge(start, 1, &[bin]);
            self.write(&Entry::Bin(Box::new(merged)));
        }
        self
    }

    fn closed(mut self) -> Self {
        self.write(&Entry::Close(Closing { closed_ms: ANNOUNCED_MS + 7_200_000 }));
        self
    }

    fn report(&self) -> Report {
        read(self.text.as_bytes(), key().verifying_key(), KeyFrom::Publisher).unwrap()
    }
}

fn at(bin: u64) -> Moment {
    Moment::from_millis((FIRST + bin) * BIN_MS)
}

fn live(number: u64, bin: &mut ProcessBin) {
    if number == 60 {
        bin.mark(Mark::Live, 40);
    }
}

#[test]
fn a_quiet_night_adds_up() {
    let report = Pen::new().evening(0..120, live).closed().report();
    assert_eq!((report.event.as_str(), report.version), ("an-evening", VERSION));
    assert_eq!(report.covers, Some(Span { from: at(0), until: at(120) }));
    assert_eq!(report.announced_at, at(60));
    assert_eq!((report.live_at, report.late_ms), (Some(Moment::from_millis(ANNOUNCED_MS + 40)), Some(40)));
    let totals = report.totals;
    assert_eq!((totals.bins, totals.arrivals, totals.admitted, totals.refused), (120, 24_000, 24_000, 0));
    assert_eq!(totals.listening_minutes, 1_000 * 20);
    assert_eq!(report.peaks.listening, Peak { value: 1_000, at: Some(at(1)) }, "reached first");
    assert_eq!(report.peaks.level, Peak::default());
    assert_eq!(report.ladder.items, [Step { from: at(0), until: at(120), level: 0 }]);
    assert_eq!((report.series.step_s, report.series.points.len()), (10, 120));
    assert!(report.integrity.holds && report.integrity.closed && report.integrity.gaps.items.is_empty());
    assert_eq!((report.integrity.lines, report.integrity.missing_bins), (122, 0));
    assert!(report.ours.items.is_empty() && report.measures.is_empty());
    assert_eq!(report.verdicts.items.len(), 1);
    let crowd = report.time_of(Class::Crowd);
    assert_eq!(
        (crowd.seconds, crowd.quotable_s),
        (1_200, 1_150),
        "the first five bins are too few to be sure"
    );
    assert_eq!(report.classes.iter().map(|time| time.seconds).sum::<u64>(), 1_200);
    let latest = report.latest.unwrap();
    assert_eq!(
        (latest.at, latest.listening, latest.class, latest.quotable),
        (at(120), 1_000, Class::Crowd, true)
    );
}

#[test]
fn a_crowd_is_seen_with_what_was_done_about_it() {
    let report = Pen::new()
        .evening(0..100, |number, bin| {
            live(number, bin);
            if (60..66).contains(&number) {
                let c = &mut bin.counts;
                (c.own.level, c.admission.waiting, c.refused.full) = (number - 60, 500 * (number - 59), 7);
                bin.mitigate(Measure::LadderUp, Cause::Line, 1);
                bin.mitigate(Measure::TierSlowed, Cause::Processor, 10);
            }
        })
        .report();
    let levels: Vec<_> = report.ladder.items.iter().map(|step| (step.from, step.level)).collect();
    let expected = [(0, 0), (61, 1), (62, 2), (63, 3), (64, 4), (65, 5), (66, 0)];
    assert_eq!(levels, expected.map(|(bin, level)| (at(bin), level)));
    assert_eq!(report.peaks.level, Peak { value: 5, at: Some(at(66)) });
    assert_eq!(report.peaks.waiting, Peak { value: 3_000, at: Some(at(66)) });
    assert_eq!((report.totals.refused, report.totals.refused_by.full), (42, 42));
    let up = Taken { measure: Measure::LadderUp, cause: Cause::Line, count: 6, first: at(60), last: at(66) };
    assert_eq!(report.measures[0], up);
    assert_eq!((report.measures.len(), report.measures[1].count), (2, 60));
    assert!(!report.integrity.closed && report.ended_at.is_none());
}

#[test]
fn an_attack_is_named_and_what_it_did_to_us_is_listed() {
    let report = Pen::new()
        .evening(0..40, |number, bin| {
            if (20..30).contains(&number) {
                let c = &mut bin.counts;
                (c.door.abuse, c.door.connections, c.door.server_errors) = (500, 4_000, 3);
                c.refused.forged = 2_000;
                bin.mitigate(Measure::AbuseClosed, Cause::Limit, 500);
            }
        })
        .report();
    let attack: Vec<_> = report.verdicts.items.iter().filter(|stretch| stretch.class == Class::L7).collect();
    assert_eq!(attack.len(), 1, "{:?}", report.verdicts);
    assert!(attack[0].from >= at(20) && attack[0].from <= at(22) && attack[0].until >= at(30));
    assert!(attack[0].quotable);
    let features: Vec<_> = attack[0].reasons.iter().map(|why| why.feature).collect();
    assert_eq!(features, [Feature::ProtocolAbuse, Feature::ForgedTickets]);
    assert!(report.time_of(Class::L7).quotable_s >= 80);
    let errors = Blame {
        fault: OwnFault::ServerErrors,
        from: at(20),
        until: at(30),
        worst: 3,
        total: 30,
        under_attack: true,
    };
    assert_eq!(report.ours.items, [errors]);
}

#[test]
fn what_is_ours_is_named_as_ours() {
    let report = Pen::new()
        .evening((0..30).chain(34..80), |number, bin| {
            if number == 70 {
                bin.mark(Mark::Live, 5_000);
            }
            if (20..24).contains(&number) {
                bin.counts.own.capacity = 2_500;
                bin.counts.own.disk_write_us = 300_000 + number;
            }
            if number == 20 {
                bin.mark(Mark::Restart, 1_000);
            }
            // Five bins later it is the same stretch, seven later another.
            if [40, 45, 52].contains(&number) {
                bin.counts.own.loop_late_us = 150_000;
            }
        })
        .report();
    let ours: Vec<_> = report.ours.items.iter().map(|blame| (blame.fault, blame.from, blame.until)).collect();
    let expected = [
        (OwnFault::SlowDisk, at(20), at(24)),
        (OwnFault::NotCounted, at(30), at(34)),
        (OwnFault::LateLoop, at(40), at(46)),
        (OwnFault::LateLoop, at(52), at(53)),
        (OwnFault::LateStart, at(60), Moment::from_millis(at(70).as_millis() + 5_000)),
    ];
    for blame in expected {
        assert!(ours.contains(&blame), "{blame:?} is not among {ours:?}");
    }
    let named = report.ours.items.iter().find(|blame| blame.fault == OwnFault::Named).unwrap();
    assert!(named.from >= at(20) && named.from <= at(21), "{named:?}");
    let disk = report.ours.items.iter().find(|blame| blame.fault == OwnFault::SlowDisk).unwrap();
    assert_eq!((disk.worst, disk.total, disk.under_attack), (300_023, 4, false));
    assert_eq!(report.late_ms, Some(105_000));
    assert_eq!(report.integrity.missing_bins, 4);
    assert_eq!(report.integrity.gaps.items, [Span { from: at(30), until: at(34) }]);
    assert!(report.time_of(Class::SelfInflicted).seconds > 0);
    assert!(report.ours.items.is_sorted_by_key(|blame| blame.from));
    // A gap breaks the lines of the ladder and of the verdicts.
    assert!(report.ladder.items.iter().any(|step| step.from == at(34)));
}

#[test]
fn nobody_is_blamed_for_a_start_that_nobody_saw() {
    let later = Pen::new().evening(70..80, |number, bin| {
        if number == 70 {
            bin.mark(Mark::Live, 0);
        }
    });
    let report = later.report();
    assert!(report.live_at.is_some() && report.late_ms.is_none() && report.ours.items.is_empty());
    let early = Pen::new().evening(50..56, |number, bin| {
        if number == 55 {
            bin.mark(Mark::Live, 0);
        }
    });
    assert_eq!(early.report().late_ms, Some(-50_000));
}

#[test]
fn of_a_broken_ledger_everything_before_the_fault_is_told() {
    let pen = Pen::new().evening(0..30, live).closed();
    let whole = pen.report();
    let lines: Vec<&str> = pen.text.split_inclusive('\n').collect();
    let offset: usize = lines[..20].iter().map(|line| line.len()).sum();
    let broken = pen.text.replacen(lines[20], &lines[20].replace("\"level\":0", "\"level\":1"), 1);
    let report = read(broken.as_bytes(), key().verifying_key(), KeyFrom::Ledger).unwrap();
    assert!(!report.integrity.holds && !report.integrity.closed);
    let fault = report.integrity.fault.unwrap();
    assert_eq!(
        (fault.line, fault.offset, fault.what.as_str()),
        (21, offset as u64, "the content of the line does not fit its hash")
    );
    assert_eq!((report.totals.bins, report.integrity.lines), (19, 20));
    assert_eq!(report.series.points, whole.series.points[..19]);

    let cut = &pen.text[..pen.text.len() - 1];
    let report = read(cut.as_bytes(), key().verifying_key(), KeyFrom::Ledger).unwrap();
    assert_eq!(report.integrity.fault.unwrap().line, 32);
    assert_eq!(report.totals.bins, 30);

    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let fault = read(pen.text.as_bytes(), other, KeyFrom::Publisher).unwrap_err();
    assert_eq!((fault.line, fault.damage), (1, Damage::Signature));
    assert_eq!(read(b"", other, KeyFrom::Publisher).unwrap_err().damage, Damage::Empty);
    assert_eq!(read(b"{}\n", other, KeyFrom::Publisher).unwrap_err().damage, Damage::Shape);
}

#[test]
fn nothing_is_taken_after_a_fault() {
    let pen = Pen::new().evening(0..2, |_, _| {});
    let mut reader = Reader::new(key().verifying_key(), KeyFrom::Publisher);
    let lines: Vec<&str> = pen.text.lines().collect();
    reader.line(lines[0].as_bytes()).unwrap();
    assert_eq!(reader.offset(), lines[0].len() as u64 + 1);
    let fault = reader.line(lines[2].as_bytes()).unwrap_err();
    assert_eq!(fault.damage, Damage::Missing { expected: 1, found: 2 });
    assert_eq!(reader.line(lines[1].as_bytes()), Err(fault.clone()));
    assert_eq!((reader.too_long(), reader.unfinished()), (Err(fault.clone()), Err(fault.clone())));
    assert_eq!(reader.fault(), Some(&fault));
    assert_eq!(reader.report().unwrap().totals.bins, 0);
}

#[test]
fn a_long_event_keeps_its_sums_and_its_peaks_in_few_points() {
    let report = Pen::new()
        .evening(0..1_500, |number, bin| {
            bin.counts.audio.listeners = 1_000 + u64::from(number == 777) * 500;
            bin.counts.own.capacity = 5_000 - u64::from(number == 778);
        })
        .report();
    let series = &report.series;
    assert_eq!(series.step_s, 60);
    assert!(series.points.len() <= POINTS_MAX);
    assert!(series.points.iter().all(|point| point.at.as_millis() % 60_000 == 0 && point.bins <= 6));
    let coarse = series.at_most(10);
    assert!(coarse.points.len() <= 10 && coarse.step_s == 1_800, "{}", coarse.step_s);
    for series in [series, &coarse, &series.at_most(0)] {
        let sum = |of: fn(&Point) -> u64| series.points.iter().map(of).sum::<u64>();
        assert_eq!((sum(|point| point.bins), sum(|point| point.arrivals)), (1_500, 300_000));
        assert_eq!(series.points.iter().map(|point| point.listening).max(), Some(1_500));
        assert_eq!(series.points.iter().map(|point| point.capacity).min(), Some(4_999));
    }
    assert_eq!(series.at_most(0).points.len(), 1);
}

#[test]
fn lists_are_bounded_and_say_so() {
    let report = Pen::new()
        .evening(0..LIST_MAX as u64 + 10, |number, bin| {
            bin.counts.own.level = number % 2;
            bin.mark(Mark::Configuration, 1);
        })
        .report();
    assert_eq!((report.ladder.items.len(), report.ladder.left_out), (LIST_MAX, 10));
    assert_eq!((report.marks.items.len(), report.marks.left_out), (LIST_MAX, 10));
}

#[test]
fn as_json_it_has_the_documented_form() {
    let report = Pen::new().evening(0..20, live).closed().report();
    let json: Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["doors_at"], "2026-11-22T19:50:00.000Z");
    assert_eq!(json["announced_at"], "2026-11-22T20:00:00.000Z");
    assert_eq!(json["covers"]["until"], "2026-11-22T19:53:20.000Z");
    assert_eq!((&json["live_at"], &json["late_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(json["integrity"]["head"].as_str().unwrap().len(), 64);
    assert_eq!((&json["integrity"]["key"], &json["integrity"]["fault"]), (&"publisher".into(), &Value::Null));
    assert_eq!(
        json["classes"][0],
        serde_json::json!({ "class": "CROWD", "seconds": 200, "quotable_s": 150 })
    );
    assert_eq!(json["verdicts"]["items"][0]["class"], "CROWD");
    assert_eq!(json["verdicts"]["items"][0]["confidence"], 0.95);
    assert_eq!(json["verdicts"]["items"][0]["reasons"][0]["feature"], "follow_through");
    assert_eq!(json["totals"]["refused_by"]["forged"], 0);
    assert_eq!(json["series"]["points"][3]["at"], "2026-11-22T19:50:30.000Z");
}
