//! Debian's ffmpeg as an independent reader.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Decodes a file to 48 kHz mono. Fails on any warning.
pub(crate) fn decode_file(path: &Path, options: &[&str]) -> Vec<f32> {
    let mut command = ffmpeg(options);
    command.arg("-i").arg(path);
    pcm(finish(to_pcm(&mut command).stdin(Stdio::null()).spawn(), &[]))
}

/// Decodes a stream that comes through a pipe, as a player of the pushed stream reads it. Fails on any warning.
pub(crate) fn decode_pipe(stream: &[u8], options: &[&str]) -> Vec<f32> {
    let mut command = ffmpeg(options);
    command.args(["-i", "pipe:0"]);
    pcm(finish(to_pcm(&mut command).stdin(Stdio::piped()).spawn(), stream))
}

/// What `ffprobe` says of the first stream in a file: `key=value` lines.
pub(crate) fn probe(path: &Path, entries: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "warning", "-show_entries", entries, "-of", "default=noprint_wrappers=1"]).arg(path);
    let output =
        finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn(), &[]);
    String::from_utf8(output).unwrap()
}

fn ffmpeg(options: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-v", "warning"]).args(options);
    command
}

fn to_pcm(command: &mut Command) -> &mut Command {
    let pcm = ["-f", "f32le", "-ac", "1", "-ar", "48000", "pipe:1"];
    command.args(pcm).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Feeds a command its input and returns its output.
fn finish(child: std::io::Result<std::process::Child>, input: &[u8]) -> Vec<u8> {
    let mut child = child.unwrap_or_else(|error| {
        panic!("these tests need ffmpeg and ffprobe (on Debian: apt-get install ffmpeg), but they did not start: {error}")
    });
    let stdin = child.stdin.take();
    let Output { status, stdout, stderr } = std::thread::scope(|scope| {
        // It may stop reading before the end; what it says about that is checked below.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success() && said.trim().is_empty(), "{status}: {said}");
    stdout
}

fn pcm(bytes: Vec<u8>) -> Vec<f32> {
    bytes.chunks_exact(4).map(|sample| f32::from_le_bytes(sample.try_into().unwrap())).collect()
}

/// Without this the tests that hold nothing but silence would prove little. It also says why `init` is sent once.
#[test]
#[should_panic(expected = "duplicated MOOV")]
fn warnings_fail() {
    decode_pipe(&minassa_formats::mp4::opus_init().repeat(2), &[]);
}
