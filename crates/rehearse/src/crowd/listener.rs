//! One listener of an endless response, and what is measured of it. Times are microseconds from the run's beginning.

use formats::mp4::{StreamItem, StreamSplitter, parse_part};

use super::http::{HttpError, Response};
use super::tally::{Tally, Witness};
use super::walk::{Found, Unit, Walk};

/// Parts whose first arrival is remembered.
const FIRSTS: usize = 256;
/// Most parts a flush: lateness is told for each place within a flush.
const PLACES: usize = 8;

/// When the first listener of this process got each part.
#[derive(Debug)]
pub(crate) struct Firsts([(u64, u64); FIRSTS]);

impl Firsts {
    pub(crate) fn new() -> Self {
        Self([(u64::MAX, 0); FIRSTS])
    }

    /// How long ago that was; 0 for the first one.
    fn since(&mut self, number: u64, now_us: u64) -> u64 {
        let first = &mut self.0[(number % FIRSTS as u64) as usize];
        if first.0 != number {
            *first = (number, now_us);
        }
        now_us.saturating_sub(first.1)
    }
}

/// What all listeners of a process are measured by.
#[derive(Debug)]
pub(crate) struct Measure<'a> {
    pub(crate) now_us: u64,
    /// Beginning of the window, once it has begun.
    pub(crate) window_us: Option<u64>,
    pub(crate) tier: u64,
    pub(crate) stall_us: u64,
    /// A part with at least so many bytes of audio is of a fuller rendition than one with fewer. 0: nobody asks.
    pub(crate) fuller_bytes: u64,
    pub(crate) firsts: &'a mut Firsts,
    pub(crate) tally: &'a mut Tally,
}

/// A listener, or what is left of it between two connections.
#[derive(Debug)]
pub(crate) struct Listener {
    response: Response,
    walk: Walk,
    begun_us: u64,
    first_byte: bool,
    first_audio_us: Option<u64>,
    /// It had audio in an earlier connection.
    came_back: bool,
    /// It came back, and has not got a part yet.
    awaits_part: bool,
    /// Whether its last part was of the fuller rendition, where they are told apart.
    fuller: Option<bool>,
    last_us: u64,
    silence_us: u64,
    stalls: u32,
    next: Option<u64>,
    /// The least that a part's arrival was after its place in media time, by its place in a flush.
    best: [i64; PLACES],
    /// Whether it listened when the window began.
    in_time: bool,
}

impl Listener {
    pub(crate) fn new(begun_us: u64) -> Self {
        Self {
            response: Response::new(),
            walk: Walk::new(),
            begun_us,
            first_byte: false,
            first_audio_us: None,
            came_back: false,
            awaits_part: false,
            fuller: None,
            last_us: 0,
            silence_us: 0,
            stalls: 0,
            next: None,
            best: [i64::MAX; PLACES],
            in_time: false,
        }
    }

    /// A new connection of the same listener, which knows what it has heard.
    pub(crate) fn comes_back(&mut self, begun_us: u64) {
        let heard = self.first_audio_us.is_some() || self.came_back;
        let before = std::mem::replace(self, Self::new(begun_us));
        self.came_back = heard;
        self.awaits_part = heard;
        self.fuller = before.fuller;
        self.next = before.next;
        self.silence_us = before.silence_us;
        self.stalls = before.stalls;
        self.last_us = before.last_us;
        self.in_time = before.in_time;
    }

    /// The part after the last one it has.
    pub(crate) fn next_part(&self) -> Option<u64> {
        self.next
    }

    pub(crate) fn hears(&self) -> bool {
        self.first_audio_us.is_some()
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status()
    }

    /// How many seconds the server asks it to wait.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.response.retry_after_s()
    }

    /// Whether its response is complete, other than by the end of the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.response.is_done()
    }

    /// All have joined: what it was like before is no measure. While others still came, an edge may have moved its slot.
    pub(crate) fn find_rhythm(&mut self) {
        self.best = [i64::MAX; PLACES];
    }

    /// The window begins.
    pub(crate) fn enter_window(&mut self) {
        self.in_time = self.hears();
        self.silence_us = 0;
        self.stalls = 0;
    }

    /// Takes bytes of the response. Whether this was the first audio.
    pub(crate) fn hear(&mut self, bytes: &[u8], measure: &mut Measure<'_>) -> Result<bool, HttpError> {
        let deaf = !self.hears();
        if !self.first_byte && !bytes.is_empty() {
            self.first_byte = true;
            measure.tally.first_byte.record(measure.now_us - self.begun_us);
        }
        // The response is taken out while its body is walked.
        let mut response = std::mem::replace(&mut self.response, Response::new());
        let fed = response.feed(bytes, &mut |body| self.walk_body(body, measure));
        self.response = response;
        fed?;
        Ok(deaf && self.hears())
    }

    fn walk_body(&mut self, body: &[u8], measure: &mut Measure<'_>) {
        if measure.window_us.is_some() {
            measure.tally.counts.body_bytes += body.len() as u64;
        }
        let mut walk = std::mem::replace(&mut self.walk, Walk::new());
        walk.feed(body, &mut |found| match found {
            Found::Unit(unit) => self.take(unit, measure),
            Found::Notice if measure.window_us.is_some() => measure.tally.counts.notices += 1,
            Found::Notice => {}
            Found::Broken => measure.tally.counts.broken += 1,
        });
        if walk.only_counts() {
            // Of what cannot be read every byte is audio.
            self.sound(measure);
            if measure.window_us.is_some() {
                measure.tally.counts.audio_bytes += body.len() as u64;
            }
        }
        self.walk = walk;
    }

    fn take(&mut self, unit: Unit, measure: &mut Measure<'_>) {
        self.sound(measure);
        let measured = measure.window_us.is_some();
        let counts = &mut measure.tally.counts;
        if measured {
            counts.parts += 1;
            counts.audio_bytes += unit.payload;
        }
        let is_new = self.next.is_none_or(|next| unit.number >= next);
        match self.next {
            Some(next) if unit.number > next => {
                counts.holes += 1;
                counts.missed += unit.number - next;
            }
            Some(next) if unit.number < next => counts.duplicates += 1,
            _ => {}
        }
        self.next = Some(self.next.map_or(0, |next| next).max(unit.number + 1));
        if measured && is_new {
            self.mark(unit, measure);
        }
        let skew = measure.firsts.since(unit.number, measure.now_us);
        // Every part of a flush has its own usual delay: the first waits for all that follow.
        let best = &mut self.best[(unit.number % measure.tier.clamp(1, PLACES as u64)) as usize];
        let phase = measure.now_us as i64 - unit.media_us as i64;
        if measured && *best != i64::MAX {
            measure.tally.lateness.record(phase.saturating_sub(*best).max(0) as u64);
            measure.tally.skew.record(skew);
        }
        *best = phase.min(*best);
    }

    /// Notes what a new part means besides itself: that its listener is back, or hears another rendition.
    fn mark(&mut self, unit: Unit, measure: &mut Measure<'_>) {
        if std::mem::take(&mut self.awaits_part) {
            measure.tally.back.record(measure.now_us);
        }
        if measure.fuller_bytes == 0 {
            return;
        }
        let fuller = unit.payload >= measure.fuller_bytes;
        match (self.fuller.replace(fuller), fuller) {
            (Some(false), true) => measure.tally.fuller.record(measure.now_us),
            (Some(true), false) => measure.tally.leaner.record(measure.now_us),
            _ => {}
        }
    }

    /// There is audio now.
    fn sound(&mut self, measure: &mut Measure<'_>) {
        let now_us = measure.now_us;
        if self.first_audio_us.is_none() {
            self.first_audio_us = Some(now_us);
            if !self.came_back {
                measure.tally.first_audio.record(now_us - self.begun_us);
                measure.tally.counts.joined += 1;
                self.last_us = now_us;
            }
        }
        if let Some(window_us) = measure.window_us {
            self.be_silent_until(now_us, window_us, measure.stall_us);
        }
        self.last_us = now_us;
    }

    fn be_silent_until(&mut self, now_us: u64, window_us: u64, stall_us: u64) {
        let silence = now_us.saturating_sub(self.last_us.max(window_us));
        self.silence_us = self.silence_us.max(silence);
        if silence > stall_us {
            self.stalls += 1;
        }
    }

    /// The run is over: says what this listener's whole was like. `storm` listeners come within the window.
    pub(crate) fn conclude(&mut self, connected: bool, storm: bool, measure: &mut Measure<'_>) {
        let Some(window_us) = measure.window_us else { return };
        if !self.hears() && !self.came_back {
            return;
        }
        self.be_silent_until(measure.now_us, window_us, measure.stall_us);
        let counts = &mut measure.tally.counts;
        counts.stalls += u64::from(self.stalls);
        counts.stalled += u64::from(self.stalls > 0);
        if connected && self.hears() && (self.in_time || storm) {
            counts.steady += 1;
            measure.tally.silence.record(self.silence_us);
        }
    }
}

/// Reads a response in full: the stream is what it says, part for part.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    response: Option<Response>,
    splitter: StreamSplitter,
    /// The bytes began like MP4.
    is_mp4: Option<bool>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { response: Some(Response::new()), ..Self::default() }
    }

    /// Takes what its listener takes.
    pub(crate) fn read(&mut self, bytes: &[u8], witness: &mut Witness) {
        let Some(response) = &mut self.response else { return };
        let (splitter, is_mp4) = (&mut self.splitter, &mut self.is_mp4);
        let fed = response.feed(bytes, &mut |body| {
            if *is_mp4.get_or_insert(body.get(4..8) == Some(b"ftyp")) {
                splitter.push(body);
            }
        });
        loop {
            match self.splitter.next() {
                Ok(Some(StreamItem::Part(part))) => {
                    witness.heard = true;
                    match parse_part(&part) {
                        Ok(_) => witness.parts += 1,
                        Err(_) => witness.broken += 1,
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    witness.broken += 1;
                    self.response = None;
                    return;
                }
            }
        }
        if fed.is_err() {
            self.response = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use formats::mp4::{self, PartBoxes};
    use model::{OPUS_FRAMES_PER_PART, PartNumber};

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mp4\r\n\r\n";

    fn part(number: u64) -> Bytes {
        part_of(number, &[1; 120])
    }

    fn part_of(number: u64, frame: &'static [u8]) -> Bytes {
        let frames = vec![Bytes::from_static(frame); OPUS_FRAMES_PER_PART];
        let decode_time = PartNumber::new(number).start();
        mp4::write_part(&PartBoxes { sequence: number as u32 + 1, decode_time, frames: &frames, lead: &[] })
    }

    struct Hall {
        firsts: Firsts,
        tally: Tally,
        tier: u64,
        window_us: Option<u64>,
        fuller_bytes: u64,
    }

    impl Hall {
        fn new(tier: u64) -> Self {
            Self { firsts: Firsts::new(), tally: Tally::default(), tier, window_us: None, fuller_bytes: 0 }
        }

        fn at(&mut self, now_ms: u64) -> Measure<'_> {
            Measure {
                now_us: now_ms * 1_000,
                window_us: self.window_us,
                tier: self.tier,
                stall_us: 1_000_000,
                fuller_bytes: self.fuller_bytes,
                firsts: &mut self.firsts,
                tally: &mut self.tally,
            }
        }
    }

    /// The longest of these times is so long, as exactly as they are kept.
    fn near(times: &crate::crowd::Times, ms: u64) {
        let found = times.quantile(1.0);
        assert!(found.abs_diff(ms * 1_000) <= ms * 2, "{found} is not {ms} ms");
    }

    #[test]
    fn joins_silences_and_stalls() {
        let mut hall = Hall::new(1);
        let mut listener = Listener::new(10_000);
        assert!(!listener.hear(HEAD, &mut hall.at(15)).unwrap());
        let first = [mp4::opus_init(), part(10)].concat();
        assert!(listener.hear(&first, &mut hall.at(30)).unwrap());
        assert!(!listener.hear(&part(11), &mut hall.at(500)).unwrap());
        near(&hall.tally.first_byte, 5);
        near(&hall.tally.first_audio, 20);

        hall.window_us = Some(600_000);
        listener.enter_window();
        listener.hear(&part(12), &mut hall.at(980)).unwrap();
        // Nothing for two seconds, and then everything.
        let rest = [part(13), part(14), part(15), part(16)].concat();
        listener.hear(&rest, &mut hall.at(2_980)).unwrap();
        listener.conclude(true, false, &mut hall.at(3_100));
        let counts = hall.tally.counts;
        assert_eq!((counts.joined, counts.steady, counts.stalls, counts.stalled), (1, 1, 1, 1));
        assert_eq!((counts.parts, counts.holes, counts.audio_bytes), (5, 0, 5 * 24 * 120));
        near(&hall.tally.silence, 2_000);
        // The last of the four is 80 ms late against the rhythm, the first of them 1.52 s.
        near(&hall.tally.lateness, 1_520);
    }

    #[test]
    fn a_flush_of_four_is_not_late() {
        let mut hall = Hall::new(4);
        let mut listener = Listener::new(0);
        listener.hear(HEAD, &mut hall.at(1)).unwrap();
        listener.hear(&mp4::opus_init(), &mut hall.at(1)).unwrap();
        hall.window_us = Some(0);
        for flush in 0..6_u64 {
            let bytes = [0, 1, 2, 3].map(|place| part(4 * flush + place)).concat();
            // The last one comes 30 ms late.
            let late = if flush == 5 { 30 } else { 0 };
            listener.hear(&bytes, &mut hall.at(2_000 + flush * 1_920 + late)).unwrap();
        }
        assert_eq!(hall.tally.lateness.count(), 20);
        assert_eq!(hall.tally.lateness.quantile(0.8), 0);
        near(&hall.tally.lateness, 30);
    }

    #[test]
    fn what_is_late_from_the_windows_beginning_is_seen() {
        let mut hall = Hall::new(1);
        let mut listener = Listener::new(0);
        listener.hear(&[HEAD, &mp4::opus_init()].concat(), &mut hall.at(0)).unwrap();
        // While others join its slot is 40 ms earlier than later.
        (0..3).for_each(|n| {
            listener.hear(&part(n), &mut hall.at(960 + 480 * n)).unwrap();
        });
        listener.find_rhythm();
        (3..6).for_each(|n| {
            listener.hear(&part(n), &mut hall.at(1_000 + 480 * n)).unwrap();
        });
        hall.window_us = Some(3_500_000);
        listener.enter_window();
        // Every part of the window is late, and then ever less so.
        for (number, late) in [(6, 200), (7, 150), (8, 100)] {
            listener.hear(&part(number), &mut hall.at(1_000 + 480 * number + late)).unwrap();
        }
        assert_eq!(hall.tally.lateness.count(), 3);
        near(&hall.tally.lateness, 200);
        assert!(hall.tally.lateness.quantile(0.0) >= 99_000);
    }

    #[test]
    fn holes_and_duplicates_are_counted_over_reconnections() {
        let mut hall = Hall::new(1);
        hall.window_us = Some(0);
        let mut listener = Listener::new(0);
        let stream = |numbers: &[u64]| {
            let parts: Vec<_> = numbers.iter().map(|number| part(*number)).collect();
            [HEAD, &mp4::opus_init(), &parts.concat()].concat()
        };
        listener.hear(&stream(&[3, 4, 7]), &mut hall.at(1)).unwrap();
        assert_eq!(listener.next_part(), Some(8));
        listener.comes_back(2_000);
        listener.hear(&stream(&[7, 8, 9]), &mut hall.at(3)).unwrap();
        let counts = hall.tally.counts;
        assert_eq!((counts.holes, counts.missed, counts.duplicates, counts.joined), (1, 2, 1, 1));
    }

    #[test]
    fn what_explains_an_error_is_no_audio() {
        let mut hall = Hall::new(1);
        hall.window_us = Some(0);
        let mut listener = Listener::new(0);
        let full = b"HTTP/1.1 503 Full\r\nRetry-After: 3\r\nContent-Length: 15\r\n\r\n{\"title\":\"full\"";
        assert!(!listener.hear(full, &mut hall.at(10)).unwrap());
        assert!(!listener.hears() && listener.is_over());
        assert_eq!((listener.status(), listener.retry_after_s()), (503, Some(3)));
        assert_eq!((hall.tally.counts.joined, hall.tally.counts.audio_bytes), (0, 0));
    }

    #[test]
    fn it_is_seen_when_they_are_back() {
        let mut hall = Hall::new(1);
        hall.window_us = Some(0);
        let mut listener = Listener::new(0);
        let stream = |numbers: &[u64]| {
            let parts: Vec<_> = numbers.iter().map(|number| part(*number)).collect();
            [HEAD, &mp4::opus_init(), &parts.concat()].concat()
        };
        listener.hear(&stream(&[3, 4]), &mut hall.at(10)).unwrap();
        assert!(hall.tally.back.is_empty(), "it was never away");
        listener.comes_back(20_000);
        // Again what it has is nothing new, and an attempt without audio brings nobody back.
        listener.hear(&stream(&[4]), &mut hall.at(30)).unwrap();
        listener.comes_back(40_000);
        listener.hear(HEAD, &mut hall.at(50)).unwrap();
        listener.comes_back(60_000);
        assert!(hall.tally.back.is_empty());
        listener.hear(&stream(&[5, 6]), &mut hall.at(70)).unwrap();
        assert_eq!((hall.tally.back.reached(1), hall.tally.back.count()), (Some(70), 1));
        assert_eq!((hall.tally.counts.missed, hall.tally.counts.duplicates), (0, 1));
    }

    #[test]
    fn another_rendition_is_told_by_its_size() {
        let mut hall = Hall::new(1);
        hall.window_us = Some(0);
        hall.fuller_bytes = 24 * 90;
        let mut listener = Listener::new(0);
        listener.hear(HEAD, &mut hall.at(1)).unwrap();
        listener.hear(&mp4::opus_init(), &mut hall.at(1)).unwrap();
        let (full, lean): (&[u8], &[u8]) = (&[1; 90], &[1; 89]);
        for (number, frame) in [full, full, lean, lean, full, full].into_iter().enumerate() {
            let number = number as u64;
            listener.hear(&part_of(number, frame), &mut hall.at(10 + number)).unwrap();
        }
        // A change is one whatever was in between.
        listener.comes_back(50_000);
        listener.hear(&[HEAD, &mp4::opus_init(), &part_of(6, lean)].concat(), &mut hall.at(60)).unwrap();
        let (leaner, fuller) = (&hall.tally.leaner, &hall.tally.fuller);
        assert_eq!((leaner.reached(1), leaner.reached(2), leaner.count()), (Some(12), Some(60), 2));
        assert_eq!((fuller.reached(1), fuller.count()), (Some(14), 1));
    }

    #[test]
    fn a_witness_reads_it_all() {
        let mut witness = Witness::default();
        let mut reader = Reader::new();
        let mut stream = [HEAD, &mp4::opus_init(), &part(1), &part(2)].concat();
        let length = stream.len();
        stream.extend(part(3));
        // A frame that would reach beyond its part.
        stream[length + 60..length + 64].copy_from_slice(&[0xff; 4]);
        stream.chunks(100).for_each(|piece| reader.read(piece, &mut witness));
        assert_eq!((witness.parts, witness.broken, witness.heard), (2, 1, true));
    }
}
