//! The beginning and the end of a clip: parts of which some frames are cut away.

use bytes::{BufMut as _, Bytes, BytesMut};
use model::MediaTime;

/// A `moof` and `mdat` with some frames of a part, as `formats::mp4` writes whole parts, with sizes in `trun`. It
/// carries no record: its bytes are new, and only the whole parts of a clip can be verified.
pub(crate) fn write_fragment(sequence: u32, decode_time: MediaTime, frames: &[&[u8]]) -> Bytes {
    // Box sizes: trun 20 + 4 a frame, tfdt 20, tfhd 16, mfhd 16.
    let trun = 20 + 4 * frames.len();
    let traf = 8 + 16 + 20 + trun;
    let moof = 8 + 16 + traf;
    let media: usize = frames.iter().map(|frame| frame.len()).sum();
    let mut out = BytesMut::with_capacity(moof + 8 + media);
    let open = |out: &mut BytesMut, size: usize, kind: &[u8; 4]| {
        out.put_u32(size as u32);
        out.put_slice(kind);
    };
    open(&mut out, moof, b"moof");
    open(&mut out, 16, b"mfhd");
    out.put_u32(0);
    out.put_u32(sequence);
    open(&mut out, traf, b"traf");
    open(&mut out, 16, b"tfhd");
    out.put_u32(0x02_0000); // Offsets count from the moof.
    out.put_u32(1); // Track.
    open(&mut out, 20, b"tfdt");
    out.put_u32(1 << 24); // Version 1: 64 bits.
    out.put_u64(decode_time.samples());
    open(&mut out, trun, b"trun");
    out.put_u32(0x00_0201); // Data offset and sizes are given.
    out.put_u32(frames.len() as u32);
    out.put_u32((moof + 8) as u32);
    frames.iter().for_each(|frame| out.put_u32(frame.len() as u32));
    open(&mut out, 8 + media, b"mdat");
    frames.iter().for_each(|frame| out.put_slice(frame));
    out.freeze()
}
