//! Requests that come early are held until the window has what they ask for: blocking reloads, hinted parts, and
//! playlists before their first segment. When as many wait as may, one of the address prefix with most of them makes room
//! for others (see [`admission::doorstep`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admission::doorstep::{Places, Prefix, Room};
use axum::response::{IntoResponse as _, Response};
use backend::problem::Problem;
use fanout::{Readiness, Window};
use formats::hls::TARGET_DURATION_S;
use slab::Slab;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::channel::Live;
use crate::shared::count;

/// Longest time a blocking reload or a hinted part is held. The draft allows three target durations (RFC 8216bis
/// section 6.2.5.2); the answer is on its way before they are over.
pub(super) const LONGEST: Duration =
    Duration::from_secs(3 * TARGET_DURATION_S as u64).saturating_sub(Duration::from_millis(250));

/// Places for requests that wait, and how many found none.
#[derive(Debug)]
pub(crate) struct Holds {
    start: Instant,
    waiting: Mutex<Waiting>,
    refused: AtomicU64,
    /// Cancelled when the doors close: nobody waits then.
    closing: CancellationToken,
}

/// Those who wait.
#[derive(Debug)]
struct Waiting {
    places: Places,
    /// What ends the wait of each.
    ends: Slab<CancellationToken>,
}

/// One of those who wait; dropping it makes room.
struct Place<'h> {
    holds: &'h Holds,
    key: u32,
    end: CancellationToken,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.holds.lock();
        waiting.places.leave(self.key);
        waiting.ends.try_remove(self.key as usize);
    }
}

const _: () = assert!(LONGEST.as_millis() < 3 * TARGET_DURATION_S as u128 * 1_000);

/// What became of a request that was early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The window has what it asks for.
    Ready,
    /// It asks for more than is to come soon.
    TooFar,
    /// What it asks for has not come in time.
    Late,
    /// As many wait already as may.
    Full,
    /// The doors close.
    Closing,
}

impl Holds {
    pub(crate) fn new(max: usize, closing: CancellationToken) -> Self {
        // However long one has waited, it makes room only for who weighs less.
        let places = Places::new(max, 0, Duration::MAX);
        let waiting = Mutex::new(Waiting { places, ends: Slab::new() });
        Self { start: Instant::now(), waiting, refused: AtomicU64::new(0), closing }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic happens under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for somebody from there, if there is one or somebody makes room.
    fn place(&self, from: Prefix) -> Option<Place<'_>> {
        let now = self.start.elapsed();
        let mut waiting = self.lock();
        match waiting.places.room(from, 1, now) {
            Room::Free => {}
            Room::Instead(other) => {
                count(&self.refused);
                waiting.places.leave(other);
                if let Some(end) = waiting.ends.get(other as usize) {
                    end.cancel();
                }
            }
            Room::Soon | Room::Refused | Room::Full => {
                count(&self.refused);
                return None;
            }
        }
        let end = CancellationToken::new();
        let key = waiting.ends.insert(end.clone()) as u32;
        waiting.places.enter(key, from, 1, now);
        drop(waiting);
        Some(Place { holds: self, key, end })
    }

    /// Requests that wait now.
    pub(crate) fn taken(&self) -> usize {
        self.lock().places.taken()
    }

    /// Requests that would have had to wait and could not, or not for as long as that.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until `readiness` is not [`Readiness::Wait`] any more, at most for `limit`; not at all if as many requests
    /// wait already as may, unless more of them come from one place than would from there.
    pub(super) async fn hold(
        &self,
        from: Prefix,
        live: &Live,
        limit: Duration,
        readiness: impl Fn(&Window) -> Readiness,
    ) -> Held {
        let look = || match readiness(&live.window()) {
            Readiness::Ready => Some(Held::Ready),
            Readiness::TooFar => Some(Held::TooFar),
            Readiness::Wait => None,
        };
        if let Some(held) = look() {
            return held;
        }
        let Some(place) = self.place(from) else { return Held::Full };
        let mut progress = live.progress();
        let waited = async {
            loop {
                if let Some(held) = look() {
                    return held;
                }
                // The window outlives who waits for it, so that waiting cannot fail.
                if progress.changed().await.is_err() {
                    return Held::Late;
                }
            }
        };
        tokio::select! {
            // What came in the same moment is served.
            biased;
            waited = timeout(limit, waited) => waited.unwrap_or(Held::Late),
            () = place.end.cancelled() => Held::Full,
            () = self.closing.cancelled() => Held::Closing,
        }
    }
}

impl Held {
    /// What to say to who was not served.
    pub(super) fn refusal(self) -> Response {
        let why = match self {
            Self::Full => "as many requests wait as may",
            Self::Closing => "this edge is about to go",
            Self::Ready | Self::TooFar | Self::Late => "what was asked for has not come yet",
        };
        Problem::unavailable(why, 1).into_response()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanout::Reload;
    use model::{Epoch, Part, PartKind, PartNumber, Payload};
    use tokio::task::yield_now;

    use super::*;
    use crate::channel::Facts;

    /// A test that is not over by then never is.
    const NEVER: Duration = Duration::from_secs(60);

    fn part(number: u64) -> Part {
        let payload = Payload::new(Bytes::from_static(b"part"));
        Part {
            number: PartNumber::new(number),
            epoch: Epoch(1),
            kind: PartKind::Live,
            payloads: [payload.clone(), payload.clone(), payload],
            records: Vec::new(),
        }
    }

    /// A window of so many parts that has settled: origin has said nothing for two of its seconds.
    fn live(parts: u64) -> Live {
        let live = Live::new(std::sync::Arc::new(crate::bell::Bell::silent()));
        (0..parts).for_each(|number| _ = live.accept(part(number), &Facts::default()));
        (0..2).for_each(|_| _ = live.tick(&Facts::default()));
        assert!(live.window().is_settled());
        live
    }

    fn reload(segment: u64, part: u64) -> impl Fn(&Window) -> Readiness {
        move |window| window.playlist_readiness(Some(Reload::new(segment, Some(part))))
    }

    fn here() -> Prefix {
        Prefix::of([127, 0, 0, 1].into())
    }

    /// As many wait as may, all from one place: who comes from another has the place of one of them.
    #[tokio::test]
    async fn one_place_does_not_keep_others_from_waiting() {
        let (live, holds) = (live(20), Holds::new(3, CancellationToken::new()));
        let wait = |from: [u8; 4]| holds.hold(Prefix::of(from.into()), &live, NEVER * 2, reload(2, 4));
        let other = async {
            while holds.taken() != 3 {
                yield_now().await;
            }
            assert_eq!(wait([192, 0, 2, 4]).await, Held::Full, "there are enough of them");
            let part = async {
                // One of the three is gone, and the other is here.
                while holds.refused() != 2 {
                    yield_now().await;
                }
                // It notices, before the part is there.
                for _ in 0..4 {
                    yield_now().await;
                }
                live.accept(part(20), &Facts::default());
            };
            tokio::join!(wait([198, 51, 100, 1]), part).0
        };
        let all =
            async { tokio::join!(wait([192, 0, 2, 1]), wait([192, 0, 2, 2]), wait([192, 0, 2, 3]), other) };
        let (one, two, three, other) = timeout(NEVER, all).await.unwrap();
        let heaviest = [one, two, three];
        assert_eq!(heaviest.iter().filter(|held| **held == Held::Full).count(), 1, "{heaviest:?}");
        assert_eq!(heaviest.iter().filter(|held| **held == Held::Ready).count(), 2, "{heaviest:?}");
        assert_eq!((other, holds.taken()), (Held::Ready, 0));
    }

    #[tokio::test]
    async fn what_does_not_come_is_not_waited_for_forever() {
        let (live, holds) = (live(20), Holds::new(1, CancellationToken::new()));
        let limit = Duration::from_millis(20);
        assert_eq!(holds.hold(here(), &live, limit, reload(2, 4)).await, Held::Late);
        let hinted = |window: &Window| window.part_readiness(PartNumber::new(20));
        assert_eq!(holds.hold(here(), &live, limit, hinted).await, Held::Late);
        assert_eq!((holds.taken(), holds.refused()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_is_answered_by_the_part_it_waits_for() {
        let (live, holds) = (live(20), Holds::new(8, CancellationToken::new()));
        let parts = async {
            while holds.taken() != 2 {
                yield_now().await;
            }
            live.accept(part(20), &Facts::default());
            // A second's tick brings nothing new to who waits for parts.
            live.tick(&Facts::default());
            while holds.taken() != 1 {
                yield_now().await;
            }
            (21..24).for_each(|number| _ = live.accept(part(number), &Facts::default()));
            for _ in 0..8 {
                yield_now().await;
            }
            assert_eq!(holds.taken(), 1);
            live.accept(part(24), &Facts::default());
        };
        let wait = |segment, part| holds.hold(here(), &live, NEVER * 2, reload(segment, part));
        // One asks for the fifth part of the segment in progress, one for what follows its eighth, one for too much.
        let all = async { tokio::join!(wait(2, 4), wait(2, 8), wait(5, 0), parts) };
        let (first, second, gone, ()) = timeout(NEVER, all).await.unwrap();
        assert_eq!((first, second, gone), (Held::Ready, Held::Ready, Held::TooFar));
    }

    #[tokio::test]
    async fn only_so_many_wait_and_nobody_when_the_doors_close() {
        let closing = CancellationToken::new();
        let (live, holds) = (live(20), Holds::new(1, closing.clone()));
        let first = holds.hold(here(), &live, NEVER * 2, reload(2, 4));
        let rest = async {
            while holds.taken() != 1 {
                yield_now().await;
            }
            assert_eq!(holds.hold(here(), &live, LONGEST, reload(2, 4)).await, Held::Full);
            assert_eq!(
                holds.hold(here(), &live, LONGEST, reload(2, 3)).await,
                Held::Ready,
                "who need not wait is served"
            );
            closing.cancel();
        };
        let (first, ()) = timeout(NEVER, async { tokio::join!(first, rest) }).await.unwrap();
        assert_eq!((first, holds.taken(), holds.refused()), (Held::Closing, 0, 1));
    }
}
