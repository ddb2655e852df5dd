//! The announced time is kept: must hold 3.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acceptance::ffmpeg;
use acceptance::server::Server;
use acceptance::signal::{RATE, tone_db};
use acceptance::{hold_delay, quantile, repeats};
use anyhow::{Context as _, Result, ensure};
use model::UnixTime;
use rehearse::{Speaker, SpeakerConfig, Tone};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64() * 1_000.0)
}

/// Reads the pushed stream and returns when (wall clock, ms) the part holding `media_s` seconds since doors was whole.
fn first_live_part(push: &str, event: &str, part: u64) -> Result<f64> {
    let mut line = String::new();
    // Origin has opened its doors; an edge hears of it a moment later.
    let mut reader = acceptance::wait_for("the stream", Duration::from_secs(20), || {
        let mut socket = TcpStream::connect(push)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(socket, "GET /live/{event}/opus-48.mp4 HTTP/1.1\r\nHost: {push}\r\n\r\n")?;
        let mut reader = BufReader::new(socket);
        line.clear();
        reader.read_line(&mut line)?;
        Ok(line.starts_with("HTTP/1.1 200 ").then_some(reader))
    })?;
    while line != "\r\n" {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the answer ended in its head");
    }
    let mut splitter = formats::mp4::StreamSplitter::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        line.clear();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        splitter.push(&chunk[..size]);
        while let Some(item) = splitter.next()? {
            if let formats::mp4::StreamItem::Part(bytes) = item
                && formats::mp4::parse_part(&bytes)?.decode_time.part().get() >= part
            {
                return Ok(now_ms());
            }
        }
    }
    anyhow::bail!("the part did not come")
}

#[test]
fn the_voice_begins_at_the_announced_time() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    for run in 0..repeats(2) {
        let slug = format!("start-{run}");
        let event = server.create_event(8.0, &["--slug", &slug])?;
        let shown: serde_json::Value =
            serde_json::from_str(&server.command(&["event", "show", &slug, "--json"])?)?;
        let starts = UnixTime::parse(shown["starts_at"].as_str().context("starts_at")?)?;
        let starts_ms = starts.as_nanos() as f64 / 1e6;
        // A speaker who talks (a steady 1 kHz) long before and through the announced time.
        let stage = server.door("stage")?;
        let speaker = Speaker::start(SpeakerConfig::new(
            format!("http://{stage}/whip/{slug}"),
            &event.speaker_invites[0],
            Tone { hz: 1_000, peak: 0.25 },
        ))?;
        let push = server.door("push")?;
        server.wait_state(&slug, "doors", Duration::from_secs(20))?;
        let stage = server.stage(&slug)?;
        let doors = UnixTime::parse(stage["doors_at"].as_str().context("doors_at")?)?;
        let media_ms = (starts.as_nanos() - doors.as_nanos()) as f64 / 1e6;
        // The part that holds T, and the first that begins at or after it, are the same when T is on a boundary.
        let part = (media_ms / 480.0).ceil() as u64;
        let arrived = first_live_part(&push, &slug, part)?;
        std::thread::sleep(Duration::from_secs(6));
        let files = server.door("files")?;
        let playlist = ureq::get(&format!("http://{files}/live/{slug}/opus-48.m3u8"))
            .call()?
            .into_body()
            .read_to_string()?;
        let first =
            playlist.lines().find_map(|l| l.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")).context("a date")?;
        let first_ms = UnixTime::parse(first)?.as_nanos() as f64 / 1e6;
        let folder = tempfile::tempdir()?;
        let copy = save_playlist(&playlist, &files, &slug, folder.path())?;
        let heard = ffmpeg::listen(&["-protocol_whitelist", "file,http,tcp,crypto"], &copy, 60.0)?;
        // The tone is told from the slate by its own level in windows of 20 ms.
        let windows: Vec<f64> =
            heard.samples.chunks(RATE / 50).map(|w| tone_db(w, 1_000.0, 48_000.0)).collect();
        let last: Vec<f64> = windows.iter().rev().take(100).copied().collect();
        let steady = quantile(&last, 0.5);
        let onset = windows
            .windows(10)
            .position(|w| w.iter().all(|&level| level > steady - 6.0))
            .context("the voice is never heard")?;
        let begins = first_ms + onset as f64 * 20.0;
        println!(
            "run {run}: voice begins {:+.0} ms from the announced time; first live part {:.0} ms after it",
            begins - starts_ms,
            arrived - starts_ms
        );
        assert!((begins - starts_ms).abs() <= 100.0);
        hold_delay("first live part, ms", arrived - starts_ms, 2_000.0);
        speaker.leave();
        server.command(&["event", "end", &slug])?;
    }
    Ok(())
}

/// A finished copy of the playlist with whole addresses, so that an independent player starts at its first segment
/// (a live one it would join near its end).
fn save_playlist(playlist: &str, files: &str, slug: &str, folder: &std::path::Path) -> Result<String> {
    let base = format!("http://{files}/live/{slug}/");
    let mut text = String::new();
    for line in playlist.lines() {
        if line.starts_with('#') {
            text += &line.replace("URI=\"", &format!("URI=\"{base}"));
        } else if !line.is_empty() {
            text += &base;
            text += line;
        }
        text.push('\n');
    }
    if !text.contains("#EXT-X-ENDLIST") {
        text += "#EXT-X-ENDLIST\n";
    }
    let path = folder.join("copy.m3u8");
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}
