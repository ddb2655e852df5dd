//! What origin keeps of an event beside its recording, in `origin/{event}/`.
//!
//! | File | Holds | Written |
//! | --- | --- | --- |
//! | `event.json` | the event as control last said it | whole, when its revision grows |
//! | `anchor.json` | where media time 0 lies on both clocks | once, at doors |
//! | `log.jsonl` | what happened, a line each; [`stage::Show::restore`] reads it | appended, synchronised |
//!
//! A kill at any moment leaves `event.json` and `anchor.json` whole and may tear the last line of the log, which is
//! then passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use backend::freeze::{FreezeError, read_json, write_json};
use backend::wire::{AnchorRecord, EventRecord, StateRecord};
use model::{Anchor, Epoch, Event, EventSlug, SeatId, UnixTime};
use serde::{Deserialize, Serialize};
use stage::{Alarm, LogEntry, LogItem, Place, SourceId};

/// Most bytes of a log that are read back; some 300,000 lines.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// A log longer than this takes only the lines that a restart needs.
const LOG_BYTES_FULL: u64 = 32 << 20;

/// The files of all events.
#[derive(Clone, Debug)]
pub(crate) struct EventFiles {
    directory: PathBuf,
}

/// What the files of one event say.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) event: Event,
    pub(crate) anchor: Option<Anchor>,
    pub(crate) log: Vec<LogEntry>,
    /// The highest epoch that was begun, whether or not anything of it was recorded.
    pub(crate) epoch: Option<Epoch>,
    /// Whether the recording was closed.
    pub(crate) finished: bool,
}

impl EventFiles {
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let directory = data.join("origin");
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    pub(crate) fn directory(&self, slug: &EventSlug) -> PathBuf {
        self.directory.join(slug.as_str())
    }

    /// Every event that has a directory, in order of their names. What is damaged is reported and left out; it does
    /// not hide the others.
    pub(crate) fn all(&self) -> io::Result<Vec<EventSlug>> {
        let mut slugs: Vec<EventSlug> = fs::read_dir(&self.directory)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        slugs.sort();
        Ok(slugs)
    }

    /// Freezes an event unless the disk holds this revision or a later one.
    pub(crate) fn freeze(&self, event: &Event) -> io::Result<()> {
        let directory = self.directory(&event.slug);
        fs::create_dir_all(&directory)?;
        let path = directory.join("event.json");
        if let Ok(Some(there)) = read_json::<EventRecord>(&path)
            && there.revision >= event.revision
        {
            return Ok(());
        }
        write_json(&path, &EventRecord::from(event))
    }

    pub(crate) fn write_anchor(&self, slug: &EventSlug, anchor: Anchor) -> io::Result<()> {
        let directory = self.directory(slug);
        fs::create_dir_all(&directory)?;
        write_json(&directory.join("anchor.json"), &AnchorRecord::from(anchor))
    }

    /// What is kept of an event; `None` if it was never frozen here.
    pub(crate) fn read(&self, slug: &EventSlug) -> Result<Option<Kept>, FreezeError> {
        let directory = self.directory(slug);
        let path = directory.join("event.json");
        let Some(record) = read_json::<EventRecord>(&path)? else { return Ok(None) };
        let event = Event::try_from(record)
            .map_err(|error| FreezeError::Damaged { path, reason: error.to_string() })?;
        let anchor = read_json::<AnchorRecord>(&directory.join("anchor.json"))?.map(Anchor::from);
        let ReadLog { entries, epoch, finished } = read_log(&directory.join("log.jsonl"))?;
        Ok(Some(Kept { event, anchor, log: entries, epoch, finished }))
    }

    /// Opens an event's log for appending.
    pub(crate) fn log(&self, slug: &EventSlug) -> io::Result<EventLog> {
        let directory = self.directory(slug);
        fs::create_dir_all(&directory)?;
        let path = directory.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut log = EventLog { file, length };
        if length > 0 {
            // Whatever line a crash tore ends here.
            log.write(b"\n")?;
        }
        Ok(log)
    }
}

/// An event's log, open for appending.
#[derive(Debug)]
pub(crate) struct EventLog {
    file: File,
    length: u64,
}

impl EventLog {
    /// Appends lines; they are on the disk when this returns.
    pub(crate) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            if self.length > LOG_BYTES_FULL && !line.item.is_needed() {
                continue;
            }
            serde_json::to_writer(&mut bytes, line).map_err(io::Error::other)?;
            bytes.push(b'\n');
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(&bytes)?;
        self.file.sync_data()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    at_ns: i64,
    /// The same for people.
    #[serde(default)]
    at: String,
    #[serde(flatten)]
    item: Item,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Item {
    Epoch { epoch: u32 },
    Finished,
    Doors { doors_ns: i64 },
    State { state: StateRecord },
    Seat { seat: u16, place: PlaceRecord, muted: bool },
    SourceHeard { seat: u16, source: u32 },
    SourceLost { seat: u16, source: u32 },
    SourceActive { seat: u16, source: Option<u32> },
    SourceClosed { seat: u16, source: u32, why: String },
    Alarm { alarm: String, raised: bool },
    EventChanged { revision: u64, starts_at_ns: i64 },
}

impl Item {
    /// Whether a restart reads it.
    fn is_needed(&self) -> bool {
        matches!(
            self,
            Self::Epoch { .. } | Self::Finished | Self::Doors { .. } | Self::State { .. } | Self::Seat { .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PlaceRecord {
    Waiting,
    KeptBack,
    OnStage,
}

impl Line {
    fn new(at: UnixTime, item: Item) -> Self {
        Self { at_ns: at.as_nanos(), at: at.to_string(), item }
    }

    /// The line that says that an incarnation begins.
    pub(crate) fn epoch(at: UnixTime, epoch: Epoch) -> Self {
        Self::new(at, Item::Epoch { epoch: epoch.0 })
    }

    /// The line that says that the recording is closed.
    pub(crate) fn finished(at: UnixTime) -> Self {
        Self::new(at, Item::Finished)
    }

    /// Back to what the stage core reads; `None` for lines that are only for people.
    fn entry(&self) -> Option<LogEntry> {
        let item = match &self.item {
            Item::Doors { doors_ns } => LogItem::Doors { doors: UnixTime::from_nanos(*doors_ns) },
            Item::State { state } => LogItem::State(state.clone().into()),
            Item::Seat { seat, place, muted } => LogItem::Seat {
                seat: SeatId(*seat),
                place: match place {
                    PlaceRecord::Waiting => Place::Waiting,
                    PlaceRecord::KeptBack => Place::KeptBack,
                    PlaceRecord::OnStage => Place::OnStage,
                },
                muted: *muted,
            },
            _ => return None,
        };
        Some(LogEntry { at: UnixTime::from_nanos(self.at_ns), item })
    }
}

impl From<&LogEntry> for Line {
    fn from(entry: &LogEntry) -> Self {
        let seat = |seat: &SeatId| seat.0;
        let number = |source: &SourceId| source.0;
        let name = |alarm: &Alarm| alarm.name().to_owned();
        let item = match &entry.item {
            LogItem::Doors { doors } => Item::Doors { doors_ns: doors.as_nanos() },
            LogItem::State(state) => Item::State { state: state.into() },
            LogItem::Seat { seat: id, place, muted } => Item::Seat {
                seat: seat(id),
                place: match place {
                    Place::Waiting => PlaceRecord::Waiting,
                    Place::KeptBack => PlaceRecord::KeptBack,
                    Place::OnStage => PlaceRecord::OnStage,
                },
                muted: *muted,
            },
            LogItem::SourceHeard { seat: id, source } => {
                Item::SourceHeard { seat: seat(id), source: number(source) }
            }
            LogItem::SourceLost { seat: id, source } => {
                Item::SourceLost { seat: seat(id), source: number(source) }
            }
            LogItem::SourceActive { seat: id, source } => {
                Item::SourceActive { seat: seat(id), source: source.as_ref().map(number) }
            }
            LogItem::SourceClosed { seat: id, source, why } => {
                Item::SourceClosed { seat: seat(id), source: number(source), why: why.name().to_owned() }
            }
            LogItem::Alarm { alarm, raised } => Item::Alarm { alarm: name(alarm), raised: *raised },
            LogItem::EventChanged { revision, starts_at } => {
                Item::EventChanged { revision: *revision, starts_at_ns: starts_at.as_nanos() }
            }
        };
        Self::new(entry.at, item)
    }
}

#[derive(Debug, Default)]
struct ReadLog {
    entries: Vec<LogEntry>,
    epoch: Option<Epoch>,
    finished: bool,
}

fn read_log(path: &Path) -> Result<ReadLog, FreezeError> {
    use io::{BufRead as _, Read as _};
    let unreadable = |source| FreezeError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ReadLog::default()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut log = ReadLog::default();
    let mut torn = 0_u32;
    for line in io::BufReader::new(file.take(LOG_BYTES_MAX)).split(b'\n') {
        let line = line.map_err(unreadable)?;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { item: Item::Epoch { epoch }, .. }) => log.epoch = log.epoch.max(Some(Epoch(epoch))),
            Ok(Line { item: Item::Finished, .. }) => log.finished = true,
            Ok(line) => log.entries.extend(line.entry()),
            Err(_) => torn += 1,
        }
    }
    if torn > 0 {
        tracing::warn!(path = %path.display(), torn, "lines of the log cannot be read; one is usual after a crash");
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Bilingual, ShowState};
    use stage::CloseReason;

    fn entries() -> Vec<LogEntry> {
        let items = [
            LogItem::Doors { doors: UnixTime::from_nanos(123_456_789_012) },
            LogItem::State(ShowState::Live),
            LogItem::State(ShowState::Hold {
                until: Some(UnixTime::from_millis(5)),
                message: Bilingual { ar: "انتظروا".into(), en: "wait".into() },
            }),
            LogItem::Seat { seat: SeatId(3), place: Place::KeptBack, muted: true },
            LogItem::Seat { seat: SeatId(3), place: Place::OnStage, muted: false },
            LogItem::SourceHeard { seat: SeatId(3), source: SourceId(7) },
            LogItem::SourceClosed { seat: SeatId(3), source: SourceId(7), why: CloseReason::Dead },
            LogItem::SourceActive { seat: SeatId(3), source: None },
            LogItem::Alarm { alarm: Alarm::DeadAir, raised: true },
            LogItem::EventChanged { revision: 9, starts_at: UnixTime::from_millis(6) },
        ];
        items.into_iter().map(|item| LogEntry { at: UnixTime::from_nanos(1_000_000_007), item }).collect()
    }

    #[test]
    fn what_a_restart_needs_comes_back_exactly() {
        let data = tempfile::tempdir().unwrap();
        let files = EventFiles::open(data.path()).unwrap();
        let slug: EventSlug = "talk".parse().unwrap();
        let lines: Vec<Line> = entries().iter().map(Line::from).collect();
        let mut log = files.log(&slug).unwrap();
        log.append(&[Line::epoch(UnixTime::from_millis(1), Epoch(4))]).unwrap();
        log.append(&lines).unwrap();
        drop(log);
        // A crash in the middle of a line, and another incarnation that goes on.
        let path = files.directory(&slug).join("log.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at_ns\":17,\"wh").unwrap();
        files.log(&slug).unwrap().append(&lines[1..2]).unwrap();
        let read = read_log(&path).unwrap();
        assert_eq!(read.entries[..5], entries()[..5]);
        assert_eq!(read.entries[5..], entries()[1..2]);
        assert_eq!((read.epoch, read.finished), (Some(Epoch(4)), false));
        files.log(&slug).unwrap().append(&[Line::finished(UnixTime::from_millis(2))]).unwrap();
        assert!(read_log(&path).unwrap().finished);
    }
}
