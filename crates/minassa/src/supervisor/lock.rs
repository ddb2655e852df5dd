//! One server a data directory, and one process a role.
//!
//! The lock on `run/lock` belongs to an open file that every child inherits. It is free when the supervisor *and*
//! all children are gone: a next start can never run beside a child that outlived its supervisor by a moment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// How long a start waits for the last child of a dead supervisor to be gone.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Why the directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock file cannot be made or locked.
    #[error("cannot lock {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error(
        "{directory} is in use by {holders}; stop that server, or name another directory with --data",
        directory = directory.display()
    )]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// Who, as far as it can be seen.
        holders: String,
    },
}

/// A lock, held as long as this lives, and every child it was shared with.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock `run/{name}` of the data directory, waiting for at most `wait`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(data: &Path, name: &str, wait: Duration) -> Result<Self, LockError> {
        let path = data.join("run").join(name);
        let io = |source: io::Error| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let deadline = Instant::now() + wait;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Err(Errno::WOULDBLOCK) => {
                    let holders = describe(&holders(&file).unwrap_or_default());
                    return Err(LockError::Held { directory: data.to_owned(), holders });
                }
                Err(error) => return Err(io(error.into())),
            }
        }
        Ok(Self { file, path })
    }

    /// Lets every child that is started from now on hold the lock too.
    ///
    /// # Errors
    /// [`LockError::Io`].
    pub fn share_with_children(&self) -> Result<(), LockError> {
        fcntl_setfd(&self.file, FdFlags::empty())
            .map_err(|error| LockError::Io { path: self.path.clone(), source: error.into() })
    }
}

/// Processes that have the file open, with their command lines. Only those of this user can be seen.
fn holders(file: &File) -> io::Result<Vec<(u32, String)>> {
    let wanted = file.metadata()?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let has_it = descriptors.flatten().any(|descriptor| {
            fs::metadata(descriptor.path())
                .is_ok_and(|its| its.dev() == wanted.dev() && its.ino() == wanted.ino())
        });
        if has_it {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            found.push((pid, words.iter().take(2).map(|word| &**word).collect::<Vec<_>>().join(" ")));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn describe(holders: &[(u32, String)]) -> String {
    match holders {
        [] => "another server (a process that cannot be seen from here)".into(),
        _ => {
            let each: Vec<_> = holders.iter().map(|(pid, line)| format!("process {pid} ({line})")).collect();
            each.join(", ")
        }
    }
}
