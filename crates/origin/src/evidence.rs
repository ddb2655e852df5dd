//! The keeper of ledgers: takes what every process counted, and writes a signed line every ten seconds for each event
//! that runs.
//!
//! It is part of origin because origin outlives a crowd and an attack, and holds the events' keys. Whoever is dead or
//! silent is missing in the bin, which says so. The head of each ledger goes to the packager, which signs it into every
//! segment; a disk that fails costs lines, never a part.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use admission::ledger::{
    AppendError, BIN_MS, BinStart, Closing, Entry, Fault, Head, Mark, Merger, Opening, ProcessBin, append,
    resume,
};
use admission::room::{RoomConfig, Seed};
use backend::bus::Bus;
use backend::evidence::{Counts, Tally, ledger_is_open};
use backend::keys::{KeyError, Keys};
use backend::{clock, wire};
use ed25519_dalek::SigningKey;
use model::{Digest, EventSlug, ShowState, UnixTime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::counters;
use crate::directory::{Directory, View};
use crate::media::Order;

/// How long after a bin's end the counts of processes are waited for that have not told theirs. Once all have, the line is
/// written: nearly always within two seconds.
const GRACE_MS: u64 = 4_000;
/// Processes that are listened to.
const PEERS_MAX: usize = 257;
/// Bins of each process that are kept until they are written.
const KEPT: usize = 4;
/// Lines of one ledger that wait for a disk that is full or gone: ten minutes.
const UNWRITTEN_MAX: usize = 60;
/// Until what the bus has retained of every process is heard, after our own start.
const HEARD_AFTER: Duration = Duration::from_secs(3);

/// A ledger on the disk.
#[derive(Debug)]
struct LedgerFile {
    file: File,
    key: SigningKey,
    head: Head,
    /// Bytes of whole lines.
    length: u64,
    /// Whether part of a line is behind them.
    is_torn: bool,
}

/// Why a ledger cannot be written.
#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is left as it is: it may be evidence.
    #[error("the ledger on the disk does not hold: {0}")]
    Damaged(#[from] Fault),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl LedgerFile {
    /// Goes on with the ledger that is there, or begins one. A line that was being written when the last process died is
    /// cut off: nobody has witnessed it.
    fn open(path: &Path, key: SigningKey, opening: impl FnOnce() -> Opening) -> Result<Self, LedgerError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (head, keep) = resume(&bytes, &key.verifying_key())?;
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        if keep < bytes.len() {
            file.set_len(keep as u64)?;
        }
        let mut ledger = Self { file, key, head, length: keep as u64, is_torn: false };
        if ledger.head.lines() == 0 {
            ledger.write(&Entry::Open(Box::new(opening())))?;
        }
        Ok(ledger)
    }

    /// Appends a line, and waits for the disk to have it. Of one that could not be written whole nothing is left before
    /// the next. One that was is there for everybody to read, so it stays, whatever the disk says afterwards.
    fn write(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let (mut line, head) = append(&self.head, entry, &self.key)?;
        line.push('\n');
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.is_torn = self.file.set_len(self.length).is_err();
            return Err(error.into());
        }
        self.length += line.len() as u64;
        self.head = head;
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, "a line of the ledger may not be on the disk");
        }
        Ok(())
    }
}

/// Bins of all processes, as they come.
#[derive(Debug, Default)]
struct Heard(Mutex<BTreeMap<String, Vec<ProcessBin>>>);

impl Heard {
    fn put(&self, process: &str, bin: ProcessBin) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bins = heard.entry(process.to_owned()).or_default();
        // What is retained comes again after a reconnection.
        if bins.iter().all(|known| known.start() != bin.start()) {
            bins.push(bin);
        }
        let surplus = bins.len().saturating_sub(KEPT);
        bins.drain(..surplus);
    }

    fn of(&self, start: BinStart) -> Vec<ProcessBin> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.values().flatten().filter(|bin| bin.start() == start).cloned().collect()
    }
}

/// Keeps the ledgers of all events that run.
pub(crate) struct Evidence {
    bus: Arc<dyn Bus>,
    directory: Arc<Directory>,
    orders: mpsc::Sender<Order>,
    keys: Keys,
    place: PathBuf,
    heard: Arc<Heard>,
    ledgers: BTreeMap<EventSlug, Kept>,
    tally: Tally,
    /// Of our own counters, as they were at the end of the last bin.
    before: Own,
    /// The slowest write of a line since the last bin, µs.
    disk_write_us: u64,
    /// States of shows, for the marks.
    states: BTreeMap<EventSlug, ShowState>,
    marks: Vec<(Mark, UnixTime)>,
    born: Instant,
}

/// One event's.
#[derive(Debug)]
enum Kept {
    Writing {
        ledger: Box<LedgerFile>,
        merger: Box<Merger>,
        next: BinStart,
        /// Lines that the disk did not take yet.
        unwritten: VecDeque<Entry>,
    },
    /// Closed, or it cannot be written.
    Done,
}

/// Our own counters.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    taken: u64,
    refused: u64,
}

impl Own {
    fn now() -> Self {
        let refused = [&counters::DATAGRAMS_STUN, &counters::DATAGRAMS_STRANGE, &counters::DATAGRAMS_REFUSED];
        let refused = refused.iter().map(|counter| counter.value()).sum::<u64>();
        Self { taken: counters::DATAGRAMS.value(), refused }
    }
}

impl Evidence {
    /// Keeps them in `ledger/` of the data directory.
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        directory: Arc<Directory>,
        orders: mpsc::Sender<Order>,
        keys: Keys,
        data: &Path,
    ) -> Self {
        Self {
            bus,
            directory,
            orders,
            keys,
            place: data.join("ledger"),
            heard: Arc::default(),
            ledgers: BTreeMap::new(),
            tally: Tally::new(Counts::Origin, clock::unix_now()),
            before: Own::now(),
            disk_write_us: 0,
            states: BTreeMap::new(),
            marks: vec![(Mark::Restart, clock::unix_now())],
            born: Instant::now(),
        }
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        if let Err(error) = fs::create_dir_all(&self.place) {
            tracing::warn!(directory = %self.place.display(), %error, "ledgers cannot be kept");
        }
        let mut followed = BTreeMap::new();
        let mut listening = JoinSet::new();
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            for peer in self.bus.peers() {
                let counts = peer == "control" || peer.starts_with("edge-");
                if !counts || followed.len() >= PEERS_MAX || followed.contains_key(&peer) {
                    continue;
                }
                let (heard, mut bins) = (self.heard.clone(), self.bus.subscribe(&peer, "bins", None));
                followed.insert(peer.clone(), ());
                listening.spawn(async move {
                    while let Some(message) = bins.next().await {
                        match wire::decode::<ProcessBin>(&message.payload) {
                            Ok(bin) => heard.put(&peer, bin),
                            Err(error) => tracing::warn!(peer, %error, "what was counted cannot be read"),
                        }
                    }
                });
            }
            self = match tokio::task::spawn_blocking(move || {
                self.second(clock::unix_now());
                self
            })
            .await
            {
                Ok(itself) => itself,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
        }
    }

    /// The small work of every second.
    fn second(&mut self, now: UnixTime) {
        for view in self.directory.views() {
            self.note_state(&view, now);
        }
        if let Some(mut bin) = self.tally.turn(now) {
            let own = Own::now();
            bin.counts.own.datagrams = own.taken - self.before.taken;
            bin.counts.own.datagrams_refused = own.refused - self.before.refused;
            bin.counts.own.disk_write_us = std::mem::take(&mut self.disk_write_us);
            self.before = own;
            for (mark, at) in self.marks.drain(..) {
                let after =
                    u64::try_from(at.as_millis()).unwrap_or(0).saturating_sub(bin.start().as_millis());
                bin.mark(mark, after);
            }
            self.heard.put("origin", bin);
        }
        if self.born.elapsed() < HEARD_AFTER {
            return;
        }
        // Origin is one of them.
        let expected = 1 + self
            .bus
            .peers()
            .iter()
            .filter(|peer| *peer == "control" || peer.starts_with("edge-"))
            .count();
        for view in self.directory.views() {
            let soon = view.state == ShowState::Scheduled && ledger_is_open(view.doors_at, now);
            if view.anchor.is_some() || soon {
                self.keep(&view, now, expected as u64);
            }
        }
    }

    fn note_state(&mut self, view: &View, now: UnixTime) {
        let slug = &view.event.slug;
        let before = self.states.insert(slug.clone(), view.state.clone());
        let mark = match &view.state {
            ShowState::Live => Mark::Live,
            ShowState::Hold { .. } => Mark::Hold,
            ShowState::Ended => Mark::Ended,
            ShowState::Scheduled | ShowState::Doors => return,
        };
        if before.is_some_and(|before| before.name() != view.state.name()) {
            self.marks.push((mark, now));
        }
    }

    /// Writes what is due of one event's ledger.
    fn keep(&mut self, view: &View, now: UnixTime, expected: u64) {
        let slug = &view.event.slug;
        if !self.ledgers.contains_key(slug) {
            let kept = match self.open(view, now) {
                Ok(kept) => kept,
                Err(error @ (LedgerError::Io(_) | LedgerError::Key(_))) => {
                    // Files or disk may be short for a moment: again in a second.
                    tracing::warn!(event = %slug, %error, "the ledger cannot be opened");
                    return;
                }
                Err(error) => {
                    tracing::error!(event = %slug, %error, "no ledger is kept of this event");
                    Kept::Done
                }
            };
            self.ledgers.insert(slug.clone(), kept);
        }
        let Some(Kept::Writing { ledger, merger, next, unwritten }) = self.ledgers.get_mut(slug) else {
            return;
        };
        let begun = Instant::now();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let before = ledger.head.digest();
        let mut is_done = false;
        // A clock that is stepped far ahead leaves a gap.
        *next = (*next).max(oldest_retained(now));
        loop {
            let bins = self.heard.of(*next);
            if !is_due(*next, now_ms, bins.len() as u64, expected) {
                break;
            }
            let bin = merger.merge(*next, expected, &bins);
            *next = next.next();
            // Nobody counted: control and edges are not heard yet, or the clock was stepped far ahead.
            if bin.processes().reported > 0 {
                if unwritten.len() >= UNWRITTEN_MAX {
                    unwritten.pop_front();
                    tracing::warn!(event = %slug, "a line of the ledger is lost");
                }
                unwritten.push_back(Entry::Bin(Box::new(bin)));
            }
        }
        while let Some(entry) = unwritten.front() {
            let begun = Instant::now();
            let written = ledger.write(entry);
            self.disk_write_us = self.disk_write_us.max(begun.elapsed().as_micros() as u64);
            if let Err(error) = written {
                tracing::warn!(event = %slug, %error, "a line of the ledger is not written; it is tried again");
                break;
            }
            unwritten.pop_front();
        }
        if view.closed
            && view.ended_at.is_some_and(|ended| now.since(ended) > Duration::from_millis(BIN_MS + GRACE_MS))
        {
            let closing = Entry::Close(Closing { closed_ms: now_ms });
            match unwritten.is_empty().then(|| ledger.write(&closing)) {
                Some(Ok(())) => is_done = true,
                Some(Err(error)) => tracing::warn!(event = %slug, %error, "the ledger is not closed yet"),
                None => {}
            }
        }
        let head = ledger.head.digest();
        if head != before {
            self.tell(slug.clone(), head);
        }
        if is_done {
            self.ledgers.insert(slug.clone(), Kept::Done);
        }
        if begun.elapsed() > Duration::from_millis(500) {
            self.marks.push((Mark::DiskSlow, now));
        }
    }

    fn open(&self, view: &View, now: UnixTime) -> Result<Kept, LedgerError> {
        let key = self.keys.event(&view.event.slug)?;
        let ms = |time: UnixTime| u64::try_from(time.as_millis()).unwrap_or(0);
        let draw = self.keys.draw()?;
        let opening = || {
            let (slug, public) = (&view.event.slug, key.verifying_key());
            let committed = Seed::derive(&draw, slug).commitment(slug, RoomConfig::default().allowance);
            Opening::new(slug, &public, ms(view.doors_at), ms(view.event.starts_at), None)
                .with_draw(committed)
        };
        let path = self.place.join(format!("{}.jsonl", view.event.slug));
        // Of a show that was over before this process began there is nothing more to say, but that it is.
        if view.closed && !path.exists() {
            return Ok(Kept::Done);
        }
        let mut opened = LedgerFile::open(&path, key.clone(), opening);
        if let Err(LedgerError::Damaged(fault)) = &opened {
            // It may be evidence: kept as it is, beside the one that goes on.
            let aside = path.with_extension(format!("damaged-{}", now.as_millis()));
            tracing::error!(event = %view.event.slug, %fault, aside = %aside.display(), "a ledger does not hold");
            fs::rename(&path, &aside)?;
            opened = LedgerFile::open(&path, key.clone(), opening);
        }
        let ledger = Box::new(opened?);
        let next = ledger.head.last_bin().map_or(BinStart::containing(now), BinStart::next);
        if ledger.head.is_closed() {
            return Ok(Kept::Done);
        }
        self.tell(view.event.slug.clone(), ledger.head.digest());
        // What the other processes counted meanwhile is retained for a while; what is older is a gap.
        let next = next.max(oldest_retained(now));
        Ok(Kept::Writing { ledger, merger: Box::default(), next, unwritten: VecDeque::new() })
    }

    /// The packager signs it from the next segment on. If the media thread is too busy, it is told the next head.
    fn tell(&self, event: EventSlug, head: Digest) {
        if self.orders.try_send(Order::LedgerHead { event, head }).is_err() {
            tracing::debug!("the head of a ledger was not taken");
        }
    }
}

/// The oldest bin of which something may still be known.
fn oldest_retained(now: UnixTime) -> BinStart {
    (0..KEPT).fold(BinStart::containing(now), |start, _| start.before())
}

/// Whether a bin is to be written, of which so many processes of those `expected` have told their counts.
fn is_due(start: BinStart, now_ms: u64, reported: u64, expected: u64) -> bool {
    let end = start.as_millis() + BIN_MS;
    now_ms >= end && (reported >= expected || now_ms >= end + GRACE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ledger::check;

    fn at(bin: u64) -> BinStart {
        BinStart::try_from(bin * BIN_MS).unwrap()
    }

    #[test]
    fn a_ledger_is_gone_on_with_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("talk.jsonl");
        let key = SigningKey::from_bytes(&[5; 32]);
        let opening = || Opening::new(&"talk".parse().unwrap(), &key.verifying_key(), 0, 1, None);
        let mut merger = Merger::new();
        let mut bin = |n| Entry::Bin(Box::new(merger.merge(at(n), 1, &[ProcessBin::new(at(n), 0, 0)])));
        let mut ledger = LedgerFile::open(&path, key.clone(), opening).unwrap();
        ledger.write(&bin(7)).unwrap();
        let head = ledger.head;
        drop(ledger);
        // It died in the middle of a line.
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend_from_slice(b"{\"v\":1,\"seq\":2,");
        fs::write(&path, &bytes).unwrap();
        let mut ledger = LedgerFile::open(&path, key.clone(), || unreachable!("it was opened")).unwrap();
        assert_eq!((ledger.head, fs::metadata(&path).unwrap().len()), (head, whole as u64));
        ledger.write(&bin(9)).unwrap();
        ledger.write(&Entry::Close(Closing { closed_ms: 100_000 })).unwrap();
        let bytes = fs::read(&path).unwrap();
        let checked = check(&bytes, &key.verifying_key(), &[head.digest()]).unwrap();
        assert_eq!((checked.bins.len(), checked.summary.closed, checked.summary.gaps.len()), (2, true, 1));

        // One that was changed is left as it is.
        let mut changed = bytes.clone();
        changed[whole / 2] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(matches!(LedgerFile::open(&path, key.clone(), opening), Err(LedgerError::Damaged(_))));
        assert_eq!(fs::read(&path).unwrap(), changed);
    }

    #[test]
    fn a_line_that_the_disk_does_not_take_is_written_when_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("talk.jsonl");
        let key = SigningKey::from_bytes(&[5; 32]);
        let opening = || Opening::new(&"talk".parse().unwrap(), &key.verifying_key(), 0, 1, None);
        let bin = Entry::Bin(Box::new(Merger::new().merge(at(7), 1, &[ProcessBin::new(at(7), 0, 0)])));
        let mut ledger = LedgerFile::open(&path, key.clone(), opening).unwrap();
        let head = ledger.head;
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut ledger.file, full);
        // What may be left of it cannot be cut off there either.
        assert!(ledger.write(&bin).is_err() && ledger.is_torn && ledger.write(&bin).is_err());
        assert_eq!(ledger.head, head);
        ledger.file = disk;
        ledger.file.write_all(b"{\"v\":1,").unwrap();
        ledger.write(&bin).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(check(&bytes, &key.verifying_key(), &[ledger.head.digest()]).unwrap().bins.len(), 1);
    }

    #[test]
    fn a_line_waits_for_all_but_not_for_ever() {
        let due = |after_ms, reported| is_due(at(7), 8 * BIN_MS + after_ms, reported, 4);
        assert_eq!(
            [due(0, 3), due(0, 4), due(GRACE_MS - 1, 3), due(GRACE_MS, 3)],
            [false, true, false, true]
        );
        assert!(due(GRACE_MS, 0), "a time in which nobody counted is gone over");
        assert!(!is_due(at(7), 8 * BIN_MS - 1, 9, 4), "it is not over");
    }

    #[test]
    fn bins_are_kept_for_a_while_and_once() {
        let heard = Heard::default();
        for n in [1, 2, 2, 3, 4, 5] {
            heard.put("edge-0", ProcessBin::new(at(n), 2, 0));
        }
        heard.put("control", ProcessBin::new(at(5), 1, 0));
        assert_eq!([1, 2, 5].map(|n| heard.of(at(n)).len()), [0, 1, 2]);
    }
}
