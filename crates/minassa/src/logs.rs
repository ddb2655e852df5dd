//! The log: on standard error, each line led by the role that wrote it.
//!
//! Secrets never come here: invitations, tickets and tokens are types or headers that nothing formats.

use std::io::{self, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, ServerConfig};

/// Begins to log. `role` is `supervisor`, `origin`, `control`, `edge-0`…
///
/// # Errors
/// If the directives cannot be read, or something logs already.
pub fn begin(config: &ServerConfig, role: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("server.log")?;
    let writer = Lines { role: role.into(), format: config.log_format };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let begun = match config.log_format {
        // Colours belong to terminals, and a supervised role cannot know whose terminal it is.
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!(error)).context("cannot begin to log")
}

/// Makes writers that put the role in front of each line, or into each object.
struct Lines {
    role: Box<str>,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::with_capacity(256) }
    }
}

/// One line, written at once when complete: several processes share standard error.
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let led = lead(&self.lines.role, self.lines.format, &self.bytes);
        self.bytes.clear();
        io::stderr().write_all(&led)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // Where standard error is gone there is nobody to tell.
        self.flush().ok();
    }
}

fn lead(role: &str, format: LogFormat, line: &[u8]) -> Vec<u8> {
    let mut led = Vec::with_capacity(line.len() + role.len() + 16);
    match (format, line.split_first()) {
        (LogFormat::Json, Some((b'{', rest))) => {
            led.extend_from_slice(format!("{{\"role\":\"{role}\"").as_bytes());
            if rest.first() != Some(&b'}') {
                led.push(b',');
            }
            led.extend_from_slice(rest);
        }
        _ => {
            led.extend_from_slice(format!("{role:<10} ").as_bytes());
            led.extend_from_slice(line);
        }
    }
    led
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_led_by_their_role() {
        let text = lead("edge-0", LogFormat::Text, b"12:00 INFO hello\n");
        assert_eq!(String::from_utf8(text).unwrap(), "edge-0     12:00 INFO hello\n");
        for (line, expected) in
            [(&b"{\"a\":1}\n"[..], "{\"role\":\"origin\",\"a\":1}\n"), (b"{}\n", "{\"role\":\"origin\"}\n")]
        {
            let led = String::from_utf8(lead("origin", LogFormat::Json, line)).unwrap();
            assert_eq!(led, expected);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&led).unwrap()["role"], "origin");
        }
    }
}
