//! The log of chain records: `chain.log`.
//!
//! ```text
//! frame   0  8  number of the part it came with; for the last records of an event, the number after the last part
//!         8  2  length of the record
//!        10  4  CRC32C of the ten bytes before and the record
//!        14  …  the record, in the canonical bytes of `packager::chain`
//! ```
//!
//! Opus parts carry their own rendition's records inside, too; this is where all of them are together, and the only
//! place of those of MP3 and of the closing record.

use bytes::Bytes;
use model::{ChainRecord, PartNumber};
use packager::chain::RECORD_LEN_MAX;

const HEAD_LEN: usize = 14;

/// One record in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The part it came with.
    pub(crate) number: PartNumber,
    /// The record.
    pub(crate) record: ChainRecord,
    /// Offset in the log after it.
    pub(crate) end: u64,
}

/// Appends a frame. A record longer than any of ours is our bug.
pub(crate) fn write_frame(number: PartNumber, record: &ChainRecord, out: &mut Vec<u8>) {
    assert!(record.0.len() <= RECORD_LEN_MAX, "records have at most {RECORD_LEN_MAX} bytes");
    let start = out.len();
    out.extend(number.get().to_be_bytes());
    out.extend((record.0.len() as u16).to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), &record.0);
    out.extend(crc.to_be_bytes());
    out.extend_from_slice(&record.0);
}

/// The frames that begin `bytes`, which lie at `offset` in the log, as far as they are sound.
pub(crate) fn read_frames(mut bytes: &[u8], mut offset: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((frame, length)) = read_frame(bytes, offset) {
        bytes = &bytes[length..];
        offset += length as u64;
        frames.push(frame);
    }
    frames
}

fn read_frame(bytes: &[u8], offset: u64) -> Option<(Frame, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>()?;
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let crc = u32::from_be_bytes([head[10], head[11], head[12], head[13]]);
    let record = rest.get(..length).filter(|_| length <= RECORD_LEN_MAX)?;
    if crc32c::crc32c_append(crc32c::crc32c(&head[..10]), record) != crc {
        return None;
    }
    let number = u64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
    let frame = Frame {
        number: PartNumber::new(number),
        record: ChainRecord(Bytes::copy_from_slice(record)),
        end: offset + (HEAD_LEN + length) as u64,
    };
    Some((frame, HEAD_LEN + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written_until_one_is_not_sound() {
        let record = |byte: u8| ChainRecord(Bytes::from(vec![byte; usize::from(byte)]));
        let mut bytes = Vec::new();
        write_frame(PartNumber::new(8), &record(20), &mut bytes);
        let first = bytes.len();
        write_frame(PartNumber::new(16), &record(156), &mut bytes);
        let frames = read_frames(&bytes, 100);
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].number.get(), frames[0].end), (8, 134));
        assert_eq!((&frames[1].record, frames[1].end), (&record(156), 100 + bytes.len() as u64));
        for byte in first..bytes.len() {
            assert_eq!(read_frames(&bytes[..byte], 0).len(), 1);
            bytes[byte] ^= 0x40;
            assert_eq!(read_frames(&bytes, 0).len(), 1, "byte {byte}");
            bytes[byte] ^= 0x40;
        }
    }
}
