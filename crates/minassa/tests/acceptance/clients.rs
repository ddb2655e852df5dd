//! Clients that share nothing with us are heard in the programme: must hold 12.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acceptance::ffmpeg;
use acceptance::server::Server;
use acceptance::signal::{RATE, tone_db};
use anyhow::{Context as _, Result};

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Python environment that `cargo xtask test` makes.
fn venv() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv");
    anyhow::ensure!(
        target.join("bin/python").exists(),
        "target/venv is missing: `cargo xtask test` makes it"
    );
    Ok(target)
}

fn whip_ffmpeg() -> Result<PathBuf> {
    let output = Command::new(venv()?.join("bin/python"))
        .args(["-c", "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"])
        .output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn start(command: &mut Command) -> Result<Running> {
    Ok(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?))
}

/// Level of `hz` and of a frequency nobody sends, in three seconds of the programme as ffmpeg hears it, once it is
/// there.
fn heard(server: &Server, event: &str, hz: f64) -> Result<(f64, f64)> {
    let address = format!("http://{}/live/{event}/opus-48.mp4", server.door("push")?);
    acceptance::wait_for(&format!("{hz} Hz in the programme"), Duration::from_secs(60), || {
        let heard = ffmpeg::listen(&[], &address, 3.0)?.samples;
        let last = &heard[heard.len().saturating_sub(RATE)..];
        let levels = (tone_db(last, hz, 48_000.0), tone_db(last, hz * 1.5, 48_000.0));
        anyhow::ensure!(levels.0 > -40.0 && levels.0 > levels.1 + 25.0, "{levels:?}");
        Ok(Some(levels))
    })
}

#[test]
fn independent_clients_are_heard() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let event = server.create_event(3.0, &[])?;
    let stage = server.door("stage")?;
    let whip = format!("http://{stage}/whip/{}", event.event);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acceptance/clients/whip.py");
    let sine = |hz: u32| format!("sine=frequency={hz}:sample_rate=48000");

    let aiortc = start(Command::new(venv()?.join("bin/python")).arg(script).args([
        &whip,
        &event.speaker_invites[0],
        "700",
        "60",
    ]))?;
    server.wait_state(&event.event, "live", Duration::from_secs(20))?;
    println!("aiortc over WHIP: {:.1?} dB (tone, elsewhere)", heard(&server, &event.event, 700.0)?);
    drop(aiortc);

    let whip_client = start(
        Command::new(whip_ffmpeg()?)
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi", "-i", &sine(900)])
            .args(["-t", "60", "-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "64k"])
            .args(["-f", "whip", "-authorization", &event.speaker_invites[1], &whip]),
    )?;
    println!("ffmpeg over WHIP: {:.1?} dB", heard(&server, &event.event, 900.0)?);
    drop(whip_client);

    for (name, flags, hz) in [("PUT", &[][..], 1_100), ("SOURCE", &["-legacy_icecast", "1"][..], 1_300)] {
        let ingest = format!("icecast://source:{}@{stage}/ingest/{}", event.host_invite, event.event);
        let source = start(
            Command::new("ffmpeg")
                .args([
                    "-nostdin",
                    "-hide_banner",
                    "-loglevel",
                    "error",
                    "-re",
                    "-f",
                    "lavfi",
                    "-i",
                    &sine(hz),
                ])
                .args(["-t", "60", "-c:a", "libopus", "-b:a", "64k", "-content_type", "audio/ogg"])
                .args(flags)
                .args(["-f", "ogg", &ingest]),
        )?;
        println!("ffmpeg over Icecast ({name}): {:.1?} dB", heard(&server, &event.event, f64::from(hz))?);
        drop(source);
    }
    let log = std::fs::read_to_string(server.data().with_extension("log")).context("the server's log")?;
    for secret in event.speaker_invites.iter().chain([&event.host_invite]) {
        assert!(!log.contains(secret.as_str()), "an invitation is in the log");
    }
    Ok(())
}
