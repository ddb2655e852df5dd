//! The recording as anybody downloads it, looked at part by part.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use formats::mp4::{StreamItem, StreamSplitter};
use model::{PART_DURATION, PartKind, PartNumber};
use packager::verify::FoundPart;
use rehearse::Trust;

/// Longest download.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was found in it.
#[derive(Debug)]
pub(super) struct Recording {
    /// Bytes downloaded.
    pub(super) bytes: u64,
    /// Its first part.
    pub(super) first: PartNumber,
    /// Its last part.
    pub(super) last: PartNumber,
    /// Parts in it.
    pub(super) parts: u64,
    /// Parts that are silence in place of ones never made.
    pub(super) gaps: u64,
}

impl Recording {
    pub(super) fn duration(&self) -> Duration {
        Duration::from_millis(self.parts.saturating_mul(PART_DURATION.as_millis() as u64))
    }

    /// Whether no part is missing.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let expected = self.last.get() - self.first.get() + 1;
        if self.parts != expected {
            bail!("the recording has {} of {expected} parts: {}", self.parts, self.describe());
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let seconds = self.duration().as_secs();
        let gaps = match self.gaps {
            0 => "no gap".to_owned(),
            1 => "1 gap".to_owned(),
            more => format!("{more} gaps"),
        };
        format!(
            "The recording is complete: {} min {:02} s, parts {} to {}, {gaps}, {:.1} MB.",
            seconds / 60,
            seconds % 60,
            self.first,
            self.last,
            self.bytes as f64 / 1e6
        )
    }
}

/// Downloads and reads it.
pub(super) fn download(url: &str, trust: &Trust) -> anyhow::Result<Recording> {
    let agent = trust.agent(ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build());
    let answer = agent.get(url).call().with_context(|| format!("cannot download {url}"))?;
    let mut body = answer.into_body().into_reader();
    let mut splitter = StreamSplitter::new();
    let (mut first, mut last) = (None, PartNumber::ZERO);
    let (mut bytes, mut parts, mut gaps) = (0, 0, 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = body.read(&mut buffer).context("the download broke off")?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        splitter.push(&buffer[..count]);
        while let Some(item) = splitter.next().context("the recording cannot be read")? {
            let StreamItem::Part(part) = item else { continue };
            let (found, _records) = FoundPart::read_cmaf(&part).context("a part cannot be read")?;
            if first.is_some() && found.number != last.next() {
                bail!("part {} follows part {last}", found.number);
            }
            first.get_or_insert(found.number);
            last = found.number;
            parts += 1;
            gaps += u64::from(found.kind == Some(PartKind::Gap));
        }
    }
    let first = first.context("the recording is empty")?;
    Ok(Recording { bytes, first, last, parts, gaps })
}
