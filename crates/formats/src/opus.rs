//! Opus packets seen from outside: how long one is (RFC 6716 section 3). Nothing is decoded.

use model::SAMPLE_RATE;

/// Longest packet: 120 ms in samples at 48 kHz.
pub const MAX_PACKET_SAMPLES: u32 = 5_760;
/// Longest frame within a packet, in bytes (RFC 6716 section 3.2.1).
const MAX_FRAME: usize = 1_275;

/// A packet that RFC 6716 section 3.4 calls malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// No bytes at all (rule R1).
    #[error("an empty packet")]
    Empty,
    /// A frame longer than 1275 bytes (R2).
    #[error("a frame over 1275 bytes")]
    FrameTooLong,
    /// Two equal frames in an odd number of bytes (R3), or frames that do not fill the packet (R6).
    #[error("frames that do not fill the packet evenly")]
    Uneven,
    /// Frame lengths or padding that reach past the end (R4, R6, R7).
    #[error("lengths that reach past the end")]
    PastEnd,
    /// No frames, or more than 120 ms of them (R5).
    #[error("no audio, or more than 120 ms")]
    BadDuration,
}

/// What the first byte of a packet says (RFC 6716 section 3.1).
///
/// ```text
///  0 1 2 3 4 5 6 7
/// +-+-+-+-+-+-+-+-+
/// | config  |s| c |     config: mode, bandwidth, frame length; s: stereo; c: frames in the packet
/// +-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toc(pub u8);

impl Toc {
    /// Samples of one frame at 48 kHz: 120 (2.5 ms) to 2880 (60 ms).
    pub const fn frame_samples(self) -> u32 {
        let config = self.0 >> 3;
        match config {
            // SILK: 10, 20, 40, 60 ms.
            0..=11 => match config & 3 {
                0 => SAMPLE_RATE / 100,
                length => length as u32 * (SAMPLE_RATE / 50),
            },
            // Hybrid: 10 or 20 ms.
            12..=15 => (SAMPLE_RATE / 100) << (config & 1),
            // CELT: 2.5, 5, 10, 20 ms.
            _ => (SAMPLE_RATE / 400) << (config & 3),
        }
    }

    /// Whether the frames hold two channels.
    pub const fn stereo(self) -> bool {
        self.0 & 4 != 0
    }
}

/// Samples at 48 kHz that a packet decodes to: 120 to 5760. Lengths inside are checked too, so that what passes here
/// is no surprise to a decoder.
///
/// # Errors
/// [`OpusError`] for a packet that RFC 6716 section 3.4 calls malformed.
pub fn packet_samples(packet: &[u8]) -> Result<u32, OpusError> {
    let (&toc, body) = packet.split_first().ok_or(OpusError::Empty)?;
    let frames = match toc & 3 {
        0 => {
            fits(body.len())?;
            1
        }
        1 => {
            if body.len() % 2 != 0 {
                return Err(OpusError::Uneven);
            }
            fits(body.len() / 2)?;
            2
        }
        2 => {
            let (first, body) = frame_length(body)?;
            fits(body.len().checked_sub(first).ok_or(OpusError::PastEnd)?)?;
            2
        }
        _ => many_frames(body)?,
    };
    let samples = frames * Toc(toc).frame_samples();
    if (1..=MAX_PACKET_SAMPLES).contains(&samples) { Ok(samples) } else { Err(OpusError::BadDuration) }
}

/// Checks a packet of code 3 (RFC 6716 section 3.2.5); the number of its frames.
fn many_frames(body: &[u8]) -> Result<u32, OpusError> {
    let (&count, mut body) = body.split_first().ok_or(OpusError::PastEnd)?;
    let frames = usize::from(count & 0x3f);
    let (padded, variable) = (count & 0x40 != 0, count & 0x80 != 0);
    // 48 frames of 2.5 ms are 120 ms; checked here, so that the loop below is short.
    if !(1..=48).contains(&frames) {
        return Err(OpusError::BadDuration);
    }
    if padded {
        let mut padding = 0;
        loop {
            let (&byte, rest) = body.split_first().ok_or(OpusError::PastEnd)?;
            body = rest;
            // 255 stands for 254 bytes and another length byte.
            padding += usize::from(byte.min(254));
            if byte != 255 {
                break;
            }
        }
        let kept = body.len().checked_sub(padding).ok_or(OpusError::PastEnd)?;
        body = &body[..kept];
    }
    if variable {
        let mut known = 0;
        for _ in 1..frames {
            let (length, rest) = frame_length(body)?;
            known += length;
            body = rest;
        }
        fits(body.len().checked_sub(known).ok_or(OpusError::PastEnd)?)?;
    } else {
        if body.len() % frames != 0 {
            return Err(OpusError::Uneven);
        }
        fits(body.len() / frames)?;
    }
    Ok(frames as u32)
}

/// Takes a frame's length, one or two bytes (RFC 6716 section 3.2.1); what follows.
fn frame_length(body: &[u8]) -> Result<(usize, &[u8]), OpusError> {
    match *body {
        [first @ ..252, ref rest @ ..] => Ok((usize::from(first), rest)),
        [first, second, ref rest @ ..] => Ok((usize::from(second) * 4 + usize::from(first), rest)),
        _ => Err(OpusError::PastEnd),
    }
}

fn fits(frame: usize) -> Result<(), OpusError> {
    if frame <= MAX_FRAME { Ok(()) } else { Err(OpusError::FrameTooLong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of RFC 6716 table 2, in tenths of milliseconds.
    #[test]
    fn frame_lengths_are_those_of_the_table() {
        let rows = [
            (0..12, &[100, 200, 400, 600][..]),
            (12..16, &[100, 200][..]),
            (16..32, &[25, 50, 100, 200][..]),
        ];
        for (configs, lengths) in rows {
            let first = configs.start;
            for config in configs {
                let expected = lengths[(config - first) as usize % lengths.len()] * 48 / 10;
                assert_eq!(Toc(config << 3).frame_samples(), expected, "config {config}");
            }
        }
    }

    #[test]
    fn packets_of_each_code_are_measured() {
        let config = 31 << 3; // CELT, fullband, 20 ms
        let check = |packet: &[u8], expected| assert_eq!(packet_samples(packet), expected, "{packet:?}");
        check(&[config], Ok(960));
        check(&[config, 1, 2, 3], Ok(960));
        check(&[config | 1, 1, 2], Ok(1920));
        check(&[config | 2, 1, 9, 8], Ok(1920));
        check(&[config | 3, 3, 7, 7, 7], Ok(2880));
        check(&[config | 3, 0x80 | 3, 1, 1, 5, 5, 5, 5], Ok(2880));
        check(&[config | 3, 0x40 | 2, 2, 9, 9, 0, 0], Ok(1920));
        check(&[config | 3, 6], Ok(5760));
    }

    #[test]
    fn malformed_packets_are_named() {
        let config = 31 << 3;
        let check = |packet: &[u8], expected| assert_eq!(packet_samples(packet), Err(expected), "{packet:?}");
        check(&[], OpusError::Empty);
        check(&[config | 1, 1], OpusError::Uneven);
        check(&[config | 2], OpusError::PastEnd);
        check(&[config | 2, 252], OpusError::PastEnd);
        check(&[config | 2, 9, 1], OpusError::PastEnd);
        check(&[config | 3], OpusError::PastEnd);
        check(&[config | 3, 0], OpusError::BadDuration);
        check(&[config | 3, 7], OpusError::BadDuration);
        check(&[config | 3, 49], OpusError::BadDuration);
        check(&[config | 3, 2, 1], OpusError::Uneven);
        check(&[config | 3, 0x40 | 1, 255, 255], OpusError::PastEnd);
        check(&[config | 3, 0x80 | 2, 9, 1], OpusError::PastEnd);
        check(&[config; 1278], OpusError::FrameTooLong);
    }
}
