//! MPEG audio Layer III frames (ISO/IEC 11172-3), the ID3 tag that HLS asks of packed audio, and Icecast's metadata.
//!
//! An MP3 part is twenty frames of 1152 samples and nothing else. Their main data never begins in an earlier frame (the
//! bit reservoir is off), so a stream may be cut between any two.

pub mod icy;
mod id3;

use bytes::Bytes;
use model::{MP3_FRAME_SAMPLES, MP3_FRAMES_PER_PART, SAMPLE_RATE};

pub use id3::{Id3Error, Id3Tag, id3_timestamp, parse_id3};

/// Bits a second in kbit/s by index, of MPEG-1 and of MPEG-2 and 2.5. Index 0 is "free", 15 forbidden.
const KBITS: [[u32; 16]; 2] = [
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
];

/// A version of MPEG audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MpegVersion {
    /// MPEG-1: 32, 44.1 or 48 kHz.
    V1,
    /// MPEG-2: half of these.
    V2,
    /// MPEG-2.5: a quarter.
    V25,
}

/// A frame's header (ISO/IEC 11172-3 section 2.4.1.3). Layer III only.
///
/// ```text
/// 11111111 111vvllp bbbbssPx mmxxxxxx      v: version, l: layer, p: no CRC, b: bit rate, s: sample rate, P: padding,
///                                          m: mode (3 is mono)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which MPEG.
    pub version: MpegVersion,
    /// Bits a second.
    pub bit_rate: u32,
    /// Samples a second.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u8,
    /// Samples in the frame, a channel: 1152 for MPEG-1, 576 for the others.
    pub samples: u32,
    /// Bytes of the frame, header included: 24 to 1441.
    pub length: usize,
    /// Whether a CRC of two bytes follows the header.
    pub protected: bool,
}

/// Bytes that are no Layer III frame, or not the frames of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mp3Error {
    /// It ends within a frame.
    #[error("cut short within a frame")]
    Truncated,
    /// No eleven set bits where a frame must begin.
    #[error("no frame begins here")]
    NoSync,
    /// Another layer, or a reserved version.
    #[error("not Layer III")]
    NotLayerThree,
    /// A bit rate that is free or forbidden, or a forbidden sample rate.
    #[error("a bit rate or sample rate that is not supported")]
    BadRate,
    /// A part of other than 20 frames.
    #[error("{0} frames, where a part has {MP3_FRAMES_PER_PART}")]
    WrongCount(usize),
    /// A frame that is not MPEG-1, 48 kHz, mono.
    #[error("a frame of another format than 48 kHz mono")]
    WrongFormat,
    /// A frame that needs the bytes of an earlier one.
    #[error("a frame that leans on an earlier one")]
    Dependent,
}

impl FrameHeader {
    /// Reads the four bytes of a header at the beginning of `bytes`.
    ///
    /// # Errors
    /// No frame begins here.
    pub fn parse(bytes: &[u8]) -> Result<Self, Mp3Error> {
        let &[sync, second, third, fourth] = bytes.first_chunk().ok_or(Mp3Error::Truncated)?;
        if sync != 0xff || second & 0xe0 != 0xe0 {
            return Err(Mp3Error::NoSync);
        }
        let version = match second >> 3 & 3 {
            0 => MpegVersion::V25,
            2 => MpegVersion::V2,
            3 => MpegVersion::V1,
            _ => return Err(Mp3Error::NotLayerThree),
        };
        if second >> 1 & 3 != 1 {
            return Err(Mp3Error::NotLayerThree);
        }
        let (table, samples, divisor) = match version {
            MpegVersion::V1 => (&KBITS[0], 1_152, 1),
            MpegVersion::V2 => (&KBITS[1], 576, 2),
            MpegVersion::V25 => (&KBITS[1], 576, 4),
        };
        let bit_rate = table[usize::from(third >> 4)] * 1_000;
        let sample_rate = match third >> 2 & 3 {
            0 => 44_100 / divisor,
            1 => 48_000 / divisor,
            2 => 32_000 / divisor,
            _ => 0,
        };
        if bit_rate == 0 || sample_rate == 0 {
            return Err(Mp3Error::BadRate);
        }
        let padding = u32::from(third >> 1 & 1);
        Ok(Self {
            version,
            bit_rate,
            sample_rate,
            channels: if fourth >> 6 == 3 { 1 } else { 2 },
            samples,
            length: (samples / 8 * bit_rate / sample_rate + padding) as usize,
            protected: second & 1 == 0,
        })
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header, read.
    pub header: FrameHeader,
    /// All its bytes.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// How many bytes before this frame its main data begins (first field of the side information, 9 bits in MPEG-1,
    /// 8 otherwise): 0 if it decodes by itself.
    pub fn main_data_begin(&self) -> u16 {
        let side = 4 + if self.header.protected { 2 } else { 0 };
        // The shortest frame has 24 bytes.
        let [first, second] = [self.bytes[side], self.bytes[side + 1]].map(u16::from);
        match self.header.version {
            MpegVersion::V1 => first << 1 | second >> 7,
            MpegVersion::V2 | MpegVersion::V25 => first,
        }
    }
}

/// Frames one after another, without anything between; ends after the first error.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The frames of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not yet taken.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self) -> Result<Frame<'a>, Mp3Error> {
        let header = FrameHeader::parse(self.rest)?;
        let (bytes, rest) = self.rest.split_at_checked(header.length).ok_or(Mp3Error::Truncated)?;
        self.rest = rest;
        Ok(Frame { header, bytes })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Mp3Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.take();
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

/// A frame of silence for the beginning of a downloaded file, with an `Info` table in it: how many frames and bytes of
/// audio follow. Players then know the duration without estimating it, and skip the frame. For our own format only:
/// 64 kbit/s, 48 kHz, mono, 192 bytes.
pub fn info_frame(frames: u32, bytes: u32) -> Bytes {
    /// Where the table begins: after the header and, in mono, 17 bytes of side information.
    const TABLE: usize = 21;
    let mut frame = vec![0xff, 0xfb, 0x54, 0xc0];
    frame.resize(TABLE, 0);
    frame.extend(b"Info");
    frame.extend(3u32.to_be_bytes()); // The two fields that follow are given.
    frame.extend(frames.to_be_bytes());
    frame.extend(bytes.to_be_bytes());
    frame.resize(192, 0);
    Bytes::from(frame)
}

/// The 20 frames of a part of ours: MPEG-1, 48 kHz, mono, each decodable without the others.
///
/// # Errors
/// [`Mp3Error`] for any other bytes.
pub fn part_frames(part: &[u8]) -> Result<Vec<&[u8]>, Mp3Error> {
    let mut frames = Vec::with_capacity(MP3_FRAMES_PER_PART);
    let mut count = 0;
    for frame in Frames::new(part) {
        let frame = frame?;
        let header = frame.header;
        let length = header.samples as usize;
        if (header.sample_rate, header.channels, length) != (SAMPLE_RATE, 1, MP3_FRAME_SAMPLES) {
            return Err(Mp3Error::WrongFormat);
        }
        if frame.main_data_begin() != 0 {
            return Err(Mp3Error::Dependent);
        }
        count += 1;
        if count <= MP3_FRAMES_PER_PART {
            frames.push(frame.bytes);
        }
    }
    if count == MP3_FRAMES_PER_PART { Ok(frames) } else { Err(Mp3Error::WrongCount(count)) }
}
