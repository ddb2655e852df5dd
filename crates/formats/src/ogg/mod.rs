//! Ogg (RFC 3533) with Opus (RFC 7845): pages from parts, and a reader for Icecast sources, whom nobody trusts.
//!
//! ```text
//! page   "OggS" 0 flags · granule position (8) · serial (4) · sequence (4) · checksum (4) · n · n lacing values · packets
//! stream [OpusHead, bos] [OpusTags] [24 packets] [24 packets] … [24 packets, eos]
//! ```
//!
//! Numbers are little-endian. A granule position is the end of the last packet that ends on the page, in samples at
//! 48 kHz; -1 if none ends there.

mod crc;
mod headers;
mod page;
mod read;
mod write;

pub use crate::opus::packet_samples;
pub use headers::{OpusHead, OpusTags};
pub(crate) use page::seal;
pub use read::{OggItem, OggPacket, OggReader, read_opus};
pub use write::{HEADER_PAGES, opus_headers, page_for_part};

/// Largest packet that is read: no packet of one Opus stream is larger (RFC 7845 section 6). Comment headers may be:
/// of those, what goes beyond is not kept.
pub const MAX_PACKET: usize = 61_440;

/// Most bytes without a page in them before the reader gives up: two pages of the largest size.
pub const MAX_GARBAGE: u64 = 131_072;

/// Where the checksum stands in a page's header.
const CHECKSUM_AT: usize = 22;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// A page's flags (RFC 3533 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flags {
    /// It begins within a packet.
    continued: bool,
    /// It begins a logical stream.
    bos: bool,
    /// It ends a logical stream.
    eos: bool,
}

impl Flags {
    fn bits(self) -> u8 {
        u8::from(self.continued) | u8::from(self.bos) << 1 | u8::from(self.eos) << 2
    }

    fn from_bits(bits: u8) -> Self {
        Self { continued: bits & 1 != 0, bos: bits & 2 != 0, eos: bits & 4 != 0 }
    }
}

/// What an Ogg stream carries, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OggCodec {
    /// Vorbis audio.
    Vorbis,
    /// FLAC audio.
    Flac,
    /// Speex audio.
    Speex,
    /// CELT audio, before it became Opus.
    Celt,
    /// Theora video.
    Theora,
    /// VP8 video.
    Vp8,
    /// A Skeleton: a table of several streams.
    Skeleton,
    /// None of these.
    Unknown,
}

impl OggCodec {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vorbis => "Vorbis",
            Self::Flac => "FLAC",
            Self::Speex => "Speex",
            Self::Celt => "CELT",
            Self::Theora => "Theora",
            Self::Vp8 => "VP8",
            Self::Skeleton => "Skeleton",
            Self::Unknown => "something unknown",
        }
    }

    /// By the first packet of a stream.
    fn of(packet: &[u8]) -> Self {
        const MAGIC: [(&[u8], OggCodec); 8] = [
            (b"\x01vorbis", OggCodec::Vorbis),
            (b"\x7fFLAC", OggCodec::Flac),
            (b"fLaC", OggCodec::Flac),
            (b"Speex   ", OggCodec::Speex),
            (b"CELT    ", OggCodec::Celt),
            (b"\x80theora", OggCodec::Theora),
            (b"OVP80", OggCodec::Vp8),
            (b"fishead\0", OggCodec::Skeleton),
        ];
        MAGIC.iter().find(|(magic, _)| packet.starts_with(magic)).map_or(Self::Unknown, |&(_, codec)| codec)
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OggError {
    /// No page within the first [`MAX_GARBAGE`] bytes.
    #[error("this is no Ogg")]
    NotOgg,
    /// No page within [`MAX_GARBAGE`] bytes after one, or too many bytes that look like pages and are none.
    #[error("no Ogg page can be found any more")]
    LostSync,
    /// The stream carries another codec.
    #[error("the stream carries {}, not Opus", .0.name())]
    WrongCodec(OggCodec),
    /// Several streams at once, such as audio with video.
    #[error("several streams at once; one of Opus is read")]
    Multiplexed,
    /// A page of a stream whose beginning never came.
    #[error("a page of a stream whose header is missing")]
    MissingHeader,
    /// A page that begins a stream, without a packet that ends on it, or in the middle of its stream.
    #[error("a header page in disorder")]
    BadHeaderPage,
    /// A page of a stream that said its end.
    #[error("a page after the end of its stream")]
    AfterEnd,
    /// `OpusHead` is malformed or of another major version (RFC 7845 section 5.1).
    #[error("a malformed OpusHead")]
    BadOpusHead,
    /// `OpusHead` is well formed and asks for what is not read: more than two channels, or several Opus streams.
    #[error("{channels} channels in mapping family {family}; mono and stereo in one stream are read")]
    UnsupportedChannels {
        /// Channels.
        channels: u8,
        /// Mapping family.
        family: u8,
    },
    /// The second packet is no `OpusTags`.
    #[error("no OpusTags after OpusHead")]
    MissingTags,
    /// A packet larger than [`MAX_PACKET`].
    #[error("a packet over {MAX_PACKET} bytes")]
    PacketTooLarge,
    /// The bytes ended before the headers did (whole files only).
    #[error("cut short within the headers")]
    Truncated,
}
