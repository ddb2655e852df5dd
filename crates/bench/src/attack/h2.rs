//! Clients of HTTP/2 that mean no good, with frames of our own (`super::h2frames`).

use super::h2frames::{self, Reader, kind};
use super::swarm::{Happened, Next, Scene, Script};

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Streams opened and reset.
    RapidReset,
    /// Streams opened, and the server made to reset them.
    MadeYouReset,
    /// Headers without an end.
    Continuation,
    /// Pings.
    Ping,
    /// Settings.
    Settings,
    /// Small headers that unpack to much.
    Bomb,
}

/// Streams of a batch, or frames where there are no streams.
const BATCH: u32 = 64;
/// Greatest number of a stream (RFC 9113 section 5.1.1).
const STREAM_MAX: u32 = 0x7fff_ffff;

/// One connection: floods as fast as it is paced, until it is thrown out.
pub(crate) struct Flood {
    family: Family,
    door: usize,
    block: Vec<u8>,
    /// From batch to batch, ms.
    every_ms: u64,
    next_ms: u64,
    stream: u32,
    sent: u64,
    reader: Reader,
    opened_ms: u64,
    said: bool,
}

impl Flood {
    /// A flood of this family at a door, asking for `path`.
    pub(crate) fn new(
        family: Family,
        door: usize,
        tls: bool,
        authority: &str,
        path: &str,
        every_ms: u64,
    ) -> Self {
        let block = h2frames::get(tls, authority, path);
        Self {
            family,
            door,
            block,
            every_ms,
            next_ms: 0,
            stream: 1,
            sent: 0,
            reader: Reader::default(),
            opened_ms: 0,
            said: false,
        }
    }

    /// The next bytes. Each goes on where the last one ended.
    fn batch(&mut self) -> Vec<u8> {
        let (stream, block) = (self.stream, &self.block);
        let (bytes, streams) = match self.family {
            Family::RapidReset => (h2frames::rapid_reset(stream, BATCH, block), BATCH),
            Family::MadeYouReset => (h2frames::made_you_reset(stream, BATCH, block), BATCH),
            // The same stream goes on and on.
            Family::Continuation if self.sent == 0 => (h2frames::endless_headers(stream, 1, block), 0),
            Family::Continuation => (h2frames::endless_headers(stream, 2, &[]), 0),
            Family::Ping => (h2frames::ping_flood(self.sent, BATCH), 0),
            Family::Settings => (h2frames::settings_flood(BATCH), 0),
            Family::Bomb => (h2frames::bomb(stream, stream == 1, block), 1),
        };
        self.sent += u64::from(BATCH);
        self.stream = stream.saturating_add(2 * streams).min(STREAM_MAX - 2 * BATCH);
        bytes
    }
}

impl Script for Flood {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("connections");
                self.opened_ms = scene.now_ms;
                (self.stream, self.sent, self.said) = (1, 0, false);
                self.reader = Reader::default();
                scene.out.extend_from_slice(&h2frames::opening());
                self.next_ms = scene.now_ms + self.every_ms;
                Next::until(self.next_ms)
            }
            Happened::Due => {
                if scene.is_taken() {
                    let bytes = self.batch();
                    scene.notes.count("batches");
                    scene.notes.add("bytes", bytes.len() as u64);
                    scene.out.extend_from_slice(&bytes);
                }
                self.next_ms = scene.now_ms + self.every_ms;
                Next::until(self.next_ms)
            }
            Happened::Received(bytes) => {
                // What does not speak HTTP/2 says so in words.
                if !self.said {
                    self.said = true;
                    if bytes.starts_with(b"HTTP/1") {
                        scene.notes.count("no HTTP/2 here");
                        return Next::Done;
                    }
                }
                let notes = &mut *scene.notes;
                self.reader.take(bytes, |head| {
                    let name = match head.kind {
                        kind::GOAWAY => "GOAWAY",
                        kind::RST_STREAM => "resets of theirs",
                        kind::HEADERS => "answers",
                        kind::PING | kind::SETTINGS if head.flags & h2frames::flag::ACK != 0 => {
                            "acknowledged"
                        }
                        _ => return,
                    };
                    notes.count(name);
                });
                Next::until(self.next_ms)
            }
            Happened::Closed => {
                scene.notes.count("thrown out");
                scene.notes.peak("longest borne, ms", scene.now_ms.saturating_sub(self.opened_ms));
                // Others come in its place, as fast as they are paced.
                Next::Done
            }
            Happened::Refused => Next::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Notes;
    use super::*;

    const ALL: [Family; 6] = [
        Family::RapidReset,
        Family::MadeYouReset,
        Family::Continuation,
        Family::Ping,
        Family::Settings,
        Family::Bomb,
    ];

    #[test]
    fn each_family_goes_on_within_its_bounds() {
        for family in ALL {
            let mut flood = Flood::new(family, 0, false, "127.0.0.1:1", "/", 1);
            let mut all = h2frames::opening();
            for _ in 0..40 {
                let batch = flood.batch();
                assert!(!batch.is_empty() && batch.len() <= 128 * 1024, "{family:?}: {}", batch.len());
                all.extend_from_slice(&batch);
            }
            // Whatever is sent is whole frames, and streams only grow.
            let mut newest = 0;
            let mut reader = Reader::default();
            reader.take(&all[h2frames::PREFACE.len()..], |head| {
                assert!(head.length <= h2frames::PAYLOAD_MAX);
                if head.kind == kind::HEADERS {
                    assert!(head.stream > newest && head.stream % 2 == 1, "{family:?}");
                    newest = head.stream;
                }
            });
        }
    }

    #[test]
    fn streams_never_run_over() {
        let mut flood = Flood::new(Family::RapidReset, 0, false, "a", "/", 1);
        flood.stream = STREAM_MAX - 200;
        for _ in 0..4 {
            let _ = flood.batch();
            assert!(flood.stream <= STREAM_MAX - 2 * BATCH);
        }
    }

    #[test]
    fn who_is_thrown_out_is_counted() {
        let (mut out, mut notes) = (Vec::new(), Notes::default());
        let mut flood = Flood::new(Family::Ping, 3, false, "a", "/", 5);
        let mut act = |happened: Happened<'_>, now_ms| {
            flood.act(happened, &mut Scene { now_ms, out: &mut out, notes: &mut notes })
        };
        assert_eq!(act(Happened::Open, 0), Next::until(5));
        assert_eq!(act(Happened::Due, 5), Next::until(10));
        let mut goaway = Vec::new();
        h2frames::frame(&mut goaway, kind::GOAWAY, 0, 0, &[0; 8]);
        act(Happened::Received(&goaway), 6);
        assert_eq!(act(Happened::Closed, 7), Next::Done);
        assert_eq!((notes.of("GOAWAY"), notes.of("thrown out"), notes.of("longest borne, ms")), (1, 1, 7));
        assert!(out.starts_with(h2frames::PREFACE));
    }

    #[test]
    fn a_door_without_http_2_is_left() {
        let (mut out, mut notes) = (Vec::new(), Notes::default());
        let mut flood = Flood::new(Family::Ping, 0, false, "a", "/", 5);
        let mut scene = Scene { now_ms: 1, out: &mut out, notes: &mut notes };
        assert_eq!(flood.act(Happened::Received(b"HTTP/1.1 400 Bad"), &mut scene), Next::Done);
        assert_eq!(notes.of("no HTTP/2 here"), 1);
    }
}
