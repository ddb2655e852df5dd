//! The few things that are asked of a file system, so that tests can let each of them fail.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;

/// A file system.
pub trait Files: fmt::Debug + Send {
    /// Makes a directory and those above it. No error if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens for reading and writing; made (mode 0644) if it is not there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Reads a small file; `None` if it is not there. More than `limit` bytes are an error.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a small file as a whole: written beside it, synchronised, renamed, directory synchronised.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Whether there is something at this path.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Copies a file if it is there.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes entries of a directory survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock that dies with the process. [`ErrorKind::WouldBlock`] if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send>>;
}

/// An open file, addressed by offsets; it has no position.
pub trait File: fmt::Debug + Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Writes all bytes. After an error any part of them may be there.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills the buffer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends it.
    fn set_len(&mut self, length: u64) -> io::Result<()>;
    /// Returns when content and length are on the disk.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "more content than we write"));
        }
        Ok(Some(content))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |directory| self.sync_dir(directory))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::copy(from, to) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // Bound to the open file, not to the process: a second recorder in this very process is refused as well.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(Locked(file)))
    }
}

/// Gives the lock back when it is dropped, rather than when the last copy of the descriptor is closed: a child that
/// this process is just forking may hold one until it executes its program.
#[derive(Debug)]
struct Locked(fs::File);

impl Drop for Locked {
    fn drop(&mut self) {
        // If it fails, closing the file does the same a little later.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
