//! Opus by `ropus`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use model::OPUS_FRAME_SAMPLES;
use ropus::{Application, Bitrate, Channels, DecodeMode, InbandFec};

use super::{CodecError, MAX_PACKET_SAMPLES, OpusDecoder, OpusEncoder, OpusSettings};

const NAME: &str = "ropus";
/// No packet of 20 ms is larger (RFC 6716, section 3.2.1: one frame and its description).
const ROOM: usize = 1_276;

pub(super) struct Encoder {
    inner: ropus::Encoder,
    room: Box<[u8; ROOM]>,
}

impl Encoder {
    pub(super) fn new(settings: OpusSettings) -> Result<Self, CodecError> {
        let application = if settings.conversation { Application::Voip } else { Application::Audio };
        let fec = if settings.fec_loss_percent > 0 { InbandFec::Enabled } else { InbandFec::Disabled };
        let inner = ropus::Encoder::builder(model::SAMPLE_RATE, Channels::Mono, application)
            .bitrate(Bitrate::Bits(settings.bitrate))
            .complexity(settings.complexity)
            .vbr(!settings.constant)
            .vbr_constraint(true)
            .inband_fec(fec)
            .packet_loss_perc(settings.fec_loss_percent)
            .dtx(false)
            .build()
            .map_err(|error| CodecError::new(NAME, error))?;
        Ok(Self { inner, room: Box::new([0; ROOM]) })
    }
}

impl OpusEncoder for Encoder {
    fn encode(&mut self, frame: &[f32; OPUS_FRAME_SAMPLES]) -> Result<Bytes, CodecError> {
        let length = self
            .inner
            .encode_float(frame, &mut self.room[..])
            .map_err(|error| CodecError::new(NAME, error))?;
        Ok(Bytes::copy_from_slice(&self.room[..length]))
    }

    fn delay(&self) -> usize {
        self.inner.lookahead() as usize
    }
}

/// The decoder meets the network. It is young: should a packet make it panic, that packet is counted as broken and the
/// decoder starts afresh, instead of the whole stage going down with one sender.
pub(super) struct Decoder {
    inner: ropus::Decoder,
}

impl Decoder {
    pub(super) fn new() -> Result<Self, CodecError> {
        let inner = ropus::Decoder::new(model::SAMPLE_RATE, Channels::Mono)
            .map_err(|error| CodecError::new(NAME, error))?;
        Ok(Self { inner })
    }

    fn run(&mut self, packet: &[u8], pcm: &mut [f32], mode: DecodeMode) -> Result<usize, CodecError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.inner.decode_float(packet, pcm, mode)));
        match decoded {
            Ok(Ok(samples)) => Ok(samples),
            Ok(Err(error)) => Err(CodecError::new(NAME, error)),
            Err(_) => {
                *self = Self::new()?;
                Err(CodecError::new(NAME, "the decoder failed on this packet"))
            }
        }
    }
}

impl OpusDecoder for Decoder {
    fn decode(&mut self, packet: &[u8], pcm: &mut [f32; MAX_PACKET_SAMPLES]) -> Result<usize, CodecError> {
        if packet.is_empty() {
            return Err(CodecError::new(NAME, "an empty packet"));
        }
        self.run(packet, pcm, DecodeMode::Normal)
    }

    fn recover(&mut self, next: &[u8], pcm: &mut [f32]) -> Result<(), CodecError> {
        self.run(next, pcm, DecodeMode::Fec).map(|_| ())
    }

    fn conceal(&mut self, pcm: &mut [f32]) -> Result<(), CodecError> {
        self.run(&[], pcm, DecodeMode::Normal).map(|_| ())
    }
}
