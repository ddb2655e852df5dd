use bytes::Bytes;
use model::{MediaTime, SAMPLE_RATE};

use crate::cursor::Cursor;

/// Owner of the timestamp (RFC 8216bis section 3.4).
const TIMESTAMP: &str = "com.apple.streaming.transportStreamTimestamp";
/// Ticks a second of MPEG-2 timestamps.
const MPEG_RATE: u64 = 90_000;
/// Bits of one.
const MPEG_BITS: u32 = 33;
/// What four bytes of seven bits hold.
const MAX_SIZE: usize = 1 << 28;

/// A tag that is not what HLS asks of packed audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Id3Error {
    /// It ends within the tag.
    #[error("cut short within an ID3 tag")]
    Truncated,
    /// Another version than 2.4, or a tag or frame with flags.
    #[error("an ID3 tag of another version than 2.4, or with flags")]
    Unsupported,
    /// Sizes that do not add up, or a text that is not UTF-8.
    #[error("a malformed ID3 tag")]
    Malformed,
}

/// An ID3v2.4 tag, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id3Tag<'a> {
    /// MPEG-2 timestamp, 33 bits at 90 kHz, if it has one.
    pub timestamp: Option<u64>,
    /// Owner and content of the other `PRIV` frames.
    pub private: Vec<(&'a str, &'a [u8])>,
    /// Bytes of the whole tag: audio begins there.
    pub length: usize,
}

/// The MPEG-2 timestamp of a media time: 33 bits at 90 kHz, which wrap after 26.5 hours; rounded down.
pub(crate) const fn mpeg_timestamp(at: MediaTime) -> u64 {
    let ticks = at.samples() as u128 * MPEG_RATE as u128 / SAMPLE_RATE as u128;
    (ticks % (1 << MPEG_BITS)) as u64
}

/// An ID3v2.4 tag with the timestamp that HLS asks of packed audio (RFC 8216bis section 3.4), and further `PRIV`
/// frames (owner, content) after it. 73 bytes, and for each further frame 11, its owner and its content.
///
/// # Panics
/// If the tag exceeds 256 MiB.
pub fn id3_timestamp(at: MediaTime, private: &[(&str, &[u8])]) -> Bytes {
    let timestamp = mpeg_timestamp(at).to_be_bytes();
    let frames = || std::iter::once((TIMESTAMP, &timestamp[..])).chain(private.iter().copied());
    let size: usize = frames().map(|(owner, content)| 10 + owner.len() + 1 + content.len()).sum();
    let mut out = Vec::with_capacity(10 + size);
    out.extend(b"ID3\x04\x00\x00");
    out.extend(sync_safe(size));
    for (owner, content) in frames() {
        out.extend(b"PRIV");
        out.extend(sync_safe(owner.len() + 1 + content.len()));
        out.extend([0; 2]);
        out.extend(owner.bytes());
        out.push(0);
        out.extend_from_slice(content);
    }
    Bytes::from(out)
}

/// Reads the tag at the beginning of `bytes`; `None` if there is none.
///
/// # Errors
/// [`Id3Error`] if one begins that is broken, cut, or of a kind that packed audio does not have.
pub fn parse_id3(bytes: &[u8]) -> Result<Option<Id3Tag<'_>>, Id3Error> {
    let Some(rest) = bytes.strip_prefix(b"ID3") else { return Ok(None) };
    let mut cursor = Cursor::new(rest);
    let version_and_flags: [u8; 3] = cursor.array().ok_or(Id3Error::Truncated)?;
    if version_and_flags != [4, 0, 0] {
        return Err(Id3Error::Unsupported);
    }
    let size = size(&mut cursor)?;
    let mut frames = Cursor::new(cursor.take(size).ok_or(Id3Error::Truncated)?);
    let mut tag = Id3Tag { timestamp: None, private: Vec::new(), length: 10 + size };
    // Zeros after the frames are padding.
    while frames.rest().first().is_some_and(|&byte| byte != 0) {
        let name: [u8; 4] = frames.array().ok_or(Id3Error::Malformed)?;
        let size = self::size(&mut frames).map_err(|_| Id3Error::Malformed)?;
        let flags: [u8; 2] = frames.array().ok_or(Id3Error::Malformed)?;
        let mut content = Cursor::new(frames.take(size).ok_or(Id3Error::Malformed)?);
        if name != *b"PRIV" {
            continue;
        }
        if flags != [0; 2] {
            return Err(Id3Error::Unsupported);
        }
        let owner = content.until_nul().ok_or(Id3Error::Malformed)?;
        let owner = std::str::from_utf8(owner).map_err(|_| Id3Error::Malformed)?;
        if owner == TIMESTAMP {
            let ticks = content.rest().try_into().map(u64::from_be_bytes).map_err(|_| Id3Error::Malformed)?;
            if ticks >> MPEG_BITS != 0 || tag.timestamp.is_some() {
                return Err(Id3Error::Malformed);
            }
            tag.timestamp = Some(ticks);
        } else {
            tag.private.push((owner, content.rest()));
        }
    }
    Ok(Some(tag))
}

/// 28 bits in four bytes whose highest bit is 0, so that no size looks like the beginning of an MPEG frame.
fn sync_safe(size: usize) -> [u8; 4] {
    assert!(size < MAX_SIZE, "a tag is below 256 MiB");
    [21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8)
}

fn size(cursor: &mut Cursor<'_>) -> Result<usize, Id3Error> {
    let bytes: [u8; 4] = cursor.array().ok_or(Id3Error::Truncated)?;
    if bytes.iter().any(|byte| byte & 0x80 != 0) {
        return Err(Id3Error::Malformed);
    }
    Ok(bytes.iter().fold(0, |size, &byte| size << 7 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_count_at_90_khz_and_wrap_at_33_bits() {
        let check = |samples, expected| {
            assert_eq!(mpeg_timestamp(MediaTime::from_samples(samples)), expected, "{samples}");
        };
        check(0, 0);
        check(48_000, 90_000);
        check(184_320, 345_600);
        // Part boundaries fall on whole ticks: 23,040 samples are 43,200.
        check(23_040 * 1_000_003, 43_200 * 1_000_003 % (1 << 33));
        check(u64::MAX, (u128::from(u64::MAX) * 15 / 8 % (1 << 33)) as u64);
    }

    #[test]
    fn the_layout_is_this() {
        let tag = id3_timestamp(MediaTime::from_samples(48_000), &[("a", b"xy")]);
        let mut expected = b"ID3\x04\0\0\0\0\0\x4d".to_vec();
        expected.extend(b"PRIV\0\0\0\x35\0\0com.apple.streaming.transportStreamTimestamp\0");
        expected.extend(90_000u64.to_be_bytes());
        expected.extend(b"PRIV\0\0\0\x04\0\0a\0xy");
        assert_eq!(tag, expected);
        let read = parse_id3(&tag).unwrap().unwrap();
        assert_eq!(
            read,
            Id3Tag { timestamp: Some(90_000), private: vec![("a", b"xy")], length: expected.len() }
        );
    }

    #[test]
    fn broken_tags_are_errors_and_no_tag_is_none() {
        let tag = id3_timestamp(MediaTime::ZERO, &[("owner", &[7; 300])]);
        assert_eq!(parse_id3(b"\xff\xfb"), Ok(None));
        for end in 3..tag.len() {
            assert!(parse_id3(&tag[..end]).is_err(), "{end} bytes");
        }
        let mut other = tag.to_vec();
        other[3] = 3;
        assert_eq!(parse_id3(&other), Err(Id3Error::Unsupported));
        let mut twice = tag.to_vec();
        twice[7] = 0x80;
        assert_eq!(parse_id3(&twice), Err(Id3Error::Malformed));
    }
}
