//! Files that are there whole or not at all, and the events a node has frozen to its disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Event, EventSlug};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::EventRecord;

/// Why a frozen file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The file is there and cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{path} is damaged: {reason}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Replaces `path` by a file with these bytes: written beside it, synced, renamed, and the directory synced. The
/// directory must exist. The file may be read by its owner alone if `private`.
///
/// # Errors
/// Whatever the file system says; the old file then is what it was.
pub fn write_bytes(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    replace(path, bytes, private, Durable::Yes)?;
    sync_parent(path)
}

/// As [`write_bytes`], unless `path` exists already, which is then left as it is. Says whether it was written. Of
/// several processes that try at once exactly one succeeds. Where it exists nothing is written: a full disk is no error.
///
/// # Errors
/// Whatever the file system says.
pub fn write_new(path: &Path, bytes: &[u8], private: bool) -> io::Result<bool> {
    if path.try_exists()? {
        return Ok(false);
    }
    let temporary = write_beside(path, bytes, private, Durable::Yes)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// [`write_bytes`] of a value as JSON.
///
/// # Errors
/// Whatever the file system says.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    bytes.push(b'\n');
    write_bytes(path, &bytes, false)
}

/// As [`write_json`], but waits for no disk: for what is made anew after a restart of the machine. Who reads it meets the
/// old file or the new one.
///
/// # Errors
/// Whatever the file system says; the old file then is what it was.
pub fn write_json_unsynced<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    bytes.push(b'\n');
    replace(path, &bytes, false, Durable::No)
}

/// Reads what [`write_json`] wrote; `None` if there is no such file.
///
/// # Errors
/// [`FreezeError`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FreezeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FreezeError::Io { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| FreezeError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

fn replace(path: &Path, bytes: &[u8], private: bool, durable: Durable) -> io::Result<()> {
    let temporary = write_beside(path, bytes, private, durable)?;
    fs::rename(&temporary, path).inspect_err(|_| _ = fs::remove_file(&temporary))
}

fn write_beside(path: &Path, bytes: &[u8], private: bool, durable: Durable) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{count}.tmp", std::process::id()));
    let mode = if private { 0o600 } else { 0o644 };
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let sync = |()| if durable == Durable::Yes { file.sync_all() } else { Ok(()) };
    let written = (&file).write_all(bytes).and_then(sync);
    written.inspect_err(|_| _ = fs::remove_file(&temporary))?;
    Ok(temporary)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The events frozen to the disk of one node, a file each (`{directory}/{event}.json`), so that a running event
/// needs neither control nor its store to go on.
#[derive(Clone, Debug)]
pub struct FrozenEvents {
    directory: PathBuf,
}

impl FrozenEvents {
    /// Opens the directory, making it if needed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Freezes an event. Writes only if the revision on the disk is lower; says whether it wrote.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn freeze(&self, event: &Event) -> io::Result<bool> {
        if let Ok(Some(there)) = self.thaw(&event.slug)
            && there.revision >= event.revision
        {
            return Ok(false);
        }
        write_json(&self.path(&event.slug), &EventRecord::from(event)).map(|()| true)
    }

    /// One event, if it is frozen here.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn thaw(&self, slug: &EventSlug) -> Result<Option<Event>, FreezeError> {
        let path = self.path(slug);
        let Some(record) = read_json::<EventRecord>(&path)? else { return Ok(None) };
        Event::try_from(record)
            .map(Some)
            .map_err(|error| FreezeError::Damaged { path, reason: error.to_string() })
    }

    /// Every event that is frozen here, in order of the names. A damaged file does not hide the others: it comes
    /// back in the second list.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn thaw_all(&self) -> io::Result<(Vec<Event>, Vec<FreezeError>)> {
        let (mut events, mut damaged) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(slug) = name.to_str().and_then(|n| n.strip_suffix(".json")).and_then(|n| n.parse().ok())
            else {
                continue;
            };
            match self.thaw(&slug) {
                Ok(event) => events.extend(event),
                Err(error) => damaged.push(error),
            }
        }
        events.sort_by(|a, b| a.slug.cmp(&b.slug));
        Ok((events, damaged))
    }

    /// Removes an event that is no longer served here.
    ///
    /// # Errors
    /// Whatever the file system says; that it was not there is no error.
    pub fn forget(&self, slug: &EventSlug) -> io::Result<()> {
        match fs::remove_file(self.path(slug)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, slug: &EventSlug) -> PathBuf {
        self.directory.join(format!("{slug}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn event(slug: &str, revision: u64) -> Event {
        Event {
            slug: slug.parse().expect("a slug"),
            revision,
            title: Default::default(),
            starts_at: model::UnixTime::from_millis(1),
            duration: None,
            doors_before: Default::default(),
            auto_live: true,
            green_room: model::GreenRoom::Open,
            hold_on_silence: false,
            slate: None,
            invite_key: [0; 32],
            signing_key: [0; 32],
            seats: Vec::new(),
            created_at: model::UnixTime::from_millis(0),
        }
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        write_json(&path, &[1, 2, 3]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2, 3]));
        write_bytes(&path, b"[4]", true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_new(&path, b"[5]", false).unwrap());
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![4]));
        write_bytes(&path, b"{", false).unwrap();
        assert!(matches!(read_json::<Vec<u8>>(&path), Err(FreezeError::Damaged { .. })));
        assert!(write_json(&directory.path().join("none/a.json"), &1).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing temporary stays");
    }

    #[test]
    fn the_highest_revision_is_frozen() {
        let directory = tempfile::tempdir().unwrap();
        let frozen = FrozenEvents::open(&directory.path().join("events")).unwrap();
        assert!(frozen.freeze(&event("b", 1)).unwrap());
        assert!(frozen.freeze(&event("a", 7)).unwrap());
        assert!(!frozen.freeze(&event("a", 7)).unwrap());
        assert!(!frozen.freeze(&event("a", 6)).unwrap());
        assert!(frozen.freeze(&event("a", 8)).unwrap());
        fs::write(directory.path().join("events/c.json"), "{").unwrap();
        fs::write(directory.path().join("events/Not A Slug.json"), "{").unwrap();
        let (events, damaged) = frozen.thaw_all().unwrap();
        assert_eq!(events, [event("a", 8), event("b", 1)]);
        assert_eq!(damaged.len(), 1);
        frozen.forget(&events[0].slug).unwrap();
        frozen.forget(&events[0].slug).unwrap();
        assert_eq!(frozen.thaw(&events[0].slug).unwrap(), None);
    }
}
