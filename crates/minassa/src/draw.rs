//! `minassa draw`: holds a published draw again.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use admission::ledger::check;
use admission::room::{Commitment, Draw, DrawError, DrawPage, DrawRecord, PrefixTag, TokenId, verify_draw};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use model::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::verdict::{key_of, read, read_keys};

/// What to do with draws.
#[derive(Debug, Subcommand)]
pub enum DrawCommand {
    /// Hold a draw again from what was published of it. Exits with 1 if anything does not agree, and says what.
    Check(CheckFlags),
}

/// Flags of the check.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// The draw: `/api/events/{event}/draw/record.json`.
    #[arg(value_name = "RECORD")]
    pub record: PathBuf,
    /// What was published beforehand, kept from before doors: `draw/commitment.json`.
    #[arg(long, value_name = "FILE")]
    pub commitment: PathBuf,
    /// What pages were given: `draw/page.json`.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// The event's ledger, whose head the draw mixed in: it must be one that the ledger had.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// The publisher's keys (`/.well-known/minassa-keys.json`), to check the ledger with.
    #[arg(long, value_name = "FILE", requires = "ledger")]
    pub keys: Option<PathBuf>,
    /// A token, as its holder was answered: identity and group of networks. Prints its rank.
    #[arg(long, value_name = "ID:TAG", value_parser = read_token)]
    pub token: Vec<(TokenId, PrefixTag)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Deserialize)]
struct Committed {
    commitment: Commitment,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    event: String,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    /// Everybody who took part.
    tokens: u64,
    /// Whether the head that was mixed in was looked for in a ledger, and found.
    head_known: bool,
    ranks: Vec<Drawn>,
}

#[derive(Serialize)]
struct Drawn {
    id: String,
    rank: u64,
    /// How many are before it, on average over all draws.
    place: u64,
}

/// Runs the command. Whether everything held.
///
/// # Errors
/// If a file cannot be read, or is none of its kind.
pub fn run(command: &DrawCommand) -> anyhow::Result<bool> {
    let DrawCommand::Check(flags) = command;
    let record: DrawRecord = parse(&flags.record)?;
    let Committed { commitment } = parse(&flags.commitment)?;
    let draw = Draw::from(record.clone());
    let page = flags.page.as_deref().map(parse::<DrawPage>).transpose()?.unwrap_or_else(|| draw.page());
    let agrees = verify_draw(&record, &page, &commitment, &record.ledger_head, &[]);
    let mut fault = agrees.err().map(|error| error.to_string());
    if fault.is_none()
        && let Some(path) = &flags.ledger
    {
        let ledger = read(path)?;
        let keys = flags.keys.as_deref().map(read_keys).transpose()?;
        let witnesses = [Digest(record.ledger_head.0)];
        let held = key_of(&ledger, keys.as_ref())
            .and_then(|key| check(&ledger, &key, &witnesses).map_err(anyhow::Error::from));
        fault = match held {
            Ok(checked) if checked.opening.draw.is_some_and(|draw| draw != commitment) => {
                Some(DrawError::Commitment.to_string())
            }
            Ok(checked) if checked.opening.event() == record.event.as_str() => None,
            Ok(_) => Some(DrawError::LedgerHead.to_string()),
            Err(error) => Some(format!("{error:#}")),
        };
    }
    let drawn = |&(id, tag): &(TokenId, PrefixTag)| {
        let rank = draw.rank(id, tag);
        Drawn { id: URL_SAFE_NO_PAD.encode(id.0), rank: rank.0, place: draw.curve().place(rank) }
    };
    let report = Report {
        event: record.event.to_string(),
        holds: fault.is_none(),
        fault,
        tokens: record.table.tokens(),
        head_known: flags.ledger.is_some(),
        ranks: flags.token.iter().map(drawn).collect(),
    };
    let mut out = io::stdout().lock();
    if flags.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        return Ok(report.holds);
    }
    match &report.fault {
        Some(fault) => writeln!(out, "the draw of {} does not hold: {fault}", report.event)?,
        None => writeln!(out, "the draw of {} holds; {} took part", report.event, report.tokens)?,
    }
    if report.holds && !report.head_known {
        writeln!(
            out,
            "  the head of the ledger that it mixed in is as the record says: give --ledger to look"
        )?;
    }
    for Drawn { id, rank, place } in &report.ranks {
        writeln!(out, "  {id}: rank {rank}, about {place} before it")?;
    }
    Ok(report.holds)
}

fn parse<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = read(path)?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not what it should be", path.display()))
}

fn read_token(text: &str) -> Result<(TokenId, PrefixTag), String> {
    let parts = || {
        let (id, tag) = text.split_once(':')?;
        let id = URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?;
        Some((TokenId(id), PrefixTag::new(tag.parse().ok()?)?))
    };
    parts().ok_or_else(|| "22 letters of base64url, a colon and a number, as a page was answered".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::room::{LedgerHead, Seed, Table};
    use std::path::Path;

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_draw_is_held_again_or_something_does_not_agree() {
        let directory = tempfile::tempdir().unwrap();
        let tag = |n| PrefixTag::new(n).unwrap();
        let record = DrawRecord {
            event: "talk".parse().unwrap(),
            seed: Seed([3; 32]),
            ledger_head: LedgerHead([0; 32]),
            table: Table::new(64, 500, vec![(tag(9), 4_000)]).unwrap(),
        };
        let commitment = record.seed.commitment(&record.event, 64);
        let committed =
            format!(r#"{{"commitment":{},"held":false}}"#, serde_json::to_string(&commitment).unwrap());
        let other = record.seed.commitment(&record.event, 65);
        let other = format!(r#"{{"commitment":{}}}"#, serde_json::to_string(&other).unwrap());
        let here = directory.path();
        let page = serde_json::to_string(&Draw::from(record.clone()).page()).unwrap();
        let flags = |commitment: &str| CheckFlags {
            record: write(here, "record.json", &serde_json::to_string(&record).unwrap()),
            commitment: write(here, "commitment.json", commitment),
            page: Some(write(here, "page.json", &page)),
            ledger: None,
            keys: None,
            token: vec![(TokenId([1; 16]), tag(9))],
            json: true,
        };
        assert!(run(&DrawCommand::Check(flags(&committed))).unwrap());
        assert!(!run(&DrawCommand::Check(flags(&other))).unwrap());
        let no_ledger = write(here, "ledger.jsonl", "nonsense\n");
        let with_ledger = CheckFlags { ledger: Some(no_ledger), ..flags(&committed) };
        assert!(!run(&DrawCommand::Check(with_ledger)).unwrap());
        assert!(run(&DrawCommand::Check(flags("{}"))).is_err());
    }

    #[test]
    fn tokens_are_written_as_they_were_answered() {
        let id = URL_SAFE_NO_PAD.encode([7; 16]);
        assert_eq!(read_token(&format!("{id}:12")), Ok((TokenId([7; 16]), PrefixTag::new(12).unwrap())));
        for bad in ["", "x:1", &id, &format!("{id}:"), &format!("{id}:99999999999")] {
            assert!(read_token(bad).is_err(), "{bad}");
        }
    }
}
