use bytes::Bytes;
use model::{Digest, MediaTime, OPUS_FRAME_SAMPLES, OPUS_FRAMES_PER_PART};

use super::{
    DATA_OFFSET, DEFAULT_BASE_IS_MOOF, DEFAULT_SAMPLE_SIZE, MAX_FRAME, SAMPLE_SIZES, TIMESCALE, TRACK_ID,
};

/// Appends a box; its size is filled in when its content is known.
fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    content(out);
    let size = u32::try_from(out.len() - start).expect("boxes of ours are far below 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a box that begins with a version and 24 bits of flags.
fn full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, content: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        put32(out, u32::from(version) << 24 | flags);
        content(out);
    });
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

/// The unit matrix of `mvhd` and `tkhd`.
fn put_matrix(out: &mut Vec<u8>) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        put32(out, value);
    }
}

/// `ftyp` and `moov` of both Opus renditions, byte-identical: mono, 48 kHz, pre-skip 0, every sample 960 units of
/// 1/48000 s. Constant.
pub fn opus_init() -> Bytes {
    let mut out = Vec::with_capacity(640);
    boxed(&mut out, b"ftyp", |out| {
        out.extend(b"iso6");
        put32(out, 0);
        // `iso6` asks for nothing beyond what `moof` needs; `cmfc` says that this is a CMAF header.
        out.extend(b"iso6cmfc");
    });
    boxed(&mut out, b"moov", |out| {
        full(out, b"mvhd", 0, 0, |out| {
            out.extend([0; 8]); // Creation and modification: constant bytes carry no date.
            put32(out, TIMESCALE);
            put32(out, 0); // Duration: none, the media is in fragments.
            put32(out, 0x1_0000); // Rate 1.
            put16(out, 0x100); // Volume 1.
            out.extend([0; 10]);
            put_matrix(out);
            out.extend([0; 24]);
            put32(out, TRACK_ID + 1); // Next track.
        });
        boxed(out, b"trak", put_track);
        boxed(out, b"mvex", |out| {
            full(out, b"trex", 0, 0, |out| {
                put32(out, TRACK_ID);
                put32(out, 1); // First sample description.
                put32(out, OPUS_FRAME_SAMPLES as u32);
                put32(out, 0); // Sizes stand in each part.
                put32(out, 0x0200_0000); // Depends on no other sample; every one is a sync sample.
            });
        });
    });
    Bytes::from(out)
}

fn put_track(out: &mut Vec<u8>) {
    // Enabled, in the movie, in the preview.
    full(out, b"tkhd", 0, 7, |out| {
        out.extend([0; 8]);
        put32(out, TRACK_ID);
        out.extend([0; 8]); // Reserved, duration.
        out.extend([0; 12]); // Reserved, layer, alternate group.
        put16(out, 0x100); // Volume 1.
        put16(out, 0);
        put_matrix(out);
        out.extend([0; 8]); // Width and height.
    });
    boxed(out, b"mdia", |out| {
        full(out, b"mdhd", 0, 0, |out| {
            out.extend([0; 8]);
            put32(out, TIMESCALE);
            put32(out, 0);
            put16(out, 0x55c4); // Language `und`: five bits a letter.
            put16(out, 0);
        });
        full(out, b"hdlr", 0, 0, |out| {
            put32(out, 0);
            out.extend(b"soun");
            out.extend([0; 13]); // Reserved, and an empty name.
        });
        boxed(out, b"minf", |out| {
            full(out, b"smhd", 0, 0, |out| put32(out, 0));
            boxed(out, b"dinf", |out| {
                full(out, b"dref", 0, 0, |out| {
                    put32(out, 1);
                    full(out, b"url ", 0, 1, |_| ()); // Media in this very file.
                });
            });
            boxed(out, b"stbl", |out| {
                full(out, b"stsd", 0, 0, |out| {
                    put32(out, 1);
                    boxed(out, b"Opus", put_opus_entry);
                });
                full(out, b"stts", 0, 0, |out| put32(out, 0));
                full(out, b"stsc", 0, 0, |out| put32(out, 0));
                full(out, b"stsz", 0, 0, |out| put64(out, 0));
                full(out, b"stco", 0, 0, |out| put32(out, 0));
            });
        });
    });
}

fn put_opus_entry(out: &mut Vec<u8>) {
    out.extend([0; 6]);
    put16(out, 1); // Data reference.
    out.extend([0; 8]);
    put16(out, 1); // Channels.
    put16(out, 16); // Bits a sample: by definition.
    put32(out, 0);
    put32(out, TIMESCALE << 16);
    boxed(out, b"dOps", |out| {
        out.push(0); // Version.
        out.push(1); // Channels.
        put16(out, 0); // Pre-skip: the encoder's delay is compensated before encoding.
        put32(out, TIMESCALE);
        put16(out, 0); // Gain.
        out.push(0); // Mapping family: mono or stereo, one stream.
    });
}

/// `init-<first 16 hex digits of its SHA-256>.mp4`.
pub fn init_name(init: &[u8]) -> String {
    let digest = Digest::of(init).to_string();
    format!("init-{}.mp4", &digest[..16])
}

/// What a part is written from.
#[derive(Debug, Clone, Copy)]
pub struct PartBoxes<'a> {
    /// `mfhd` sequence number: the part's number plus one, low 32 bits.
    pub sequence: u32,
    /// Its first sample.
    pub decode_time: MediaTime,
    /// 24 Opus packets of 20 ms, 1 to [`MAX_FRAME`] bytes each.
    pub frames: &'a [Bytes],
    /// Whole boxes of ours (from [`write_uuid`]), written before `moof`.
    pub lead: &'a [Bytes],
}

/// `[lead boxes][moof][mdat]`: exactly the bytes that are pushed, served, recorded and signed.
///
/// # Panics
/// If there are not 24 frames of 1 to [`MAX_FRAME`] bytes.
pub fn write_part(part: &PartBoxes<'_>) -> Bytes {
    let frames = part.frames;
    assert_eq!(frames.len(), OPUS_FRAMES_PER_PART, "a part has 24 Opus frames");
    assert!(
        frames.iter().all(|frame| (1..=MAX_FRAME).contains(&frame.len())),
        "an Opus packet of 20 ms has 1 to {MAX_FRAME} bytes"
    );
    let sizes = || frames.iter().map(|frame| frame.len() as u32);
    let equal = sizes().all(|size| size == frames[0].len() as u32);
    let payload: usize = frames.iter().map(Bytes::len).sum();
    let lead: usize = part.lead.iter().map(Bytes::len).sum();

    let mut out = Vec::with_capacity(lead + 192 + payload);
    part.lead.iter().for_each(|bytes| out.extend_from_slice(bytes));
    let moof = out.len();
    let mut offset_at = 0;
    boxed(&mut out, b"moof", |out| {
        full(out, b"mfhd", 0, 0, |out| put32(out, part.sequence));
        boxed(out, b"traf", |out| {
            let flags = DEFAULT_BASE_IS_MOOF | if equal { DEFAULT_SAMPLE_SIZE } else { 0 };
            full(out, b"tfhd", 0, flags, |out| {
                put32(out, TRACK_ID);
                if equal {
                    put32(out, frames[0].len() as u32);
                }
            });
            full(out, b"tfdt", 1, 0, |out| put64(out, part.decode_time.samples()));
            let flags = DATA_OFFSET | if equal { 0 } else { SAMPLE_SIZES };
            full(out, b"trun", 0, flags, |out| {
                put32(out, OPUS_FRAMES_PER_PART as u32);
                offset_at = out.len();
                put32(out, 0);
                if !equal {
                    sizes().for_each(|size| put32(out, size));
                }
            });
        });
    });
    let offset = (out.len() - moof + 8) as u32;
    out[offset_at..offset_at + 4].copy_from_slice(&offset.to_be_bytes());
    boxed(&mut out, b"mdat", |out| frames.iter().for_each(|frame| out.extend_from_slice(frame)));
    Bytes::from(out)
}

/// A whole `uuid` box.
pub fn write_uuid(uuid: [u8; 16], payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(24 + payload.len());
    boxed(&mut out, b"uuid", |out| {
        out.extend(uuid);
        out.extend_from_slice(payload);
    });
    Bytes::from(out)
}

/// A whole `emsg` box, version 1, timescale 48000, of unknown duration. `scheme` and `value` end at their first NUL,
/// if they hold one.
pub fn write_emsg(scheme: &str, value: &str, id: u32, presentation: MediaTime, message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(34 + scheme.len() + value.len() + message.len());
    full(&mut out, b"emsg", 1, 0, |out| {
        put32(out, TIMESCALE);
        put64(out, presentation.samples());
        put32(out, u32::MAX);
        put32(out, id);
        for text in [scheme, value] {
            out.extend(text.bytes().take_while(|&byte| byte != 0));
            out.push(0);
        }
        out.extend_from_slice(message);
    });
    Bytes::from(out)
}

/// A whole `free` box with `length` zero bytes after its header of eight: room kept in a recording.
pub fn write_free(length: u32) -> Bytes {
    let mut out = Vec::with_capacity(8 + length as usize);
    boxed(&mut out, b"free", |out| out.resize(out.len() + length as usize, 0));
    Bytes::from(out)
}

/// One entry of a [`write_sidx`] index: a run of whole parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Bytes of the run, below 2^31.
    pub bytes: u32,
    /// Samples it lasts.
    pub samples: u32,
}

/// Most entries of one `sidx` box.
const MAX_INDEX: usize = u16::MAX as usize;

/// A whole `sidx` box (version 1) that stands directly before the first of `entries`: with it, players seek in a
/// download without reading it through. 40 bytes and 12 an entry, so its length is known before its content.
///
/// # Panics
/// If there are more than 65,535 entries (a segment each, that is 69 hours), or one of 2^31 bytes or more.
pub fn write_sidx(first: MediaTime, entries: &[IndexEntry]) -> Bytes {
    assert!(entries.len() <= MAX_INDEX, "at most {MAX_INDEX} entries");
    let mut out = Vec::with_capacity(40 + 12 * entries.len());
    full(&mut out, b"sidx", 1, 0, |out| {
        put32(out, TRACK_ID);
        put32(out, TIMESCALE);
        put64(out, first.samples());
        put64(out, 0); // The first entry follows this box.
        put16(out, 0);
        put16(out, entries.len() as u16);
        for entry in entries {
            assert!(entry.bytes < 1 << 31, "an entry is below 2 GiB");
            put32(out, entry.bytes);
            put32(out, entry.samples);
            put32(out, 0x9000_0000); // Begins with a stream access point of type 1.
        }
    });
    Bytes::from(out)
}
