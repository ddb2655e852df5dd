//! Speakers on networks of all kinds.

use crate::common::*;
use minassa_programme::codec::OpusSettings;
use minassa_programme::{SourceId, SourceKind};

const RTP: SourceKind = SourceKind::Rtp;
const OGG: SourceKind = SourceKind::Ogg;

/// Longest stretch in milliseconds that is 30 dB under the usual level.
fn longest_hole_ms(samples: &[f32]) -> usize {
    let usual = rms_db(samples);
    let mut longest = 0;
    let mut run = 0;
    for piece in samples.chunks(48 * 5) {
        run = if rms_db(piece) < usual - 30.0 { run + 5 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Speech that never pauses.
fn babble(seconds: f64, seed: u64) -> Vec<f32> {
    let mut samples = Vec::new();
    for piece in speech(seconds * 2.0, 130.0, false, seed).chunks(480) {
        if rms_db(piece) > -40.0 {
            samples.extend_from_slice(piece);
        }
    }
    samples.truncate((seconds * 48_000.0) as usize / FRAME * FRAME);
    scale_to(&mut samples, -23.0);
    samples
}

#[test]
fn a_clean_network_costs_twenty_to_forty_milliseconds() {
    let mut sender = Sender::new(1, RTP, encode(&babble(20.0, 1), BROWSER), 0.0);
    sender.jitter = 48.0;
    let mut night = Night::new(programme(), vec![sender]);
    for _ in 0..50 * 60 {
        night.tick();
    }
    let stats = night.programme.stats(SourceId(1)).unwrap();
    println!("{stats:?}");
    assert!((20.0..40.0).contains(&stats.target_ms), "{}", stats.target_ms);
    assert!((20.0..40.0).contains(&stats.delay_ms), "{}", stats.delay_ms);
    assert_eq!((stats.lost, stats.late, stats.concealed_ms), (0, 0, 0));
}

/// Item 8 of the issue: 10 % random loss, 50 ms jitter.
///
/// `raw_db`: how much level concealment alone may cost, before levelling. Opus conceals speech cautiously, and takes
/// some frames to come back: 2.5 dB at ten percent, as the C library does.
fn bad_network(name: &str, samples: &[f32], settings: OpusSettings, fec_min: u64, raw_db: f32) {
    let mut results = Vec::new();
    for bad in [false, true] {
        let mut sender = Sender::new(1, RTP, encode(samples, settings), 0.0);
        if bad {
            sender.loss = 0.1;
            sender.jitter = 50.0 * 48.0;
        }
        let mut night = Night::new(programme(), vec![sender]);
        for _ in 0..50 * 60 {
            night.tick();
        }
        let heard = night.heard();
        let stats = night.programme.stats(SourceId(1)).unwrap();
        // After the buffer has learnt the network.
        let settled = &heard[48_000 * 8..];
        let hole = longest_hole_ms(settled);
        println!(
            "{name}: bad {bad}: {:.2} LUFS (programme {:.2}, before levelling {:.2}), longest hole {hole} ms, {stats:?}",
            loudness(settled),
            night.programme.loudness_lufs(),
            stats.loudness_lufs
        );
        results.push((loudness(settled), stats.loudness_lufs, hole, stats));
    }
    let [(clean, clean_raw, clean_hole, _), (bad, bad_raw, hole, stats)] = results[..] else {
        unreachable!()
    };
    assert!((clean - bad).abs() < 1.0, "{name}: programme {clean} and {bad}");
    assert!((clean_raw - bad_raw).abs() < raw_db, "{name}: raw {clean_raw} and {bad_raw}");
    assert!(hole <= 60.max(clean_hole), "{name}: a hole of {hole} ms");
    assert!(stats.target_ms <= 220.0);
    assert!(stats.lost > 200);
    assert!(stats.fec_used >= fec_min, "{name}: {}", stats.fec_used);
}

#[test]
fn ten_percent_loss_and_jitter_with_speech_and_fec() {
    bad_network("speech", &babble(20.0, 2), BROWSER, 150, 1.0);
}

#[test]
fn ten_percent_loss_and_jitter_with_speech_without_fec() {
    let settings = OpusSettings { fec_loss_percent: 0, ..BROWSER };
    bad_network("speech without FEC", &babble(20.0, 3), settings, 0, 3.0);
}

#[test]
fn ten_percent_loss_and_jitter_with_a_tone() {
    bad_network("tone", &tone(600.0, 0.2, 48_000 * 20), BROWSER, 0, 1.0);
}

#[test]
fn a_pause_announced_by_timestamps_is_no_loss() {
    let packets = encode(&babble(10.0, 4), BROWSER);
    let mut programme = programme();
    let id = SourceId(1);
    programme.add_source(id, RTP).unwrap();
    let mut sequence = 0_u64;
    for n in 0..500_u64 {
        // From 2 s to 6 s the sender is silent: one packet every 400 ms tells of it.
        let silent = (100..300).contains(&n);
        let now = at((n + 1) as f64 * 960.0);
        if !silent {
            programme.push_rtp(id, sequence, (n * 960) as u32, &packets[n as usize], now);
            sequence += 1;
        } else if n.is_multiple_of(20) {
            programme.push_rtp(id, sequence, (n * 960) as u32, &packets[0][..1], now);
            sequence += 1;
        }
        programme.tick();
    }
    let stats = programme.stats(id).unwrap();
    println!("{stats:?}");
    assert_eq!((stats.lost, stats.late, stats.concealed_ms, stats.invalid), (0, 0, 0, 0));
    assert!(stats.delay_ms < 60.0);
}

#[test]
fn restarts_jumps_duplicates_and_stalls() {
    let packets = encode(&babble(20.0, 5), BROWSER);
    let mut programme = programme();
    let id = SourceId(1);
    programme.add_source(id, RTP).unwrap();
    programme.set_role(id, ON_STAGE);
    let (mut sequence, mut timestamp) = (7_u64, 0_u32);
    let mut stalled = Vec::new();
    let mut silent = 0;
    for n in 0..3_000_u64 {
        let now = at((n + 1) as f64 * 960.0);
        match n {
            // A new SSRC; a jump of the clock ahead, and back; garbage now and then.
            500 => (sequence, timestamp) = (60_000, 0x9000_0000),
            1_000 => timestamp = timestamp.wrapping_add(90 * 48_000),
            1_500 => timestamp = timestamp.wrapping_sub(3 * 48_000),
            _ => {}
        }
        let packet = &packets[n as usize % packets.len()];
        if (2_000..2_010).contains(&n) {
            // 200 ms of nothing, then all at once: no word is lost.
            stalled.push((sequence, timestamp, packet.clone()));
        } else {
            for (sequence, timestamp, packet) in stalled.drain(..) {
                programme.push_rtp(id, sequence, timestamp, &packet, now);
            }
            programme.push_rtp(id, sequence, timestamp, packet, now);
            programme.push_rtp(id, sequence, timestamp, packet, now);
            if n % 50 == 20 {
                programme.push_rtp(id, n * 77, (n as u32).wrapping_mul(0x1234_5679), packet, now);
                programme.push_rtp(id, sequence, timestamp, &[], now);
                programme.push_rtp(id, sequence, timestamp, &[0xFF, 0xFF, 0xFF], now);
            }
        }
        sequence = sequence.wrapping_add(1);
        timestamp = timestamp.wrapping_add(960);
        let tick = programme.tick();
        if n > 100 && tick.levels[0].level_dbfs < -60.0 {
            silent += 1;
        }
    }
    let stats = programme.stats(id).unwrap();
    println!("{stats:?}, {silent} silent frames");
    assert_eq!(stats.resyncs, 3);
    assert!(stats.duplicate >= 2_900, "{}", stats.duplicate);
    assert!(stats.invalid > 100, "{}", stats.invalid);
    // Each of the three jumps costs the proof (four packets) and the buffer; the stall little more than itself.
    assert!(silent < 40, "{silent}");
    assert!(stats.delay_ms < 250.0, "{}", stats.delay_ms);
}

#[test]
fn pages_of_a_second_arrive_whole() {
    for page in [50, 25, 5, 1] {
        let mut sender = Sender::new(1, OGG, encode(&babble(20.0, 6), OpusSettings::OPUS_48), 0.0);
        sender.page = page;
        sender.jitter = 48.0 * 20.0;
        let mut night = Night::new(programme(), vec![sender]);
        let mut holes = 0;
        for n in 0..50 * 60 {
            let tick = night.tick();
            if n > 50 * 5 && tick.levels[0].level_dbfs < -60.0 {
                holes += 1;
            }
        }
        let stats = night.programme.stats(SourceId(1)).unwrap();
        println!("pages of {page}: {stats:?}");
        assert_eq!((stats.lost, stats.late, stats.resyncs, holes), (0, 0, 0, 0), "pages of {page}");
        let span = page as f32 * 20.0;
        assert!(
            stats.target_ms > span && stats.target_ms < span + 120.0,
            "pages of {page}: {}",
            stats.target_ms
        );
        assert!((stats.delay_ms - stats.target_ms).abs() < 40.0);
    }
}

#[test]
fn an_ogg_source_without_a_clock_is_slowed_not_cut() {
    // A file sent as fast as the socket takes it: the shell reads while there is room.
    let packets = encode(&babble(20.0, 7), OpusSettings::OPUS_48);
    let mut programme = programme();
    let id = SourceId(1);
    programme.add_source(id, OGG).unwrap();
    programme.set_role(id, ON_STAGE);
    let mut sent = 0_u64;
    for n in 0..50 * 40_u64 {
        let now = at((n + 1) as f64 * 960.0);
        while programme.backlog(id) < minassa_programme::Programme::OGG_BACKLOG_MAX {
            for _ in 0..50 {
                let packet = &packets[sent as usize % packets.len()];
                programme.push_ogg(id, sent * 960, packet, now);
                sent += 1;
            }
        }
        programme.tick();
    }
    let stats = programme.stats(id).unwrap();
    println!("{sent} packets, {stats:?}");
    assert_eq!((stats.lost, stats.late, stats.resyncs, stats.concealed_ms), (0, 0, 0, 0));
}

#[test]
fn garbage_costs_bounded_memory_and_no_panic() {
    let mut random = Random(99);
    let real = encode(&babble(5.0, 8), BROWSER);
    let mut programme = programme();
    for (id, kind) in [(SourceId(1), RTP), (SourceId(2), OGG)] {
        programme.add_source(id, kind).unwrap();
    }
    for n in 0..4_000_u64 {
        let now = at((n + 1) as f64 * 960.0);
        for _ in 0..20 {
            let mut payload = real[random.next() as usize % real.len()].to_vec();
            for _ in 0..random.next() % 8 {
                let at = random.next() as usize % payload.len();
                payload[at] = random.next() as u8;
            }
            payload.truncate(1 + random.next() as usize % payload.len());
            programme.push_rtp(SourceId(1), random.next(), random.next() as u32, &payload, now);
            programme.push_rtp(SourceId(1), n, (n * 960 + random.next() % 40_000) as u32, &payload, now);
            programme.push_ogg(SourceId(2), random.next(), &payload, at(random.unit() * 1e12));
        }
        programme.tick();
        assert!(programme.backlog(SourceId(1)).as_secs() <= 1);
        assert!(programme.backlog(SourceId(2)).as_secs() <= 8);
    }
    println!("{:?}\n{:?}", programme.stats(SourceId(1)), programme.stats(SourceId(2)));
}

#[test]
fn packets_of_any_length_and_stereo_are_taken() {
    use ropus::{Application, Bitrate, Channels, Encoder};
    for (channels, length) in [(1, 480), (1, 1_920), (1, 2_880), (2, 960), (2, 2_880)] {
        let layout = if channels == 2 { Channels::Stereo } else { Channels::Mono };
        let mut encoder = Encoder::builder(48_000, layout, Application::Audio)
            .bitrate(Bitrate::Bits(64_000))
            .build()
            .unwrap();
        let mut programme = programme();
        let id = SourceId(1);
        programme.add_source(id, RTP).unwrap();
        programme.set_role(id, ON_STAGE);
        programme.set_layer(minassa_programme::Layer::Stage, None);
        let mut parts = Vec::new();
        let (mut sent, mut sequence) = (0_usize, 0);
        for tick in 0..50 * 12_usize {
            while sent + length <= (tick + 1) * FRAME {
                let pcm: Vec<f32> = (sent..sent + length)
                    .flat_map(|i| {
                        // Left and right are different tones; mono is their sum.
                        let tone =
                            |hz: f64| (i as f64 * hz / 48_000.0 * std::f64::consts::TAU).sin() as f32 * 0.2;
                        let both = [tone(500.0), tone(900.0)];
                        if channels == 2 { both.to_vec() } else { vec![(both[0] + both[1]) / 2.0] }
                    })
                    .collect();
                let mut packet = [0; 1_500];
                let bytes = encoder.encode_float(&pcm, &mut packet).unwrap();
                let arrival = at((sent + length) as f64);
                programme.push_rtp(id, sequence, sent as u32, &packet[..bytes], arrival);
                sequence += 1;
                sent += length;
            }
            programme.tick();
            parts.extend(std::iter::from_fn(|| programme.poll_part()));
        }
        let stats = programme.stats(id).unwrap();
        println!("{channels} channels, {length} samples: {stats:?}");
        assert_eq!((stats.lost, stats.late, stats.invalid, stats.concealed_ms), (0, 0, 0, 0));
        assert!(stats.delay_ms < 20.0 + length as f32 / 48.0 + 30.0);
        let heard = decode_opus(parts.iter().flat_map(|part| &part.opus48));
        let end = &heard[heard.len() - 9_600..];
        let (left, right) = (tone_db(end, 500.0), tone_db(end, 900.0));
        assert!((left - right).abs() < 3.0 && left > -25.0, "{left} and {right}");
    }
}
