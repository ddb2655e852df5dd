//! Recordings, read from the disk away from the runtime's threads, a bounded number of reads at once.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use archive::{ArchiveError, Clip, Download, Recording, Span};
use bytes::Bytes;
use model::{EventSlug, Rendition};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::address::RecordingItem;

/// Recordings kept open.
const OPEN_MAX: usize = 32;
/// Least time between two looks at whether a recording has grown.
const REFRESH: Duration = Duration::from_millis(250);
/// Longest wait for a turn to read.
const TURN: Duration = Duration::from_secs(10);

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Too many read already.
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
}

/// All recordings below some data directories.
#[derive(Debug)]
pub(crate) struct Recordings {
    directories: Arc<[PathBuf]>,
    turns: Semaphore,
    open: Mutex<BTreeMap<EventSlug, Entry>>,
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
    downloads: BTreeMap<RecordingItem, Download>,
}

impl Recordings {
    /// `reads` is the number of reads at once.
    pub(crate) fn new(directories: Vec<PathBuf>, reads: usize) -> Self {
        Self { directories: directories.into(), turns: Semaphore::new(reads), open: Mutex::default() }
    }

    /// Runs `read` with an event's recording as it is now, on a thread that may block.
    pub(crate) async fn with<R: Send + 'static>(
        &self,
        event: &EventSlug,
        read: impl FnOnce(&Recording) -> Result<R, ArchiveError> + Send + 'static,
    ) -> Result<R, ReadError> {
        self.with_opened(event, move |opened| {
            read(&opened.read().unwrap_or_else(PoisonError::into_inner).recording)
        })
        .await
    }

    /// A download of a recording as it is now. `title` goes into the tags where there are any.
    pub(crate) async fn download(
        &self,
        event: &EventSlug,
        item: RecordingItem,
        title: String,
    ) -> Result<(Download, bool), ReadError> {
        self.with_opened(event, move |opened| {
            {
                let opened = opened.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(download) = opened.downloads.get(&item) {
                    return Ok((download.clone(), opened.recording.is_finished()));
                }
            }
            let mut opened = opened.write().unwrap_or_else(PoisonError::into_inner);
            let recording = &opened.recording;
            let finished = recording.is_finished();
            let span = Span::Show;
            let download = match item {
                RecordingItem::Mp4(rendition) => Download::mp4(recording, rendition, &span)?,
                RecordingItem::Ogg => Download::ogg(recording, Rendition::Opus48, &span, &title)?,
                RecordingItem::Mp3 => Download::mp3(recording, &span)?,
                RecordingItem::Clip { rendition, from, to } => {
                    // As many clips as there are pairs of numbers: these are not kept.
                    return Ok((Download::clip(recording, rendition, Clip { from, to })?, finished));
                }
                RecordingItem::Index | RecordingItem::Playlist(_) => {
                    return Err(ArchiveError::NotFound(recording.event().clone()));
                }
            };
            opened.downloads.insert(item, download.clone());
            Ok((download, finished))
        })
        .await
    }

    /// Reads a piece of a download.
    pub(crate) async fn read(
        &self,
        download: Download,
        offset: u64,
        limit: usize,
    ) -> Result<Bytes, ReadError> {
        let _turn = self.turn().await?;
        let read = tokio::task::spawn_blocking(move || download.read(offset, limit)).await;
        Ok(read.map_err(|_| ReadError::Panicked)??)
    }

    async fn with_opened<R: Send + 'static>(
        &self,
        event: &EventSlug,
        read: impl FnOnce(&RwLock<Opened>) -> Result<R, ArchiveError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let _turn = self.turn().await?;
        let known = self.known(event);
        let (directories, event) = (Arc::clone(&self.directories), event.clone());
        let found = tokio::task::spawn_blocking(move || {
            let opened = match known {
                Some(opened) => {
                    refresh(&opened)?;
                    opened
                }
                None => Arc::new(RwLock::new(Opened {
                    recording: Recording::open(&directories, &event)?,
                    refreshed: Instant::now(),
                    downloads: BTreeMap::new(),
                })),
            };
            let result = read(&opened)?;
            Ok((result, event, opened))
        });
        let (result, event, opened) =
            found.await.map_err(|_| ReadError::Panicked)?.map_err(ReadError::Archive)?;
        self.keep(event, opened);
        Ok(result)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, ReadError> {
        match tokio::time::timeout(TURN, self.turns.acquire()).await {
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
        open.entry(event).or_insert_with(|| Entry { used: Instant::now(), opened });
        if open.len() > OPEN_MAX
            && let Some(oldest) =
                open.iter().min_by_key(|(_, entry)| entry.used).map(|(event, _)| event.clone())
        {
            open.remove(&oldest);
        }
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
            opened.downloads.clear();
        }
    }
    Ok(())
}
