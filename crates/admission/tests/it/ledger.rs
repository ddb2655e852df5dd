//! The chain: what holds, and what does not.

use ed25519_dalek::SigningKey;
use minassa_admission::ledger::{
    AppendError, BIN_MS, BinStart, Checker, Closing, Damage, Entry, Fault, Gap, Head, Merger, ProcessBin,
    append, check, resume,
};
use model::Digest;

use crate::scenario::night::key;
use crate::scenario::{Kind, Run, tuning};

/// Writes a night's ledger: its lines, each with its line feed, and the heads after them.
pub(crate) fn lines(run: &Run, bins: usize) -> (Vec<String>, Vec<Digest>) {
    let mut entries = vec![Entry::Open(Box::new(run.opening.clone()))];
    entries.extend(run.bins.iter().take(bins).map(|bin| Entry::Bin(Box::new(bin.clone()))));
    entries.push(Entry::Close(Closing { closed_ms: 1_795_380_000_000 }));
    let (mut head, mut lines, mut heads) = (Head::EMPTY, Vec::new(), Vec::new());
    for entry in &entries {
        let (line, next) = append(&head, entry, &key()).unwrap();
        lines.push(line + "\n");
        heads.push(next.digest());
        head = next;
    }
    (lines, heads)
}

fn short() -> (Vec<String>, Vec<Digest>) {
    lines(&tuning::run(Kind::Mixed, 1), 6)
}

fn checked(lines: &[String]) -> Result<(), Fault> {
    check(lines.concat().as_bytes(), &key().verifying_key(), &[]).map(|_| ())
}

fn damage(lines: &[String]) -> (usize, Damage) {
    let fault = checked(lines).unwrap_err();
    let before: usize = lines.iter().take(fault.line - 1).map(String::len).sum();
    assert_eq!(fault.offset, before, "{fault}");
    (fault.line, fault.damage)
}

#[test]
fn what_was_appended_holds_and_says_the_same() {
    let run = tuning::run(Kind::Crowd, 3);
    let (lines, heads) = lines(&run, usize::MAX);
    let text = lines.concat();
    let read = check(text.as_bytes(), &key().verifying_key(), &heads).unwrap();
    assert_eq!((&read.opening, &read.bins), (&run.opening, &run.bins));
    assert_eq!(read.summary.lines, run.bins.len() as u64 + 2);
    assert_eq!(read.summary.head, *heads.last().unwrap());
    assert!(read.summary.closed && read.summary.gaps.is_empty());
    assert!(text.is_ascii());
    assert!(run.bins.iter().any(|bin| bin.prefixes().is_some() && bin.fingerprints().is_some()));
}

#[test]
fn any_bit_that_is_flipped_is_found_where_it_is() {
    let (lines, _) = short();
    let mut text = lines.concat().into_bytes();
    let key = key().verifying_key();
    let line_of =
        |at: usize| 1 + lines.concat().as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
    // Of the whole file one bit of each byte, in turn.
    for at in 0..text.len() {
        text[at] ^= 1 << (at % 8);
        let fault = check(&text, &key, &[]).unwrap_err();
        assert_eq!(fault.line, line_of(at), "byte {at}: {fault}");
        text[at] ^= 1 << (at % 8);
    }
    // Every bit of every line, by itself.
    let mut checker = Checker::new(key);
    for line in &lines {
        let mut bytes = line.trim_end().as_bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(checker.clone().line(&bytes).is_err(), "bit {bit} of {line}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        checker.line(&bytes).unwrap();
    }
}

#[test]
fn lines_missing_repeated_exchanged_or_cut_are_found() {
    let (lines, heads) = short();
    let missing = |at: usize| [&lines[..at], &lines[at + 1..]].concat();
    for at in 0..lines.len() - 1 {
        let (expected, found) = (at as u64, at as u64 + 1);
        assert_eq!(damage(&missing(at)), (at + 1, Damage::Missing { expected, found }));
    }
    for at in 0..lines.len() {
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        let (expected, found) = (at as u64 + 1, at as u64);
        assert_eq!(damage(&repeated), (at + 2, Damage::Repeated { expected, found }));
    }
    let mut exchanged = lines.clone();
    exchanged.swap(2, 3);
    assert_eq!(damage(&exchanged), (3, Damage::Missing { expected: 2, found: 3 }));

    let text = lines.concat();
    let key = key().verifying_key();
    for length in 1..text.len() {
        let cut = &text.as_bytes()[..length];
        match check(cut, &key, &[]) {
            Err(fault) => {
                assert_eq!(fault.damage, Damage::Unfinished);
                assert_eq!(fault.line, 1 + text[..length].matches('\n').count());
            }
            // A cut between lines looks whole, but not closed, and no witness is fooled.
            Ok(read) => {
                assert!(cut.ends_with(b"\n") && !read.summary.closed);
                let fault = check(cut, &key, &heads).unwrap_err();
                let first_unseen = heads[read.summary.lines as usize];
                assert_eq!(fault.damage, Damage::Witness(first_unseen));
            }
        }
    }
    assert_eq!(check(b"", &key, &[]).unwrap_err().damage, Damage::Empty);
}

#[test]
fn a_line_of_another_history_is_found_though_it_is_signed() {
    let (lines, _) = short();
    // The same event told otherwise from line 3 on: signed with the same key.
    let other = self::lines(&tuning::run(Kind::Crowd, 9), 6).0;
    let retold = [&lines[..2], &other[2..]].concat();
    assert_eq!(damage(&retold), (3, Damage::Replaced));
    let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let fault = check(lines.concat().as_bytes(), &stranger, &[]).unwrap_err();
    assert_eq!((fault.line, fault.damage), (1, Damage::Signature));
}

#[test]
fn a_gap_is_admitted_and_a_crash_resumed() {
    let run = tuning::run(Kind::Crowd, 4);
    let key = key();
    let (mut head, mut text) = (Head::EMPTY, String::new());
    let mut write = |head: &mut Head, entry: Entry| {
        let (line, next) = append(head, &entry, &key)?;
        text += &(line + "\n");
        *head = next;
        Ok::<_, AppendError>(())
    };
    let bin = |at: usize| Entry::Bin(Box::new(run.bins[at].clone()));
    assert_eq!(write(&mut head, bin(0)), Err(AppendError::Opening));
    write(&mut head, Entry::Open(Box::new(run.opening.clone()))).unwrap();
    write(&mut head, bin(0)).unwrap();
    assert_eq!(write(&mut head, bin(0)), Err(AppendError::Time));
    assert_eq!(write(&mut head, Entry::Open(Box::new(run.opening.clone()))), Err(AppendError::Opening));
    write(&mut head, bin(1)).unwrap();
    write(&mut head, bin(5)).unwrap();
    assert_eq!(write(&mut head, bin(4)), Err(AppendError::Time));
    // It dies in the middle of a line.
    let (torn, _) = append(&head, &bin(6), &key).unwrap();
    let whole = text.clone();
    let crashed = whole.clone() + &torn[..100];
    let (resumed, keep) = resume(crashed.as_bytes(), &key.verifying_key()).unwrap();
    assert_eq!((resumed, keep), (head, whole.len()));
    let (line, mut head) = append(&resumed, &bin(9), &key).unwrap();
    let mut whole = whole + &line + "\n";
    let (line, closed) = append(&head, &Entry::Close(Closing { closed_ms: 1 }), &key).unwrap();
    whole += &(line + "\n");
    head = closed;
    assert_eq!(append(&head, &bin(10), &key), Err(AppendError::Closed));
    let read = check(whole.as_bytes(), &key.verifying_key(), &[]).unwrap();
    let gap = |at: usize, bins| Gap { before: run.bins[at].start(), bins };
    assert_eq!(read.summary.gaps, [gap(5, 3), gap(9, 3)]);
    let other = SigningKey::from_bytes(&[8; 32]);
    let opening = Entry::Open(Box::new(run.opening.clone()));
    assert_eq!(append(&Head::EMPTY, &opening, &other), Err(AppendError::OtherKey));
}

#[test]
fn the_busiest_bin_fits_into_a_line() {
    let start = BinStart::try_from(BIN_MS).unwrap();
    let run = tuning::run(Kind::Crowd, 1);
    let mut bin = ProcessBin::new(start, 0, 0);
    for n in 0..1_000_u64 {
        let ja4 = format!("t13d1516h2_8daaf6152771_{n:012x}").parse().unwrap();
        bin.arrive(minassa_admission::ledger::PrefixTag(n), Some(ja4), u64::MAX / 2_000);
        bin.mark(minassa_admission::ledger::Mark::Configuration, n);
    }
    let bin = Merger::new().merge(start, 1, &[bin]);
    let (_, head) = append(&Head::EMPTY, &Entry::Open(Box::new(run.opening)), &key()).unwrap();
    let (line, _) = append(&head, &Entry::Bin(Box::new(bin)), &key()).unwrap();
    assert!(line.len() < minassa_admission::ledger::LINE_MAX / 2, "{}", line.len());
}

#[test]
fn any_bytes_are_refused_and_changed_lines_too() {
    let (lines, _) = short();
    let mut rng = crate::scenario::rng::Rng::new(11);
    for _ in 0..2_000 {
        let line = &lines[rng.below(lines.len() as u64) as usize];
        // The whole line, or what is behind hash and signature.
        let end = if rng.chance(0.5) { line.rfind(",\"hash\"").unwrap() } else { line.len() };
        let mut bytes = line.as_bytes()[..end].to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.bits() as u8,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, rng.bits() as u8),
            }
            if bytes.is_empty() {
                break;
            }
        }
        minassa_admission::fuzz::ledger(&bytes);
    }
}
