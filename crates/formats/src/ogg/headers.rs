use super::{OggCodec, OggError};
use crate::cursor::Cursor;

/// Most comments kept of a stream.
const MAX_COMMENTS: usize = 256;

/// Identification header (RFC 7845 section 5.1) of one mono or stereo stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusHead {
    /// 1 or 2.
    pub channels: u8,
    /// Samples at 48 kHz to discard from the decoder's output at the beginning.
    pub pre_skip: u16,
    /// Rate of the original input in Hz; 0 if unknown. Granule positions count at 48 kHz whatever it says.
    pub input_sample_rate: u32,
    /// Gain to apply when decoding, in 1/256 dB.
    pub output_gain: i16,
}

impl OpusHead {
    /// Reads the first packet of a stream.
    ///
    /// # Errors
    /// [`OggError::WrongCodec`], [`OggError::BadOpusHead`] or [`OggError::UnsupportedChannels`].
    pub fn parse(packet: &[u8]) -> Result<Self, OggError> {
        let fields =
            packet.strip_prefix(b"OpusHead").ok_or_else(|| OggError::WrongCodec(OggCodec::of(packet)))?;
        Self::fields(Cursor::new(fields)).ok_or(OggError::BadOpusHead)?
    }

    /// `None` if it is malformed.
    fn fields(mut cursor: Cursor<'_>) -> Option<Result<Self, OggError>> {
        // The lower four bits are a minor version, which changes nothing that is read here.
        let version = cursor.u8()?;
        let channels = cursor.u8()?;
        let pre_skip = cursor.u16_le()?;
        let input_sample_rate = cursor.u32_le()?;
        let output_gain = i16::from_le_bytes(cursor.array()?);
        let family = cursor.u8()?;
        if version & 0xf0 != 0 || channels == 0 {
            return None;
        }
        let plain = match (family, channels) {
            (0, 1 | 2) => true,
            // The surround family with one stream is the same packets in other words.
            (1, 1) => cursor.array()? == [1, 0, 0],
            (1, 2) => cursor.array()? == [1, 1, 0, 1],
            _ => false,
        };
        Some(if plain {
            Ok(Self { channels, pre_skip, input_sample_rate, output_gain })
        } else {
            Err(OggError::UnsupportedChannels { channels, family })
        })
    }
}

/// Comment header (RFC 7845 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpusTags {
    /// The encoder that made the stream.
    pub vendor: String,
    /// Names, in capitals, and values: at most 256, those within the first [`super::MAX_PACKET`] bytes. Comments that
    /// are not UTF-8 or have no name are left out.
    pub comments: Vec<(String, String)>,
}

impl OpusTags {
    /// Reads the second packet of a stream, or its beginning; `None` if it is no comment header. A header that ends
    /// early keeps what came before: comments are never worth a speaker's connection.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(packet.strip_prefix(b"OpusTags")?);
        let mut text = || -> Option<&[u8]> {
            let length = cursor.u32_le()?;
            cursor.take(usize::try_from(length).ok()?)
        };
        let mut tags = Self::default();
        let Some(vendor) = text() else { return Some(tags) };
        tags.vendor = String::from_utf8_lossy(vendor).into_owned();
        let Some(count) = cursor.u32_le() else { return Some(tags) };
        for _ in 0..count.min(MAX_COMMENTS as u32) {
            let Some(length) = cursor.u32_le() else { break };
            let Some(comment) = usize::try_from(length).ok().and_then(|length| cursor.take(length)) else {
                break;
            };
            let comment = std::str::from_utf8(comment).ok().and_then(|comment| comment.split_once('='));
            if let Some((name, value)) = comment {
                tags.comments.push((name.to_ascii_uppercase(), value.to_owned()));
            }
        }
        Some(tags)
    }

    /// The first value of a comment, by its name in capitals.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.comments.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
