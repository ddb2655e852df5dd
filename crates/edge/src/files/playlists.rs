//! Rendered playlists of a window: made once for all who ask, when the window has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fanout::Window;
use model::{Rendition, UnixTime};

/// The live playlists of one window as they were last rendered, a rendition each.
#[derive(Debug, Default)]
pub(crate) struct Playlists {
    rendered: [Mutex<Rendered>; 3],
}

#[derive(Debug, Default)]
struct Rendered {
    /// What it was made of: the window's version, and when doors are.
    of: Option<(u64, UnixTime)>,
    text: Option<Bytes>,
}

impl Playlists {
    /// The live playlist of a rendition, if there is one, and whether it says that the programme has ended. Counts in
    /// `made` if it had to be rendered.
    pub(crate) fn get(
        &self,
        window: &Window,
        rendition: Rendition,
        doors: UnixTime,
        made: &AtomicU64,
    ) -> Option<(Bytes, bool)> {
        // Whoever comes while it is rendered waits some microseconds, and does not render it again.
        let mut rendered = self.rendered[rendition.index()].lock().unwrap_or_else(PoisonError::into_inner);
        let of = Some((window.version(), doors));
        if rendered.of != of {
            let text = window.media_playlist(rendition, doors).map(|playlist| Bytes::from(playlist.render()));
            *rendered = Rendered { of, text };
            made.fetch_add(1, Ordering::Relaxed);
        }
        rendered.text.clone().map(|text| (text, window.has_ended()))
    }
}
