//! Entry points of the fuzz targets in `fuzz/`, and valid inputs to mutate.
//!
//! Each takes any bytes and must return: a panic is a bug. Beside that they hold what must be true of whatever was
//! accepted, such as that it does not matter in which pieces bytes arrive.

use bytes::Bytes;
use model::{
    MP3_FRAMES_PER_PART, MediaTime, OPUS_FRAMES_PER_PART, PART_DURATION, PART_SAMPLES, PARTS_PER_SEGMENT,
    Rendition, SEGMENT_DURATION, UnixTime,
};

use crate::hls::{
    LowLatency, MediaPlaylist, MultivariantPlaylist, PartialSegment, PlaylistType, RenditionReport, Segment,
    StartOffset, Variant,
};
use crate::mp3::icy::{Interleaver, Splitter, TitleBlock};
use crate::mp3::{self, Frames};
use crate::mp4::{self, MAX_FRAME, PartBoxes, StreamItem, StreamSplitter};
use crate::ogg::{self, OggItem, OggReader};
use crate::opus;

/// Sizes of the pieces a stream is pushed in, by a byte of the input; 0 stands for all at once.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let size = data.first().map_or(1, |&byte| usize::from(byte) * 7 + 1);
    data.chunks(size)
}

/// A part, and a pushed stream cut into its items.
pub fn mp4(data: &[u8]) {
    if let Ok(part) = mp4::parse_part(data) {
        assert_eq!(part.frames.len(), OPUS_FRAMES_PER_PART);
        let frames: Vec<Bytes> = part.frames.iter().map(|&frame| Bytes::copy_from_slice(frame)).collect();
        assert!(frames.iter().all(|frame| (1..=MAX_FRAME).contains(&frame.len())));
        let lead: Vec<Bytes> =
            part.uuids.iter().map(|&(uuid, payload)| mp4::write_uuid(uuid, payload)).collect();
        let boxes = PartBoxes {
            sequence: part.sequence,
            decode_time: part.decode_time,
            frames: &frames,
            lead: &lead,
        };
        assert_eq!(mp4::parse_part(&mp4::write_part(&boxes)).as_ref(), Ok(&part));
    }
    let whole = split([data].into_iter(), data);
    let pieced = split(pieces(data), data);
    assert_eq!(whole, pieced, "pieces do not matter");
}

/// The items of a stream, and whether it broke.
fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>, data: &[u8]) -> (Vec<StreamItem>, bool) {
    let mut splitter = StreamSplitter::new();
    let mut items = Vec::new();
    let mut passed = 0;
    for piece in pieces {
        splitter.push(piece);
        loop {
            let item = match splitter.next() {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(_) => return (items, true),
            };
            let (StreamItem::Init(bytes)
            | StreamItem::Event { bytes, .. }
            | StreamItem::Part(bytes)
            | StreamItem::Other { bytes, .. }) = &item;
            assert!(data[passed..].starts_with(bytes), "items are the stream's own bytes");
            passed += bytes.len();
            items.push(item);
        }
    }
    assert_eq!(passed + splitter.pending(), data.len(), "no byte is lost");
    (items, false)
}

/// An Icecast source, and a packet of Opus.
pub fn ogg(data: &[u8]) {
    if let Ok(samples) = opus::packet_samples(data) {
        assert!((120..=opus::MAX_PACKET_SAMPLES).contains(&samples));
    }
    let _ = ogg::OpusHead::parse(data);
    let _ = ogg::OpusTags::parse(data);
    let _ = ogg::read_opus(data);
    let whole = read([data].into_iter());
    let pieced = read(pieces(data));
    assert_eq!(whole, pieced, "pieces do not matter");
}

/// The items of a source's stream, and what broke it.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<OggItem>, Option<ogg::OggError>) {
    let mut reader = OggReader::new();
    let mut items = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(item)) => {
                    if let OggItem::Packet(packet) = &item {
                        assert!(packet.data.len() <= ogg::MAX_PACKET);
                        assert!(packet.trim_end <= packet.samples);
                        assert_eq!(opus::packet_samples(&packet.data), Ok(packet.samples));
                    }
                    items.push(item);
                }
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

/// MP3 frames, ID3 tags and Icecast metadata.
pub fn mp3(data: &[u8]) {
    let mut frames = Frames::new(data);
    let mut passed = 0;
    while let Some(frame) = frames.next() {
        let Ok(frame) = frame else { break };
        assert_eq!(frame.header.length, frame.bytes.len());
        assert!(frame.main_data_begin() < 512);
        passed += frame.bytes.len();
        assert_eq!(&data[passed..], frames.rest());
    }
    let _ = mp3::part_frames(data);
    if let Ok(Some(tag)) = mp3::parse_id3(data) {
        assert!(tag.length <= data.len());
        assert!(tag.timestamp.is_none_or(|ticks| ticks < 1 << 33));
    }
    let metaint = data.first().map_or(1, |&byte| usize::from(byte) + 1);
    let (mut audio, mut titles) = (Vec::new(), Vec::new());
    let mut splitter = Splitter::new(metaint);
    pieces(data).for_each(|piece| splitter.push(piece, &mut audio, &mut titles));
    assert!(audio.len() <= data.len());

    let title = TitleBlock::new(&String::from_utf8_lossy(data));
    let mut woven = Vec::new();
    Interleaver::new(metaint).weave(data, &title, |piece| woven.extend_from_slice(piece));
    let mut heard = Vec::new();
    Splitter::new(metaint).push(&woven, &mut heard, &mut titles);
    assert_eq!(heard, data, "metadata lies between the audio");
}

/// Playlists.
pub fn hls(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(playlist) = MediaPlaylist::parse(text) {
        assert_eq!(MediaPlaylist::parse(&playlist.render()), Ok(playlist));
    }
    if let Ok(playlist) = MultivariantPlaylist::parse(text) {
        assert_eq!(MultivariantPlaylist::parse(&playlist.render()), Ok(playlist));
    }
}

/// Valid inputs of each entry point, by its name.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "mp4" => mp4_seeds(),
        "ogg" | "ogg_sealed" => ogg_seeds(),
        "mp3" => mp3_seeds(),
        "hls" => hls_seeds(),
        _ => Vec::new(),
    }
}

/// Opus packets of one frame: of equal sizes, or not.
fn opus_frames(equal: bool) -> Vec<Bytes> {
    let length = |n: u8| 2 + if equal { 0 } else { n };
    (0..24).map(|n| (0..length(n)).map(|byte| if byte == 0 { 31 << 3 } else { n }).collect()).collect()
}

fn mp4_seeds() -> Vec<Vec<u8>> {
    let part = |number: u64, lead: &[Bytes]| {
        let decode_time = MediaTime::from_samples(number * PART_SAMPLES);
        let frames = opus_frames(number.is_multiple_of(2));
        mp4::write_part(&PartBoxes { sequence: number as u32 + 1, decode_time, frames: &frames, lead })
    };
    let lead = [mp4::write_uuid(mp4::UUID_CHAIN, &[9; 40]), mp4::write_uuid(mp4::UUID_PART_INFO, &[1, 2])];
    let emsg =
        mp4::write_emsg("urn:minassa:status:1", "", 7, MediaTime::from_samples(23_040), b"{\"s\":\"live\"}");
    let stream = [mp4::opus_init(), part(0, &lead), emsg, part(1, &[]), mp4::write_free(5), part(2, &[])];
    vec![part(0, &[]).to_vec(), part(1, &lead).to_vec(), stream.concat()]
}

fn ogg_seeds() -> Vec<Vec<u8>> {
    let page = |serial, number: u64, eos| {
        let frames = opus_frames(number.is_multiple_of(2));
        ogg::page_for_part(serial, number as u32 + 2, (number + 1) * PART_SAMPLES, &frames, eos)
    };
    let headers = |serial| ogg::opus_headers(serial, "seed", &[("TITLE", "one"), ("ARTIST", "ثاني")]);
    let stream = [headers(1), page(1, 0, false), page(1, 1, true)].concat();
    let chained = [headers(1), page(1, 5, false), headers(2), page(2, 0, true)].concat();
    let wrong = {
        let mut page = headers(1)[..47].to_vec();
        page[28..].copy_from_slice(b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0\0\0\0");
        page
    };
    let packets =
        [&[31 << 3 | 1, 0, 0][..], &[3, 0x80 | 2, 1, 5, 6], &[31 << 3 | 3, 0x40 | 2, 2, 9, 9, 0, 0]];
    [stream, chained, wrong].into_iter().chain(packets.map(<[u8]>::to_vec)).collect()
}

fn mp3_seeds() -> Vec<Vec<u8>> {
    // 64 kbit/s, 48 kHz, mono: 192 bytes.
    let frame = [&[0xff, 0xfb, 0x54, 0xc0][..], &[0; 188]].concat();
    let part = frame.repeat(MP3_FRAMES_PER_PART);
    let tag = mp3::id3_timestamp(MediaTime::from_samples(48_000), &[("minassa", &[1, 2, 3])]);
    let woven = [&frame[..64], &TitleBlock::new("Title").as_bytes()[..], &frame[64..]].concat();
    vec![part.clone(), [&tag[..], &part].concat(), woven]
}

fn hls_seeds() -> Vec<Vec<u8>> {
    let segment = |number: u64| Segment {
        uri: format!("opus-24/s{number}.m4s"),
        duration: SEGMENT_DURATION,
        program_date_time: UnixTime::from_millis(1_800_000_000_000 + 3_840 * number as i64),
        gap: number == 11,
        discontinuity: number == 12,
        byte_range: (number == 10).then_some((630, 12_345)),
    };
    let media = |init: bool, kind, start_offset| MediaPlaylist {
        init_uri: init.then(|| "opus-24/init-0123456789abcdef.mp4".to_owned()),
        kind,
        target_duration: 4,
        media_sequence: 9,
        discontinuity_sequence: u64::from(init),
        start_offset,
        segments: (9..13).map(segment).collect(),
        ended: kind == PlaylistType::Vod,
        low_latency: None,
    };
    let part = |number: u64| PartialSegment {
        segment: number / PARTS_PER_SEGMENT,
        uri: format!("opus-24/{number}.m4s"),
        duration: PART_DURATION,
        independent: number != 99,
        gap: number == 99,
    };
    let low = |parts: std::ops::Range<u64>| LowLatency {
        part_target: PART_DURATION,
        part_hold_back: 4 * PART_DURATION,
        next_date: (parts.end > 104).then(|| UnixTime::from_millis(1_800_000_049_920)),
        preload_hint: Some(format!("opus-24/{}.m4s", parts.end)),
        parts: parts.map(part).collect(),
        reports: vec![RenditionReport { uri: "opus-48.m3u8".to_owned(), last_segment: 13, last_part: 1 }],
    };
    let low =
        |parts| MediaPlaylist { low_latency: Some(low(parts)), ..media(true, PlaylistType::Sliding, None) };
    let variants = Rendition::ALL.map(|rendition| Variant::of(rendition, format!("{rendition}.m3u8")));
    vec![
        low(96..106).render().into_bytes(),
        low(96..104).render().into_bytes(),
        media(true, PlaylistType::Sliding, None).render().into_bytes(),
        media(true, PlaylistType::Vod, Some(StartOffset::FromStart(SEGMENT_DURATION))).render().into_bytes(),
        media(false, PlaylistType::Event, Some(StartOffset::FromEnd(SEGMENT_DURATION))).render().into_bytes(),
        MultivariantPlaylist { variants: variants.into() }.render().into_bytes(),
    ]
}

/// As [`ogg`], with the checksums of what looks like pages set right first, as a forger would: chance never gets past
/// a checksum.
pub fn ogg_sealed(data: &[u8]) {
    let mut data = data.to_vec();
    seal(&mut data);
    ogg(&data);
}

/// Sets the checksums of what looks like Ogg pages right.
pub fn seal(bytes: &mut [u8]) {
    ogg::seal(bytes);
}
