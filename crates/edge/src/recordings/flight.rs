//! Single flight: whoever asks for what is just being read waits for that reading and shares what it yields.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// Readings in progress, by what they read.
///
/// Nothing is kept once a reading is over: there are as many entries as readings, and what one yields lives as long as
/// those who share it. A reading goes on as long as anybody waits for it, whoever began it.
#[derive(Debug)]
pub(super) struct Flights<K, V: Clone> {
    inner: Arc<Mutex<Inner<K, V>>>,
}

#[derive(Debug)]
struct Inner<K, V: Clone> {
    begun: u64,
    flying: BTreeMap<K, (u64, WeakShared<BoxFuture<'static, V>>)>,
}

impl<K: Ord + Clone + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    pub(super) fn new() -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { begun: 0, flying: BTreeMap::new() })) }
    }

    /// What the reading of `key` yields: of the one in progress, or of `read`. Says whether it was in progress.
    pub(super) fn join<F>(&self, key: K, read: impl FnOnce() -> F) -> (Shared<BoxFuture<'static, V>>, bool)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut inner = lock(&self.inner);
        if let Some(flight) = inner.flying.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, true);
        }
        inner.begun += 1;
        let id = inner.begun;
        let landing = Landing { inner: Arc::clone(&self.inner), key: key.clone(), id };
        let reading = read();
        let flight = async move {
            // Dropped when it is over, or when nobody waits any more.
            let _landing = landing;
            reading.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            inner.flying.insert(key, (id, weak));
        }
        (flight, false)
    }

    /// Readings in progress.
    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.inner).flying.len()
    }
}

/// Takes a reading off the list when it ends.
struct Landing<K: Ord, V: Clone> {
    inner: Arc<Mutex<Inner<K, V>>>,
    key: K,
    id: u64,
}

impl<K: Ord, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        // Another may have begun since, if nobody waited for this one any more.
        if inner.flying.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            inner.flying.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Begins or joins a reading that yields what `gate` is told.
    fn ask(
        flights: &Flights<u32, Option<u32>>,
        key: u32,
        reads: &Arc<AtomicU32>,
    ) -> (Shared<BoxFuture<'static, Option<u32>>>, Option<oneshot::Sender<u32>>) {
        let (tell, gate) = oneshot::channel();
        let reads = Arc::clone(reads);
        let (flight, joined) = flights.join(key, || {
            reads.fetch_add(1, Ordering::Relaxed);
            async move { gate.await.ok() }
        });
        (flight, (!joined).then_some(tell))
    }

    #[tokio::test]
    async fn many_who_ask_at_once_are_answered_by_one_reading() {
        let (flights, reads) = (Flights::new(), Arc::new(AtomicU32::new(0)));
        let (first, tell) = ask(&flights, 1, &reads);
        let others: Vec<_> = (0..100).map(|_| ask(&flights, 1, &reads).0).collect();
        let (another, tell_another) = ask(&flights, 2, &reads);
        assert_eq!((flights.len(), reads.load(Ordering::Relaxed)), (2, 2));
        tell.unwrap().send(7).unwrap();
        assert_eq!(first.await, Some(7));
        for other in others {
            assert_eq!(other.await, Some(7));
        }
        assert_eq!(flights.len(), 1, "what has been read is not kept");
        tell_another.unwrap().send(8).unwrap();
        assert_eq!(another.await, Some(8));
        // Who asks later gets what there is then.
        let (later, tell) = ask(&flights, 1, &reads);
        tell.unwrap().send(9).unwrap();
        assert_eq!(later.await, Some(9));
        assert_eq!((flights.len(), reads.load(Ordering::Relaxed)), (0, 3));
    }

    #[tokio::test]
    async fn a_reading_goes_on_without_who_began_it_and_stops_without_anybody() {
        let (flights, reads) = (Flights::new(), Arc::new(AtomicU32::new(0)));
        let (first, tell) = ask(&flights, 1, &reads);
        let (second, _) = ask(&flights, 1, &reads);
        let begun = first.clone();
        assert!(begun.now_or_never().is_none());
        drop(first);
        tell.unwrap().send(7).unwrap();
        assert_eq!(second.await, Some(7));

        let (abandoned, tell) = ask(&flights, 1, &reads);
        drop(abandoned);
        assert!(tell.unwrap().send(8).is_err(), "its reading is gone");
        assert_eq!(flights.len(), 0);
        let (next, tell) = ask(&flights, 1, &reads);
        tell.unwrap().send(9).unwrap();
        assert_eq!(next.await, Some(9));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }
}
