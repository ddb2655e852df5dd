//! What an Opus packet says about itself before it is decoded (RFC 6716, section 3).

use formats::opus::{Toc, packet_samples};

/// Most samples a packet can hold: 120 ms.
pub const MAX_PACKET_SAMPLES: usize = formats::opus::MAX_PACKET_SAMPLES as usize;
/// Largest packet taken: six frames of the largest size, and their lengths.
pub const MAX_PACKET_BYTES: usize = 6 * 1_275 + 16;

/// The outside of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusPacket {
    /// Samples at 48 kHz.
    pub samples: usize,
    /// Whether it carries redundancy for the packet before it (SILK's LBRR).
    pub redundant: bool,
    /// Whether it announces silence (DTX): nothing is in it beyond its description.
    pub silence: bool,
}

impl OpusPacket {
    /// Reads a packet's description; `None` if no decoder would take it.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() > MAX_PACKET_BYTES {
            return None;
        }
        let samples = packet_samples(packet).ok()? as usize;
        let (&first, rest) = packet.split_first()?;
        let (toc, silk_or_hybrid) = (Toc(first), first >> 3 < 16);
        let redundant = silk_or_hybrid && first_frame(first, rest).is_some_and(|byte| lbrr(toc, byte));
        Some(Self { samples, redundant, silence: packet.len() <= 2 })
    }
}

/// First byte of the first frame; `None` if that frame is empty or not there.
fn first_frame(toc: u8, rest: &[u8]) -> Option<u8> {
    match toc & 3 {
        0 | 1 => rest.first().copied(),
        2 => match *rest.first()? {
            0 => None,
            1..=251 => rest.get(1).copied(),
            _ => rest.get(2).copied(),
        },
        _ => {
            let description = *rest.first()?;
            let mut at = 1;
            if description & 0x40 != 0 {
                // Padding: a chain of 255s and one length byte.
                while *rest.get(at)? == 255 {
                    at += 1;
                }
                at += 1;
            }
            if description & 0x80 != 0 {
                // Variable sizes: one length for every frame but the last.
                for index in 0..usize::from(description & 0x3F).saturating_sub(1) {
                    let length = *rest.get(at)?;
                    if index == 0 && length == 0 {
                        return None;
                    }
                    at += if length < 252 { 1 } else { 2 };
                }
            }
            rest.get(at).copied()
        }
    }
}

/// The LBRR flag follows one voice activity flag per 20 ms of the frame, once a channel (RFC 6716, section 4.2.3). The
/// flags are coded with probability one half, so they are the first bits as they stand.
fn lbrr(toc: Toc, byte: u8) -> bool {
    let activity = (toc.frame_samples() / 960).max(1);
    let mid = byte >> (7 - activity) & 1 == 1;
    mid || (toc.stereo() && 2 * activity <= 6 && byte >> (6 - 2 * activity) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_table_of_the_rfc() {
        let samples = |packet: &[u8]| OpusPacket::parse(packet).map(|p| p.samples);
        assert_eq!(samples(&[0x08, 0, 0]), Some(960), "SILK NB 20 ms");
        assert_eq!(samples(&[0x18, 0, 0]), Some(2_880), "SILK NB 60 ms");
        assert_eq!(samples(&[0x78, 0, 0]), Some(960), "hybrid FB 20 ms");
        assert_eq!(samples(&[0xE0, 0, 0]), Some(120), "CELT FB 2.5 ms");
        assert_eq!(samples(&[0xF9, 0, 0]), Some(1_920), "two CELT frames");
        assert_eq!(samples(&[0xFB, 6]), Some(5_760), "six CELT frames");
        assert_eq!(samples(&[0xFB, 7, 0]), None, "over 120 ms");
        assert_eq!(samples(&[0xFB, 0]), None, "no frames");
        assert_eq!(samples(&[0xFB]), None, "no count");
        assert_eq!(samples(&[]), None);
        assert_eq!(samples(&vec![0; MAX_PACKET_BYTES + 1]), None);
    }

    #[test]
    fn every_short_packet_is_survived() {
        for toc in 0..=255 {
            for second in 0..=255 {
                for tail in [&[][..], &[0], &[255], &[255, 255, 255]] {
                    let mut packet = vec![toc, second];
                    packet.extend_from_slice(tail);
                    OpusPacket::parse(&packet);
                }
            }
        }
    }
}
