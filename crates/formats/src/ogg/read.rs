use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::headers::{OpusHead, OpusTags};
use super::page::{Page, PageFinder};
use super::{MAX_PACKET, OggError};
use crate::opus::{OpusError, packet_samples};

/// One packet of audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OggPacket {
    /// The Opus packet, well formed (RFC 6716 section 3.4).
    pub data: Bytes,
    /// Position of its first sample at 48 kHz, by the stream's granule positions; the samples of the pre-skip count.
    /// Whatever the source claims: it may jump anywhere.
    pub position: u64,
    /// Samples at 48 kHz it decodes to.
    pub samples: u32,
    /// Samples at its end to discard, at most `samples`: only at a stream's end (RFC 7845 section 4.4).
    pub trim_end: u32,
}

/// What the reader found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OggItem {
    /// A stream begins: the first, or one chained to the last. Positions begin anew, and so must the decoder.
    Head(OpusHead),
    /// Its comments.
    Tags(OpusTags),
    /// Audio.
    Packet(OggPacket),
    /// A packet that breaks RFC 6716 section 3.4, left out.
    BadPacket(OpusError),
    /// Something is missing before what follows.
    Lost {
        /// Pages missing by their sequence numbers; 1 where these went backwards.
        pages: u32,
        /// Bytes skipped that were no page.
        bytes: u64,
    },
    /// The stream said that it ends.
    End,
}

/// Incremental reader of one Ogg/Opus stream after another, from a source that nobody trusts.
///
/// Holds at most one page (65,307 bytes) beside the last push, one packet ([`MAX_PACKET`]) and the items of one page
/// (256), if drained after each push. Its work is linear in the bytes pushed, whatever they are.
#[derive(Debug, Default)]
pub struct OggReader {
    pages: PageFinder,
    items: VecDeque<OggItem>,
    stream: Option<Stream>,
    failed: Option<OggError>,
}

/// One logical stream.
#[derive(Debug)]
struct Stream {
    serial: u32,
    /// Sequence number of the next page.
    sequence: u32,
    stage: Stage,
    /// Beginning of a packet that goes on with the next page.
    partial: Option<Partial>,
    /// End of the last packet, once one was placed.
    position: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Tags,
    Audio,
    Ended,
}

#[derive(Debug, Default)]
struct Partial {
    data: BytesMut,
    /// Whether bytes were left out because it is too long.
    cut: bool,
}

impl OggReader {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received bytes. Drain with [`Self::next`] after each push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.pages.push(bytes);
        }
    }

    /// The next item, `None` until more bytes come.
    ///
    /// # Errors
    /// The stream is unusable, and stays so. Damage that can be passed over is an item, not an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "after None there may be more, other than from an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<OggItem>, OggError> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            // What a page held before the error in it is still handed out.
            match self.pages.next().and_then(|page| page.map(|page| self.page(page)).transpose()) {
                Ok(Some(())) => (),
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.failed = Some(error);
                    self.pages = PageFinder::default();
                }
            }
        }
    }

    fn page(&mut self, page: Page) -> Result<(), OggError> {
        if page.flags.bos {
            return self.begin(page);
        }
        let Some(stream) = &mut self.stream else { return Err(OggError::MissingHeader) };
        if stream.serial != page.serial {
            // A stream that we joined late, or one whose first page was damaged, is no second stream.
            let damaged = page.skipped > 0;
            return Err(if damaged { OggError::MissingHeader } else { OggError::Multiplexed });
        }
        if stream.stage == Stage::Ended {
            return Err(OggError::AfterEnd);
        }
        let ahead = page.sequence.wrapping_sub(stream.sequence);
        let pages = if ahead <= u32::MAX / 2 { ahead } else { 1 };
        if pages > 0 || page.skipped > 0 {
            self.items.push_back(OggItem::Lost { pages, bytes: page.skipped });
        }
        if pages > 0 {
            stream.partial = None;
            stream.position = None;
        }
        stream.sequence = page.sequence.wrapping_add(1);
        stream.take(&page, &mut self.items)
    }

    /// A page that begins a stream.
    fn begin(&mut self, page: Page) -> Result<(), OggError> {
        if let Some(stream) = &self.stream {
            // Streams that run side by side begin side by side (RFC 3533 section 4): directly after the first page
            // of another. Later, one that begins replaces the last, whether that one said its end or not.
            if stream.stage == Stage::Tags {
                return Err(OggError::Multiplexed);
            }
        }
        if page.skipped > 0 {
            self.items.push_back(OggItem::Lost { pages: 0, bytes: page.skipped });
        }
        let mut segments = page.segments();
        let first = segments.next().filter(|segment| segment.ends).ok_or(OggError::BadHeaderPage)?;
        let head = OpusHead::parse(&first.data)?;
        if segments.next().is_some() || page.flags.continued {
            return Err(OggError::BadHeaderPage);
        }
        self.items.push_back(OggItem::Head(head));
        self.stream = Some(Stream {
            serial: page.serial,
            sequence: page.sequence.wrapping_add(1),
            stage: Stage::Tags,
            partial: None,
            position: None,
        });
        Ok(())
    }
}

impl Stream {
    /// Takes the packets of one page, in order.
    fn take(&mut self, page: &Page, items: &mut VecDeque<OggItem>) -> Result<(), OggError> {
        let mut audio = Vec::new();
        let mut resumes = page.flags.continued;
        if !resumes {
            // A packet that was to go on here and does not is lost.
            self.partial = None;
        }
        for segment in page.segments() {
            let began = self.partial.is_some();
            if std::mem::take(&mut resumes) && !began {
                continue; // The rest of a packet whose beginning is lost.
            }
            if segment.ends && !began {
                self.packet(segment.data, false, &mut audio, items)?;
                continue;
            }
            let partial = self.partial.get_or_insert_default();
            let room = MAX_PACKET.saturating_sub(partial.data.len());
            partial.cut |= segment.data.len() > room;
            partial.data.extend_from_slice(&segment.data[..segment.data.len().min(room)]);
            if partial.cut && self.stage == Stage::Audio {
                return Err(OggError::PacketTooLarge);
            }
            if segment.ends {
                let partial = self.partial.take().expect("it was just extended");
                self.packet(partial.data.freeze(), partial.cut, &mut audio, items)?;
            }
        }
        self.place(audio, page, items);
        if page.flags.eos {
            self.stage = Stage::Ended;
            items.push_back(OggItem::End);
        }
        Ok(())
    }

    /// Takes one whole packet.
    fn packet(
        &mut self,
        data: Bytes,
        cut: bool,
        audio: &mut Vec<(Bytes, u32)>,
        items: &mut VecDeque<OggItem>,
    ) -> Result<(), OggError> {
        if self.stage == Stage::Tags {
            items.push_back(OggItem::Tags(OpusTags::parse(&data).ok_or(OggError::MissingTags)?));
            self.stage = Stage::Audio;
        } else if cut || data.len() > MAX_PACKET {
            return Err(OggError::PacketTooLarge);
        } else {
            match packet_samples(&data) {
                Ok(samples) => audio.push((data, samples)),
                Err(error) => items.push_back(OggItem::BadPacket(error)),
            }
        }
        Ok(())
    }

    /// Gives the packets that end on a page their positions, backwards from its granule position (RFC 7845 section 4).
    fn place(&mut self, audio: Vec<(Bytes, u32)>, page: &Page, items: &mut VecDeque<OggItem>) {
        let total: u64 = audio.iter().map(|&(_, samples)| u64::from(samples)).sum();
        let follows = self.position.unwrap_or(0);
        let (mut position, end) = match page.granule {
            // The last page may end before its packets do; these lie where the page before it ended.
            Some(end) if page.flags.eos && (self.position.is_some() || end < total) => {
                (follows.min(end), end)
            }
            Some(end) => (end.saturating_sub(total), end),
            None => (follows, follows.saturating_add(total)),
        };
        let trims = page.flags.eos && page.granule.is_some();
        for (data, samples) in audio {
            let next = position.saturating_add(u64::from(samples));
            let trim_end = if trims { next.saturating_sub(end).min(u64::from(samples)) as u32 } else { 0 };
            items.push_back(OggItem::Packet(OggPacket { data, position, samples, trim_end }));
            position = next;
        }
        if total > 0 {
            self.position = Some(position);
        }
    }
}

/// Reads a whole file of one Ogg/Opus stream, such as a built-in voice.
///
/// # Errors
/// As [`OggReader::next`]; [`OggError::Truncated`] for a file that ends within its headers; and
/// [`OggError::Multiplexed`] for one with a second stream.
pub fn read_opus(file: &[u8]) -> Result<(OpusHead, Vec<OggPacket>), OggError> {
    let mut reader = OggReader::new();
    let mut head = None;
    let mut tagged = false;
    let mut packets = Vec::new();
    reader.push(file);
    while let Some(item) = reader.next()? {
        match item {
            OggItem::Head(_) if head.is_some() => return Err(OggError::Multiplexed),
            OggItem::Head(new) => head = Some(new),
            OggItem::Tags(_) => tagged = true,
            OggItem::Packet(packet) => packets.push(packet),
            OggItem::BadPacket(_) | OggItem::Lost { .. } | OggItem::End => (),
        }
    }
    head.filter(|_| tagged).map(|head| (head, packets)).ok_or(OggError::Truncated)
}
