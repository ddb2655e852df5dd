//! Opus by the C library (cargo feature `libopus`; needs cmake to build).
#![allow(unsafe_code)] // A C library: every call states why it is sound.

use std::ffi::c_int;
use std::ptr::NonNull;

use bytes::Bytes;
use model::OPUS_FRAME_SAMPLES;
use opusic_sys as sys;

use super::{CodecError, MAX_PACKET_SAMPLES, OpusDecoder, OpusEncoder, OpusSettings};

const NAME: &str = "libopus";
const ROOM: usize = 1_276;
const RATE: i32 = model::SAMPLE_RATE as i32;

fn check(code: c_int) -> Result<usize, CodecError> {
    usize::try_from(code).map_err(|_| CodecError::new(NAME, format_args!("error {code}")))
}

pub(super) struct Encoder {
    state: NonNull<sys::OpusEncoder>,
    room: Box<[u8; ROOM]>,
    delay: usize,
}

// SAFETY: the state is one allocation without ties to a thread, and only used through `&mut self`.
unsafe impl Send for Encoder {}

impl Encoder {
    pub(super) fn new(settings: OpusSettings) -> Result<Self, CodecError> {
        let application =
            if settings.conversation { sys::OPUS_APPLICATION_VOIP } else { sys::OPUS_APPLICATION_AUDIO };
        let mut error = 0;
        // SAFETY: plain values in, an error code out; a null pointer is refused below.
        let state = unsafe { sys::opus_encoder_create(RATE, 1, application, &raw mut error) };
        check(error)?;
        let state = NonNull::new(state).ok_or_else(|| CodecError::new(NAME, "no encoder"))?;
        let mut encoder = Self { state, room: Box::new([0; ROOM]), delay: 0 };
        encoder.set(sys::OPUS_SET_BITRATE_REQUEST, settings.bitrate as c_int)?;
        encoder.set(sys::OPUS_SET_COMPLEXITY_REQUEST, settings.complexity.into())?;
        encoder.set(sys::OPUS_SET_VBR_REQUEST, (!settings.constant).into())?;
        encoder.set(sys::OPUS_SET_VBR_CONSTRAINT_REQUEST, 1)?;
        encoder.set(sys::OPUS_SET_INBAND_FEC_REQUEST, (settings.fec_loss_percent > 0).into())?;
        encoder.set(sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, settings.fec_loss_percent.into())?;
        let mut lookahead: c_int = 0;
        // SAFETY: this request writes one int through the pointer, which is valid for the call.
        check(unsafe {
            sys::opus_encoder_ctl(encoder.state.as_ptr(), sys::OPUS_GET_LOOKAHEAD_REQUEST, &raw mut lookahead)
        })?;
        encoder.delay = check(lookahead)?;
        Ok(encoder)
    }

    fn set(&mut self, request: c_int, value: c_int) -> Result<(), CodecError> {
        // SAFETY: the state is live; every request used here takes one int.
        check(unsafe { sys::opus_encoder_ctl(self.state.as_ptr(), request, value) }).map(|_| ())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: created by `opus_encoder_create`, destroyed once.
        unsafe { sys::opus_encoder_destroy(self.state.as_ptr()) }
    }
}

impl OpusEncoder for Encoder {
    fn encode(&mut self, frame: &[f32; OPUS_FRAME_SAMPLES]) -> Result<Bytes, CodecError> {
        // SAFETY: 960 samples are read and at most `ROOM` bytes written, which is what the buffers hold.
        let length = check(unsafe {
            sys::opus_encode_float(
                self.state.as_ptr(),
                frame.as_ptr(),
                OPUS_FRAME_SAMPLES as c_int,
                self.room.as_mut_ptr(),
                ROOM as i32,
            )
        })?;
        Ok(Bytes::copy_from_slice(&self.room[..length]))
    }

    fn delay(&self) -> usize {
        self.delay
    }
}

pub(super) struct Decoder {
    state: NonNull<sys::OpusDecoder>,
}

// SAFETY: as for the encoder.
unsafe impl Send for Decoder {}

impl Decoder {
    pub(super) fn new() -> Result<Self, CodecError> {
        let mut error = 0;
        // SAFETY: plain values in, an error code out; a null pointer is refused below.
        let state = unsafe { sys::opus_decoder_create(RATE, 1, &raw mut error) };
        check(error)?;
        let state = NonNull::new(state).ok_or_else(|| CodecError::new(NAME, "no decoder"))?;
        Ok(Self { state })
    }

    fn run(&mut self, packet: Option<&[u8]>, pcm: &mut [f32], fec: bool) -> Result<usize, CodecError> {
        let (data, length) = packet.map_or((std::ptr::null(), 0), |p| (p.as_ptr(), p.len()));
        let length = i32::try_from(length).map_err(|_| CodecError::new(NAME, "a packet too long"))?;
        let room = c_int::try_from(pcm.len()).map_err(|_| CodecError::new(NAME, "a buffer too long"))?;
        // SAFETY: `length` bytes are read (none if there is no packet) and at most `room` samples written.
        check(unsafe {
            sys::opus_decode_float(self.state.as_ptr(), data, length, pcm.as_mut_ptr(), room, fec.into())
        })
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: created by `opus_decoder_create`, destroyed once.
        unsafe { sys::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

impl OpusDecoder for Decoder {
    fn decode(&mut self, packet: &[u8], pcm: &mut [f32; MAX_PACKET_SAMPLES]) -> Result<usize, CodecError> {
        if packet.is_empty() {
            return Err(CodecError::new(NAME, "an empty packet"));
        }
        self.run(Some(packet), pcm, false)
    }

    fn recover(&mut self, next: &[u8], pcm: &mut [f32]) -> Result<(), CodecError> {
        self.run(Some(next), pcm, true).map(|_| ())
    }

    fn conceal(&mut self, pcm: &mut [f32]) -> Result<(), CodecError> {
        self.run(None, pcm, false).map(|_| ())
    }
}
