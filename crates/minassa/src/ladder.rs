//! `ladder`: what the ladder has in force and would do by itself, a level pinned, a cap set.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::ServerChoice;
use crate::client::{Client, print};

/// The highest level.
const LEVEL_MAX: u64 = 6;

/// Flags of `ladder`. Without a change it shows how things are.
#[derive(Debug, Args)]
pub struct LadderFlags {
    /// Keep this level, 0 to 6, whatever is scarce; `none` lets the ladder decide again.
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub pin: Option<Change>,
    /// Let no more than so many listen live; `none` takes that back.
    #[arg(long, value_name = "LISTENERS", value_parser = parse_cap)]
    pub cap: Option<Change>,
    /// The server.
    #[command(flatten)]
    pub server: ServerChoice,
}

/// A new value, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// No value from now on.
    None,
    /// This one.
    To(u64),
}

fn parse_level(text: &str) -> Result<Change, String> {
    match parse_cap(text)? {
        Change::To(level) if level > LEVEL_MAX => {
            Err(format!("{level} is no level: 0 to {LEVEL_MAX}, or none"))
        }
        change => Ok(change),
    }
}

fn parse_cap(text: &str) -> Result<Change, String> {
    match text {
        "none" => Ok(Change::None),
        number => number.parse().map(Change::To).map_err(|_| "a number or none is expected".to_owned()),
    }
}

/// Shows or changes it.
///
/// # Errors
/// If the server cannot be found or reached, or refuses.
pub fn run(flags: &LadderFlags) -> anyhow::Result<()> {
    let mut body = Map::new();
    for (key, change) in [("pin", flags.pin), ("cap", flags.cap)] {
        let value = change.map(|change| match change {
            Change::None => Value::Null,
            Change::To(number) => number.into(),
        });
        body.extend(value.map(|value| (key.to_owned(), value)));
    }
    let client = Client::find(&flags.server)?;
    let answer = if body.is_empty() {
        client.control("GET", "/api/ladder", None)?
    } else {
        client.control("PATCH", "/api/ladder", Some(&Value::Object(body)))?
    };
    print(&mut io::stdout().lock(), flags.server.json, &answer, words)
}

fn words(ladder: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    writeln!(out, "level {} of {LEVEL_MAX}: {}", ladder["level"], text(&ladder["sentence"]["en"]))?;
    writeln!(
        out,
        "  by itself {}; pinned {}; cap {}",
        ladder["would"],
        text(&ladder["pin"]),
        text(&ladder["cap"])
    )?;
    writeln!(out, "  {} listen; scarcest: {}", ladder["listeners"], text(&ladder["binding"]))?;
    for edge in ladder["edges"].as_array().into_iter().flatten() {
        let state = if edge["alive"] == true { "" } else { ", silent" };
        write!(
            out,
            "  {}: level {}, {} of {}{state};",
            text(&edge["edge"]),
            edge["level"],
            edge["listeners"],
            edge["listeners_max"]
        )?;
        for (resource, used) in edge["pressures"].as_object().into_iter().flatten() {
            write!(out, " {resource} {:.0} %", 100.0 * used.as_f64().unwrap_or(0.0))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels_and_caps_are_read() {
        assert_eq!([parse_level("0"), parse_level("6")], [Ok(Change::To(0)), Ok(Change::To(6))]);
        assert_eq!([parse_level("none"), parse_cap("none")], [Ok(Change::None), Ok(Change::None)]);
        assert_eq!(parse_cap("8000000"), Ok(Change::To(8_000_000)));
        for wrong in ["7", "-1", "L4", ""] {
            assert!(parse_level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_shown_in_words() {
        let ladder = json!({
            "level": 4, "would": 0, "sentence": { "en": "Newcomers wait." }, "pin": 4, "cap": null, "listeners": 7,
            "binding": null,
            "edges": [{ "edge": "edge-0", "alive": false, "level": 4, "listeners": 7, "listeners_max": 10,
                "pressures": { "files": 0.125 } }],
        });
        let mut out = Vec::new();
        words(&ladder, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "level 4 of 6: Newcomers wait.\n  by itself 0; pinned 4; cap none\n  7 listen; scarcest: none\n  \
             edge-0: level 4, 7 of 10, silent; files 12 %\n"
        );
    }
}
