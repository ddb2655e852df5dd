//! A player of HLS with whole segments, as the peers serve them: which address it asks for next, and when.
//!
//! It begins with the playlist, `init` and the last three segments, then asks for the playlist once a target duration
//! (RFC 8216 section 6.3.4: half of it after one that had not changed) and for what is new in it. What it plays runs
//! on a clock: whenever the clock has passed all that was fetched, that is a stall.

use std::collections::VecDeque;
use std::sync::Arc;

/// Largest playlist that is read, bytes.
const PLAYLIST_MAX: usize = 64 * 1024;
/// Segments fetched before playing begins.
const START: usize = 3;
/// Segments that wait to be fetched.
const QUEUE_MAX: usize = 64;

/// A media playlist, as much of it as a player needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Playlist {
    target_s: f64,
    init: Option<String>,
    first: u64,
    /// Duration and address.
    segments: Vec<(f64, String)>,
}

impl Playlist {
    /// Reads one; `None` if it is none. Far from complete: only what the encoders of the peers write.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some("#EXTM3U") {
            return None;
        }
        let mut playlist = Self { target_s: 2.0, ..Self::default() };
        let mut duration = None;
        for line in lines {
            if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                playlist.target_s = value.parse().ok()?;
            } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                playlist.first = value.parse().ok()?;
            } else if let Some(value) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                playlist.init = value.split('"').next().map(str::to_owned);
            } else if let Some(value) = line.strip_prefix("#EXTINF:") {
                duration = value.split(',').next().and_then(|seconds| seconds.parse().ok());
            } else if !line.is_empty() && !line.starts_with('#') {
                playlist.segments.push((duration.take()?, line.to_owned()));
            }
        }
        let sane = (0.1..=3_600.0).contains(&playlist.target_s);
        (sane && !playlist.segments.is_empty()).then_some(playlist)
    }

    fn next(&self) -> u64 {
        self.first + self.segments.len() as u64
    }
}

/// The last playlist that anyone of a process read: thousands get the same one.
#[derive(Debug, Default)]
pub(crate) struct Library {
    bytes: Vec<u8>,
    playlist: Option<Arc<Playlist>>,
}

impl Library {
    fn read(&mut self, bytes: &[u8]) -> Option<Arc<Playlist>> {
        if self.bytes != bytes {
            self.playlist = Playlist::parse(bytes).map(Arc::new);
            self.bytes = bytes.to_vec();
        }
        self.playlist.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Nothing,
    Playlist,
    Init,
    Segment { number: u64, duration_s: f64 },
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Played {
    /// A segment is there, of so many bytes.
    pub(crate) segment: Option<u64>,
    /// Segments that were gone from the playlist before they could be asked for.
    pub(crate) missed: u64,
    /// The clock had passed all that was there, by so many microseconds.
    pub(crate) stalled_us: Option<u64>,
}

/// One player.
#[derive(Debug)]
pub(crate) struct Player {
    /// Path of the playlist, and what its addresses begin with.
    path: String,
    asked: Asked,
    body: Vec<u8>,
    bytes: u64,
    init: Option<String>,
    queue: VecDeque<(u64, f64, String)>,
    next: Option<u64>,
    fetched_us: u64,
    /// When the first segment would have begun to play.
    clock_us: Option<u64>,
    poll_us: u64,
    target_us: u64,
    segments: usize,
}

impl Player {
    pub(crate) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            asked: Asked::Nothing,
            body: Vec::new(),
            bytes: 0,
            init: None,
            queue: VecDeque::new(),
            next: None,
            fetched_us: 0,
            clock_us: None,
            poll_us: 0,
            target_us: 0,
            segments: 0,
        }
    }

    /// The address to ask for now, if it is time for one.
    pub(crate) fn ask(&mut self, now_us: u64) -> Option<String> {
        if self.asked != Asked::Nothing {
            return None;
        }
        let address = if let Some(init) = self.init.take() {
            self.asked = Asked::Init;
            self.join(&init)
        } else if let Some((number, duration_s, address)) = self.queue.pop_front() {
            self.asked = Asked::Segment { number, duration_s };
            self.join(&address)
        } else if now_us >= self.poll_us {
            self.asked = Asked::Playlist;
            self.path.clone()
        } else {
            return None;
        };
        self.bytes = 0;
        self.body.clear();
        Some(address)
    }

    /// When there is something to ask for again, if no answer is awaited.
    pub(crate) fn due_us(&self) -> u64 {
        self.poll_us
    }

    /// Takes bytes of the answer.
    pub(crate) fn take(&mut self, body: &[u8]) {
        self.bytes += body.len() as u64;
        if self.asked == Asked::Playlist && self.body.len() + body.len() <= PLAYLIST_MAX {
            self.body.extend_from_slice(body);
        }
    }

    /// The answer is all there. `None` if it cannot be used.
    pub(crate) fn answered(&mut self, now_us: u64, library: &mut Library) -> Option<Played> {
        let mut played = Played::default();
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => return None,
            Asked::Init => {}
            Asked::Playlist => {
                let playlist = library.read(&self.body)?;
                self.body = Vec::new();
                played.missed = self.plan(&playlist, now_us);
            }
            Asked::Segment { number, duration_s } => {
                let _ = number;
                played.segment = Some(self.bytes);
                self.segments += 1;
                played.stalled_us = self.play(now_us);
                self.fetched_us += (duration_s * 1e6) as u64;
                if self.clock_us.is_none() && (self.segments >= START || self.queue.is_empty()) {
                    self.clock_us = Some(now_us);
                }
            }
        }
        Some(played)
    }

    /// Microseconds by which the clock has passed what is there; it then stands still until more comes.
    fn play(&mut self, now_us: u64) -> Option<u64> {
        let clock_us = self.clock_us.as_mut()?;
        let dry_us = now_us.saturating_sub(*clock_us + self.fetched_us);
        *clock_us += dry_us;
        (dry_us > 0).then_some(dry_us)
    }

    /// The run is over: as after a segment.
    pub(crate) fn conclude(&mut self, now_us: u64) -> Option<u64> {
        self.play(now_us)
    }

    fn plan(&mut self, playlist: &Playlist, now_us: u64) -> u64 {
        self.target_us = (playlist.target_s * 1e6) as u64;
        let first_time = self.next.is_none();
        let wanted = self.next.unwrap_or_else(|| playlist.next().saturating_sub(START as u64));
        let unchanged = !first_time && wanted >= playlist.next();
        self.poll_us = now_us + if unchanged { self.target_us / 2 } else { self.target_us };
        if first_time {
            self.init = playlist.init.clone();
        }
        let begin = wanted.max(playlist.first);
        for (index, (duration_s, address)) in playlist.segments.iter().enumerate() {
            let number = playlist.first + index as u64;
            if number >= begin && self.queue.len() < QUEUE_MAX {
                self.queue.push_back((number, *duration_s, address.clone()));
            }
        }
        self.next = Some(playlist.next().max(wanted));
        if first_time { 0 } else { begin - wanted }
    }

    fn join(&self, address: &str) -> String {
        if address.starts_with('/') {
            return address.to_owned();
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        format!("{folder}{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn playlist(first: u64, count: u64) -> String {
        let segments: String =
            (first..first + count).map(|number| format!("#EXTINF:2.000000,\ns{number}.m4s\n")).collect();
        format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n\
             #EXT-X-MAP:URI=\"init.mp4\"\n{segments}"
        )
    }

    /// Answers everything at `now_s` until nothing more is asked; what was asked for.
    fn serve(player: &mut Player, library: &mut Library, now_s: f64, text: &str) -> (Vec<String>, Played) {
        let now_us = (now_s * 1e6) as u64;
        let (mut asked, mut sum) = (Vec::new(), Played::default());
        while let Some(address) = player.ask(now_us) {
            player.take(if address.ends_with(".m3u8") { text.as_bytes() } else { b"12345" });
            let played = player.answered(now_us, library).unwrap();
            sum.missed += played.missed;
            sum.stalled_us = sum.stalled_us.max(played.stalled_us);
            sum.segment = sum.segment.max(played.segment);
            asked.push(address);
        }
        (asked, sum)
    }

    #[test]
    fn it_begins_with_three_segments_and_follows() {
        let mut player = Player::new("/hls/live.m3u8");
        let mut library = Library::default();
        let (asked, played) = serve(&mut player, &mut library, 0.0, &playlist(10, 6));
        assert_eq!(
            asked,
            ["/hls/live.m3u8", "/hls/init.mp4", "/hls/s13.m4s", "/hls/s14.m4s", "/hls/s15.m4s"]
        );
        assert_eq!(played, Played { segment: Some(5), missed: 0, stalled_us: None });
        assert_eq!(player.due_us(), 2_000_000);
        // Unchanged: half the time.
        let (asked, _) = serve(&mut player, &mut library, 2.0, &playlist(10, 6));
        assert_eq!((asked.len(), player.due_us()), (1, 3_000_000));
        let (asked, _) = serve(&mut player, &mut library, 3.0, &playlist(11, 6));
        assert_eq!(asked, ["/hls/live.m3u8", "/hls/s16.m4s"]);
        // Eight seconds were there; at twelve it has been silent for four, and what came between is gone.
        let (_, played) = serve(&mut player, &mut library, 12.0, &playlist(19, 1));
        assert_eq!((played.missed, played.stalled_us), (2, Some(4_000_000)));
    }

    #[test]
    fn what_is_no_playlist_is_no_use() {
        for text in ["", "<html>", "#EXTM3U\n", "#EXTM3U\n#EXT-X-TARGETDURATION:x\n#EXTINF:1,\na\n"] {
            assert_eq!(Playlist::parse(text.as_bytes()), None, "{text:?}");
        }
        let mut player = Player::new("/x.m3u8");
        player.ask(0).unwrap();
        player.take(&vec![b'#'; 2 * PLAYLIST_MAX]);
        assert_eq!(player.answered(0, &mut Library::default()), None);
    }
}
