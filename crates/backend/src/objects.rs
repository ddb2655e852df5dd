//! Files named by the digest of their content.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;

use crate::freeze;

/// What an object is; the first part of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Audio played before the start or during a hold, as it was uploaded.
    Slate,
}

/// Address of an object: `slates/{digest}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKey {
    /// What it is.
    pub kind: ObjectKind,
    /// SHA-256 of its content.
    pub digest: Digest,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = match self.kind {
            ObjectKind::Slate => "slates",
        };
        write!(f, "{folder}/{}", self.digest)
    }
}

/// A place for objects.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Keeps `bytes` and names them. Keeping what is there already is cheap and no error.
    ///
    /// # Errors
    /// Whatever the place says.
    async fn put(&self, kind: ObjectKind, bytes: Bytes) -> io::Result<ObjectKey>;

    /// Length in bytes, `None` if it is not there.
    ///
    /// # Errors
    /// Whatever the place says.
    async fn size(&self, key: &ObjectKey) -> io::Result<Option<u64>>;

    /// The whole object, checked against its digest; `None` if it is not there.
    ///
    /// # Errors
    /// Whatever the place says; `InvalidData` if its content does not match its name.
    async fn read(&self, key: &ObjectKey) -> io::Result<Option<Bytes>>;

    /// A range of bytes, cut at the end of the object, unchecked; `None` if it is not there.
    ///
    /// # Errors
    /// Whatever the place says.
    async fn read_range(&self, key: &ObjectKey, range: Range<u64>) -> io::Result<Option<Bytes>>;
}

/// Objects as files below one directory.
#[derive(Clone, Debug)]
pub struct DirectoryObjects {
    directory: PathBuf,
}

impl DirectoryObjects {
    /// Uses `directory`, which is made at the first write.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where an object lies, for those who read files themselves.
    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.directory.join(key.to_string())
    }
}

#[async_trait]
impl Objects for DirectoryObjects {
    async fn put(&self, kind: ObjectKind, bytes: Bytes) -> io::Result<ObjectKey> {
        let directory = self.directory.clone();
        blocking(move || {
            let key = ObjectKey { kind, digest: Digest::of(&bytes) };
            let path = directory.join(key.to_string());
            std::fs::create_dir_all(path.parent().expect("an object lies in its kind's folder"))?;
            freeze::write_new(&path, &bytes, false).map(|_| key)
        })
        .await
    }

    async fn size(&self, key: &ObjectKey) -> io::Result<Option<u64>> {
        let path = self.path(key);
        blocking(move || found(std::fs::metadata(path)).map(|there| there.map(|file| file.len()))).await
    }

    async fn read(&self, key: &ObjectKey) -> io::Result<Option<Bytes>> {
        let (path, digest) = (self.path(key), key.digest);
        blocking(move || {
            let Some(bytes) = found(std::fs::read(&path))? else { return Ok(None) };
            if Digest::of(&bytes) == digest {
                return Ok(Some(bytes.into()));
            }
            let message = format!("{} is damaged: its content does not match its name", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        })
        .await
    }

    async fn read_range(&self, key: &ObjectKey, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let path = self.path(key);
        blocking(move || {
            let Some(mut file) = found(File::open(path))? else { return Ok(None) };
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::new();
            file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
            Ok(Some(bytes.into()))
        })
        .await
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_is_named_by_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryObjects::new(directory.path());
        let key = objects.put(ObjectKind::Slate, Bytes::from_static(b"0123456789")).await.unwrap();
        let again = objects.put(ObjectKind::Slate, Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(key, again);
        assert_eq!(key.to_string(), format!("slates/{}", Digest::of(b"0123456789")));
        assert_eq!(objects.size(&key).await.unwrap(), Some(10));
        assert_eq!(objects.read(&key).await.unwrap().unwrap(), "0123456789");
        for (range, expected) in [(2..5, "234"), (8..99, "89"), (10..20, ""), (50..60, ""), (5..5, "")] {
            assert_eq!(objects.read_range(&key, range).await.unwrap().unwrap(), expected);
        }
        std::fs::write(objects.path(&key), b"something else").unwrap();
        assert_eq!(objects.read(&key).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_is_not_there_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryObjects::new(&directory.path().join("later"));
        let key = ObjectKey { kind: ObjectKind::Slate, digest: Digest::of(b"?") };
        assert_eq!(objects.size(&key).await.unwrap(), None);
        assert_eq!(objects.read(&key).await.unwrap(), None);
        assert_eq!(objects.read_range(&key, 0..1).await.unwrap(), None);
    }
}
