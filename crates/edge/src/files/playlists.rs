//! Rendered playlists: those of a window made once for all who ask, when the window has changed; and compressed, since
//! a player of parts reloads one twice a second, which as plain text is as much as its audio.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fanout::Window;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, header};
use model::{Rendition, UnixTime};

use super::delayed::{Joined, Tagged};

/// The live playlists of one window as they were last rendered, a rendition each.
#[derive(Debug, Default)]
pub(crate) struct Playlists {
    rendered: [Mutex<Rendered>; 3],
    delayed: [Mutex<Delayed>; 3],
    joined: Mutex<Joined>,
}

/// As [`Rendered`], of the delayed feed: never compressed, since a few lines need it not, and an answer that depends on
/// what the request accepts is kept many times over by caches.
#[derive(Debug, Default)]
struct Delayed {
    of: Option<(u64, UnixTime)>,
    text: Option<Tagged>,
}

#[derive(Debug, Default)]
struct Rendered {
    /// What it was made of: the window's version, and when doors are.
    of: Option<(u64, UnixTime)>,
    text: Option<Bytes>,
    /// The text compressed, once somebody has asked for it so.
    zipped: Option<Bytes>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coding {
    /// As it is.
    Plain,
    /// Compressed (`Content-Encoding: gzip`).
    Gzip,
}

impl Coding {
    /// The one that a request allows (RFC 9110 section 12.5.3).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let refused = |weight: &str| {
            let weight = weight.trim().strip_prefix("q=").unwrap_or(weight);
            weight.parse::<f32>().is_ok_and(|weight| weight == 0.0)
        };
        let allowed = lists.flat_map(|list| list.split(',')).any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip") && !refused(weight)
        });
        if allowed { Self::Gzip } else { Self::Plain }
    }

    /// A text written so.
    pub(crate) fn write(self, text: String) -> Bytes {
        match self {
            Self::Plain => text.into(),
            Self::Gzip => zip(text.as_bytes()),
        }
    }
}

fn zip(text: &[u8]) -> Bytes {
    let mut zipped = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::default());
    let written = zipped.write_all(text).and_then(|()| zipped.finish());
    written.expect("a Vec takes everything").into()
}

impl Playlists {
    /// The live playlist of a rendition, if there is one, and whether it says that the programme has ended. Counts in
    /// `made` if it had to be rendered.
    pub(crate) fn get(
        &self,
        window: &Window,
        rendition: Rendition,
        doors: UnixTime,
        coding: Coding,
        made: &AtomicU64,
    ) -> Option<(Bytes, bool)> {
        // Whoever comes while it is rendered waits some microseconds, and does not render it again.
        let mut rendered = lock(&self.rendered[rendition.index()]);
        let of = Some((window.version(), doors));
        if rendered.of != of {
            let text = window.media_playlist(rendition, doors).map(|playlist| Bytes::from(playlist.render()));
            *rendered = Rendered { of, text, zipped: None };
            made.fetch_add(1, Ordering::Relaxed);
        }
        let text = rendered.text.clone()?;
        let bytes = match coding {
            Coding::Plain => text,
            Coding::Gzip => rendered.zipped.get_or_insert_with(|| zip(&text)).clone(),
        };
        Some((bytes, window.has_ended()))
    }

    /// As [`Self::get`], the playlist of the delayed feed.
    pub(crate) fn delayed(
        &self,
        window: &Window,
        rendition: Rendition,
        doors: UnixTime,
        made: &AtomicU64,
    ) -> Option<(Tagged, bool)> {
        let mut rendered = lock(&self.delayed[rendition.index()]);
        let of = Some((window.version(), doors));
        if rendered.of != of {
            let playlist = window.delayed_playlist(rendition, doors);
            let text = playlist.map(|playlist| Tagged::of(playlist.render().into()));
            *rendered = Delayed { of, text };
            made.fetch_add(1, Ordering::Relaxed);
        }
        Some((rendered.text.clone()?, window.has_ended()))
    }

    /// A segment of the delayed feed, if the window has it.
    pub(crate) fn joined(&self, window: &Window, rendition: Rendition, number: u64) -> Option<Tagged> {
        lock(&self.joined).get(window, rendition, number)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip_says_so() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", Coding::Gzip),
            ("br;q=1.0, GZIP;q=0.5", Coding::Gzip),
            ("gzip;q=0", Coding::Plain),
            ("gzip;q=0.000, br", Coding::Plain),
            ("gzip; q=0.1", Coding::Gzip),
            ("identity", Coding::Plain),
            ("x-gzipped", Coding::Plain),
            ("", Coding::Plain),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accepted.parse().unwrap());
            assert_eq!(Coding::of(&headers), expected, "{accepted}");
        }
        assert_eq!(Coding::of(&HeaderMap::new()), Coding::Plain);
    }
}
