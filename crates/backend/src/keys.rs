//! Private keys: made at the first need, mode 0600, in `keys/`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use admission::room::{RoomKey, RoomKeys};
use admission::ticket::{TicketKey, TicketKeys};
use ed25519_dalek::SigningKey;
use model::EventSlug;

use crate::freeze;

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("cannot read or make the key {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no key of its kind.
    #[error("{path} holds no key of its kind", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// Others than the owner may read it.
    #[error("{path} may be read by others: its mode is {mode:o}, 600 is needed", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The keys of one installation. Of several processes that need a key at once exactly one makes it.
#[derive(Clone, Debug)]
pub struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// Uses `directory` (`keys/` of the data directory), made with mode 0700 if it is missing.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| KeyError::Io { path: directory.to_owned(), source })?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The publisher's key, which certifies the keys of events: `publisher.ed25519`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn publisher(&self) -> Result<SigningKey, KeyError> {
        self.signing("publisher.ed25519")
    }

    /// The key that signs invitations: `invite.ed25519`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn invite(&self) -> Result<SigningKey, KeyError> {
        self.signing("invite.ed25519")
    }

    /// The key that signs an event's parts: `event-{slug}.ed25519`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn event(&self, slug: &EventSlug) -> Result<SigningKey, KeyError> {
        self.signing(&format!("event-{slug}.ed25519"))
    }

    /// The keys of tickets: `tickets`. Read again now and then (once a minute is plenty): they rotate.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn tickets(&self) -> Result<TicketKeys, KeyError> {
        let path = self.directory.join(TICKETS);
        let fresh = || ticket_bytes(&TicketKeys { current: new_ticket_key(0), previous: None });
        let bytes = load_or_make(&path, fresh)?;
        parse_ticket_keys(&bytes).ok_or(KeyError::Damaged { path })
    }

    /// Makes a new key for tickets; the one in use becomes the previous one. Control alone calls this.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn rotate_tickets(&self) -> Result<TicketKeys, KeyError> {
        let old = self.tickets()?;
        let new = TicketKeys {
            current: new_ticket_key(old.current.id.wrapping_add(1)),
            previous: Some(old.current),
        };
        let path = self.directory.join(TICKETS);
        match freeze::write_bytes(&path, &ticket_bytes(&new), true) {
            Ok(()) => Ok(new),
            Err(source) => Err(KeyError::Io { path, source }),
        }
    }

    /// The key of the waiting rooms' tokens: `room`. Tokens live as long as their event, so it stays.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn room(&self) -> Result<RoomKeys, KeyError> {
        Ok(RoomKeys { current: RoomKey { id: 0, secret: self.secret("room")? }, previous: None })
    }

    /// What the draws of the waiting rooms are derived from: `draw`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn draw(&self) -> Result<[u8; 32], KeyError> {
        self.secret("draw")
    }

    /// When the ticket keys were last changed, if they exist and the file system tells.
    pub fn tickets_changed_at(&self) -> Option<SystemTime> {
        fs::metadata(self.directory.join(TICKETS)).ok()?.modified().ok()
    }

    /// The state of the file of ticket keys, if there is one.
    pub(crate) fn tickets_stamp(&self) -> Option<FileStamp> {
        FileStamp::of(&self.directory.join(TICKETS))
    }

    fn signing(&self, name: &str) -> Result<SigningKey, KeyError> {
        Ok(SigningKey::from_bytes(&self.secret(name)?))
    }

    fn secret(&self, name: &str) -> Result<[u8; 32], KeyError> {
        let path = self.directory.join(name);
        let bytes = load_or_make(&path, || rand::random::<[u8; 32]>().to_vec())?;
        bytes.try_into().map_err(|_| KeyError::Damaged { path })
    }
}

/// What tells one state of a file from another: the times of its bytes and of everything else (its owner and mode,
/// which may be why it could not be read), its length and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    modified: SystemTime,
    /// Seconds and nanoseconds (`st_ctime`, inode(7)).
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl FileStamp {
    /// Of the file at `path`; `None` if there is none to be seen.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

const TICKETS: &str = "tickets";
const TICKET_KEY_BYTES: usize = 1 + 32;

fn new_ticket_key(id: u8) -> TicketKey {
    TicketKey { id, secret: rand::random() }
}

/// The current key and then the previous one, if any: each its number and its secret.
fn ticket_bytes(keys: &TicketKeys) -> Vec<u8> {
    let keys = std::iter::once(&keys.current).chain(&keys.previous);
    keys.flat_map(|key| std::iter::once(key.id).chain(key.secret)).collect()
}

fn parse_ticket_keys(bytes: &[u8]) -> Option<TicketKeys> {
    let key = |bytes: &[u8]| {
        let (&id, secret) = bytes.split_first()?;
        Some(TicketKey { id, secret: secret.try_into().ok()? })
    };
    let previous = match bytes.len() {
        TICKET_KEY_BYTES => None,
        len if len == 2 * TICKET_KEY_BYTES => Some(key(&bytes[TICKET_KEY_BYTES..])?),
        _ => return None,
    };
    Some(TicketKeys { current: key(&bytes[..TICKET_KEY_BYTES])?, previous })
}

fn load_or_make(path: &Path, fresh: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, KeyError> {
    let io_error = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Whoever comes second finds the key of the first.
            freeze::write_new(path, &fresh(), true).map_err(io_error)?;
            File::open(path).map_err(io_error)?
        }
        opened => opened.map_err(io_error)?,
    };
    let mode = file.metadata().map_err(io_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    // A key is shorter than this by far; whatever else lies there need not be read in full.
    file.by_ref().take(1_024).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_key_is_made_once_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let keys = Keys::open(&path).unwrap();
        let made: BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| keys.publisher().unwrap().to_bytes())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(made.len(), 1);
        let slug = "a-talk".parse().unwrap();
        assert_eq!(keys.event(&slug).unwrap(), Keys::open(&path).unwrap().event(&slug).unwrap());
        assert_ne!(keys.event(&slug).unwrap(), keys.invite().unwrap());
        let mode = fs::metadata(path.join("event-a-talk.ed25519")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "nothing temporary stays: {left:?}");
    }

    #[test]
    fn ticket_keys_rotate() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        let first = keys.tickets().unwrap();
        assert_eq!(first, keys.tickets().unwrap());
        let second = keys.rotate_tickets().unwrap();
        assert_eq!(second.previous, Some(first.current));
        assert_eq!(second.current.id, 1);
        assert_eq!(second, keys.tickets().unwrap());
    }

    #[test]
    fn a_damaged_or_exposed_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        let path = directory.path().join("invite.ed25519");
        freeze::write_bytes(&path, b"short", true).unwrap();
        assert!(matches!(keys.invite(), Err(KeyError::Damaged { .. })));
        freeze::write_bytes(&path, &[7; 32], false).unwrap();
        assert!(matches!(keys.invite(), Err(KeyError::Exposed { mode: 0o644, .. })));
        freeze::write_bytes(&directory.path().join(TICKETS), &[0; 34], true).unwrap();
        assert!(matches!(keys.tickets(), Err(KeyError::Damaged { .. })));
    }
}
