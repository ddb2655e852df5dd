//! Silence for gap parts.

use bytes::{BufMut as _, Bytes, BytesMut};
use model::{MP3_FRAMES_PER_PART, OPUS_FRAMES_PER_PART};

/// Encoded silence, one frame a rendition; a gap part repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentFrames {
    /// 20 ms for `opus-24`.
    pub opus24: Bytes,
    /// 20 ms for `opus-48`: as long as its other packets, whose length is constant.
    pub opus48: Bytes,
    /// 24 ms for `mp3-64`.
    pub mp3: Bytes,
}

/// Bytes of every `opus-48` packet: 48 kbit/s, 20 ms, constant bitrate.
const OPUS48_PACKET_LEN: usize = 120;
/// Bytes of every `mp3-64` frame: 64 kbit/s at 48 kHz (ISO/IEC 11172-3 2.4.3.1: 144 · 64000 / 48000).
const MP3_FRAME_LEN: usize = 192;

impl SilentFrames {
    /// Silence that needs no encoder.
    ///
    /// Opus: a full-band CELT frame with its silence flag set (`FF FE`), for `opus-48` padded to the constant length
    /// with a code 3 packet (RFC 6716 §3.2.5). MP3: a frame whose side information and main data are zero.
    pub fn standard() -> Self {
        // TOC: configuration 31 (CELT, full band, 20 ms), mono, code 0 (one frame) or 3 (counted frames).
        const ONE: u8 = 31 << 3;
        const COUNTED: u8 = 31 << 3 | 3;
        // TOC, count (padding bit and one frame), padding length, frame, padding.
        const PADDING: usize = OPUS48_PACKET_LEN - 5;
        let mut opus48 = BytesMut::with_capacity(OPUS48_PACKET_LEN);
        opus48.put_slice(&[COUNTED, 0x41, PADDING as u8, 0xFF, 0xFE]);
        opus48.put_bytes(0, PADDING);
        // MPEG-1, Layer III, no CRC; 64 kbit/s, 48 kHz, no padding; mono, original.
        let mut mp3 = BytesMut::with_capacity(MP3_FRAME_LEN);
        mp3.put_slice(&[0xFF, 0xFB, 0x54, 0xC4]);
        mp3.put_bytes(0, MP3_FRAME_LEN - 4);
        Self { opus24: Bytes::from_static(&[ONE, 0xFF, 0xFE]), opus48: opus48.freeze(), mp3: mp3.freeze() }
    }

    /// 24 `opus-24` packets.
    pub(crate) fn opus24_part(&self) -> Vec<Bytes> {
        vec![self.opus24.clone(); OPUS_FRAMES_PER_PART]
    }

    /// 24 `opus-48` packets.
    pub(crate) fn opus48_part(&self) -> Vec<Bytes> {
        vec![self.opus48.clone(); OPUS_FRAMES_PER_PART]
    }

    /// 20 MP3 frames.
    pub(crate) fn mp3_part(&self) -> Vec<Bytes> {
        vec![self.mp3.clone(); MP3_FRAMES_PER_PART]
    }
}
