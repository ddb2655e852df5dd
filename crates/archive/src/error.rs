use std::io;
use std::path::{Path, PathBuf};

use model::{EventSlug, PartNumber};

/// Why the archive could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The data directory, or the file system it is on, does not allow writing.
    #[error("{path}: the data directory cannot be written to ({source})")]
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// No space is left on the device, or a quota is used up.
    #[error("{path}: no space left ({source})")]
    Full {
        /// What could not be written.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// Another recorder has this event open.
    #[error("{path}: another recorder is writing this event")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// Reading or writing failed otherwise.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// There is no recording of this event (yet).
    #[error("no recording of {0}")]
    NotFound(EventSlug),
    /// No directory was given.
    #[error("no data directory is given for recordings")]
    NoDirectory,
    /// The event is closed; its recording does not change any more.
    #[error("the recording of {0} is finished")]
    Finished(EventSlug),
    /// A part that does not come after the last one.
    #[error("part {given} cannot be recorded after part {last}")]
    Order {
        /// The last part recorded.
        last: PartNumber,
        /// The part given.
        given: PartNumber,
    },
    /// A part of this number is not (or no longer) in the recording.
    #[error("part {0} is not in the recording")]
    NoPart(PartNumber),
    /// Bytes on the disk are not what was written: their checksum differs.
    #[error("{path}: part {number} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part.
        number: PartNumber,
    },
    /// A file that we write has content we cannot have written.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl ArchiveError {
    /// Sorts an error of the system.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}
