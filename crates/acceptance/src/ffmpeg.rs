//! Debian's ffmpeg as an independent player.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// What ffmpeg heard, and what it said.
#[derive(Debug)]
pub struct Heard {
    /// Decoded mono samples at 48 kHz.
    pub samples: Vec<f32>,
    /// Its warnings and errors, a line each, without those that say nothing about the stream.
    pub warnings: Vec<String>,
}

/// Lets ffmpeg read `input` (a file or an address) for at most `seconds` and decodes it; `before` are options of the
/// input.
///
/// # Errors
/// If ffmpeg is not installed or fails.
pub fn listen(before: &[&str], input: &str, seconds: f64) -> Result<Heard> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "repeat+warning"])
        .args(before)
        .args(["-i", input, "-t", &seconds.to_string(), "-ac", "1", "-ar", "48000", "-f", "f32le", "-"])
        .stdin(Stdio::null())
        .output()
        .context("ffmpeg is needed: `cargo xtask test` installs it")?;
    let warnings: Vec<String> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !harmless(line))
        .collect();
    ensure!(output.status.success(), "ffmpeg on {input}: {}: {}", output.status, warnings.join("; "));
    let samples =
        output.stdout.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Heard { samples, warnings })
}

/// Lines that ffmpeg prints about itself rather than about the stream.
fn harmless(line: &str) -> bool {
    // It reads the same init section again for every fMP4 HLS playlist it opens.
    line.contains("Found duplicated MOOV Atom. Skipped it")
        // Asked to guess the layout of a single channel, it says that it did.
        || line.contains("Guessed Channel Layout")
}
