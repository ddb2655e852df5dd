//! Single situations, each with the verdict it must have.

use minassa_admission::ledger::{
    BIN_MS, Bin, BinStart, Kernel, Mark, Merger, Opening, PrefixTag, ProcessBin,
};
use minassa_admission::verdict::{CONFIDENT, Class, Feature, Verdict, judge};

use crate::scenario::night::key;

/// Bins in which nothing happens before something does.
const QUIET: u64 = 10;

/// An evening of a thousand listeners; `change` makes more of a bin, by its number.
fn evening(bins: impl IntoIterator<Item = u64>, change: impl Fn(u64, &mut ProcessBin)) -> Vec<Verdict> {
    let mut merger = Merger::new();
    let bins = bins.into_iter().map(|at| {
        let start = BinStart::try_from(at * BIN_MS).unwrap();
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
        change(at, &mut bin);
        merger.merge(start, 1, &[bin])
    });
    let event = "an-evening".parse().unwrap();
    let opening = Opening::new(&event, &key().verifying_key(), 0, 3_600_000, None);
    judge(&opening, &bins.collect::<Vec<Bin>>())
}

fn features(verdict: &Verdict) -> Vec<Feature> {
    verdict.reasons.iter().map(|reason| reason.feature).collect()
}

#[test]
fn a_quiet_evening_is_a_crowd_as_soon_as_it_is_usual() {
    let verdicts = evening(0..QUIET, |_, _| {});
    assert!(
        verdicts.iter().all(|verdict| verdict.class == Class::Crowd && verdict.since_ms == verdicts[0].at_ms)
    );
    let confident = verdicts.iter().map(|verdict| verdict.confidence_bp >= CONFIDENT);
    assert_eq!(confident.take_while(|confident| !confident).count(), 5, "three bins of it, two bins later");
    assert_eq!(features(&verdicts[9]), [Feature::FollowThrough, Feature::Acknowledged]);
}

#[test]
fn half_the_capacity_gone_is_our_own_fault_and_a_deploy_says_whose() {
    let fall = |mark: Option<Mark>| {
        let verdicts = evening(0..QUIET + 2, |at, bin| {
            if at >= QUIET {
                bin.counts.own.capacity = 2_500;
                mark.into_iter().for_each(|mark| bin.mark(mark, 10));
            }
        });
        let last = verdicts.last().unwrap().clone();
        assert_eq!((last.class, features(&last)), (Class::SelfInflicted, vec![Feature::LostCapacity]));
        assert_eq!(last.reasons[0].value, 5_000);
        last.confidence_bp
    };
    assert_eq!((fall(None), fall(Some(Mark::Deploy)), fall(Some(Mark::Live))), (7_000, 7_500, 7_000));
}

#[test]
fn connections_that_hang_are_an_attack_unless_we_are_slow() {
    let hanging = |late_us: u64| {
        let verdicts = evening(0..QUIET + 2, |at, bin| {
            if at >= QUIET {
                let c = &mut bin.counts;
                (c.door.connections, c.door.half_open, c.own.loop_late_us) = (4_000, 3_000, late_us);
            }
        });
        verdicts.last().unwrap().clone()
    };
    assert_eq!((hanging(500).class, features(&hanging(500))), (Class::L34, vec![Feature::HalfOpen]));
    assert_eq!(hanging(200_000).class, Class::Crowd);
    assert_eq!(hanging(200_000).confidence_bp, 8_500);
}

#[test]
fn newcomers_who_starve_and_do_not_follow_hold_us_unless_it_may_be_us() {
    let come = |starved: u64, followed: u64, level: u64| {
        let verdicts = evening(0..QUIET + 2, |at, bin| {
            if at >= QUIET {
                bin.arrive(PrefixTag(0), None, 1_000);
                let c = &mut bin.counts;
                (c.tickets.asked, c.tickets.given, c.tickets.used) = (1_200, 1_150, 1_100);
                (c.audio.starved, c.audio.shut_unknown) = (starved, starved);
                (c.audio.followed, c.own.level) = (followed, level);
            }
        });
        let last = verdicts.last().unwrap();
        last.reasons.iter().find(|reason| reason.feature == Feature::ShutReaders).map(|reason| reason.value)
    };
    // 910 more than usual had ten seconds, and 800 starve, of whom 112 may by chance.
    assert_eq!(come(800, 170, 0), Some(7_560));
    assert_eq!(come(800, 1_000, 0), None, "they follow");
    assert_eq!(come(5_000, 170, 0), None, "those starve who were there");
    assert_eq!(come(800, 170, 3), None, "the ladder says that we are short of something");
    assert_eq!(come(300, 170, 0), None, "of few it says nothing");
}

#[test]
fn newcomers_who_shut_their_windows_hold_us_whether_they_follow_or_not() {
    let come = |shut: u64, with_tickets: u64| {
        let verdicts = evening(0..QUIET + 2, |at, bin| {
            if at >= QUIET {
                bin.arrive(PrefixTag(0), None, 1_000);
                let c = &mut bin.counts;
                (c.tickets.asked, c.tickets.used) = (200 + with_tickets, 190 + with_tickets);
                (c.audio.opened, c.audio.followed) = (1_190, 1_170);
                (c.audio.shut, c.audio.starved, c.own.level) = (shut, shut, 3);
            }
        });
        let last = verdicts.last().unwrap();
        last.reasons.iter().find(|reason| reason.feature == Feature::ShutReaders).map(|reason| reason.value)
    };
    // 1,000 more than usual had ten seconds, and 800 of them read nothing, of whom 112 may by chance.
    assert_eq!(come(800, 1_000), Some(6_880));
    assert_eq!(come(800, 0), Some(6_880), "who has no ticket comes too");
    assert_eq!(come(5_000, 1_000), None, "those stopped who were there");
    assert_eq!(come(550, 1_000), None, "most read");
}

#[test]
fn people_who_come_while_machines_do_are_not_forgotten() {
    let verdicts = evening(0..QUIET + 2, |at, bin| {
        if at >= QUIET {
            let c = &mut bin.counts;
            (c.audio.opened, c.audio.followed) = (1_000, 900);
            (c.door.abuse, c.door.connections) = (500, 4_000);
        }
    });
    let last = verdicts.last().unwrap();
    assert_eq!((last.class, features(last)), (Class::Mixed, vec![Feature::ProtocolAbuse, Feature::Surge]));
    assert!(last.names_attack() && !last.names_own_fault());
}

#[test]
fn after_a_gap_the_window_begins_anew_and_what_is_usual_stays() {
    let verdicts = evening((0..QUIET).chain([30, 31]), |at, bin| {
        if at == 30 {
            bin.counts.own.capacity = 1;
        }
    });
    let after = &verdicts[QUIET as usize];
    assert_eq!((after.class, after.confidence_bp), (Class::Crowd, 9_500));
    assert_eq!(features(after), [Feature::Acknowledged], "what needs two bins is not there");
    assert_eq!(after.since_ms, verdicts[0].at_ms);
    assert_eq!(verdicts.last().unwrap().class, Class::Crowd, "one bin of lost capacity is a late report");
}

#[test]
fn nobody_there_is_no_evidence() {
    let verdicts = evening(0..3, |_, bin| *bin = ProcessBin::new(bin.start(), 0, 0));
    assert!(
        verdicts.iter().all(|verdict| (verdict.class, verdict.confidence_bp) == (Class::Insufficient, 0))
    );
}
