//! Killed without warning, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use backend::bus::Bus as _;
use backend::wire;
use model::{Part, PartKind, PartNumber, ShowState};
use serde_json::json;

use crate::house::{House, OPERATOR};

/// Numbers never name two contents, and nothing is missing between them.
fn merge(known: &mut BTreeMap<PartNumber, Part>, parts: Vec<Part>) {
    for part in parts {
        if let Some(before) = known.get(&part.number) {
            assert_eq!(before.payloads, part.payloads, "part {} has two contents", part.number);
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
    merge(&mut known, house.parts(&event, 0).take(10));
    let recorded = house.wait(&event, |status| status.recorded_through);
    origin.kill();
    // From here on control is gone, too: the frozen event must do.
    house.silence_control();

    let mut epochs = vec![1];
    let mut origin = house.origin(Some(doors));
    for round in 0..3 {
        let status = house.wait(&event, |status| status.epoch.filter(|epoch| *epoch > epochs[round]).map(|_| status.clone()));
        epochs.push(status.epoch.unwrap());
        assert_eq!(ShowState::from(status.state), ShowState::Live);
        assert!(status.seats[3].muted);
        let have = known.keys().next_back().unwrap().get();
        // As an edge asks that comes back: from the number after its last.
        let mut parts = house.parts(&event, have + 1);
        let next = parts.next();
        assert_eq!(next.number.get(), have + 1, "what was published is not published again");
        merge(&mut known, vec![next]);
        merge(&mut known, parts.take(8));
        if round < 2 {
            origin.kill();
            origin = house.origin(Some(doors));
        }
    }
    let gaps: Vec<u64> =
        known.values().filter(|part| part.kind == PartKind::Gap).map(|part| part.number.get()).collect();
    assert!(!gaps.is_empty(), "origin was away for more than a part");

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
        assert_eq!((recorded.kind, &recorded.payloads), (part.kind, &part.payloads), "part {number}");
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
    merge(&mut known, house.parts(&event, 0).take(19));
    origin.kill();
    // The disk loses everything it had; the edge has kept its window.
    std::fs::remove_dir_all(house.directory.path().join("recordings")).unwrap();
    for (number, part) in &known {
        house.edge.publish("window/talk", number.get(), wire::encode_part(part));
    }
    let origin = house.origin(Some(doors));
    let mut parts = house.parts(&event, 0);
    let again = parts.take(30);
    assert_eq!(again[0].number, PartNumber::ZERO);
    merge(&mut known, again);
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
        assert_eq!(recording.read_whole_part(number).unwrap().payloads, part.payloads, "part {number}");
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
