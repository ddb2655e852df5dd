//! The server's share of the delay between two speakers: from the packet that brings a click to the packet that
//! returns it to the other. The other part of must hold 2.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use acceptance::server::Server;
use acceptance::{hold_delay, quantile};
use anyhow::{Result, ensure};
use rehearse::{Click, Heard, Silence, Speaker, SpeakerConfig};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

/// Frames (20 ms) from click to click: no multiple of anything in the server.
const EVERY: u64 = 53;

#[test]
fn the_servers_share_of_the_delay_on_stage() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let event = server.create_event(3.0, &[])?;
    let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
    let heard: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mut listening = SpeakerConfig::new(&whip, &event.speaker_invites[1], Silence);
    let clicks = heard.clone();
    listening.heard = Some(Box::new(move |sound: Heard| {
        let Some(at) = sound.samples.iter().position(|sample| sample.abs() > 0.1) else { return };
        // When the sample would be played by one who plays the packet as it comes.
        let at = sound.at + Duration::from_secs_f64(at as f64 / 48_000.0);
        let mut clicks = clicks.lock().unwrap_or_else(PoisonError::into_inner);
        if clicks.last().is_none_or(|last| at.saturating_duration_since(*last) > Duration::from_millis(200)) {
            clicks.push(at);
        }
    }));
    let other = Speaker::start(listening)?;
    let voice = Click { every: EVERY, hz: 1_000, peak: 0.5 };
    let speaker = Speaker::start(SpeakerConfig::new(&whip, &event.speaker_invites[0], voice))?;
    for one in [&speaker, &other] {
        ensure!(one.wait_connected(Duration::from_secs(10)), "{:?}", one.state());
    }
    server.wait_state(&event.event, "live", Duration::from_secs(20))?;
    std::thread::sleep(Duration::from_secs(30));
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let frame = Duration::from_millis(20);
    let delays: Vec<f64> = heard
        .iter()
        .filter_map(|at| {
            let since = at.checked_duration_since(speaker.started())?;
            let clicks = since.as_nanos() / (frame * EVERY as u32).as_nanos();
            let said = frame * EVERY as u32 * u32::try_from(clicks).ok()?;
            // A frame is sent when it is whole; the click stands at its beginning.
            Some((since - said).as_secs_f64() * 1_000.0 - 20.0)
        })
        .collect();
    println!(
        "the server's share, packet in to packet out: p50 {:.0} ms, p95 {:.0} ms ({} clicks)",
        quantile(&delays, 0.5),
        quantile(&delays, 0.95),
        delays.len()
    );
    assert!(delays.len() >= 20, "{} clicks were heard", delays.len());
    hold_delay("the server's share, ms", quantile(&delays, 0.95), 100.0);
    Ok(())
}
