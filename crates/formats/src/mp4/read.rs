use model::{MediaTime, OPUS_FRAMES_PER_PART};

use super::{
    DATA_OFFSET, DEFAULT_BASE_IS_MOOF, DEFAULT_SAMPLE_SIZE, MAX_BOX, MAX_FRAME, Mp4Error, SAMPLE_SIZES,
    TRACK_ID,
};
use crate::cursor::Cursor;

/// What stands at the beginning of a box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: [u8; 4],
    /// Of the header: 8, or 16 where the size takes 64 bits.
    pub(super) length: usize,
    /// Of the whole box, at most [`MAX_BOX`], at least `length`.
    pub(super) size: usize,
}

impl Header {
    /// Reads a header; `None` if more bytes are needed to tell.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Mp4Error> {
        let mut cursor = Cursor::new(bytes);
        let (Some(short), Some(kind)) = (cursor.u32(), cursor.array()) else { return Ok(None) };
        let (length, size) = if short == 1 {
            match cursor.u64() {
                Some(size) => (16, size),
                None => return Ok(None),
            }
        } else {
            (8, u64::from(short))
        };
        if size < length {
            return Err(Mp4Error::BadSize { kind, size });
        }
        if size > MAX_BOX as u64 {
            return Err(Mp4Error::TooLarge { kind, size });
        }
        Ok(Some(Self { kind, length: length as usize, size: size as usize }))
    }
}

/// Takes a whole box; its type and content.
pub(super) fn take_box<'a>(cursor: &mut Cursor<'a>) -> Result<([u8; 4], &'a [u8]), Mp4Error> {
    let header = Header::read(cursor.rest())?.ok_or(Mp4Error::Truncated)?;
    let whole = cursor.take(header.size).ok_or(Mp4Error::Truncated)?;
    Ok((header.kind, &whole[header.length..]))
}

/// Takes a whole box that must be of this type.
fn take_known<'a>(cursor: &mut Cursor<'a>, expected: &[u8; 4]) -> Result<&'a [u8], Mp4Error> {
    let (kind, content) = take_box(cursor)?;
    if kind == *expected { Ok(content) } else { Err(Mp4Error::Misplaced { kind }) }
}

/// A part, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedPart<'a> {
    /// `mfhd` sequence number.
    pub sequence: u32,
    /// Its first sample.
    pub decode_time: MediaTime,
    /// 24 Opus packets, 1 to [`MAX_FRAME`] bytes each.
    pub frames: Vec<&'a [u8]>,
    /// Type and content of the `uuid` boxes before `moof`, in order.
    pub uuids: Vec<([u8; 16], &'a [u8])>,
}

/// Reads exactly one part, laid out as [`super::write_part`] lays it out.
///
/// # Errors
/// [`Mp4Error`] for any other bytes, and for any bytes beside the part.
pub fn parse_part(bytes: &[u8]) -> Result<ParsedPart<'_>, Mp4Error> {
    if bytes.len() > MAX_BOX {
        return Err(Mp4Error::TooLarge { kind: *b"moof", size: bytes.len() as u64 });
    }
    let mut cursor = Cursor::new(bytes);
    let mut uuids = Vec::new();
    let (moof, moof_size) = loop {
        let before = cursor.rest().len();
        let (kind, content) = take_box(&mut cursor)?;
        match &kind {
            b"uuid" => {
                let (uuid, payload) = content
                    .split_first_chunk()
                    .ok_or(Mp4Error::Unsupported { kind, what: "no room for its extended type" })?;
                uuids.push((*uuid, payload));
            }
            b"moof" => break (content, before - cursor.rest().len()),
            _ => return Err(Mp4Error::Misplaced { kind }),
        }
    };
    let before = cursor.rest().len();
    let media = take_known(&mut cursor, b"mdat")?;
    let mdat_header = before - cursor.rest().len() - media.len();
    if !cursor.is_empty() {
        let (kind, _) = take_box(&mut cursor)?;
        return Err(Mp4Error::Misplaced { kind });
    }
    let fragment = Fragment::read(moof)?;
    if fragment.data_offset as usize != moof_size + mdat_header {
        return Err(Mp4Error::Unsupported { kind: *b"trun", what: "data elsewhere than in the next box" });
    }
    let mut media = Cursor::new(media);
    let mut frames = Vec::with_capacity(OPUS_FRAMES_PER_PART);
    for index in 0..OPUS_FRAMES_PER_PART {
        let size = fragment.size(index) as usize;
        if !(1..=MAX_FRAME).contains(&size) {
            return Err(Mp4Error::Unsupported { kind: *b"trun", what: "a frame of impossible size" });
        }
        frames.push(media.take(size).ok_or(Mp4Error::Truncated)?);
    }
    if !media.is_empty() {
        return Err(Mp4Error::Unsupported { kind: *b"mdat", what: "bytes that belong to no frame" });
    }
    Ok(ParsedPart { sequence: fragment.sequence, decode_time: fragment.decode_time, frames, uuids })
}

/// The content of a `moof`.
struct Fragment<'a> {
    sequence: u32,
    decode_time: MediaTime,
    data_offset: u32,
    sizes: Sizes<'a>,
}

enum Sizes<'a> {
    All(u32),
    /// Four bytes a frame.
    Table(&'a [u8]),
}

impl<'a> Fragment<'a> {
    fn read(moof: &'a [u8]) -> Result<Self, Mp4Error> {
        let mut cursor = Cursor::new(moof);
        let [0, sequence] = fields(take_known(&mut cursor, b"mfhd")?, b"mfhd")? else {
            return Err(unknown_flags(b"mfhd"));
        };
        let traf = take_known(&mut cursor, b"traf")?;
        ends(cursor)?;

        let mut cursor = Cursor::new(traf);
        let tfhd = take_known(&mut cursor, b"tfhd")?;
        let tfdt = take_known(&mut cursor, b"tfdt")?;
        let trun = take_known(&mut cursor, b"trun")?;
        ends(cursor)?;

        let [version_and_flags, track] = fields(tfhd.get(..8).unwrap_or(tfhd), b"tfhd")?;
        if track != TRACK_ID {
            return Err(Mp4Error::Unsupported { kind: *b"tfhd", what: "another track" });
        }
        let all = match (version_and_flags, &tfhd[8..]) {
            (DEFAULT_BASE_IS_MOOF, []) => None,
            (flags, rest) if flags == DEFAULT_BASE_IS_MOOF | DEFAULT_SAMPLE_SIZE => {
                let [size] = fields(rest, b"tfhd")?;
                Some(size)
            }
            _ => return Err(unknown_flags(b"tfhd")),
        };

        let [version_and_flags, high, low] = fields(tfdt, b"tfdt")?;
        if version_and_flags != 1 << 24 {
            return Err(unknown_flags(b"tfdt"));
        }
        let decode_time = MediaTime::from_samples(u64::from(high) << 32 | u64::from(low));

        let [version_and_flags, count, data_offset] = fields(trun.get(..12).unwrap_or(trun), b"trun")?;
        if count as usize != OPUS_FRAMES_PER_PART {
            return Err(Mp4Error::Unsupported { kind: *b"trun", what: "other than 24 frames" });
        }
        let table = &trun[12..];
        let sizes = match (version_and_flags, all) {
            (DATA_OFFSET, Some(size)) if table.is_empty() => Sizes::All(size),
            (flags, None)
                if flags == DATA_OFFSET | SAMPLE_SIZES && table.len() == 4 * OPUS_FRAMES_PER_PART =>
            {
                Sizes::Table(table)
            }
            _ => return Err(unknown_flags(b"trun")),
        };
        Ok(Self { sequence, decode_time, data_offset, sizes })
    }

    fn size(&self, index: usize) -> u32 {
        match self.sizes {
            Sizes::All(size) => size,
            Sizes::Table(table) => Cursor::new(&table[4 * index..]).u32().expect("the table has 24 entries"),
        }
    }
}

/// Exactly `N` fields of 32 bits.
fn fields<const N: usize>(content: &[u8], kind: &[u8; 4]) -> Result<[u32; N], Mp4Error> {
    if content.len() != 4 * N {
        return Err(Mp4Error::Unsupported { kind: *kind, what: "a length that does not fit its flags" });
    }
    let mut cursor = Cursor::new(content);
    Ok(std::array::from_fn(|_| cursor.u32().expect("the length was checked")))
}

fn unknown_flags(kind: &[u8; 4]) -> Mp4Error {
    Mp4Error::Unsupported { kind: *kind, what: "a version or flags that we do not write" }
}

fn ends(mut cursor: Cursor<'_>) -> Result<(), Mp4Error> {
    if cursor.is_empty() {
        return Ok(());
    }
    let (kind, _) = take_box(&mut cursor)?;
    Err(Mp4Error::Misplaced { kind })
}
