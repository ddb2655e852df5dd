//! Walks an endless body just far enough to know which audio came: headers are read, audio is passed over.
//!
//! ```text
//! MP4   ftyp moov · (uuid)* moof mdat · emsg · (uuid)* moof mdat …    number and time from tfdt, checked by mfhd
//! Ogg   page · page · page …                                          number from the page's, time from its granule
//! ```
//!
//! Thousands of listeners get the same bytes, so it neither copies nor allocates; one of them, the witness, reads
//! everything with [`formats::mp4`].

use model::{PART_SAMPLES, SAMPLE_RATE};

/// Bytes of a `moof` that are looked at: `mfhd` and `tfdt` lie within, whatever `tfhd` holds.
const MOOF_BYTES: usize = 96;
/// Header of an Ogg page without its table (RFC 3533 section 6).
const OGG_HEADER: usize = 27;

/// A piece of audio that is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Number of the part, or of the page.
    pub(crate) number: u64,
    /// Where it begins (a part) or ends (a page) in media time, µs.
    pub(crate) media_us: u64,
    /// Bytes of encoded audio in it.
    pub(crate) payload: u64,
}

/// Something found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A part or page of audio.
    Unit(Unit),
    /// An `emsg` box.
    Notice,
    /// Bytes that are not what they should be; nothing is found from here on.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Unknown,
    Mp4,
    Ogg,
    Other,
}

/// What follows the bytes that are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    Notice,
    Unit,
}

/// The walk through one body.
#[derive(Debug)]
pub(crate) struct Walk {
    medium: Medium,
    head: [u8; MOOF_BYTES],
    filled: u8,
    needed: u8,
    /// Entries left of an Ogg page's table.
    table: u8,
    after: After,
    /// Bytes to pass over.
    skip: u64,
    unit: Unit,
}

impl Walk {
    pub(crate) fn new() -> Self {
        Self {
            medium: Medium::Unknown,
            head: [0; MOOF_BYTES],
            filled: 0,
            needed: 8,
            table: 0,
            after: After::Nothing,
            skip: 0,
            unit: Unit { number: 0, media_us: 0, payload: 0 },
        }
    }

    /// Takes the next bytes of the body.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Found)) {
        while !bytes.is_empty() {
            if self.medium == Medium::Other {
                return;
            }
            if self.skip > 0 {
                let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[count..];
                self.skip -= count as u64;
                if self.skip == 0 {
                    self.arrive(found);
                }
                continue;
            }
            if self.table > 0 {
                let (entries, rest) = bytes.split_at(bytes.len().min(self.table.into()));
                self.skip_later(entries);
                self.table -= entries.len() as u8;
                bytes = rest;
                if self.table == 0 {
                    self.pass_page(found);
                }
                continue;
            }
            let (filled, needed) = (usize::from(self.filled), usize::from(self.needed));
            let (piece, rest) = bytes.split_at(bytes.len().min(needed - filled));
            self.head[filled..filled + piece.len()].copy_from_slice(piece);
            self.filled += piece.len() as u8;
            bytes = rest;
            if self.filled == self.needed {
                self.read_head(found);
            }
        }
    }

    /// Whether it cannot tell what the bytes are, and so knows of no parts.
    pub(crate) fn only_counts(&self) -> bool {
        self.medium == Medium::Other
    }

    fn read_head(&mut self, found: &mut impl FnMut(Found)) {
        if self.medium == Medium::Unknown {
            self.medium = match (&self.head[..4], &self.head[4..8]) {
                (b"OggS", _) => Medium::Ogg,
                (_, b"ftyp" | b"styp" | b"moof" | b"uuid" | b"emsg") => Medium::Mp4,
                _ => Medium::Other,
            };
        }
        match self.medium {
            Medium::Mp4 => self.read_box(found),
            Medium::Ogg if usize::from(self.needed) < OGG_HEADER => self.needed = OGG_HEADER as u8,
            Medium::Ogg => self.read_page(found),
            Medium::Unknown | Medium::Other => {}
        }
    }

    fn read_box(&mut self, found: &mut impl FnMut(Found)) {
        let size = u64::from(self.u32(0));
        let taken = u64::from(self.needed);
        let kind: [u8; 4] = self.head[4..8].try_into().expect("four bytes");
        if size < 8 || size > formats::mp4::MAX_BOX as u64 {
            return self.give_up(found);
        }
        if kind == *b"moof" {
            if taken == 8 && size > 8 {
                self.needed = size.min(MOOF_BYTES as u64) as u8;
                return;
            }
            if !self.read_fragment(size.min(MOOF_BYTES as u64) as usize) {
                return self.give_up(found);
            }
        }
        self.after = match &kind {
            b"mdat" => {
                self.unit.payload = size - 8;
                After::Unit
            }
            b"emsg" => After::Notice,
            _ => After::Nothing,
        };
        self.next(size - taken, found);
    }

    /// Finds the part's number in the beginning of a `moof`; whether it is one.
    fn read_fragment(&mut self, length: usize) -> bool {
        let kind = |at: usize| self.head.get(at + 4..at + 8);
        if length < 32 || kind(8) != Some(b"mfhd") || kind(24) != Some(b"traf") {
            return false;
        }
        let sequence = self.u32(20);
        let mut at = 32;
        while at + 8 <= length {
            let size = self.u32(at) as usize;
            if self.head.get(at + 4..at + 8) == Some(b"tfdt") && at + 20 <= length && self.head[at + 8] == 1 {
                let samples = u64::from(self.u32(at + 12)) << 32 | u64::from(self.u32(at + 16));
                let number = samples / PART_SAMPLES;
                self.unit = Unit { number, media_us: micros(samples), payload: 0 };
                return samples.is_multiple_of(PART_SAMPLES) && (number as u32).wrapping_add(1) == sequence;
            }
            if size < 8 {
                return false;
            }
            at += size;
        }
        false
    }

    fn read_page(&mut self, found: &mut impl FnMut(Found)) {
        if &self.head[..4] != b"OggS" {
            return self.give_up(found);
        }
        let granule = u64::from_le_bytes(self.head[6..14].try_into().expect("eight bytes"));
        let sequence = u32::from_le_bytes(self.head[18..22].try_into().expect("four bytes"));
        // Header pages are at 0, pages on which no packet ends at −1 (RFC 3533, RFC 7845 section 4).
        let audio = granule != 0 && granule != u64::MAX;
        self.after = if audio { After::Unit } else { After::Nothing };
        self.unit = Unit { number: sequence.into(), media_us: micros(granule), payload: 0 };
        self.table = self.head[26];
        if self.table == 0 {
            self.pass_page(found);
        }
    }

    fn skip_later(&mut self, entries: &[u8]) {
        self.unit.payload += entries.iter().map(|entry| u64::from(*entry)).sum::<u64>();
    }

    fn pass_page(&mut self, found: &mut impl FnMut(Found)) {
        self.next(self.unit.payload, found);
    }

    /// Passes over the rest of a box or page.
    fn next(&mut self, skip: u64, found: &mut impl FnMut(Found)) {
        self.filled = 0;
        self.needed = if self.medium == Medium::Ogg { OGG_HEADER as u8 } else { 8 };
        self.skip = skip;
        if skip == 0 {
            self.arrive(found);
        }
    }

    fn arrive(&mut self, found: &mut impl FnMut(Found)) {
        match std::mem::replace(&mut self.after, After::Nothing) {
            After::Unit => found(Found::Unit(self.unit)),
            After::Notice => found(Found::Notice),
            After::Nothing => {}
        }
    }

    fn give_up(&mut self, found: &mut impl FnMut(Found)) {
        self.medium = Medium::Other;
        found(Found::Broken);
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.head[at..at + 4].try_into().expect("four bytes"))
    }
}

fn micros(samples: u64) -> u64 {
    // A granule may be any number; a wrong time is no worse than a wrong granule.
    (u128::from(samples) * 1_000_000 / u128::from(SAMPLE_RATE)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use formats::mp4::{self, PartBoxes};
    use formats::ogg;
    use model::{MediaTime, OPUS_FRAMES_PER_PART, PartNumber};

    fn part(number: u64, sizes: impl Fn(usize) -> usize, lead: &[Bytes]) -> Bytes {
        let frames: Vec<_> =
            (0..OPUS_FRAMES_PER_PART).map(|frame| Bytes::from(vec![7; sizes(frame)])).collect();
        let decode_time = PartNumber::new(number).start();
        mp4::write_part(&PartBoxes { sequence: number as u32 + 1, decode_time, frames: &frames, lead })
    }

    fn walk(bytes: &[u8]) -> Vec<Found> {
        let mut results = Vec::new();
        for step in [1, 5, 100, bytes.len()] {
            let (mut walk, mut all) = (Walk::new(), Vec::new());
            bytes.chunks(step).for_each(|piece| walk.feed(piece, &mut |found| all.push(found)));
            results.push(all);
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results.remove(0)
    }

    #[test]
    fn parts_and_notices_of_the_pushed_stream() {
        let record = mp4::write_uuid(mp4::UUID_CHAIN, &[1; 300]);
        let mut stream = mp4::opus_init().to_vec();
        stream.extend(part(7, |_| 120, &[record]));
        stream.extend(mp4::write_emsg("urn:x", "", 3, MediaTime::ZERO, b"{}"));
        stream.extend(part(8, |frame| 50 + frame, &[]));
        // Numbers beyond 32 bits: `mfhd` holds the low ones.
        stream.extend(part((1 << 32) + 9, |_| 3, &[]));
        let unit = |number: u64, payload| Found::Unit(Unit { number, media_us: number * 480_000, payload });
        let sizes = (0..24).map(|frame| 50 + frame).sum();
        assert_eq!(
            walk(&stream),
            [unit(7, 24 * 120), Found::Notice, unit(8, sizes), unit((1 << 32) + 9, 72)]
        );
    }

    #[test]
    fn pages_of_ogg() {
        let mut stream = ogg::opus_headers(1, "x", &[]).to_vec();
        for (sequence, packets, length) in [(2, 24, 100), (3, 1, 0), (5, 10, 300)] {
            let packets = vec![vec![9_u8; length]; packets];
            stream.extend(ogg::page_for_part(1, sequence, u64::from(sequence) * 48_000, &packets, false));
        }
        let unit = |number: u64, payload| Found::Unit(Unit { number, media_us: number * 1_000_000, payload });
        assert_eq!(walk(&stream), [unit(2, 2_400), unit(3, 0), unit(5, 3_000)]);
    }

    #[test]
    fn broken_bytes_are_said_once() {
        let mut wrong_sequence = part(7, |_| 120, &[]).to_vec();
        wrong_sequence[23] ^= 1;
        assert_eq!(walk(&wrong_sequence), [Found::Broken]);
        let mut small = mp4::opus_init().to_vec();
        small.extend([0, 0, 0, 3]);
        small.extend(b"free");
        small.extend(part(1, |_| 9, &[]));
        assert_eq!(walk(&small), [Found::Broken]);
        assert_eq!(walk(&[0xff, 0xfb, 0x54, 0xc4, 0, 0, 0, 0, 0, 0]), [], "MP3 is only counted");
        let mut lost = ogg::opus_headers(1, "x", &[]).to_vec();
        lost.extend(b"a page that is none, of some length, and then more");
        assert_eq!(walk(&lost), [Found::Broken]);
    }
}
