//! What the ledgers say at the moment: read as origin writes them, checked and judged as anybody can.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use admission::ledger::{Checker, Entry, LINE_MAX};
use admission::verdict::{Judge, Verdict};
use ed25519_dalek::VerifyingKey;
use model::{Digest, EventSlug};

/// Events whose ledgers are followed at once.
const FOLLOWED_MAX: usize = 64;
/// Lines taken from one ledger at a look: a control that was started anew catches up within a few.
const LINES_MAX: usize = 2_000;

/// Follows the ledgers of events.
#[derive(Debug)]
pub(crate) struct Verdicts {
    place: PathBuf,
    followed: BTreeMap<EventSlug, Follower>,
}

#[derive(Debug)]
struct Follower {
    checker: Checker,
    judge: Option<Judge>,
    /// Bytes read so far: whole lines.
    offset: u64,
    latest: Option<Verdict>,
    /// It does not hold; nothing more is said of it.
    broken: bool,
}

impl Verdicts {
    /// Of the ledgers in this directory.
    pub(crate) fn new(place: PathBuf) -> Self {
        Self { place, followed: BTreeMap::new() }
    }

    /// Where an event's ledger is.
    pub(crate) fn path(place: &Path, event: &EventSlug) -> PathBuf {
        place.join(format!("{event}.jsonl"))
    }

    /// Reads what is new in the ledger of an event, whose key this is.
    pub(crate) fn look(&mut self, event: &EventSlug, key: [u8; 32]) {
        let Ok(key) = VerifyingKey::from_bytes(&key) else { return };
        if self.followed.len() >= FOLLOWED_MAX && !self.followed.contains_key(event) {
            return;
        }
        let path = Self::path(&self.place, event);
        let follower = self.followed.entry(event.clone()).or_insert_with(|| Follower {
            checker: Checker::new(key),
            judge: None,
            offset: 0,
            latest: None,
            broken: false,
        });
        match follower.read(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It does not hold, and never will.
            Err(error) if matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::InvalidData) => {
                follower.broken = true;
                tracing::warn!(%event, %error, "the ledger does not hold");
            }
            // Files may be short for a moment.
            Err(error) => tracing::debug!(%event, %error, "the ledger cannot be read now"),
        }
    }

    /// Forgets events that are not followed any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(&EventSlug) -> bool) {
        self.followed.retain(|event, _| keep(event));
    }

    /// The head of an event's ledger, as far as it was read and holds.
    pub(crate) fn head(&self, event: &EventSlug) -> Option<Digest> {
        let follower = self.followed.get(event).filter(|follower| !follower.broken)?;
        let head = follower.checker.head();
        (head.lines() > 0).then(|| head.digest())
    }

    /// What is said of an event now.
    pub(crate) fn latest(&self, event: &EventSlug) -> Option<&Verdict> {
        self.followed.get(event)?.latest.as_ref()
    }
}

impl Follower {
    fn read(&mut self, path: &Path) -> io::Result<()> {
        if self.broken {
            return Ok(());
        }
        let mut file = File::open(path)?;
        if file.metadata()?.len() < self.offset {
            // Another one lies there now.
            return Err(io::ErrorKind::InvalidData.into());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        for _ in 0..LINES_MAX {
            line.clear();
            let most = LINE_MAX as u64 + 1;
            let length = lines.by_ref().take(most).read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                // The end, or a line that is being written.
                return if length as u64 == most { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) };
            }
            let (entry, _) = self.checker.line(&line).map_err(io::Error::other)?;
            self.offset += length as u64;
            match entry {
                Entry::Open(opening) => self.judge = Some(Judge::new(*opening)),
                Entry::Bin(bin) => self.latest = self.judge.as_mut().map(|judge| judge.step(&bin)),
                Entry::Close(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ledger::{BIN_MS, BinStart, Head, Merger, Opening, ProcessBin, append};
    use admission::verdict::Class;
    use ed25519_dalek::SigningKey;
    use std::io::Write as _;

    #[test]
    fn a_ledger_is_followed_as_it_grows() {
        let directory = tempfile::tempdir().unwrap();
        let (key, talk): (_, EventSlug) = (SigningKey::from_bytes(&[4; 32]), "talk".parse().unwrap());
        let public = key.verifying_key().to_bytes();
        let mut verdicts = Verdicts::new(directory.path().to_owned());
        verdicts.look(&talk, public);
        assert_eq!((verdicts.latest(&talk), verdicts.head(&talk)), (None, None), "there is none yet");

        let path = Verdicts::path(directory.path(), &talk);
        let mut file = File::create(&path).unwrap();
        let (mut head, mut merger) = (Head::EMPTY, Merger::new());
        let mut write = |entry: &Entry| {
            let (line, after) = append(&head, entry, &key).unwrap();
            head = after;
            writeln!(file, "{line}").unwrap();
            head.digest()
        };
        write(&Entry::Open(Box::new(Opening::new(&talk, &key.verifying_key(), 0, 0, None))));
        for n in 1..4 {
            let start = BinStart::try_from(n * BIN_MS).unwrap();
            let digest =
                write(&Entry::Bin(Box::new(merger.merge(start, 1, &[ProcessBin::new(start, 0, 0)]))));
            verdicts.look(&talk, public);
            let latest = verdicts.latest(&talk).unwrap();
            assert_eq!((latest.at_ms, latest.class), (start, Class::Insufficient));
            assert_eq!(verdicts.head(&talk), Some(digest));
        }
        // Half a line is waited for; one that does not hold ends it.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"v\":1").unwrap();
        verdicts.look(&talk, public);
        assert!(!verdicts.followed[&talk].broken);
        file.write_all(b"}\n").unwrap();
        verdicts.look(&talk, public);
        assert!(verdicts.followed[&talk].broken && verdicts.head(&talk).is_none());
        verdicts.retain(|_| false);
        assert_eq!(verdicts.latest(&talk), None);
    }
}
