//! The second implementation, `check/verdict_check.py`, agrees.

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use minassa_admission::ledger::check;
use minassa_admission::verdict::judge;
use model::Digest;

use crate::ledger::lines;
use crate::scenario::night::key;
use crate::scenario::{Kind, Run, SETS, tuning};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("check/verdict_check.py")
}

/// Runs the script in its mode for many ledgers: `path` a line comes in, verdicts go out.
fn script_says(arguments: &[&str], paths: &[PathBuf]) -> String {
    let mut child = Command::new("python3")
        .arg(script())
        .args(arguments)
        .args(["--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: `cargo xtask test` installs it");
    let mut stdin = child.stdin.take().expect("a pipe");
    let list: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output().expect("the script ends");
    writer.join().expect("no panic").expect("the script reads");
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn hex(bytes: &[u8]) -> String {
    Digest(bytes.try_into().expect("32 bytes")).to_string()
}

fn agrees(runs: impl Iterator<Item = Run>, extra: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let (mut paths, mut ours) = (Vec::new(), String::new());
    for (at, mut run) in runs.enumerate() {
        if at % 4 == 0 {
            // Control was dead for half a minute.
            run.bins.drain(17..20);
        }
        let (lines, heads) = lines(&run, usize::MAX);
        let path = directory.path().join(format!("{at}.jsonl"));
        std::fs::write(&path, lines.concat()).unwrap();
        ours += &format!("holds {} lines, head {}, closed\n", lines.len(), heads.last().unwrap());
        for verdict in judge(&run.opening, &run.bins) {
            ours += &(verdict.to_json() + "\n");
        }
        paths.push(path);
    }
    let public = hex(key().verifying_key().as_bytes());
    let theirs = script_says(&[&["--key", &public], extra].concat(), &paths);
    for (at, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(ours, theirs, "output line {at}");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

/// Nights of all kinds and sets with these seeds.
fn nights(seeds: Range<u64>) -> impl Iterator<Item = Run> {
    let kinds = seeds.flat_map(|seed| Kind::ALL.map(|kind| (kind, seed)));
    kinds.flat_map(|(kind, seed)| SETS.map(|run| run(kind, seed)))
}

/// Signatures take Python a while: of few nights they are checked, of the others all but they.
#[test]
fn the_script_agrees_signatures_and_all() {
    agrees(nights(500..502), &[]);
}

#[test]
fn the_script_agrees_on_hundreds_of_nights() {
    agrees(nights(500..520), &["--skip-signatures"]);
}

/// `cargo xtask verdicts`.
#[test]
#[ignore = "minutes of Python: all nights of the other tests"]
fn the_script_agrees_on_every_night() {
    // A hundred seeds at a time, for the sake of the disk.
    for from in (0..1_000).step_by(100) {
        agrees(nights(from..from + 100), &["--skip-signatures"]);
    }
}

#[test]
fn the_script_finds_the_same_fault() {
    let directory = tempfile::tempdir().unwrap();
    let (lines, _) = lines(&tuning::run(Kind::L7, 2), 5);
    let whole = lines.concat().into_bytes();
    let mut rng = crate::scenario::rng::Rng::new(5);
    let (mut paths, mut ours) = (Vec::new(), String::new());
    for at in 0..150 {
        let mut changed = whole.clone();
        if at < 100 {
            changed[rng.below(whole.len() as u64) as usize] ^= 1 << rng.below(8);
        } else if at < 125 {
            let mut lines = lines.clone();
            lines.remove(rng.below(lines.len() as u64 - 1) as usize);
            changed = lines.concat().into_bytes();
        } else {
            let mut lines = lines.clone();
            let (a, b) = (rng.below(lines.len() as u64) as usize, rng.below(lines.len() as u64) as usize);
            let line = lines.remove(a);
            lines.insert(b.min(lines.len()), line);
            changed = lines.concat().into_bytes();
        }
        ours += &match check(&changed, &key().verifying_key(), &[]) {
            Ok(read) => format!("holds {}\n", read.summary.lines),
            Err(fault) => format!("fault line {} byte {}\n", fault.line, fault.offset),
        };
        let path = directory.path().join(format!("{at}.jsonl"));
        std::fs::write(&path, changed).unwrap();
        paths.push(path);
    }
    let public = hex(key().verifying_key().as_bytes());
    let theirs = script_says(&["--key", &public, "--faults-only"], &paths);
    assert_eq!(ours, theirs);
}
