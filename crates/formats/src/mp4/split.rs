use bytes::{Bytes, BytesMut};
use model::MediaTime;

use super::read::Header;
use super::{MAX_BOX, Mp4Error, TIMESCALE};
use crate::cursor::Cursor;

/// One item of a pushed stream or a recording, with its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// `ftyp` and `moov`.
    Init(Bytes),
    /// An `emsg` box, version 1.
    Event {
        /// `scheme_id_uri`.
        scheme: String,
        /// `value`.
        value: String,
        /// `id`.
        id: u32,
        /// `presentation_time`, converted to samples (rounded down) if its timescale is another.
        presentation: MediaTime,
        /// `message_data`.
        message: Bytes,
        /// The whole box.
        bytes: Bytes,
    },
    /// `uuid` boxes, `moof` and `mdat`: a part. Only its outline was checked; [`super::parse_part`] reads it.
    Part(Bytes),
    /// Any other box between them (`free`, `sidx`, `styp`, `prft`, …).
    Other {
        /// Its type.
        kind: [u8; 4],
        /// The whole box.
        bytes: Bytes,
    },
}

/// Cuts a pushed stream into its items, whatever the pieces it arrives in.
///
/// It holds what was pushed and not yet taken; drained after each push, that is less than [`MAX_BOX`] beside the last
/// push.
#[derive(Debug, Default)]
pub struct StreamSplitter {
    buffer: BytesMut,
    /// Whole boxes at the beginning of the buffer that belong to the item in progress.
    scanned: usize,
    awaits: Awaits,
    failed: Option<Mp4Error>,
}

/// What may come after the boxes scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Awaits {
    /// The first box of an item.
    #[default]
    Item,
    /// `moov`, after `ftyp`.
    Moov,
    /// `uuid` or `moof`, after `uuid`.
    Moof,
    /// `mdat`, after `moof`.
    Mdat,
}

impl StreamSplitter {
    /// At the beginning of a stream, or between two of its items.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds received bytes. Drain with [`Self::next`] after each push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that were pushed and belong to no item yet: not 0 at the end of a stream means that it was cut.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole item, `None` until more bytes come.
    ///
    /// # Errors
    /// The stream is broken, and stays so: where a box ends can no longer be known.
    #[expect(
        clippy::should_implement_trait,
        reason = "after None there may be more, other than from an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<StreamItem>, Mp4Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        })
    }

    fn advance(&mut self) -> Result<Option<StreamItem>, Mp4Error> {
        loop {
            let Some(header) = Header::read(&self.buffer[self.scanned..])? else { return Ok(None) };
            let kind = header.kind;
            let end = self.scanned + header.size;
            if end > MAX_BOX {
                return Err(Mp4Error::TooLarge { kind, size: end as u64 });
            }
            // Refused before its content arrives, which may be long.
            let (then, whole) = match (self.awaits, &kind) {
                (Awaits::Item, b"ftyp") => (Awaits::Moov, false),
                (Awaits::Item | Awaits::Moof, b"uuid") => (Awaits::Moof, false),
                (Awaits::Item | Awaits::Moof, b"moof") => (Awaits::Mdat, false),
                (Awaits::Item, b"moov" | b"mdat") => return Err(Mp4Error::Misplaced { kind }),
                (Awaits::Moov, b"moov") | (Awaits::Mdat, b"mdat") | (Awaits::Item, _) => (Awaits::Item, true),
                _ => return Err(Mp4Error::Misplaced { kind }),
            };
            if self.buffer.len() < end {
                return Ok(None);
            }
            self.awaits = then;
            if !whole {
                self.scanned = end;
                continue;
            }
            self.scanned = 0;
            let bytes = self.buffer.split_to(end).freeze();
            return match &kind {
                b"moov" => Ok(Some(StreamItem::Init(bytes))),
                b"mdat" => Ok(Some(StreamItem::Part(bytes))),
                b"emsg" => read_event(bytes, header.length).map(Some),
                _ => Ok(Some(StreamItem::Other { kind, bytes })),
            };
        }
    }
}

/// Reads an `emsg` box (ISO/IEC 23009-1 section 5.10.3.3). Version 0, whose time is relative, is not ours.
fn read_event(bytes: Bytes, header: usize) -> Result<StreamItem, Mp4Error> {
    const KIND: [u8; 4] = *b"emsg";
    let mut cursor = Cursor::new(&bytes[header..]);
    if cursor.u32().ok_or(Mp4Error::Truncated)? >> 24 != 1 {
        return Ok(StreamItem::Other { kind: KIND, bytes });
    }
    let mut read = || {
        let timescale = cursor.u32()?;
        let time = cursor.u64()?;
        let _duration = cursor.u32()?;
        let id = cursor.u32()?;
        Some((timescale, time, id, cursor.until_nul()?, cursor.until_nul()?))
    };
    let (timescale, time, id, scheme, value) = read().ok_or(Mp4Error::Truncated)?;
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned)
            .map_err(|_| Mp4Error::Unsupported { kind: KIND, what: "a text that is not UTF-8" })
    };
    let samples = (u128::from(time) * u128::from(TIMESCALE))
        .checked_div(u128::from(timescale))
        .ok_or(Mp4Error::Unsupported { kind: KIND, what: "timescale 0" })?;
    Ok(StreamItem::Event {
        scheme: text(scheme)?,
        value: text(value)?,
        id,
        presentation: MediaTime::from_samples(u64::try_from(samples).unwrap_or(u64::MAX)),
        message: bytes.slice(bytes.len() - cursor.rest().len()..),
        bytes,
    })
}
