//! A place in the crowd, and what sits on it.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::comeback::Comeback;
use super::config::{CrowdConfig, Kind};
use super::hls::{Library, Player};
use super::http::{HttpError, Response};
use super::link::Link;
use super::listener::{Listener, Measure};
use super::plan::Role;
use super::tally::Tally;

/// What a connection is for.
#[expect(clippy::large_enum_variant, reason = "nearly all are listeners; a box each would only cost a miss")]
#[derive(Debug)]
pub(crate) enum Ears {
    /// One endless response.
    Push(Listener),
    /// One request after another.
    Fetch(Box<Fetcher>),
    /// Reads hardly or not at all.
    Stuck,
}

impl Ears {
    /// Whether there was audio.
    pub(crate) fn hear(&self) -> bool {
        match self {
            Self::Push(listener) => listener.hears(),
            Self::Fetch(fetcher) => fetcher.heard,
            Self::Stuck => false,
        }
    }
}

/// A place in the crowd.
pub(crate) struct Seat {
    pub(crate) role: Role,
    /// Which of the addresses it listens to.
    pub(crate) target: usize,
    /// Which connection of this seat: events of earlier ones say nothing.
    pub(crate) generation: u32,
    pub(crate) link: Option<Link>,
    pub(crate) begun_us: u64,
    pub(crate) connected_us: u64,
    /// When the last byte came; before the first, when it began.
    pub(crate) last_byte_us: u64,
    /// The connection can be spoken on.
    pub(crate) open: bool,
    /// When it asked, if it then stopped reading.
    pub(crate) asked_us: u64,
    /// Its events are no longer asked for.
    pub(crate) ignored: bool,
    /// It was here before, and goes on where it was.
    pub(crate) again: bool,
    /// It was told that nobody knows the parts it has: it asks for the present.
    pub(crate) anew: bool,
    /// When it tries again, if it does as the page does.
    pub(crate) comeback: Comeback,
    pub(crate) ears: Ears,
}

impl Seat {
    pub(crate) fn new(role: Role, target: usize) -> Self {
        Self {
            role,
            target,
            generation: 0,
            link: None,
            begun_us: 0,
            connected_us: 0,
            last_byte_us: 0,
            open: false,
            asked_us: 0,
            ignored: false,
            again: false,
            anew: false,
            comeback: Comeback::default(),
            ears: Ears::Stuck,
        }
    }

    /// A connection begins: of somebody new, or of who was here before.
    pub(crate) fn begin(&mut self, now_us: u64, again: bool, kind: Kind, path: &str) {
        self.link = None;
        self.open = false;
        self.begun_us = now_us;
        self.last_byte_us = now_us;
        self.ignored = false;
        self.again = again;
        match (&mut self.ears, self.role, kind) {
            (_, Role::Slow | Role::Never, _) => self.ears = Ears::Stuck,
            (Ears::Push(listener), _, Kind::Push) if again => listener.comes_back(now_us),
            (ears, _, Kind::Push) => *ears = Ears::Push(Listener::new(now_us)),
            (ears, _, Kind::Hls) => *ears = Ears::Fetch(Box::new(Fetcher::player(path))),
            (ears, _, Kind::Ranges) => *ears = Ears::Fetch(Box::new(Fetcher::reader(now_us))),
        }
    }

    /// All have joined.
    pub(crate) fn find_rhythm(&mut self) {
        if let Ears::Push(listener) = &mut self.ears {
            listener.find_rhythm();
        }
    }

    /// The window begins.
    pub(crate) fn enter_window(&mut self) {
        match &mut self.ears {
            Ears::Push(listener) => listener.enter_window(),
            Ears::Fetch(fetcher) => fetcher.in_time = fetcher.heard && self.link.is_some(),
            Ears::Stuck => {}
        }
    }
}

/// What one request after another is for.
#[derive(Debug)]
enum Fetched {
    Hls(Player),
    /// A file, read in ranges: its length once known, and when the next one is due.
    Ranges {
        length: Option<u64>,
        due_us: u64,
    },
}

/// Somebody who asks again and again on one connection.
#[derive(Debug)]
pub(crate) struct Fetcher {
    fetched: Fetched,
    response: Response,
    /// An answer is awaited.
    waits: bool,
    asked_us: u64,
    begun_us: u64,
    first_byte: bool,
    pub(crate) heard: bool,
    in_time: bool,
    stalls: u64,
}

impl Fetcher {
    fn player(path: &str) -> Self {
        Self::new(Fetched::Hls(Player::new(path)))
    }

    fn reader(now_us: u64) -> Self {
        Self::new(Fetched::Ranges { length: None, due_us: now_us })
    }

    fn new(fetched: Fetched) -> Self {
        Self {
            fetched,
            response: Response::new(),
            waits: false,
            asked_us: 0,
            begun_us: 0,
            first_byte: false,
            heard: false,
            in_time: false,
            stalls: 0,
        }
    }

    /// The path to ask for, if it is not the one of the address, and headers. `None`: nothing now.
    pub(crate) fn ask(
        &mut self,
        now_us: u64,
        config: &CrowdConfig,
        chance: &mut StdRng,
    ) -> Option<(Option<String>, String)> {
        if self.waits {
            return None;
        }
        let words = match &mut self.fetched {
            Fetched::Hls(player) => (Some(player.ask(now_us)?), String::new()),
            Fetched::Ranges { due_us, .. } if *due_us > now_us => return None,
            Fetched::Ranges { length, due_us } => {
                *due_us = now_us + (config.range_every_s * 1e6) as u64;
                let last_start = length.unwrap_or(0).saturating_sub(config.range_bytes);
                let start = chance.random_range(0..=last_start);
                (None, format!("Range: bytes={start}-{}\r\n", start + config.range_bytes - 1))
            }
        };
        self.waits = true;
        self.asked_us = now_us;
        self.response = Response::new();
        Some(words)
    }

    /// When there is something to ask for, unless an answer is awaited.
    pub(crate) fn due_us(&self) -> Option<u64> {
        match &self.fetched {
            _ if self.waits => None,
            Fetched::Hls(player) => Some(player.due_us()),
            Fetched::Ranges { due_us, .. } => Some(*due_us),
        }
    }

    /// Takes bytes of the answer.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        begun_us: u64,
        measure: &mut Measure<'_>,
    ) -> Result<(), HttpError> {
        self.begun_us = begun_us;
        if !self.first_byte {
            self.first_byte = true;
            measure.tally.first_byte.record(measure.now_us - begun_us);
        }
        let fetched = &mut self.fetched;
        let mut body_bytes = 0;
        self.response.feed(bytes, &mut |body| {
            body_bytes += body.len() as u64;
            if let Fetched::Hls(player) = fetched {
                player.take(body);
            }
        })?;
        if measure.window_us.is_some() {
            measure.tally.counts.body_bytes += body_bytes;
            if matches!(fetched, Fetched::Ranges { .. }) {
                measure.tally.counts.audio_bytes += body_bytes;
            }
        }
        Ok(())
    }

    /// Goes on if an answer is complete. Whether its first audio is there now.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub(crate) fn advance(
        &mut self,
        now_us: u64,
        library: &mut Library,
        tally: &mut Tally,
        window_us: Option<u64>,
    ) -> Result<bool, String> {
        let status = self.response.status();
        if status != 0 && status != 200 && status != 206 {
            return Err(format!("status {status}"));
        }
        if !self.waits || !self.response.is_done() {
            return Ok(false);
        }
        self.waits = false;
        let measured = window_us.is_some();
        tally.counts.requests += u64::from(measured);
        let is_audio = match &mut self.fetched {
            Fetched::Hls(player) => {
                let played = player.answered(now_us, library).ok_or("no playlist")?;
                if let (Some(bytes), true) = (played.segment, measured) {
                    tally.counts.audio_bytes += bytes;
                }
                tally.counts.missed += played.missed;
                tally.counts.holes += u64::from(played.missed > 0);
                if measured && played.stalled_us.is_some() {
                    self.stalls += 1;
                }
                played.segment.is_some()
            }
            Fetched::Ranges { length, .. } => {
                *length = self.response.complete_length().or(*length);
                true
            }
        };
        if !is_audio {
            return Ok(false);
        }
        if measured {
            tally.counts.parts += 1;
            tally.fetch.record(now_us - self.asked_us);
        }
        let first = !self.heard;
        self.heard = true;
        if first {
            tally.counts.joined += 1;
            tally.first_audio.record(now_us - self.begun_us);
        }
        Ok(first)
    }

    /// The run is over.
    pub(crate) fn conclude(&mut self, connected: bool, now_us: u64, tally: &mut Tally) {
        if let Fetched::Hls(player) = &mut self.fetched
            && player.conclude(now_us).is_some()
        {
            self.stalls += 1;
        }
        tally.counts.stalls += self.stalls;
        tally.counts.stalled += u64::from(self.stalls > 0);
        tally.counts.steady += u64::from(connected && self.in_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::listener::Firsts;
    use rand::SeedableRng as _;

    #[test]
    fn a_reader_of_ranges_asks_again_when_it_is_time() {
        let config = CrowdConfig { range_bytes: 100, range_every_s: 1.0, ..Default::default() };
        let mut chance = StdRng::seed_from_u64(1);
        let (mut tally, mut firsts, mut library) = (Tally::default(), Firsts::new(), Library::default());
        let mut reader = Fetcher::reader(0);
        let (path, header) = reader.ask(0, &config, &mut chance).unwrap();
        assert_eq!((path, &*header), (None, "Range: bytes=0-99\r\n"));
        assert!(reader.ask(0, &config, &mut chance).is_none(), "an answer is awaited");
        let head = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-99/5000\r\nContent-Length: 100\r\n\r\n";
        let answer = [&head[..], &[0; 100]].concat();
        for piece in answer.chunks(60) {
            let mut measure = Measure {
                now_us: 5_000,
                window_us: Some(0),
                tier: 1,
                stall_us: 0,
                fuller_bytes: 0,
                firsts: &mut firsts,
                tally: &mut tally,
            };
            reader.take(piece, 1_000, &mut measure).unwrap();
        }
        assert_eq!(reader.advance(5_000, &mut library, &mut tally, Some(0)), Ok(true));
        assert_eq!(
            (tally.counts.parts, tally.counts.audio_bytes, reader.due_us()),
            (1, 100, Some(1_000_000))
        );
        assert!(reader.ask(999_999, &config, &mut chance).is_none());
        let (_, header) = reader.ask(1_000_000, &config, &mut chance).unwrap();
        let start: u64 = header["Range: bytes=".len()..].split('-').next().unwrap().parse().unwrap();
        assert!((1..=4_900).contains(&start), "{header}");
    }
}
