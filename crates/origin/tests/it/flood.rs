//! Garbage at the media port, and a programme that does not notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::PartKind;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rehearse::{Speaker, SpeakerConfig, Tone};

use crate::house::{House, PATIENCE, stranger};

/// A datagram that looks more or less like something.
fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..1_500);
    let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
    let head: &[u8] = match rng.random_range(0..6) {
        // STUN with its magic cookie, RTP, RTCP, DTLS ClientHello, TURN channel data, anything.
        0 => &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
        1 => &[0x80, 111],
        2 => &[0x80, 200],
        3 => &[22, 254, 253, 0, 0],
        4 => &[0x40, 0],
        _ => &[],
    };
    let known = head.len().min(bytes.len());
    bytes[..known].copy_from_slice(&head[..known]);
    if head.first() == Some(&0) && bytes.len() >= 20 {
        // A length that fits, so that the attributes are looked at.
        bytes.truncate(20 + (bytes.len() - 20) / 4 * 4);
        let length = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

#[test]
fn a_flood_at_the_media_port_costs_no_frame_and_no_session() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(3));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let mut config =
        SpeakerConfig::new(origin.whip(&event), house.invite(&event, 2), Tone { hz: 500, peak: 0.3 });
    // A machine that stands still for a moment is not what this test looks for.
    config.silence_limit = Duration::from_secs(5);
    let speaker = Speaker::start(config).unwrap();
    assert!(speaker.wait_connected(PATIENCE), "{speaker:?}");
    let mut parts = house.parts(&event, 0);
    while parts.next().kind != PartKind::Live {}

    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut rng = StdRng::seed_from_u64(20_240_812);
            let sockets: Vec<_> = (0..32).map(|_| stranger()).collect();
            while !stop.load(Ordering::Relaxed) {
                // Twenty times the packets of a full stage, and room for others on the machine.
                for _ in 0..64 {
                    let socket = &sockets[rng.random_range(0..sockets.len())];
                    let _ = socket.send_to(&garbage(&mut rng), origin.media);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // As many frames as there are, all of the stage: nothing was lost, nothing became a gap.
        for part in parts.take(12) {
            assert_eq!(part.kind, PartKind::Live, "part {}", part.number);
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    let state = speaker.state();
    assert_eq!(state.connections, 1, "the speaker was lost: {state:?}");
    let metrics = house.call(&origin, "GET", "/metrics", None, "text/plain", b"");
    let metrics = metrics.json.as_str().unwrap();
    let counted = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let strange = counted("minassa_origin_datagrams_total{kind=\"strange\"}")
        + counted("minassa_origin_datagrams_total{kind=\"strange_stun\"}");
    let sent = sent.load(Ordering::Relaxed);
    assert!(strange > sent / 2 && strange <= sent, "{strange} of {sent} were counted");
    assert_eq!(counted("minassa_origin_sessions "), 1);
    assert!(origin.stop().success());
}
