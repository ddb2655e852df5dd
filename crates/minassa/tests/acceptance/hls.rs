//! Players of HLS on a show on air: ffmpeg, the browser's own, and hls.js with parts.

use std::path::Path;
use std::time::Duration;

use acceptance::browser::{Browser, Options};
use acceptance::server::Server;
use acceptance::{ffmpeg, hold_delay, quantile, repeats, site};
use anyhow::{Context as _, Result, ensure};
use rehearse::{Clip, Speaker, SpeakerConfig};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

/// Seconds for which is listened: five minutes in the long trials.
fn seconds() -> u64 {
    (repeats(1) as u64 * 20).min(300)
}

/// A show on air with a built-in voice.
fn show() -> Result<(Server, String, Speaker)> {
    let server = Server::start(BINARY, 1)?;
    let event = server.create_event(1.0, &[])?;
    let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
    let voice = Clip::decode(include_bytes!("../../assets/voice-en.opus"))?;
    let speaker = Speaker::start(SpeakerConfig::new(&whip, &event.speaker_invites[0], voice))?;
    ensure!(speaker.wait_connected(Duration::from_secs(15)), "{:?}", speaker.state());
    server.wait_state(&event.event, "live", Duration::from_secs(20))?;
    Ok((server, event.event, speaker))
}

fn page() -> Result<String> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/npm/node_modules/hls.js/dist/hls.min.js");
    let script = std::fs::read(script).context("hls.js is needed: `cargo xtask npm` installs it")?;
    let html = "<!doctype html><title>players</title><script src=/hls.js></script>";
    site::serve(vec![
        ("/", "text/html", html.into()),
        ("/hls.js", "text/javascript", script),
        ("/player.js", "text/javascript", include_bytes!("hls/player.js").to_vec()),
    ])
}

#[test]
fn players_play_without_a_stall_and_those_of_parts_close_behind() -> Result<()> {
    let (server, event, _speaker) = show()?;
    let files = format!("http://{}/live/{event}", server.door("files")?);
    // Players of whole segments begin three of them from the end.
    std::thread::sleep(Duration::from_secs(13));
    let length = seconds();
    let heard = ["opus-48", "mp3-64"].map(|rendition| {
        let address = format!("{files}/{rendition}.m3u8");
        std::thread::spawn(move || (rendition, ffmpeg::listen(&[], &address, length as f64)))
    });

    let mut browser = Browser::open(&page()?, &Options::default())?;
    browser.eval("(async () => { window.player = await import('/player.js') })()")?;
    let low = "{ lowLatencyMode: true }";
    let players = [
        ("hls.js", "index", low),
        ("hls.js, opus-24", "opus-24", low),
        // It cannot play parts of bare MP3 frames, whoever serves them: up to 1.7.4 it puts all but the first of a
        // segment at the beginning of its timeline.
        ("hls.js, mp3-64, whole segments", "mp3-64", "{ lowLatencyMode: false }"),
        ("hls.js, opus-48, whole segments", "opus-48", "{ lowLatencyMode: false }"),
        // It refuses packed MP3, whoever serves it.
        ("Chromium", "index", "null"),
    ];
    // A browser has six connections for all of a host (HTTP/1.1), and each player of parts holds two: the others have a host
    // of their own, or they would wait for one another.
    let others = files.replace("127.0.0.1", "localhost");
    for (name, playlist, settings) in players {
        let files = if settings == low { &files } else { &others };
        browser.eval(&format!("player.play({name:?}, '{files}/{playlist}.m3u8', {settings})"))?;
        browser.wait(&format!("player.plays({name:?})"), Duration::from_secs(20)).context(name)?;
    }
    // How they find their place is their affair.
    std::thread::sleep(Duration::from_secs(5));
    for (name, ..) in players {
        browser.eval(&format!("player.begin({name:?})"))?;
    }
    std::thread::sleep(Duration::from_secs(length));
    for (name, _, settings) in players {
        let told = browser.eval(&format!("player.told({name:?})"))?;
        let number = |key: &str| told[key].as_f64().unwrap_or(f64::NAN);
        let behind: Vec<f64> =
            told["behind"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        println!(
            "{name}: played {:.1} s in {:.1} s, still for {:.0} ms at most, {} parts and {} segments{}",
            number("played"),
            number("elapsed"),
            number("still"),
            told["parts"],
            told["segments"],
            if behind.is_empty() {
                String::new()
            } else {
                let (median, most) = (quantile(&behind, 0.5), quantile(&behind, 1.0));
                format!("; behind the wall clock {median:.2} s (median), {most:.2} s at most")
            },
        );
        for account in ["waits", "seeks", "errors"] {
            assert_eq!(told[account], Value::Array(Vec::new()), "{name}: {account}");
        }
        hold_delay(&format!("{name} stood still, s"), number("still") / 1_000.0, 0.25);
        assert!((number("played") - number("elapsed")).abs() < 0.5, "{name} plays as time goes");
        if settings == low {
            hold_delay(&format!("{name} behind live, s"), quantile(&behind, 1.0), 4.0);
            assert!(told["parts"].as_u64() > told["segments"].as_u64(), "{name} plays parts");
        }
    }
    for heard in heard {
        let (rendition, heard) = heard.join().expect("a player");
        let heard = heard?;
        println!("ffmpeg {rendition}: {:.1} s", heard.samples.len() as f64 / 48_000.0);
        assert!(heard.warnings.is_empty(), "{rendition}: {:?}", heard.warnings);
    }
    Ok(())
}
