//! Killed without warning, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use backend::bus::Bus as _;
use backend::objects::{DirectoryObjects, ObjectKind, Objects as _};
use backend::wire::{self, AnchorRecord};
use model::{Digest, Event, PART_DURATION, Part, PartKind, PartNumber, ShowState};
use serde_json::json;

use crate::house::{House, OPERATOR};

fn digests(part: &Part) -> [Digest; 3] {
    [0, 1, 2].map(|index| part.payloads[index].digest)
}

/// Takes parts as an edge does, into a window that it offers. Numbers never name two contents, and nothing is missing
/// between them.
fn merge(house: &House, known: &mut BTreeMap<PartNumber, Part>, parts: Vec<Part>) {
    for part in parts {
        match known.get(&part.number) {
            Some(before) => {
                assert_eq!(digests(before), digests(&part), "part {} has two contents", part.number)
            }
            None => house.edge.publish("window/talk", part.number.get(), wire::encode_part(&part)),
        }
        known.insert(part.number, part);
    }
    let numbers: Vec<u64> = known.keys().map(|number| number.get()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole in {numbers:?}");
}

#[test]
fn a_killed_origin_goes_on_with_gaps_and_the_chain_holds() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let doors = (origin.stage, origin.media);
    assert_eq!(house.post(&origin, "/api/stage/talk/state", OPERATOR, &json!({"state": "live"})).status, 200);
    let host = house.invite(&event, 0);
    house.post(&origin, "/api/stage/talk/seats/3", &host, &json!({"muted": true}));
    let mut known = BTreeMap::new();
    merge(&house, &mut known, house.parts(&event, 0).take(10));
    let recorded = house.wait(&event, |status| status.recorded_through);
    origin.kill();
    // From here on control is gone, too: the frozen event must do.
    house.silence_control();
    // Nobody is there for three parts: a start alone may take less than one.
    std::thread::sleep(3 * PART_DURATION);

    let mut epochs = vec![1];
    let mut origin = house.origin(Some(doors));
    for round in 0..3 {
        let status = house.wait(&event, |status| {
            status.epoch.filter(|epoch| *epoch > epochs[round]).map(|_| status.clone())
        });
        epochs.push(status.epoch.unwrap());
        assert_eq!(ShowState::from(status.state), ShowState::Live);
        assert!(status.seats[3].muted);
        let have = known.keys().next_back().unwrap().get();
        // As an edge asks that comes back: from the number after its last.
        let mut parts = house.parts(&event, have + 1);
        let next = parts.next();
        assert_eq!(next.number.get(), have + 1, "what was published is not published again");
        merge(&house, &mut known, vec![next]);
        merge(&house, &mut known, parts.take(8));
        if round < 2 {
            origin.kill();
            origin = house.origin(Some(doors));
        }
    }
    let gaps: Vec<u64> =
        known.values().filter(|part| part.kind == PartKind::Gap).map(|part| part.number.get()).collect();
    assert!(!gaps.is_empty(), "origin was away for three parts");

    // Everything that was ever reported as safe is there, and nothing was signed twice.
    let ended = house.post(&origin, "/api/stage/talk/state", &host, &json!({"state": "ended"}));
    assert_eq!(ended.status, 200, "{ended:?}");
    let last = house.wait_ended(&event);
    assert!(origin.stop().success());
    let (recording, reports) = house.verified(&event);
    assert_eq!(recording.parts(), PartNumber::ZERO..last.next());
    assert!(recording.parts().contains(&recorded));
    for report in reports {
        assert!(report.complete(), "{report:?}");
        assert_eq!(report.epochs.len(), 4, "{report:?}");
    }
    for (number, part) in &known {
        let recorded = recording.read_whole_part(*number).unwrap();
        assert_eq!((recorded.kind, digests(&recorded)), (part.kind, digests(part)), "part {number}");
    }

    // Over is over, also for the next origin.
    let origin = house.origin(Some(doors));
    let state = house.wait(&event, |status| Some(ShowState::from(status.state.clone())));
    assert_eq!(state, ShowState::Ended);
    assert_eq!(house.post(&origin, "/api/stage/talk/state", &host, &json!({"state": "live"})).status, 409);
}

#[test]
fn what_only_an_edge_holds_is_taken_over() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let doors = (origin.stage, origin.media);
    let mut known = BTreeMap::new();
    merge(&house, &mut known, house.parts(&event, 0).take(19));
    origin.kill();
    // The disk loses everything it had; the edge has kept its window.
    std::fs::remove_dir_all(house.directory.path().join("recordings")).unwrap();
    let origin = house.origin(Some(doors));
    let mut parts = house.parts(&event, 0);
    let again = parts.take(30);
    assert_eq!(again[0].number, PartNumber::ZERO);
    merge(&house, &mut known, again);
    let metrics = house.call(&origin, "GET", "/metrics", None, "text/plain", b"");
    let metrics = metrics.json.as_str().unwrap();
    assert!(metrics.contains("minassa_origin_parts_total{kind=\"adopted\"} 19"), "{metrics}");
    house.post(&origin, "/api/stage/talk/state", OPERATOR, &json!({"state": "ended"}));
    let last = house.wait_ended(&event);
    assert!(origin.stop().success());
    let (recording, reports) = house.verified(&event);
    assert_eq!(recording.parts(), PartNumber::ZERO..last.next());
    for report in reports {
        assert!(report.complete(), "{report:?}");
    }
    for (number, part) in known {
        assert_eq!(digests(&recording.read_whole_part(number).unwrap()), digests(&part), "part {number}");
    }
}

#[test]
fn a_stopped_origin_leaves_nothing_half_done() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    let mut parts = house.parts(&event, 0);
    parts.take(3);
    let doors = (origin.stage, origin.media);
    assert!(origin.stop().success());
    let (recording, reports) = house.verified(&event);
    let end = recording.parts().end;
    assert!(end.get() >= 3 && !recording.is_finished());
    assert!(reports.iter().all(|report| report.intact()), "{reports:?}");
    let _origin = house.origin(Some(doors));
    let mut parts = house.parts(&event, end.get());
    assert_eq!(parts.next().number, end);
}

#[test]
fn a_disk_that_takes_nothing_costs_the_recording_and_not_the_show() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    // A file stands where the directory of recordings is to be.
    let recordings = house.directory.path().join("recordings");
    std::fs::write(&recordings, b"in the way").unwrap();
    house.announce(&event);
    let origin = house.origin(None);
    let mut parts = house.parts(&event, 0);
    parts.take(4);
    let alarm = |wanted: bool| {
        house.wait(&event, |status| {
            (status.alarms.contains(&wire::Alarm::Recorder) == wanted).then_some(status.recorded_through)
        })
    };
    assert_eq!(alarm(true), None);
    let snapshot = house.get(&origin, "/api/stage/talk", OPERATOR);
    assert_eq!(snapshot.json["alarms"], json!(["recorder"]), "{snapshot:?}");
    std::fs::remove_file(&recordings).unwrap();
    assert!(alarm(false).is_some());
    parts.take(2);
    assert!(origin.stop().success());
    // What waited in memory is there, from the first part on.
    let (recording, reports) = house.verified(&event);
    assert_eq!(recording.parts().start, PartNumber::ZERO);
    assert!(recording.count() >= 6);
    assert!(reports.iter().all(|report| report.intact()), "{reports:?}");
}

#[test]
fn a_start_moved_and_a_slate_changed_are_followed() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |status| status.newest_part);
    let doors = (origin.stage, origin.media);
    // A slate that is there, and later one that is none.
    let samples = (0..48_000_u32).flat_map(|n| {
        let sine = (n as f32 * 0.06).sin() * 8_000.0;
        (sine as i16).to_le_bytes()
    });
    let mut wav =
        b"RIFF\xa4\x77\x01\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\xbb\0\0\0\x77\x01\0\x02\0\x10\0data".to_vec();
    wav.extend(96_000_u32.to_le_bytes());
    wav.extend(samples);
    let objects = DirectoryObjects::new(&house.directory.path().join("objects"));
    let slate = |bytes: &[u8]| {
        let put = objects.put(ObjectKind::Slate, bytes.to_vec().into());
        house.runtime.block_on(put).unwrap().digest
    };
    let moved = Event {
        revision: 2,
        starts_at: event.starts_at.plus(Duration::from_secs(3_600)),
        slate: Some(slate(&wav)),
        ..event.clone()
    };
    house.announce(&moved);
    house.wait(&moved, |status| (status.revision == 2).then_some(()));
    let snapshot = house.get(&origin, "/api/stage/talk", OPERATOR);
    assert_eq!(snapshot.json["starts_at"], moved.starts_at.to_string());
    let worse = Event { revision: 3, slate: Some(slate(b"this is no sound")), ..moved.clone() };
    house.announce(&worse);
    house.wait(&moved, |status| (status.revision == 3).then_some(()));
    house.parts(&event, 0).take(3);
    origin.kill();
    // What was frozen last is what the next origin begins with, without anybody telling it.
    house.silence_control();
    let origin = house.origin(Some(doors));
    house.wait(&moved, |status| (status.revision == 3).then_some(()));
    assert_eq!(
        house.get(&origin, "/api/stage/talk", OPERATOR).json["starts_at"],
        moved.starts_at.to_string()
    );
    // An older word of control changes nothing.
    house.announce(&event);
    house.parts(&event, 0).take(3);
    assert_eq!(
        house.get(&origin, "/api/stage/talk", OPERATOR).json["starts_at"],
        moved.starts_at.to_string()
    );
    house.wait_log("the slate cannot be played");
    assert!(!house.log().contains("the slate cannot be had"), "{}", house.log());
}

#[test]
fn after_a_start_of_the_machine_the_wall_clock_says_how_long_it_was_away() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    let mut known = BTreeMap::new();
    merge(&house, &mut known, house.parts(&event, 0).take(4));
    let before = house.wait(&event, |status| status.anchor);
    let doors = (origin.stage, origin.media);
    origin.kill();
    // The same timeline as another start of the machine would have left it: its clock means nothing now.
    let path = house.directory.path().join("origin/talk/anchor.json");
    let other = AnchorRecord { doors_boot_ns: 7, boot_id: [9; 16], ..before };
    backend::freeze::write_json(&path, &other).unwrap();
    let _origin = house.origin(Some(doors));
    let after = house.wait(&event, |status| status.anchor.filter(|_| status.epoch == Some(2)));
    assert_eq!((after.doors, after.boot_id), (before.doors, before.boot_id));
    // The clock is read twice, and that is all the two timelines differ by.
    let moved_ns = after.doors_boot_ns.abs_diff(before.doors_boot_ns);
    assert!(moved_ns < 1_000_000_000, "the timeline moved by {moved_ns} ns");
    let have = known.keys().next_back().unwrap().get();
    merge(&house, &mut known, house.parts(&event, have + 1).take(6));
}
