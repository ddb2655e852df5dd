//! `minassa verdict`: checks ledgers that somebody published, and says again what they say.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use admission::ledger::{Checked, Opening, check};
use admission::verdict::{CONFIDENT, Reason, Verdict, judge};
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use ed25519_dalek::VerifyingKey;
use model::{Digest, UnixTime};
use serde::{Deserialize, Serialize};

/// Largest ledger that is read: a week of bins and more.
pub(crate) const LEDGER_BYTES_MAX: u64 = 1 << 31;

/// What to do with ledgers.
#[derive(Debug, Subcommand)]
pub enum VerdictCommand {
    /// Check ledgers, line by line, and recompute their verdicts. Exits with 1 if one does not hold, and says where.
    Check(CheckFlags),
}

/// Flags of the check.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// Ledgers: `ledger/{event}.jsonl`, as published.
    #[arg(required = true, value_name = "LEDGER")]
    pub ledgers: Vec<PathBuf>,
    /// The publisher's keys (`/.well-known/minassa-keys.json`), as they were pinned. Without them a ledger is checked
    /// against the key that it names itself: then it is whole, but not known to be the publisher's.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// A head of the ledger that a listener found in the signature of a segment, 64 hexadecimal digits. It must be in
    /// the ledger.
    #[arg(long, value_name = "HEX")]
    pub witness: Vec<String>,
    /// Print JSON: a line a ledger, with every verdict.
    #[arg(long)]
    pub json: bool,
}

/// What is published about keys, as far as it matters here.
#[derive(Deserialize)]
struct PublishedKeys {
    events: Vec<EventKey>,
}

#[derive(Deserialize)]
struct EventKey {
    event: String,
    public_key: String,
}

/// What was found, for programs.
#[derive(Serialize)]
struct Report<'a> {
    ledger: String,
    holds: bool,
    /// Whether the key is one that was given, rather than the ledger's own.
    key_known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_bins: Option<u64>,
    verdicts: &'a [Verdict],
}

/// Runs the command. Whether everything held.
///
/// # Errors
/// If a file cannot be read, or a key or a witness is none.
pub fn run(command: &VerdictCommand) -> anyhow::Result<bool> {
    let VerdictCommand::Check(flags) = command;
    let keys = flags.keys.as_deref().map(read_keys).transpose()?;
    let witnesses =
        flags.witness.iter().map(|text| read_witness(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut all_hold = true;
    for path in &flags.ledgers {
        all_hold &= check_one(path, keys.as_ref(), &witnesses, flags.json)?;
    }
    Ok(all_hold)
}

fn check_one(
    path: &Path,
    keys: Option<&BTreeMap<String, VerifyingKey>>,
    witnesses: &[Digest],
    json: bool,
) -> anyhow::Result<bool> {
    let bytes = read(path)?;
    let named = path.display().to_string();
    let checked =
        key_of(&bytes, keys).and_then(|key| check(&bytes, &key, witnesses).map_err(anyhow::Error::from));
    let mut out = io::stdout().lock();
    match checked {
        Ok(Checked { summary, opening, bins }) => {
            let verdicts = judge(&opening, &bins);
            let missing: u64 = summary.gaps.iter().map(|gap| gap.bins).sum();
            if json {
                let report = Report {
                    ledger: named,
                    holds: true,
                    key_known: keys.is_some(),
                    fault: None,
                    event: Some(opening.event()),
                    lines: Some(summary.lines),
                    head: Some(summary.head.to_string()),
                    closed: Some(summary.closed),
                    missing_bins: Some(missing),
                    verdicts: &verdicts,
                };
                writeln!(out, "{}", serde_json::to_string(&report)?)?;
            } else {
                writeln!(out, "{named}: holds; event {}, {} bins", opening.event(), bins.len())?;
                let key = if keys.is_some() {
                    "the publisher's"
                } else {
                    "the ledger's own: pin the publisher's with --keys"
                };
                writeln!(out, "  key       {key}")?;
                let end =
                    if summary.closed { "closed" } else { "not closed: lines may be missing at its end" };
                writeln!(out, "  head      {} ({end})", summary.head)?;
                if missing > 0 {
                    writeln!(
                        out,
                        "  missing   {missing} bins, in {} places, admitted by the ledger",
                        summary.gaps.len()
                    )?;
                }
                tell(&mut out, &opening, &verdicts)?;
            }
            Ok(true)
        }
        Err(fault) => {
            if json {
                let report = Report {
                    ledger: named,
                    holds: false,
                    key_known: keys.is_some(),
                    fault: Some(format!("{fault:#}")),
                    event: None,
                    lines: None,
                    head: None,
                    closed: None,
                    missing_bins: None,
                    verdicts: &[],
                };
                writeln!(out, "{}", serde_json::to_string(&report)?)?;
            } else {
                writeln!(out, "{named}: does not hold: {fault:#}")?;
            }
            Ok(false)
        }
    }
}

/// Verdicts of the same class, one after the other, as one line.
fn tell(out: &mut impl io::Write, opening: &Opening, verdicts: &[Verdict]) -> io::Result<()> {
    let start = UnixTime::from_millis(i64::try_from(opening.announced_ms).unwrap_or(i64::MAX));
    writeln!(out, "  announced {start}")?;
    for run in verdicts.chunk_by(|a, b| a.class == b.class) {
        let Some((first, last)) = run.first().zip(run.last()) else { continue };
        let time = |ms: u64| UnixTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        let most = run.iter().map(|verdict| verdict.confidence_bp).max().unwrap_or(0);
        let degree = if most >= CONFIDENT { "" } else { ", not to be relied on" };
        writeln!(
            out,
            "  {} to {}  {}, confidence up to {}.{:02} %{degree}",
            time(first.at_ms.as_millis()),
            time(last.at_ms.next().as_millis()),
            first.class,
            most / 100,
            most % 100,
        )?;
        let strongest = run.iter().max_by_key(|verdict| verdict.confidence_bp).unwrap_or(first);
        for Reason { feature, value, threshold, direction, .. } in &strongest.reasons {
            let name = serde_json::to_value(feature).ok();
            let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
            let side = match direction {
                admission::verdict::Direction::Above => "at or above",
                admission::verdict::Direction::Below => "below",
            };
            writeln!(out, "      {name}: {value}, {side} {threshold}")?;
        }
    }
    Ok(())
}

pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(named)?.len();
    if length > LEDGER_BYTES_MAX {
        bail!("{} has {length} bytes; a ledger has at most {LEDGER_BYTES_MAX}", path.display());
    }
    fs::read(path).with_context(named)
}

pub(crate) fn read_keys(path: &Path) -> anyhow::Result<BTreeMap<String, VerifyingKey>> {
    let published: PublishedKeys = serde_json::from_slice(&read(path)?)
        .with_context(|| format!("{} is no list of published keys", path.display()))?;
    let key = |EventKey { event, public_key }: EventKey| {
        let key = decode_key(&URL_SAFE_NO_PAD.decode(&public_key).unwrap_or_default());
        Ok((event.clone(), key.with_context(|| format!("the key of {event} is none: {public_key:?}"))?))
    };
    published.events.into_iter().map(key).collect()
}

fn decode_key(bytes: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()
}

fn read_witness(text: &str) -> anyhow::Result<Digest> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    Ok(Digest(bytes.with_context(|| format!("--witness {text:?} is not 64 hexadecimal digits"))?))
}

/// The key that a ledger is to be checked against: the one given for its event, or the one it names.
pub(crate) fn key_of(
    ledger: &[u8],
    keys: Option<&BTreeMap<String, VerifyingKey>>,
) -> anyhow::Result<VerifyingKey> {
    #[derive(Deserialize)]
    struct First {
        open: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        event: String,
        key: String,
    }
    let line = ledger.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let First { open } = serde_json::from_slice(line).context("line 1 opens no ledger")?;
    match keys {
        Some(keys) => {
            keys.get(&open.event).copied().with_context(|| format!("no key of {:?} is known", open.event))
        }
        None => {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let bytes: Option<Vec<u8>> = open.key.as_bytes().chunks(2).map(byte).collect();
            bytes.and_then(|bytes| decode_key(&bytes)).context("line 1 names no key")
        }
    }
}
