use bytes::Bytes;
use model::{OPUS_FRAMES_PER_PART, SAMPLE_RATE};

use super::{CHECKSUM, CHECKSUM_AT, Flags, crc};
use crate::mp4::MAX_FRAME;

/// Pages that [`opus_headers`] makes: audio begins with this sequence number.
pub const HEADER_PAGES: u32 = 2;

/// Most bytes of comments in [`opus_headers`], so that they fit one page.
const MAX_TAGS: usize = 60_000;

/// Most lacing values of a page.
const MAX_LACING: usize = 255;

// Six lacing values at most a frame: the pages below never overflow.
const _: () = assert!(OPUS_FRAMES_PER_PART * (MAX_FRAME / 255 + 1) <= MAX_LACING);

/// The two header pages (sequence numbers 0 and 1) of a mono stream at 48 kHz with pre-skip 0: `OpusHead` and
/// `OpusTags`.
///
/// Comments whose name is not one of RFC 7845 section 5.2 (printable ASCII without `=`), and those that no longer fit
/// into one page, are left out.
pub fn opus_headers(serial: u32, vendor: &str, tags: &[(&str, &str)]) -> Bytes {
    let mut head = Vec::with_capacity(19);
    head.extend(b"OpusHead");
    head.push(1); // Version.
    head.push(1); // Channels.
    head.extend([0; 2]); // Pre-skip: the encoder's delay is compensated before encoding.
    head.extend(SAMPLE_RATE.to_le_bytes());
    head.extend([0; 3]); // Gain; mapping family 0.

    let vendor = &vendor[..vendor.floor_char_boundary(1_024)];
    let named = |name: &str| !name.is_empty() && name.bytes().all(|b| matches!(b, 0x20..=0x7d) && b != b'=');
    let mut size = 16 + vendor.len();
    let mut kept = Vec::new();
    for (name, value) in tags {
        let length = name.len() + 1 + value.len();
        if named(name) && size + 4 + length <= MAX_TAGS {
            size += 4 + length;
            kept.push((name, value, length));
        }
    }
    let mut comments = Vec::with_capacity(size);
    comments.extend(b"OpusTags");
    comments.extend((vendor.len() as u32).to_le_bytes());
    comments.extend(vendor.bytes());
    comments.extend((kept.len() as u32).to_le_bytes());
    for (name, value, length) in kept {
        comments.extend((length as u32).to_le_bytes());
        comments.extend(name.bytes());
        comments.push(b'=');
        comments.extend(value.bytes());
    }

    let mut out = Vec::with_capacity(47 + 27 + 255 + comments.len());
    put_page(&mut out, Flags { bos: true, ..Flags::default() }, 0, serial, 0, &[&head]);
    put_page(&mut out, Flags::default(), 0, serial, 1, &[&comments]);
    Bytes::from(out)
}

/// One page with all packets of a part; of constant size if the packets are. `granule_end` is the end of its last
/// sample, at 48 kHz from the caller's zero. A pure function: whoever joins anywhere gets the same pages, where the
/// caller derives `page_seq` (at least [`HEADER_PAGES`]) and `granule_end` from the part's number.
///
/// ```text
/// part n of a listener who joined at part j:   page_seq = HEADER_PAGES + (n - j)    granule_end = (n - j + 1) · 23040
/// ```
///
/// Without packets it is the page that says the end (`eos`) after all parts.
///
/// # Panics
/// If there are more than 24 packets, or one of over [`MAX_FRAME`] bytes; those of [`crate::mp4::parse_part`] never
/// are.
pub fn page_for_part<P: AsRef<[u8]>>(
    serial: u32,
    page_seq: u32,
    granule_end: u64,
    packets: &[P],
    eos: bool,
) -> Bytes {
    assert!(packets.len() <= OPUS_FRAMES_PER_PART, "a part has 24 Opus frames");
    let packets: Vec<&[u8]> = packets.iter().map(AsRef::as_ref).collect();
    assert!(packets.iter().all(|packet| packet.len() <= MAX_FRAME), "at most {MAX_FRAME} bytes a frame");
    let size: usize = packets.iter().map(|packet| packet.len() + packet.len() / 255 + 1).sum();
    let mut out = Vec::with_capacity(27 + size);
    put_page(&mut out, Flags { eos, ..Flags::default() }, granule_end, serial, page_seq, &packets);
    Bytes::from(out)
}

/// Appends a page (RFC 3533 section 6) of whole packets.
fn put_page(out: &mut Vec<u8>, flags: Flags, granule: u64, serial: u32, sequence: u32, packets: &[&[u8]]) {
    let lacing: usize = packets.iter().map(|packet| packet.len() / 255 + 1).sum();
    let start = out.len();
    out.extend(b"OggS\0");
    out.push(flags.bits());
    out.extend(granule.to_le_bytes());
    out.extend(serial.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend([0; CHECKSUM]);
    out.push(u8::try_from(lacing).expect("callers keep packets within one page"));
    for packet in packets {
        // Whole 255s, then what is left, 0 included: that a value below 255 comes is what ends the packet.
        out.resize(out.len() + packet.len() / 255, 255);
        out.push((packet.len() % 255) as u8);
    }
    packets.iter().for_each(|packet| out.extend_from_slice(packet));
    let checksum = crc::update(0, &out[start..]);
    out[start + CHECKSUM_AT..][..CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}
