//! `minassa report`: what a ledger says about an event, for people.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use admission::report::{KeyFrom, Report, read};
use anyhow::{Context as _, bail};
use clap::Args;
use rehearse::Trust;
use web::{Language, ReportForm, ReportPage, ReportPhase, report_page};

use crate::client::{is_address, is_https, system_trust};
use crate::verdict::{self, LEDGER_BYTES_MAX, key_of, read_keys};

/// Longest time for getting a ledger from a server.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Flags of the report.
#[derive(Debug, Args)]
pub struct ReportFlags {
    /// The ledger, as published: a file, or an address (`https://…/api/events/{event}/ledger.jsonl`).
    #[arg(value_name = "LEDGER|URL")]
    pub ledger: String,
    /// The publisher's keys (`/.well-known/minassa-keys.json`), as they were pinned. Without them the ledger is checked
    /// against the key that it names itself, and the report says so.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Where to write it [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Language of the page.
    #[arg(long, default_value = "en", value_parser = ["ar", "en"])]
    pub lang: String,
    /// Title of the event, which no ledger knows [default: its name in addresses].
    #[arg(long)]
    pub title: Option<String>,
    /// Make JSON instead of a page.
    #[arg(long, conflicts_with_all = ["lang", "title"])]
    pub json: bool,
}

/// Runs the command. Whether the ledger holds.
///
/// # Errors
/// If the ledger or the keys cannot be read, or the report cannot be written.
pub fn run(flags: &ReportFlags) -> anyhow::Result<bool> {
    let keys = flags.keys.as_deref().map(read_keys).transpose()?;
    let ledger = if is_address(&flags.ledger) {
        fetch(&flags.ledger)?
    } else {
        verdict::read(Path::new(&flags.ledger))?
    };
    let from = if keys.is_some() { KeyFrom::Publisher } else { KeyFrom::Ledger };
    let does_not_hold = |error: &dyn std::fmt::Display| {
        writeln!(io::stderr(), "minassa: {}: does not hold: {error}", flags.ledger).ok();
    };
    // What is no ledger at all has no report; a fault further down is in the report and named here as well.
    let report =
        key_of(&ledger, keys.as_ref()).and_then(|key| read(&ledger, key, from).map_err(anyhow::Error::from));
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            does_not_hold(&format!("{error:#}"));
            return Ok(false);
        }
    };
    let text = if flags.json { report.to_json() } else { page(&report, flags) };
    match &flags.out {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => io::stdout().write_all(text.as_bytes())?,
    }
    if let Some(fault) = &report.integrity.fault {
        does_not_hold(&format!("line {}, at byte {}: {}", fault.line, fault.offset, fault.what));
    }
    Ok(report.integrity.holds)
}

fn page(report: &Report, flags: &ReportFlags) -> String {
    let language = Language::from_tag(&flags.lang).unwrap_or_default();
    // Of a title that was given nothing is known but that whoever gave it reads this language.
    let title = match &flags.title {
        Some(title) => (title.as_str(), language.tag()),
        None => (report.event.as_str(), Language::En.tag()),
    };
    let phase = if report.integrity.closed { ReportPhase::Final } else { ReportPhase::Closing };
    report_page(&ReportPage { title, report, phase }, ReportForm::Alone, language)
}

fn fetch(address: &str) -> anyhow::Result<Vec<u8>> {
    let trust = if is_https(address) { system_trust()? } else { Trust::default() };
    let config =
        ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let agent = trust.agent(config);
    let mut response = agent.get(address).call().with_context(|| format!("cannot reach {address}"))?;
    let status = response.status();
    if !status.is_success() {
        bail!("{address} answers {status}");
    }
    let body = response.body_mut().with_config().limit(LEDGER_BYTES_MAX);
    body.read_to_vec().with_context(|| format!("cannot read {address}"))
}
