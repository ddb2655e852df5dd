//! Mix-minus, rooms, layers, voice, parts.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::common::*;
use minassa_programme::{
    Hears, Layer, Programme, ProgrammeConfig, Slate, SourceId, SourceKind, SourceRole, Speaks,
};
use model::{MediaTime, PartKind, PartNumber};

const TONES: [f64; 4] = [440.0, 700.0, 1_100.0, 1_700.0];

fn tones() -> Vec<Sender> {
    TONES
        .iter()
        .enumerate()
        .map(|(n, hz)| {
            Sender::new(n as u32, SourceKind::Rtp, encode(&tone(*hz, 0.1, 48_000 * 5), BROWSER), 0.0)
        })
        .collect()
}

/// Runs for some seconds; returns what each source heard in the last 200 ms.
fn listen(night: &mut Night, seconds: u32) -> BTreeMap<SourceId, Vec<f32>> {
    let mut packets: BTreeMap<SourceId, Vec<Bytes>> = BTreeMap::new();
    for _ in 0..50 * seconds {
        for (id, packet) in night.tick().returns {
            packets.entry(id).or_default().push(packet);
        }
    }
    packets
        .into_iter()
        .map(|(id, packets)| {
            let decoded = decode_opus(&packets);
            (id, decoded[decoded.len() - 9_600..].to_vec())
        })
        .collect()
}

#[test]
fn speakers_hear_all_others_and_not_themselves() {
    let mut night = Night::new(programme(), tones());
    let heard = listen(&mut night, 8);
    for sender in &night.senders {
        println!("{:?}", night.programme.stats(sender.id));
    }
    for (n, own) in TONES.iter().enumerate() {
        let heard = &heard[&SourceId(n as u32)];
        let own = tone_db(heard, *own);
        for other in TONES.iter().filter(|hz| **hz != TONES[n]) {
            let other = tone_db(heard, *other);
            println!("speaker {n}: other {other:.1} dB, own {own:.1} dB");
            assert!(other - own > 40.0, "speaker {n} hears itself");
        }
    }
}

#[test]
fn listeners_share_one_packet_and_rooms_are_apart() {
    let mut night = Night::new(programme(), tones());
    let role = |seat, speaks, hears| SourceRole { seat, speaks, hears };
    // 0 speaks on stage; 1 is muted there; 2 waits and talks in the green room; 3 waits and hears the stage.
    let programme = &mut night.programme;
    programme.set_role(SourceId(0), role(0, Speaks::Stage, Hears::Stage));
    programme.set_role(SourceId(1), role(1, Speaks::Nowhere, Hears::Stage));
    programme.set_role(SourceId(2), role(2, Speaks::GreenRoom, Hears::GreenRoom));
    programme.set_role(SourceId(3), role(3, Speaks::Nowhere, Hears::Stage));
    let heard = listen(&mut night, 8);
    let level = |id: u32, tone: usize| tone_db(&heard[&SourceId(id)], TONES[tone]);
    assert!(level(1, 0) > -40.0 && level(3, 0) > -40.0);
    assert_eq!(heard[&SourceId(1)], heard[&SourceId(3)]);
    for (listener, tone) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 0), (2, 2)] {
        assert!(level(listener, tone) < -70.0, "{listener} hears {tone}: {}", level(listener, tone));
    }
    let tick = night.tick();
    let shared: Vec<&Bytes> =
        tick.returns.iter().filter(|(id, _)| [1, 3].contains(&id.0)).map(|(_, p)| p).collect();
    assert_eq!(shared[0].as_ptr(), shared[1].as_ptr(), "one encode for both");

    // 3 joins 2 in the green room: they hear each other.
    night.programme.set_role(SourceId(3), role(3, Speaks::GreenRoom, Hears::GreenRoom));
    let heard = listen(&mut night, 8);
    assert!(tone_db(&heard[&SourceId(2)], TONES[3]) > -40.0);
    assert!(tone_db(&heard[&SourceId(3)], TONES[2]) > -40.0);
    assert!(tone_db(&heard[&SourceId(0)], TONES[3]) < -70.0);
}

#[test]
fn two_sources_of_a_seat_never_hear_each_other_and_hand_over_without_a_click() {
    let voice = tone(500.0, 0.1, 48_000 * 5);
    let sender = |id| Sender::new(id, SourceKind::Rtp, encode(&voice, BROWSER), 0.0);
    let mut night = Night::new(programme(), vec![sender(0), sender(1)]);
    let role = |speaks| SourceRole { seat: 0, speaks, hears: Hears::Stage };
    night.programme.set_role(SourceId(0), role(Speaks::Stage));
    night.programme.set_role(SourceId(1), role(Speaks::Nowhere));
    for heard in listen(&mut night, 4).values() {
        assert!(tone_db(heard, 500.0) < -80.0);
    }
    let before = night.parts.len();
    night.programme.set_role(SourceId(0), role(Speaks::Nowhere));
    night.programme.set_role(SourceId(1), role(Speaks::Stage));
    listen(&mut night, 4);
    night.programme.remove_source(SourceId(0));
    night.senders.remove(0);
    listen(&mut night, 2);
    let heard = night.heard();
    let around = &heard[(before - 1) * 23_040..(before + 6) * 23_040];
    // Two tones of any phase, crossfaded: the level may dip for 5 ms, the second difference shows no step.
    let usual = around[..20_000].windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max);
    let worst = around.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max);
    println!("usual bend {usual:.4}, worst {worst:.4}");
    assert!(worst < usual * 4.0 + 0.002);
}

#[test]
fn going_live_falls_on_its_sample_and_parts_say_what_they_are() {
    let slate = Slate::decode(&wav(&tone(300.0, 0.2, 48_000 * 2), 48_000, 1)).unwrap();
    let first = PartNumber::new(40);
    let programme = Programme::new(ProgrammeConfig::new(DOORS), slate, Slate::silence(), first);
    let mut sender = Sender::new(0, SourceKind::Rtp, encode(&tone(1_000.0, 0.2, 48_000 * 4), BROWSER), 0.0);
    sender.run_to(first.start().samples() as f64);
    let mut night = Night::new(programme, vec![sender]);
    // In the middle of part 50.
    let live = PartNumber::new(50).start().plus(7_777);
    night.programme.set_layer(Layer::Stage, Some(live));
    for _ in 0..24 * 20 {
        night.tick();
        if night.programme.position() == PartNumber::new(55).start() {
            night.programme.set_layer(Layer::Hold, None);
        }
    }
    let kinds: Vec<PartKind> = night.parts.iter().map(|part| part.kind).collect();
    assert_eq!(night.parts[0].number, first);
    assert!(night.parts.windows(2).all(|w| w[1].number == w[0].number.next()));
    assert!(kinds[..=10].iter().all(|k| *k == PartKind::Slate));
    assert!(kinds[11..15].iter().all(|k| *k == PartKind::Live), "{kinds:?}");
    assert!(kinds[15..].iter().all(|k| *k == PartKind::Hold), "{kinds:?}");
    let heard = night.heard();
    let place = (live.samples() - first.start().samples()) as usize;
    let (before, after) = (&heard[place - 4_800..place - 100], &heard[place + 600..place + 5_300]);
    assert!(tone_db(before, 300.0) - tone_db(before, 1_000.0) > 30.0);
    assert!(tone_db(after, 1_000.0) - tone_db(after, 300.0) > 30.0);
}

#[test]
fn a_voice_is_reported_in_time_for_a_hold_to_yield() {
    let mut voice = vec![0.0; 48_000 * 4];
    let mut words = speech(3.0, 140.0, false, 30);
    scale_to(&mut words, -30.0);
    let onset = voice.len();
    voice.extend(words);
    let packets = encode(&voice, BROWSER);
    let mut programme = programme();
    let id = SourceId(0);
    programme.add_source(id, SourceKind::Rtp).unwrap();
    let mut found = None;
    for n in 0..packets.len() as u64 {
        programme.push_rtp(id, n, (n * 960) as u32, &packets[n as usize], at((n + 1) as f64 * 960.0));
        let tick = programme.tick();
        if tick.levels[0].voice && found.is_none() {
            found = Some(tick.at.samples() + 960);
        }
    }
    let stats = programme.stats(id).unwrap();
    let found_ms = (found.unwrap() as f64 - onset as f64) / 48.0;
    println!("voice found {found_ms} ms after it began, of which the buffer {} ms", stats.delay_ms);
    assert!(found_ms > 0.0);
    assert!(found_ms - f64::from(stats.delay_ms) <= 60.0);
    assert!(found_ms <= 100.0);
}

#[test]
fn late_ticks_skip_nothing() {
    let mut programme = programme();
    assert_eq!(programme.due(), at(960.0));
    for n in 0..100_u64 {
        let tick = programme.tick();
        assert_eq!(tick.at, MediaTime::from_samples(n * 960));
    }
    assert_eq!(programme.position(), MediaTime::from_samples(96_000));
    let mut parts = 0;
    while let Some(part) = programme.poll_part() {
        assert_eq!(part.number, PartNumber::new(parts));
        parts += 1;
    }
    assert_eq!(parts, 4);
    assert_eq!(programme.failures(), (0, 0));
}

#[test]
fn silent_frames_decode_to_silence_beside_any_others() {
    let silence = minassa_programme::silent_frames();
    assert_eq!(silence, minassa_programme::silent_frames());
    assert_eq!((silence.opus48.len(), silence.mp3.len()), (120, 192));
    for frames in [vec![silence.opus24.clone(); 24], vec![silence.opus48.clone(); 24]] {
        assert!(rms_db(&decode_opus(&frames)) < -90.0);
    }
    let mp3 = decode_mp3(&vec![silence.mp3.clone(); 20]);
    assert_eq!(mp3.len(), 23_040);
    assert!(rms_db(&mp3) < -90.0);
    // In the middle of sound: it fades and stays silent.
    let mut packets = encode(&tone(400.0, 0.2, 48_000), minassa_programme::codec::OpusSettings::OPUS_24);
    packets.extend(vec![silence.opus24; 24]);
    let decoded = decode_opus(&packets);
    assert!(rms_db(&decoded[decoded.len() - 9_600..]) < -60.0);
}

#[test]
fn the_core_may_move_between_threads() {
    fn send<T: Send>(_: T) {}
    send(programme());
}
