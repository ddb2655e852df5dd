//! Recordings, read from the disk away from the runtime's threads: a bounded number of reads at once, and each thing
//! once for all who ask for it meanwhile.

mod flight;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use archive::{ArchiveError, Clip, Download, Recording, Span};
use bytes::{Bytes, BytesMut};
use formats::hls::delayed_segments;
use model::{EventSlug, PartNumber, Rendition, SegmentNumber};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::address::RecordingItem;
use crate::files::playlists::Coding;
use crate::files::wrapped;
use flight::Flights;

/// Recordings kept open that nobody reads.
pub(crate) const KEPT: usize = 32;
/// Recordings open at once, those that are read and downloaded among them; fewer if files are short.
pub(crate) const OPEN_MAX: usize = 64;
/// Files of an open recording in each directory it lies in: audio and index of each rendition, and the log.
pub(crate) const FILES: usize = 2 * Rendition::ALL.len() + 1;
/// Least time between two looks at whether a recording has grown.
const REFRESH: Duration = Duration::from_millis(250);
/// Longest wait for a turn to read.
const TURN: Duration = Duration::from_secs(10);
/// Bytes of a download that are read at once.
pub(crate) const PIECE: u64 = 64 * 1024;

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Too many read already, or too many recordings are being read.
    #[error("the disk is busy")]
    Busy,
    /// The reader failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A read panicked: our bug.
    #[error("a read failed badly")]
    Panicked,
    /// A read that others waited for as well failed.
    #[error(transparent)]
    Shared(Arc<ReadError>),
}

impl ReadError {
    /// What each of those who share a read is told.
    fn told(shared: &Arc<Self>) -> Self {
        match &**shared {
            Self::Busy => Self::Busy,
            Self::Archive(ArchiveError::NotFound(event)) => {
                Self::Archive(ArchiveError::NotFound(event.clone()))
            }
            Self::Archive(ArchiveError::NoPart(number)) => Self::Archive(ArchiveError::NoPart(*number)),
            _ => Self::Shared(Arc::clone(shared)),
        }
    }
}

/// Which replay playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Replay {
    /// The show, with addresses as `/e/{event}/` needs them.
    Show,
    /// From doors to the end, with addresses as `/live/{event}/` needs them.
    Everything,
    /// As [`Self::Everything`], joined, with addresses as `/live/{event}/delayed/` needs them.
    Delayed,
}

/// What is read once for all who ask for it at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Part {
        event: EventSlug,
        rendition: Rendition,
        number: PartNumber,
        tagged: bool,
    },
    Segment {
        event: EventSlug,
        rendition: Rendition,
        number: SegmentNumber,
    },
    /// Of the delayed feed.
    Joined {
        event: EventSlug,
        rendition: Rendition,
        number: u64,
    },
    Replay {
        event: EventSlug,
        rendition: Rendition,
        which: Replay,
        coding: Coding,
    },
    /// A piece of the download with this validator, which is equal only for equal bytes.
    Piece {
        etag: String,
        index: u64,
    },
}

/// Bytes, and whether they are of a recording that is finished.
type Yield = (Bytes, bool);

/// All recordings below some data directories.
#[derive(Debug)]
pub(crate) struct Recordings {
    disk: Arc<Disk>,
    openings: Flights<EventSlug, Result<Arc<RwLock<Opened>>, Arc<ReadError>>>,
    flights: Flights<Item, Result<Yield, Arc<ReadError>>>,
    shared: AtomicU64,
}

#[derive(Debug)]
struct Disk {
    directories: Arc<[PathBuf]>,
    turns: Arc<Semaphore>,
    /// Places for open recordings.
    places: Arc<Semaphore>,
    open: Mutex<BTreeMap<EventSlug, Entry>>,
    reads: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    used: Instant,
    opened: Arc<RwLock<Opened>>,
}

/// A recording and the downloads made of it as it is now.
#[derive(Debug)]
struct Opened {
    recording: Recording,
    refreshed: Instant,
    /// How often it was found to have grown.
    grown: u64,
    downloads: BTreeMap<RecordingItem, Download>,
    _place: OwnedSemaphorePermit,
}

/// A download that somebody takes. Its recording counts as open for as long: the download has files of it.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) download: Download,
    /// Whether it will change no more.
    pub(crate) finished: bool,
    _opened: Arc<RwLock<Opened>>,
}

impl Recordings {
    /// `reads` is the number of reads at once, `open` that of open recordings.
    pub(crate) fn new(directories: Vec<PathBuf>, reads: usize, open: usize) -> Self {
        let disk = Disk {
            directories: directories.into(),
            turns: Arc::new(Semaphore::new(reads)),
            places: Arc::new(Semaphore::new(open)),
            open: Mutex::default(),
            reads: AtomicU64::new(0),
        };
        Self {
            disk: Arc::new(disk),
            openings: Flights::new(),
            flights: Flights::new(),
            shared: AtomicU64::new(0),
        }
    }

    /// How often the disk was turned to, and how often that served somebody else too.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.disk.reads.load(Ordering::Relaxed), self.shared.load(Ordering::Relaxed))
    }

    /// Whether there is a recording of an event. The disk is only asked about one that is not open.
    ///
    /// # Errors
    /// [`ArchiveError::NotFound`] if not, otherwise why it cannot be told.
    pub(crate) async fn exists(&self, event: &EventSlug) -> Result<(), ReadError> {
        self.opened(event).await.map(drop)
    }

    /// Runs `read` with an event's recording as it is now, on a thread that may block.
    pub(crate) async fn with<R: Send + 'static>(
        &self,
        event: &EventSlug,
        read: impl FnOnce(&Recording) -> Result<R, ArchiveError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let opened = self.opened(event).await?;
        self.disk.with(opened, read).await
    }

    /// The bytes of a part; with the tag that HLS wants if `tagged`.
    pub(crate) async fn part(
        &self,
        event: &EventSlug,
        rendition: Rendition,
        number: PartNumber,
        tagged: bool,
    ) -> Result<Bytes, ReadError> {
        let item = Item::Part { event: event.clone(), rendition, number, tagged };
        let read = move |recording: &Recording| {
            let bytes = if tagged {
                let part = recording.read_whole_part(number)?;
                let bytes = &part.payload(rendition).bytes;
                wrapped::join(rendition, &part, std::slice::from_ref(bytes))
            } else {
                recording.read_part(rendition, number)?
            };
            Ok((bytes, recording.is_finished()))
        };
        self.read_once(event, item, read).await.map(|(bytes, _)| bytes)
    }

    /// The bytes of a segment. One that is not whole is none until the event is over.
    pub(crate) async fn segment(
        &self,
        event: &EventSlug,
        rendition: Rendition,
        number: SegmentNumber,
    ) -> Result<Bytes, ReadError> {
        let item = Item::Segment { event: event.clone(), rendition, number };
        let read = move |recording: &Recording| {
            Ok((segment(recording, rendition, number)?, recording.is_finished()))
        };
        self.read_once(event, item, read).await.map(|(bytes, _)| bytes)
    }

    /// The bytes of a segment of the delayed feed. One that is not whole is none until the event is over.
    pub(crate) async fn delayed_segment(
        &self,
        event: &EventSlug,
        rendition: Rendition,
        number: u64,
    ) -> Result<Bytes, ReadError> {
        let item = Item::Joined { event: event.clone(), rendition, number };
        let read = move |recording: &Recording| {
            let segments = delayed_segments(number);
            let bytes = segments_in_a_row(recording, rendition, segments.start, segments.end)?;
            Ok((bytes, recording.is_finished()))
        };
        self.read_once(event, item, read).await.map(|(bytes, _)| bytes)
    }

    /// A replay playlist as it is now, and whether it will change no more. [`ArchiveError::NotFound`] if there is
    /// nothing in it yet.
    pub(crate) async fn replay(
        &self,
        event: &EventSlug,
        rendition: Rendition,
        which: Replay,
        coding: Coding,
    ) -> Result<Yield, ReadError> {
        let item = Item::Replay { event: event.clone(), rendition, which, coding };
        let read = move |recording: &Recording| {
            let (span, base) = match which {
                Replay::Show => (Span::Show, format!("/live/{}/", recording.event())),
                Replay::Everything | Replay::Delayed => (Span::Everything, String::new()),
            };
            let playlist = archive::playlist::replay(recording, rendition, &span, &base);
            let playlist = match which {
                Replay::Show | Replay::Everything => playlist,
                Replay::Delayed => playlist.and_then(|playlist| playlist.delayed(rendition)),
            };
            let playlist = playlist.ok_or_else(|| ArchiveError::NotFound(recording.event().clone()))?;
            Ok((coding.write(playlist.render()), recording.is_finished()))
        };
        self.read_once(event, item, read).await
    }

    /// A download of a recording as it is now. `title` goes into the tags where there are any.
    pub(crate) async fn download(
        &self,
        event: &EventSlug,
        item: RecordingItem,
        title: String,
    ) -> Result<Taken, ReadError> {
        let opened = self.opened(event).await?;
        // Who reads on needs nothing of the disk yet.
        let known = opened.try_read().ok().and_then(|opened| {
            let fresh = opened.recording.is_finished() || opened.refreshed.elapsed() < REFRESH;
            let download = opened.downloads.get(&item).filter(|_| fresh)?;
            Some((download.clone(), opened.recording.is_finished()))
        });
        let (download, finished) = match known {
            Some(known) => known,
            None => {
                let made = move |opened: &RwLock<Opened>| download(opened, item, &title);
                self.disk.with_opened(Arc::clone(&opened), made).await?
            }
        };
        Ok(Taken { download, finished, _opened: opened })
    }

    /// A piece of a download: [`PIECE`] bytes from `index` times as many on, fewer at its end.
    pub(crate) async fn piece(&self, taken: &Taken, index: u64) -> Result<Bytes, ReadError> {
        let item = Item::Piece { etag: taken.download.etag().to_owned(), index };
        let (disk, taken) = (Arc::clone(&self.disk), taken.clone());
        let read = async move || {
            let read = disk.blocking(move || Ok(piece(&taken.download, index)?)).await?;
            Ok((read, true))
        };
        self.join(&self.flights, item, read).await.map(|(bytes, _)| bytes)
    }

    /// Reads an item of a recording, or waits for who does.
    async fn read_once(
        &self,
        event: &EventSlug,
        item: Item,
        read: impl FnOnce(&Recording) -> Result<(Bytes, bool), ArchiveError> + Send + 'static,
    ) -> Result<Yield, ReadError> {
        let opened = self.opened(event).await?;
        let disk = Arc::clone(&self.disk);
        self.join(&self.flights, item, async move || disk.with(opened, read).await).await
    }

    /// An event's recording, opened if it was not.
    async fn opened(&self, event: &EventSlug) -> Result<Arc<RwLock<Opened>>, ReadError> {
        if let Some(opened) = self.disk.known(event) {
            return Ok(opened);
        }
        let (disk, name) = (Arc::clone(&self.disk), event.clone());
        self.join(&self.openings, event.clone(), async move || disk.open(name).await).await
    }

    async fn join<K, V, F>(
        &self,
        flights: &Flights<K, Result<V, Arc<ReadError>>>,
        key: K,
        read: impl FnOnce() -> F,
    ) -> Result<V, ReadError>
    where
        K: Ord + Clone + Send + 'static,
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Result<V, ReadError>> + Send + 'static,
    {
        let (flight, joined) = flights.join(key, || {
            let read = read();
            async move { read.await.map_err(Arc::new) }
        });
        self.shared.fetch_add(u64::from(joined), Ordering::Relaxed);
        flight.await.map_err(|error| ReadError::told(&error))
    }
}

impl Disk {
    async fn with<R: Send + 'static>(
        &self,
        opened: Arc<RwLock<Opened>>,
        read: impl FnOnce(&Recording) -> Result<R, ArchiveError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let read = move |opened: &RwLock<Opened>| {
            read(&opened.read().unwrap_or_else(PoisonError::into_inner).recording)
        };
        self.with_opened(opened, read).await
    }

    async fn with_opened<R: Send + 'static>(
        &self,
        opened: Arc<RwLock<Opened>>,
        read: impl FnOnce(&RwLock<Opened>) -> Result<R, ArchiveError> + Send + 'static,
    ) -> Result<R, ReadError> {
        self.blocking(move || {
            refresh(&opened)?;
            Ok(read(&opened)?)
        })
        .await
    }

    async fn open(self: Arc<Self>, event: EventSlug) -> Result<Arc<RwLock<Opened>>, ReadError> {
        let (disk, name) = (Arc::clone(&self), event.clone());
        let open = move || {
            // What is not there takes no place from what is.
            if !disk.directories.iter().any(|data| archive::event_directory(data, &name).is_dir()) {
                return Err(ArchiveError::NotFound(name).into());
            }
            let place = disk.place()?;
            Ok((Recording::open(&disk.directories, &name)?, place))
        };
        let (recording, place) = self.blocking(open).await?;
        let opened = Arc::new(RwLock::new(Opened {
            recording,
            refreshed: Instant::now(),
            grown: 0,
            downloads: BTreeMap::new(),
            _place: place,
        }));
        self.keep(event, Arc::clone(&opened));
        Ok(opened)
    }

    /// Runs `read` on a thread that may block, when it is its turn.
    async fn blocking<R: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let turn = self.turn().await?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let read = move || {
            // A read goes on when nobody waits for it any more: its turn is over when it is, and not before.
            let _turn = turn;
            read()
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| ReadError::Panicked)?
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        match tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(ReadError::Busy),
        }
    }

    fn known(&self, event: &EventSlug) -> Option<Arc<RwLock<Opened>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = open.get_mut(event)?;
        entry.used = Instant::now();
        Some(Arc::clone(&entry.opened))
    }

    fn keep(&self, event: EventSlug, opened: Arc<RwLock<Opened>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(event, Entry { used: Instant::now(), opened });
        while open.len() > KEPT && close_one(&mut open) {}
    }

    /// A place for one more recording, if need be of one that nobody reads.
    fn place(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Ok(place);
            }
            if !close_one(&mut open) {
                return Err(ReadError::Busy);
            }
        }
    }
}

/// Closes the recording that nobody reads and that was not asked for longest, if there is one.
fn close_one(open: &mut BTreeMap<EventSlug, Entry>) -> bool {
    // Who reads has one of these besides ours, and gets it only under the lock that our caller holds.
    let idle = open.iter().filter(|(_, entry)| Arc::strong_count(&entry.opened) == 1);
    let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(event, _)| event.clone());
    oldest.is_some_and(|event| open.remove(&event).is_some())
}

/// The parts of a segment, as every edge makes it of them.
fn segment(
    recording: &Recording,
    rendition: Rendition,
    number: SegmentNumber,
) -> Result<Bytes, ArchiveError> {
    segments_in_a_row(recording, rendition, number, number.next())
}

/// As [`segment`], all from `number` to before `next`, as one.
fn segments_in_a_row(
    recording: &Recording,
    rendition: Rendition,
    number: SegmentNumber,
    next: SegmentNumber,
) -> Result<Bytes, ArchiveError> {
    let (first, range) = (number.first_part(), recording.parts());
    let next = next.first_part();
    let end = if recording.is_finished() { next.min(range.end) } else { next };
    // A part that does not exist yet ends it before anything is read.
    if end <= first || end > range.end {
        return Err(ArchiveError::NoPart(first));
    }
    let numbers = || (first.get()..end.get()).map(PartNumber::new);
    let firsts = numbers()
        .filter(|number| number.index_in_segment() == 0)
        .map(|number| recording.read_whole_part(number))
        .collect::<Result<Vec<_>, _>>()?;
    let parts = numbers().map(|n| recording.read_part(rendition, n)).collect::<Result<Vec<_>, _>>()?;
    Ok(wrapped::join_several(rendition, &firsts.iter().collect::<Vec<_>>(), &parts))
}

/// A download, made anew or as it was made for somebody else since the recording last grew. It is made beside those who
/// read: a long recording's takes a while.
fn download(
    opened: &RwLock<Opened>,
    item: RecordingItem,
    title: &str,
) -> Result<(Download, bool), ArchiveError> {
    let reading = opened.read().unwrap_or_else(PoisonError::into_inner);
    let (recording, grown) = (&reading.recording, reading.grown);
    let finished = recording.is_finished();
    if let Some(download) = reading.downloads.get(&item) {
        return Ok((download.clone(), finished));
    }
    let span = Span::Show;
    let download = match item {
        RecordingItem::Mp4(rendition) => Download::mp4(recording, rendition, &span)?,
        RecordingItem::Ogg => Download::ogg(recording, Rendition::Opus48, &span, title)?,
        RecordingItem::Mp3 => Download::mp3(recording, &span)?,
        RecordingItem::Clip { rendition, from, to } => {
            // As many clips as there are pairs of numbers: these are not kept.
            return Ok((Download::clip(recording, rendition, Clip { from, to })?, finished));
        }
        RecordingItem::Index | RecordingItem::Playlist(_) => {
            return Err(ArchiveError::NotFound(recording.event().clone()));
        }
    };
    drop(reading);
    let mut opened = opened.write().unwrap_or_else(PoisonError::into_inner);
    if opened.grown == grown {
        opened.downloads.insert(item, download.clone());
    }
    Ok((download, finished))
}

/// Reads a piece of a download, which may lie in several files.
fn piece(download: &Download, index: u64) -> io::Result<Bytes> {
    let begin = index.saturating_mul(PIECE);
    let end = begin.saturating_add(PIECE).min(download.length());
    let left = |at: u64| usize::try_from(end.saturating_sub(at)).unwrap_or(0);
    let first = download.read(begin, left(begin))?;
    if first.len() == left(begin) || first.is_empty() {
        return Ok(first);
    }
    let mut bytes = BytesMut::with_capacity(left(begin));
    bytes.extend_from_slice(&first);
    loop {
        let at = begin + bytes.len() as u64;
        let more = download.read(at, left(at))?;
        if more.is_empty() {
            return Ok(bytes.freeze());
        }
        bytes.extend_from_slice(&more);
    }
}

fn refresh(opened: &RwLock<Opened>) -> Result<(), ArchiveError> {
    {
        let opened = opened.read().unwrap_or_else(PoisonError::into_inner);
        if opened.recording.is_finished() || opened.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
    }
    let mut opened = opened.write().unwrap_or_else(PoisonError::into_inner);
    if opened.refreshed.elapsed() >= REFRESH {
        opened.refreshed = Instant::now();
        if opened.recording.refresh()? {
            opened.grown += 1;
            opened.downloads.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use archive::Recorder;
    use futures_util::FutureExt as _;

    use super::*;

    /// Nothing takes this long unless it is broken.
    const NEVER: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_keeps_its_turn_until_it_is_over() {
        let recordings = Recordings::new(Vec::new(), 1, 1);
        let disk = &recordings.disk;
        let (go_on, gate) = mpsc::channel::<()>();
        let mut reading = Box::pin(disk.blocking(move || Ok(gate.recv_timeout(NEVER).is_ok())));
        assert!((&mut reading).now_or_never().is_none());
        drop(reading);
        assert_eq!(disk.turns.available_permits(), 0);
        go_on.send(()).unwrap();
        assert_eq!(disk.blocking(|| Ok(7)).await.unwrap(), 7);
    }

    #[test]
    fn a_clip_is_made_while_others_read() {
        let (data, event) = (tempfile::tempdir().unwrap(), "talk".parse::<EventSlug>().unwrap());
        let directories = [data.path().to_owned()];
        let _recorder = Recorder::open(&directories, &event).unwrap();
        let recording = Recording::open(&directories, &event).unwrap();
        let (refreshed, downloads) = (Instant::now(), BTreeMap::new());
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let opened = Opened { recording, refreshed, grown: 0, downloads, _place: place };
        let opened = Arc::new(RwLock::new(opened));
        let reading = opened.read().unwrap();
        let (tell, told) = mpsc::channel();
        let asked = Arc::clone(&opened);
        let item = RecordingItem::Clip {
            rendition: Rendition::Opus48,
            from: Duration::ZERO,
            to: Duration::from_secs(1),
        };
        std::thread::spawn(move || tell.send(download(&asked, item, "").is_err()));
        assert_eq!(told.recv_timeout(NEVER), Ok(true), "there is nothing in it, which is said at once");
        drop(reading);
    }

    #[tokio::test]
    async fn a_recording_is_open_for_as_long_as_it_is_read_and_no_more_are_open_than_may() {
        let data = tempfile::tempdir().unwrap();
        let directories = vec![data.path().to_owned()];
        let events = ["a", "b", "c"].map(|name| name.parse::<EventSlug>().unwrap());
        let _recorders = events.each_ref().map(|event| Recorder::open(&directories, event).unwrap());
        let recordings = Recordings::new(directories, 1, 2);
        let [a, b, c] = &events;
        let (first, second) = (recordings.opened(a).await.unwrap(), recordings.opened(b).await.unwrap());
        assert!(matches!(recordings.exists(c).await, Err(ReadError::Busy)));
        assert!(recordings.exists(a).await.is_ok(), "who is open is served");
        let none = recordings.exists(&"none".parse().unwrap()).await;
        assert!(matches!(none, Err(ReadError::Archive(ArchiveError::NotFound(_)))));
        drop(second);
        assert!(recordings.exists(c).await.is_ok());
        let mut open: Vec<_> = recordings.disk.open.lock().unwrap().keys().cloned().collect();
        assert_eq!(open, [a.clone(), c.clone()], "who is read stays, the other had to go");
        drop(first);
        assert!(recordings.exists(b).await.is_ok());
        open = recordings.disk.open.lock().unwrap().keys().cloned().collect();
        assert_eq!(open, [b.clone(), c.clone()], "whom nobody asked for longest goes first");
    }
}
