//! `minassa report` as a person runs it: files, keys, what it says about a ledger that does not hold.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use admission::ledger::{BIN_MS, BinStart, Closing, Entry, Head, Mark, Merger, Opening, ProcessBin, append};
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// A ledger of two minutes.
fn ledger() -> Result<String> {
    let opening = Opening::new(&"talk".parse()?, &key().verifying_key(), 0, 60_000, None);
    let mut entries = vec![Entry::Open(Box::new(opening))];
    let mut merger = Merger::new();
    for number in 0..12 {
        let start = BinStart::try_from(number * BIN_MS)?;
        let mut bin = ProcessBin::new(start, 0, 0);
        bin.counts.audio.listeners = 100 * number;
        if number == 6 {
            bin.mark(Mark::Live, 20);
        }
        entries.push(Entry::Bin(Box::new(merger.merge(start, 1, &[bin]))));
    }
    entries.push(Entry::Close(Closing { closed_ms: 130_000 }));
    let (mut text, mut head) = (String::new(), Head::EMPTY);
    for entry in &entries {
        let (line, next) = append(&head, entry, &key())?;
        text.push_str(&line);
        text.push('\n');
        head = next;
    }
    Ok(text)
}

fn report(directory: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(BINARY)
        .arg("report")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()?)
}

#[track_caller]
fn text(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_report_is_made_from_a_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    std::fs::write(at.join("talk.jsonl"), ledger()?)?;
    let public = URL_SAFE_NO_PAD.encode(key().verifying_key().as_bytes());
    let keys = serde_json::json!({ "events": [{ "event": "talk", "public_key": public }] });
    std::fs::write(at.join("keys.json"), keys.to_string())?;

    let json = text(&report(at, &["talk.jsonl", "--keys", "keys.json", "--json"])?, 0);
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(json["event"], "talk");
    assert_eq!(json["integrity"]["key"], "publisher");
    assert_eq!(json["peaks"]["listening"]["value"], 1_100);
    assert_eq!(json["late_ms"], 20);

    let page = text(&report(at, &["talk.jsonl", "--title", "A <b>talk</b>"])?, 0);
    assert!(page.contains("Incident report") && page.contains("A &lt;b&gt;talk"));
    assert!(page.contains("not known to be the publisher") && page.contains("<style>"));
    assert!(!page.contains("<script") && !page.contains("/assets/"));

    let out = report(at, &["talk.jsonl", "--keys", "keys.json", "--lang", "ar", "--out", "report.html"])?;
    assert_eq!(text(&out, 0), "");
    assert!(std::fs::read_to_string(at.join("report.html"))?.contains("<html lang=\"ar\" dir=\"rtl\">"));
    Ok(())
}

#[test]
fn what_does_not_hold_is_said_with_its_place() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let whole = ledger()?;
    let changed = whole.replacen("\"listeners\":500", "\"listeners\":501", 1);
    assert_ne!(whole, changed);
    std::fs::write(at.join("changed.jsonl"), changed)?;
    let output = report(at, &["changed.jsonl"])?;
    let page = text(&output, 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("does not hold") && said.contains("line 7"), "{said}");
    assert!(page.contains("does not hold. Line <bdi>7</bdi>"));
    let json: Value = serde_json::from_str(&text(&report(at, &["changed.jsonl", "--json"])?, 1))?;
    assert_eq!(json["integrity"]["fault"]["line"], 7);
    assert_eq!(json["totals"]["bins"], 5);

    std::fs::write(at.join("none.jsonl"), "nothing\n")?;
    let output = report(at, &["none.jsonl"])?;
    assert_eq!(text(&output, 1), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not hold"));
    let other = serde_json::json!({ "events": [{ "event": "other", "public_key": "AAAA" }] });
    std::fs::write(at.join("other.json"), other.to_string())?;
    text(&report(at, &["changed.jsonl", "--keys", "other.json"])?, 1);
    text(&report(at, &["missing.jsonl"])?, 1);
    for usage in [&[][..], &["a", "b"], &["a", "--lang", "fr"], &["a", "--json", "--lang", "ar"]] {
        text(&report(at, usage)?, 2);
    }
    Ok(())
}

#[test]
fn a_ledger_is_fetched_from_its_address() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}/api/events/talk/ledger.jsonl", listener.local_addr()?);
    let body = ledger()?;
    let serving = std::thread::spawn(move || -> std::io::Result<()> {
        for status in ["200 OK", "404 Not Found"] {
            let (mut connection, _) = listener.accept()?;
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte)? > 0 {
                head.push(byte[0]);
            }
            write!(connection, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
            write!(connection, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        }
        Ok(())
    });
    let json: Value = serde_json::from_str(&text(&report(directory.path(), &[&address, "--json"])?, 0))?;
    assert_eq!(json["integrity"]["lines"], 14);
    let output = report(directory.path(), &[&address, "--json"])?;
    assert_eq!(text(&output, 1), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("404"));
    serving.join().expect("the server does not panic")?;
    Ok(())
}
