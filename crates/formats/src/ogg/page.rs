//! Pages out of a stream of bytes, their checksums checked.

use bytes::{Buf, Bytes, BytesMut};

use super::{CHECKSUM, CHECKSUM_AT, Flags, MAX_GARBAGE, OggError, crc};
use crate::cursor::Cursor;

const CAPTURE: &[u8; 4] = b"OggS";
/// Bytes of a page's header before its lacing values.
const HEADER: usize = 27;

/// Bytes hashed in vain that are always allowed; beyond, four for each byte passed. Whoever forges beginnings of
/// pages within pages thus costs a constant per byte sent, not a page's checksum for each forgery.
const FREE_HASHING: u64 = 1 << 20;

/// One page whose checksum was right.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) flags: Flags,
    /// `None` where no packet ends on the page (-1), and for other negative ones, which mean nothing.
    pub(super) granule: Option<u64>,
    pub(super) serial: u32,
    pub(super) sequence: u32,
    lacing: Bytes,
    body: Bytes,
    /// Bytes skipped before it.
    pub(super) skipped: u64,
}

/// A run of a packet within a page.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) data: Bytes,
    /// Whether the packet ends here; otherwise it goes on with the next page.
    pub(super) ends: bool,
}

impl Page {
    /// The packets, and pieces of packets, on the page.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment> {
        let mut body = self.body.clone();
        self.lacing.split_inclusive(|&value| value < 255).map(move |run| Segment {
            data: body.split_to(run.iter().map(|&value| usize::from(value)).sum()),
            ends: run.last().is_some_and(|&value| value < 255),
        })
    }
}

/// Finds pages. Holds less than one page (65,307 bytes) beside the last push, if drained after each.
#[derive(Debug, Default)]
pub(super) struct PageFinder {
    buffer: BytesMut,
    /// Bytes skipped since the last page.
    skipped: u64,
    /// Bytes skipped or taken in all.
    passed: u64,
    hashed_in_vain: u64,
    any: bool,
}

impl PageFinder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<Page>, OggError> {
        loop {
            self.seek_capture()?;
            let Some(size) = size_of(&self.buffer) else { return Ok(None) };
            let mut hash = crc::update(0, &self.buffer[..CHECKSUM_AT]);
            hash = crc::update(hash, &[0; CHECKSUM]);
            hash = crc::update(hash, &self.buffer[CHECKSUM_AT + CHECKSUM..size]);
            if hash.to_le_bytes() == self.buffer[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM] && self.buffer[4] == 0 {
                self.any = true;
                self.passed += size as u64;
                let page = self.buffer.split_to(size).freeze();
                return Ok(Some(self.page(page)));
            }
            // A damaged page, or the capture pattern by chance within a packet. Whole pages may lie within what this
            // one claims to be, so the search goes on behind the pattern alone.
            self.hashed_in_vain += size as u64;
            if self.hashed_in_vain > FREE_HASHING + 4 * self.passed {
                return Err(OggError::LostSync);
            }
            self.skip(CAPTURE.len())?;
        }
    }

    /// Skips to the next capture pattern, or to where one may have begun.
    fn seek_capture(&mut self) -> Result<(), OggError> {
        let found = self.buffer.windows(CAPTURE.len()).position(|window| window == CAPTURE);
        match found {
            Some(0) => Ok(()),
            Some(position) => self.skip(position),
            None => self.skip(self.buffer.len().saturating_sub(CAPTURE.len() - 1)),
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), OggError> {
        self.buffer.advance(bytes);
        self.skipped += bytes as u64;
        self.passed += bytes as u64;
        if self.skipped <= MAX_GARBAGE {
            Ok(())
        } else if self.any {
            Err(OggError::LostSync)
        } else {
            Err(OggError::NotOgg)
        }
    }

    /// Takes a whole page apart.
    fn page(&mut self, page: Bytes) -> Page {
        let mut cursor = Cursor::new(&page[5..HEADER]);
        let mut fields = || {
            let flags = Flags::from_bits(cursor.u8()?);
            let granule = u64::try_from(cursor.i64_le()?).ok();
            Some((flags, granule, cursor.u32_le()?, cursor.u32_le()?))
        };
        let (flags, granule, serial, sequence) = fields().expect("the header is complete");
        let body = HEADER + usize::from(page[HEADER - 1]);
        Page {
            flags,
            granule,
            serial,
            sequence,
            lacing: page.slice(HEADER..body),
            body: page.slice(body..),
            skipped: std::mem::take(&mut self.skipped),
        }
    }
}

/// Sets the checksum of each whole page right, from the first one on.
pub(crate) fn seal(mut bytes: &mut [u8]) {
    while let Some(start) = bytes.windows(CAPTURE.len()).position(|window| window == CAPTURE) {
        bytes = &mut bytes[start..];
        let Some(size) = size_of(bytes) else {
            bytes = &mut bytes[CAPTURE.len()..];
            continue;
        };
        bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM].fill(0);
        let checksum = crc::update(0, &bytes[..size]);
        bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        bytes = &mut bytes[size..];
    }
}

/// Size of the page that begins here; `None` while it is not all there.
fn size_of(bytes: &[u8]) -> Option<usize> {
    let segments = usize::from(*bytes.get(HEADER - 1)?);
    if !bytes.starts_with(CAPTURE) {
        return None;
    }
    let lacing = bytes.get(HEADER..HEADER + segments)?;
    let size = HEADER + segments + lacing.iter().map(|&value| usize::from(value)).sum::<usize>();
    (bytes.len() >= size).then_some(size)
}
