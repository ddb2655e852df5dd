//! Speakers who come in through real WebRTC, and the show they give.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::PartKind;
use rehearse::{Speaker, SpeakerConfig, Tone};
use serde_json::json;

use crate::house::{House, OPERATOR, PATIENCE};

/// How much of a sound is a tone of `hz` (Goertzel), 0 to 1.
fn share(samples: &[f32], hz: f32) -> f32 {
    let step = hz / 48_000.0 * std::f32::consts::TAU;
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let phase = step * n as f32;
        re += sample * phase.cos();
        im += sample * phase.sin();
        all += sample * sample;
    }
    if all == 0.0 { 0.0 } else { 2.0 * (re * re + im * im) / (all * samples.len() as f32) }
}

#[test]
fn speakers_hear_each_other_and_the_show_goes_live_by_itself() {
    let house = House::new();
    // Doors, on a segment before it, are three seconds away.
    let event = house.event("talk", Duration::from_millis(6_800));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let speak = |seat: u16, hz: u32| {
        let heard: Arc<Mutex<Vec<f32>>> = Arc::default();
        let ear = heard.clone();
        let mut config =
            SpeakerConfig::new(origin.whip(&event), house.invite(&event, seat), Tone { hz, peak: 0.3 });
        config.heard = Some(Box::new(move |sound| ear.lock().unwrap().extend(sound.samples)));
        (Speaker::start(config).unwrap(), heard)
    };
    // Before doors already: whoever comes early waits in the green room.
    let (amal, amal_hears) = speak(2, 500);
    let (badr, badr_hears) = speak(3, 800);
    assert!(amal.wait_connected(PATIENCE) && badr.wait_connected(PATIENCE), "{amal:?} {badr:?}");

    let mut parts = house.parts(&event, 0);
    let first = parts.next();
    assert_eq!((first.number.get(), first.kind), (0, PartKind::Slate));
    let live = loop {
        let part = parts.next();
        if part.kind == PartKind::Live {
            break part;
        }
        assert_eq!(part.kind, PartKind::Slate);
    };
    // The start lies on a segment, and the show went live at its very moment.
    let status = house.wait(&event, |status| status.live_at.map(|_| status.clone()));
    assert_eq!(status.live_at, Some(event.starts_at));
    assert_eq!(live.number.index_in_segment(), 0);
    let doors = status.anchor.unwrap().doors;
    assert_eq!(event.starts_at, doors.plus(live.number.start().to_duration()));

    // On stage each hears the other and not itself.
    parts.take(4);
    let check = |heard: &Mutex<Vec<f32>>, own: f32, other: f32| {
        let heard = heard.lock().unwrap().clone();
        // A quarter of a second holds whole periods of both. A concealed loss smears one window, an echo would be in
        // all of them.
        let late = heard[heard.len().saturating_sub(72_000)..].chunks_exact(12_000);
        let mut ratios: Vec<f32> = late.map(|window| share(window, own) / share(window, other)).collect();
        ratios.sort_by(f32::total_cmp);
        assert!(ratios[ratios.len() / 2] < 1e-4, "40 dB down at least: {ratios:?}");
        assert!(share(&heard[heard.len() - 12_000..], other) > 0.5, "the other is what is heard");
    };
    check(&amal_hears, 500.0, 800.0);
    check(&badr_hears, 800.0, 500.0);

    // A third source for a seat with two living ones is refused.
    let standby = format!("{}?standby=1", origin.whip(&event));
    let spare =
        Speaker::start(SpeakerConfig::new(standby, house.invite(&event, 2), Tone { hz: 500, peak: 0.3 }))
            .unwrap();
    assert!(spare.wait_connected(PATIENCE), "{spare:?}");
    house.wait(&event, |status| (status.seats[2].sources == 2).then_some(()));
    let mut third =
        SpeakerConfig::new(origin.whip(&event), house.invite(&event, 2), Tone { hz: 500, peak: 0.3 });
    third.comes_back = false;
    let third = Speaker::start(third).unwrap();
    assert_eq!(third.wait(PATIENCE, |state| state.answer_status), Some(409));

    // The first goes; its standby has the seat, and nobody was asked.
    let snapshot = |token: &str| house.get(&origin, "/api/stage/talk", token).json;
    drop(amal);
    house.wait(&event, |status| (status.seats[2].sources == 1 && status.seats[2].connected).then_some(()));
    assert_eq!(snapshot(OPERATOR)["seats"][2]["on_stage"], true);

    // Muted by the host, and heard no more by the other.
    let host = house.invite(&event, 0);
    let muted = house.post(&origin, "/api/stage/talk/seats/3", &host, &json!({"muted": true}));
    assert_eq!(muted.json["seats"][3]["muted"], true, "{muted:?}");

    let ended = house.post(&origin, "/api/stage/talk/state", &host, &json!({"state": "ended"}));
    assert_eq!(ended.status, 200, "{ended:?}");
    let last = house.wait_ended(&event);
    assert!(origin.stop().success());
    let (recording, reports) = house.verified(&event);
    assert!(recording.is_finished());
    assert_eq!(recording.parts().end, last.next());
    let marks = recording.marks().unwrap();
    assert_eq!(marks.live_at.unwrap().unix, event.starts_at);
    assert_eq!(marks.ended_at.unwrap().media.part().get(), last.get());
    for report in reports {
        assert!(report.complete(), "{report:?}");
    }
}

#[test]
fn snapshots_are_streamed_to_those_who_watch() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let mut stream = std::net::TcpStream::connect(origin.stage).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let invite = house.invite(&event, 2);
    let request =
        format!("GET /api/stage/talk/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {invite}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 200"));
    assert!(
        lines.by_ref().take_while(|line| !line.is_empty()).any(|line| line.contains("application/x-ndjson"))
    );
    let mut snapshots =
        lines.filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(&line).unwrap());
    let mut until = |look: &dyn Fn(&serde_json::Value) -> bool| {
        snapshots.find(look).expect("the stream ended without saying so")
    };
    until(&|snapshot| snapshot["state"] == "doors");
    house.post(&origin, "/api/stage/talk/seats/2", &invite, &json!({"muted": true}));
    until(&|snapshot| snapshot["seats"][2]["muted"] == true);
    // Nothing happens, and still it is said that nothing happens.
    let now = until(&|_| true)["now"].clone();
    until(&|snapshot| snapshot["now"] != now);
    // The invitation is withdrawn, and the stream ends.
    let mut changed = model::Event { revision: 2, ..event.clone() };
    changed.seats[2].revoked = true;
    house.announce(&changed);
    assert!(snapshots.last().is_none_or(|last: serde_json::Value| last["you"]["seat"] == 2));
    assert_eq!(house.get(&origin, "/api/stage/talk", &invite).status, 403);
}

#[test]
fn dead_air_brings_the_hold_slate_and_speech_ends_it() {
    let house = House::new();
    let event = model::Event {
        hold_on_silence: true,
        doors_before: Duration::ZERO,
        ..house.event("talk", Duration::from_secs(600))
    };
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    assert_eq!(house.post(&origin, "/api/stage/talk/state", OPERATOR, &json!({"state": "live"})).status, 200);
    let dead_air =
        |status: &backend::wire::EventStatus| status.alarms.contains(&backend::wire::Alarm::DeadAir);
    house.wait(&event, |status| dead_air(status).then_some(()));
    let mut parts = house.parts(&event, 0);
    let held = loop {
        let part = parts.next();
        match part.kind {
            PartKind::Live => {}
            PartKind::Hold => break part,
            other => panic!("part {} is {other:?}", part.number),
        }
    };
    // Five seconds without anybody, and not one part more or less.
    assert!((10..=12).contains(&held.number.get()), "the hold slate came with part {}", held.number);
    // Somebody says syllables.
    let voice = |index: u64, samples: &mut [f32; 960]| {
        for (n, sample) in samples.iter_mut().enumerate() {
            let t = (index as f32).mul_add(960.0, n as f32) / 48_000.0;
            let syllable = (t * 4.0 * std::f32::consts::TAU).sin().max(0.0);
            let buzz: f32 =
                (1..9).map(|k| (t * 140.0 * k as f32 * std::f32::consts::TAU).sin() / k as f32).sum();
            *sample = 0.15 * syllable * buzz;
        }
    };
    let speaker =
        Speaker::start(SpeakerConfig::new(origin.whip(&event), house.invite(&event, 2), voice)).unwrap();
    assert!(speaker.wait_connected(PATIENCE), "{speaker:?}");
    house.wait(&event, |status| (!dead_air(status)).then_some(()));
    while parts.next().kind != PartKind::Live {}
}
