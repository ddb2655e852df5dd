//! The window of parts and the cursors of listeners: pure bookkeeping of the fan-out.
//!
//! A [`Window`] holds the newest parts of one event once, in every rendition. A listener is a [`Cursor`] into it: a
//! position, a rendition, a tier; it owns no bytes and no queue. Whoever falls behind the window skips forward by
//! whole parts and is counted. Playlists are pure functions of a snapshot of the same window.
//!
//! Whose turn it is to be written to, and when, is in a [`Rota`]: writes are spread over the parts and over the time
//! after each part, so that one core never works in bursts that newcomers would have to wait for.
//!
//! There is no socket, clock or task here. Parts come from whoever receives them ([`Window::push`]), once a second
//! the shell says what listeners are to be told ([`Window::announce`]), and each listener's shell asks its cursor
//! what to write next ([`Cursor::poll`]) whenever there is room to write and something new.
//!
//! ```text
//!            oldest                                        newest
//!   window   │ 812 │ 813 │ 814 │ … │ 1064 │ 1065 │ 1066 │ 1067 │  ≤ 256 numbers, 123 s
//!                          ▲                       ▲
//!                 slow listener             listener at tier 4, next flush with 1068
//! ```

use std::time::Duration;

use model::{PART_DURATION, PARTS_PER_SEGMENT};

mod cursor;
mod playlist;
mod rota;
mod window;

pub use cursor::{Cadence, Container, Cursor, FutureStart, Output, Skips, Start, Step, SwitchError, Tier};
pub use playlist::{HINTED_PARTS, HOLD_BACK_PARTS, LISTED_PARTS, LIVE_SEGMENTS, Readiness, Reload};
pub use rota::{Rota, SPREAD, Slot, Turn, WRITE_TIME};
pub use window::{Notice, Push, Window};

/// Part numbers a window spans.
pub const WINDOW_PARTS: usize = 256;

/// Least time for which a part stays in the window: what a listener who was cut off can still get (DESIGN section 5).
pub const WINDOW_LEAST: Duration = Duration::from_secs(60);

/// Parts that a start may lie beyond the newest and still wait: edges get a part some milliseconds apart, and who
/// changes from one to another must not be refused for being ahead.
pub const FUTURE_PARTS: u64 = PARTS_PER_SEGMENT;

/// Parts in the first burst of an endless address: plain `<audio>` reads in blocks of 32 KiB (4.1 s of `mp3-64`) and
/// stalls once if it gets less than 4.3 s at first (FEASIBILITY section 11).
pub const ENDLESS_BURST: u64 = 10;

const _: () = assert!(
    PART_DURATION.as_millis() * (WINDOW_PARTS as u128 - 1) >= WINDOW_LEAST.as_millis(),
    "the oldest part leaves the window when the newest comes, and must be 60 s old then"
);
const _: () = assert!(
    PART_DURATION.as_millis() * ENDLESS_BURST as u128 > 4_300,
    "an endless address begins with more than 4.3 s"
);
const _: () = assert!(
    // RFC 8216 section 6.2.2: a segment stays available for its own duration and that of the longest playlist it was
    // in, after it left the playlist.
    (LIVE_SEGMENTS as u64 * 2 + 1) * PARTS_PER_SEGMENT <= WINDOW_PARTS as u64,
    "what a live playlist named stays in the window"
);
const _: () = assert!(
    // RFC 8216bis section 6.2.2: a part stays available for three target durations after it left the playlist.
    2 * LISTED_PARTS + PARTS_PER_SEGMENT <= WINDOW_PARTS as u64,
    "a part that a live playlist listed stays in the window"
);
const _: () = assert!(HOLD_BACK_PARTS >= 3, "the draft's advice");

#[cfg(test)]
mod playlist_delayed_tests;
#[cfg(test)]
mod playlist_tests;
#[cfg(test)]
mod tests;
