//! MP3 by `shine-rs`: every frame has the same size and its bits within itself, so a stream may be cut anywhere.

use bytes::Bytes;
use model::MP3_FRAME_SAMPLES;
use shine_rs::{Mp3EncoderConfig, StereoMode};

use super::{CodecError, Mp3Encoder};

const NAME: &str = "shine";
/// What shine's filter bank amplifies by, 1.02 dB; held to the truth by the test of alignment.
const GAIN: f32 = 1.124_8;

pub(super) struct Encoder {
    inner: shine_rs::Mp3Encoder,
    pcm: Box<[i16; MP3_FRAME_SAMPLES]>,
}

// SAFETY: the encoder keeps raw pointers of two kinds. `buffer` points to the caller's samples and is set anew by each
// call before it is read; `xr` points into the encoder's own boxed memory, which does not move with the box. Neither is
// bound to a thread, and nothing of it is shared.
#[allow(unsafe_code)]
unsafe impl Send for Encoder {}

impl Encoder {
    pub(super) fn new() -> Result<Self, CodecError> {
        let config = Mp3EncoderConfig::new()
            .sample_rate(model::SAMPLE_RATE)
            .bitrate(64)
            .channels(1)
            .stereo_mode(StereoMode::Mono);
        let inner = shine_rs::Mp3Encoder::new(config).map_err(|error| CodecError::new(NAME, error))?;
        Ok(Self { inner, pcm: Box::new([0; MP3_FRAME_SAMPLES]) })
    }
}

impl Mp3Encoder for Encoder {
    fn encode(&mut self, frame: &[f32; MP3_FRAME_SAMPLES]) -> Result<Bytes, CodecError> {
        for (to, from) in self.pcm.iter_mut().zip(frame) {
            // The cast saturates.
            *to = (from * (32_768.0 / GAIN)).round() as i16;
        }
        let frames =
            self.inner.encode_interleaved(&self.pcm[..]).map_err(|error| CodecError::new(NAME, error))?;
        match <[Vec<u8>; 1]>::try_from(frames) {
            Ok([frame]) => Ok(Bytes::from(frame)),
            Err(frames) => Err(CodecError::new(NAME, format!("{} frames for one", frames.len()))),
        }
    }

    fn delay(&self) -> usize {
        // The filter banks of analysis and synthesis (481 samples) and the overlap of the MDCT (one granule of 576).
        // Held to the truth by the test of alignment.
        1_057
    }
}
