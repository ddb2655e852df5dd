//! The ring of the newest parts.

use bytes::Bytes;
use formats::{mp4, ogg};
use model::{OPUS_FRAMES_PER_PART, Part, PartNumber, Rendition, SegmentNumber};

use crate::{Container, WINDOW_PARTS};

/// Serial number of every endless Ogg stream: a response holds one stream, and the pages are the same for all.
pub(crate) const OGG_SERIAL: u32 = 0x6d69_6e61;

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It is the newest now.
    Accepted {
        /// Numbers between the part that was the newest and this one, which nobody here will ever hear.
        missing: u64,
    },
    /// It is not newer than the newest, so that cursors have passed its place, or it came after the end: it was dropped.
    Stale,
}

/// What listeners of the pushed stream are told between parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Grows by one with each, from 1.
    pub sequence: u64,
    /// A whole box.
    pub bytes: Bytes,
}

#[derive(Debug)]
struct Entry {
    part: Part,
    /// The same audio as Ogg pages, made once for all; `None` where a part could not be read as MP4.
    pages: [Option<Bytes>; 2],
}

/// The newest parts of one event, and whether there will be more.
///
/// Spans [`WINDOW_PARTS`] numbers that end with the newest; some between may be missing.
#[derive(Debug)]
pub struct Window {
    /// Slot `n % WINDOW_PARTS` holds part `n` while `n` is spanned.
    slots: Box<[Option<Entry>]>,
    /// First and last number present.
    span: Option<(PartNumber, PartNumber)>,
    /// The first number that ever came.
    begun: Option<PartNumber>,
    settled: bool,
    ended: bool,
    notice: Option<Notice>,
    version: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// An empty one.
    pub fn new() -> Self {
        let slots = std::iter::repeat_with(|| None).take(WINDOW_PARTS).collect();
        Self { slots, span: None, begun: None, settled: false, ended: false, notice: None, version: 0 }
    }

    /// Adds a part, and lets those go that no longer fit. After the end it has no effect: the playlist says that it will
    /// not grow, and caches keep the last segment, short as it is, for good.
    pub fn push(&mut self, part: Part) -> Push {
        let number = part.number;
        if self.ended {
            return Push::Stale;
        }
        let missing = match self.span {
            Some((_, newest)) if number <= newest => return Push::Stale,
            Some((_, newest)) => number.get() - newest.get() - 1,
            None => 0,
        };
        let oldest_allowed = number.minus(WINDOW_PARTS as u64 - 1);
        let slot = slot_of(number);
        self.slots[slot] = Some(Entry { pages: pages(&part), part });
        // What the span no longer covers goes now and not when its slot is next needed: after a jump that could be
        // never. Each number passes here once, so a push costs one step on average and WINDOW_PARTS at most.
        let mut oldest = number;
        if let Some((first, newest)) = self.span {
            let mut candidate = first;
            while candidate < oldest_allowed && candidate <= newest {
                if slot_of(candidate) != slot {
                    self.slots[slot_of(candidate)] = None;
                }
                candidate = candidate.next();
            }
            while candidate < number && self.get(candidate).is_none() {
                candidate = if candidate > newest { number } else { candidate.next() };
            }
            oldest = candidate.min(number);
        }
        self.span = Some((oldest, number));
        self.begun = self.begun.or(Some(number));
        self.version += 1;
        Push::Accepted { missing }
    }

    /// Says that what was missed has been filled in as far as possible, so that the newest part is now about the
    /// present. Until then nobody who waits is placed: the first parts after a start of the edge are old ones.
    pub fn settle(&mut self) {
        self.version += u64::from(!self.settled);
        self.settled = true;
    }

    /// Whether [`Self::settle`] was called.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Replaces what listeners are told between parts: a whole box that players skip who do not know it. After the
    /// end it has no effect: the last words stand.
    pub fn announce(&mut self, bytes: Bytes) {
        if self.ended {
            return;
        }
        let sequence = self.notice.as_ref().map_or(0, |notice| notice.sequence) + 1;
        self.notice = Some(Notice { sequence, bytes });
    }

    /// What listeners are told at present.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// Says that no part will follow. `last_words` is the notice that every listener of the pushed stream gets after
    /// the last part. Settles the window.
    pub fn end(&mut self, last_words: Bytes) {
        self.announce(last_words);
        self.ended = true;
        self.settled = true;
        self.version += 1;
    }

    /// Grows with everything that playlists are made of: whoever made one has made it for as long as this is the same.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether no part will follow.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The part with which the window began, which may have left it long ago.
    pub(crate) fn begun(&self) -> Option<PartNumber> {
        self.begun
    }

    /// The oldest part present.
    pub fn oldest(&self) -> Option<PartNumber> {
        self.span.map(|(oldest, _)| oldest)
    }

    /// The newest part.
    pub fn newest(&self) -> Option<PartNumber> {
        self.span.map(|(_, newest)| newest)
    }

    /// A part, if it is present.
    pub fn get(&self, number: PartNumber) -> Option<&Part> {
        self.entry(number).map(|entry| &entry.part)
    }

    /// All parts present, ascending.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let (oldest, newest) = self.span.map_or((1, 0), |(oldest, newest)| (oldest.get(), newest.get()));
        (oldest..=newest).filter_map(|number| self.get(PartNumber::new(number)))
    }

    /// The bytes of a part as a stream of this container carries them.
    pub(crate) fn bytes(
        &self,
        number: PartNumber,
        rendition: Rendition,
        container: Container,
    ) -> Option<&Bytes> {
        let entry = self.entry(number)?;
        match container {
            Container::Ogg => entry.pages.get(rendition.index())?.as_ref(),
            Container::Mp4 | Container::Mp3 => Some(&entry.part.payload(rendition).bytes),
        }
    }

    /// The first part present at or after `number`.
    pub(crate) fn present_from(&self, number: PartNumber) -> Option<PartNumber> {
        let (oldest, newest) = self.span?;
        (number.max(oldest).get()..=newest.get())
            .map(PartNumber::new)
            .find(|candidate| self.entry(*candidate).is_some())
    }

    /// The parts of a segment that is whole, or of the last one after the end, in one rendition.
    pub fn segment(&self, segment: SegmentNumber, rendition: Rendition) -> Option<Vec<Bytes>> {
        let count = self.segment_parts(segment)?;
        let first = segment.first_part();
        (0..count)
            .map(|i| self.get(first.plus(i)).map(|part| part.payload(rendition).bytes.clone()))
            .collect()
    }

    /// How many parts a segment has of which all are present: 8, or fewer for the last one after the end.
    pub(crate) fn segment_parts(&self, segment: SegmentNumber) -> Option<u64> {
        let newest = self.newest()?;
        let (first, next) = (segment.first_part(), segment.next().first_part());
        let count = if next <= newest.next() {
            next.get() - first.get()
        } else if self.ended && first <= newest {
            newest.next().get() - first.get()
        } else {
            return None;
        };
        (0..count).all(|i| self.entry(first.plus(i)).is_some()).then_some(count)
    }

    fn entry(&self, number: PartNumber) -> Option<&Entry> {
        self.slots[slot_of(number)].as_ref().filter(|entry| entry.part.number == number)
    }
}

fn slot_of(number: PartNumber) -> usize {
    (number.get() % WINDOW_PARTS as u64) as usize
}

/// The Opus renditions of a part as Ogg pages. Sequence number and granule position follow from the part's number,
/// so that every edge makes the same page of it, now and from the recording.
fn pages(part: &Part) -> [Option<Bytes>; 2] {
    [Rendition::Opus24, Rendition::Opus48].map(|rendition| {
        let parsed = mp4::parse_part(&part.payload(rendition).bytes).ok()?;
        if parsed.frames.len() != OPUS_FRAMES_PER_PART {
            return None;
        }
        Some(ogg::page_for_part(
            OGG_SERIAL,
            page_sequence(part.number),
            part.number.next().start().samples(),
            &parsed.frames,
            false,
        ))
    })
}

pub(crate) fn page_sequence(number: PartNumber) -> u32 {
    (number.get() as u32).wrapping_add(ogg::HEADER_PAGES)
}
