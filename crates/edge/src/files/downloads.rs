//! Places for downloads, shared out between networks: each has a piece of a file in memory for as long as its reader takes
//! to take it, and readers may be slow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission::doorstep::{Prefix, Shares};

/// The places.
#[derive(Debug)]
pub(crate) struct Downloads(Mutex<Shares>);

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub(super) struct DownloadPlace {
    downloads: Arc<Downloads>,
    from: Prefix,
}

impl Downloads {
    /// So many places.
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Shares::new(places))))
    }

    /// A place for somebody from there, if there is one for them.
    pub(super) fn take(self: &Arc<Self>, from: Prefix) -> Option<DownloadPlace> {
        self.lock().take(from).then(|| DownloadPlace { downloads: Arc::clone(self), from })
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().taken()
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        // Nothing that can panic happens under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DownloadPlace {
    fn drop(&mut self) {
        self.downloads.lock().give_back(self.from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_some_for_others() {
        let downloads = Downloads::new(8);
        let [many, other] = ["192.0.2.1", "198.51.100.1"].map(|address| Prefix::of(address.parse().unwrap()));
        let mut held: Vec<_> = std::iter::from_fn(|| downloads.take(many)).collect();
        assert_eq!((held.len(), downloads.taken()), (4, 4));
        held.extend(downloads.take(other));
        assert_eq!(downloads.taken(), 5);
        held.clear();
        assert_eq!(downloads.taken(), 0);
    }
}
