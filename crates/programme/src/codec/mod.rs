//! The codecs behind small traits: `ropus` by default, libopus with the cargo feature `libopus`, `shine-rs` for MP3.
//!
//! Everything is 48 kHz mono; Opus frames have 960 samples, MP3 frames 1,152. Nothing else in the crate names a codec
//! library.

#[cfg(feature = "libopus")]
mod libopus;
mod mp3;
mod packet;
mod pure;

use bytes::Bytes;
use model::{MP3_FRAME_SAMPLES, OPUS_FRAME_SAMPLES};

pub use packet::{MAX_PACKET_BYTES, MAX_PACKET_SAMPLES, OpusPacket};

/// Which library encodes and decodes Opus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpusLibrary {
    /// The port in Rust that is always there.
    #[default]
    Ropus,
    /// The C library.
    #[cfg(feature = "libopus")]
    Libopus,
}

/// What an Opus encoder is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusSettings {
    /// Bits a second.
    pub bitrate: u32,
    /// Effort, 0 to 10.
    pub complexity: u8,
    /// Whether every packet has the same size (hard CBR); otherwise constrained variable bitrate.
    pub constant: bool,
    /// Packet loss to prepare for with in-band forward error correction, percent; 0 switches it off.
    pub fec_loss_percent: u8,
    /// Whether this is conversation between speakers (the `VOIP` application) rather than a broadcast.
    pub conversation: bool,
}

impl OpusSettings {
    /// Rendition `opus-24`.
    pub const OPUS_24: Self =
        Self { bitrate: 24_000, complexity: 10, constant: false, fec_loss_percent: 0, conversation: false };
    /// Rendition `opus-48`: each packet has 120 bytes.
    pub const OPUS_48: Self =
        Self { bitrate: 48_000, complexity: 10, constant: true, fec_loss_percent: 0, conversation: false };
    /// What speakers hear.
    pub const RETURN: Self =
        Self { bitrate: 32_000, complexity: 5, constant: false, fec_loss_percent: 10, conversation: true };
}

/// A codec refused. For an encoder fed with frames of the right size this is a bug or lack of memory; for a decoder it
/// is what a broken packet leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{codec}: {reason}")]
pub struct CodecError {
    /// Which codec.
    pub codec: &'static str,
    /// What it said.
    pub reason: String,
}

impl CodecError {
    fn new(codec: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { codec, reason: reason.to_string() }
    }
}

/// Encodes 20 ms at a time.
pub trait OpusEncoder: Send {
    /// Encodes one frame of 960 samples.
    ///
    /// # Errors
    /// [`CodecError`] if the library refuses.
    fn encode(&mut self, frame: &[f32; OPUS_FRAME_SAMPLES]) -> Result<Bytes, CodecError>;

    /// Samples by which decoded sound lies behind what was encoded, the plain decoder's share included.
    fn delay(&self) -> usize;
}

/// Decodes one sender's packets to mono, stereo ones included.
pub trait OpusDecoder: Send {
    /// Decodes a packet; returns how many samples were written.
    ///
    /// # Errors
    /// [`CodecError`] if it is broken; the decoder goes on with the next one.
    fn decode(&mut self, packet: &[u8], pcm: &mut [f32; MAX_PACKET_SAMPLES]) -> Result<usize, CodecError>;

    /// Rebuilds the packet lost before `next` from the redundancy in `next`, filling `pcm` (a multiple of 120 samples;
    /// concealing what `next` does not carry). Decode `next` afterwards.
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn recover(&mut self, next: &[u8], pcm: &mut [f32]) -> Result<(), CodecError>;

    /// Makes up sound for a lost packet, filling `pcm` (a multiple of 120 samples, at most 5,760).
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn conceal(&mut self, pcm: &mut [f32]) -> Result<(), CodecError>;
}

/// Encodes 24 ms at a time; every frame decodes by itself (no bit reservoir).
pub trait Mp3Encoder: Send {
    /// Encodes one frame of 1,152 samples into 192 bytes (at 64 kbit/s).
    ///
    /// # Errors
    /// [`CodecError`] if the library refuses.
    fn encode(&mut self, frame: &[f32; MP3_FRAME_SAMPLES]) -> Result<Bytes, CodecError>;

    /// Samples by which decoded sound lies behind what was encoded, the plain decoder's share included.
    fn delay(&self) -> usize;
}

impl OpusLibrary {
    /// A new encoder.
    ///
    /// # Errors
    /// [`CodecError`] for settings out of range.
    pub fn encoder(self, settings: OpusSettings) -> Result<Box<dyn OpusEncoder>, CodecError> {
        match self {
            Self::Ropus => Ok(Box::new(pure::Encoder::new(settings)?)),
            #[cfg(feature = "libopus")]
            Self::Libopus => Ok(Box::new(libopus::Encoder::new(settings)?)),
        }
    }

    /// A new decoder.
    ///
    /// # Errors
    /// [`CodecError`] if there is no memory for one.
    pub fn decoder(self) -> Result<Box<dyn OpusDecoder>, CodecError> {
        match self {
            Self::Ropus => Ok(Box::new(pure::Decoder::new()?)),
            #[cfg(feature = "libopus")]
            Self::Libopus => Ok(Box::new(libopus::Decoder::new()?)),
        }
    }
}

/// A new encoder for rendition `mp3-64`.
///
/// # Errors
/// [`CodecError`] if the library refuses its own settings.
pub fn mp3_encoder() -> Result<Box<dyn Mp3Encoder>, CodecError> {
    Ok(Box::new(mp3::Encoder::new()?))
}
