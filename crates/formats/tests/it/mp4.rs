use bytes::Bytes;
use minassa_formats::mp4::{
    IndexEntry, Mp4Error, PartBoxes, StreamItem, StreamSplitter, UUID_CHAIN, UUID_PART_INFO, init_name,
    opus_init, parse_part, write_emsg, write_free, write_part, write_sidx, write_uuid,
};
use model::{MediaTime, OPUS_FRAMES_PER_PART, PART_SAMPLES, PartNumber, Rendition};

use crate::audio::{correlation, decode_opus, opus, samples, voice};
use crate::ffmpeg::{decode_file, decode_pipe, probe};

/// Parts `first..` made of these frames.
fn parts(first: u64, frames: &[Bytes], lead: &[Bytes]) -> Vec<Bytes> {
    let part = |(number, frames): (u64, &[Bytes])| {
        let decode_time = PartNumber::new(number).start();
        write_part(&PartBoxes { sequence: number as u32 + 1, decode_time, frames, lead })
    };
    (first..).zip(frames.chunks_exact(OPUS_FRAMES_PER_PART)).map(part).collect()
}

/// Lines of 32 hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_init_is_these_bytes() {
    assert_eq!(hex(&opus_init()), include_str!("init.hex").trim());
    assert_eq!(init_name(&opus_init()), "init-29b9997217c1d50f.mp4");
}

#[test]
fn a_part_with_frames_of_one_size_is_these_bytes() {
    let frames: Vec<_> = (0..24u8).map(|n| Bytes::from(vec![0xf8, n])).collect();
    let lead = [write_uuid(UUID_PART_INFO, &[1, 3])];
    let part = write_part(&PartBoxes {
        sequence: 8,
        decode_time: MediaTime::from_samples(7 * PART_SAMPLES),
        frames: &frames,
        lead: &lead,
    });
    assert_eq!(part.len(), 26 + 100 + 48);
    assert_eq!(hex(&part), include_str!("part.hex").trim());
}

#[test]
fn a_part_costs_100_bytes_or_192_with_a_table_of_sizes() {
    let frames = |differ: bool| -> Vec<Bytes> {
        (0..24).map(|n| Bytes::from(vec![0xf8; 60 + usize::from(differ && n == 23)])).collect()
    };
    assert_eq!(parts(0, &frames(false), &[])[0].len(), 24 * 60 + 100);
    assert_eq!(parts(0, &frames(true), &[])[0].len(), 24 * 60 + 1 + 192);
}

#[test]
fn ffmpeg_plays_the_pushed_stream_from_any_part() {
    let pcm = voice(samples(12));
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let frames = opus(rendition, &pcm);
        let ours = decode_opus(&frames);
        // From doors, after two days, and at civil time in seconds.
        for first in [0, 360_000, 1_795_000_000 * 48_000 / PART_SAMPLES] {
            let stream = [&[opus_init()][..], &parts(first, &frames, &[])].concat().concat();
            let theirs = decode_pipe(&stream, &[]);
            assert_eq!(theirs.len(), ours.len(), "{rendition} from part {first}");
            let alike = correlation(&ours, &theirs);
            assert!(alike > 0.99, "{rendition} from part {first}: correlation {alike}");
        }
    }
}

#[test]
fn ffmpeg_plays_a_change_of_rendition_at_any_part() {
    let pcm = voice(samples(9));
    let [low, high] = [Rendition::Opus24, Rendition::Opus48].map(|r| parts(40, &opus(r, &pcm), &[]));
    let mixed = (0..9).map(|n| if n % 3 == 0 { low[n].clone() } else { high[n].clone() });
    let stream: Vec<Bytes> = std::iter::once(opus_init()).chain(mixed).collect();
    assert_eq!(decode_pipe(&stream.concat(), &[]).len(), samples(9));
}

#[test]
fn boxes_before_and_between_parts_change_nothing_that_is_heard() {
    let frames = opus(Rendition::Opus24, &voice(samples(8)));
    let lead = [write_uuid(UUID_CHAIN, &[0x5a; 180]), write_uuid(UUID_PART_INFO, &[1, 3])];
    let event = |n: usize| {
        let at = MediaTime::from_samples(n as u64 * PART_SAMPLES);
        write_emsg("urn:minassa:status:1", "", n as u32, at, br#"{"s":"live","n":123456,"l":0}"#)
    };
    let plain = [&[opus_init()][..], &parts(0, &frames, &[])].concat().concat();
    let mut dressed = opus_init().to_vec();
    for (n, part) in parts(0, &frames, &lead).iter().enumerate() {
        dressed.extend(event(n));
        dressed.extend_from_slice(part);
        dressed.extend(event(n));
    }
    assert_eq!(decode_pipe(&dressed, &[]), decode_pipe(&plain, &[]));
}

#[test]
fn ffmpeg_seeks_in_a_recording_by_its_index() {
    let frames = opus(Rendition::Opus48, &voice(samples(64)));
    let parts = parts(0, &frames, &[]);
    let entries: Vec<_> = parts
        .chunks(8)
        .map(|segment| IndexEntry {
            bytes: segment.iter().map(|part| part.len() as u32).sum(),
            samples: 8 * PART_SAMPLES as u32,
        })
        .collect();
    let index = write_sidx(MediaTime::ZERO, &entries);
    assert_eq!(index.len(), 40 + 12 * entries.len());
    let file = [&[opus_init(), write_free(13_000), index][..], &parts].concat().concat();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording.mp4");
    std::fs::write(&path, file).unwrap();

    let said = probe(&path, "stream=codec_name,sample_rate,channels:format=duration");
    for line in ["codec_name=opus", "sample_rate=48000", "channels=1", "duration=30.720000"] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
    assert_eq!(decode_file(&path, &[]).len(), samples(64));
    let tail = decode_file(&path, &["-ss", "23.04"]);
    let ours = decode_opus(&frames)[samples(48)..].to_vec();
    assert_eq!(tail.len(), ours.len());
    // The decoder begins anew where it was sought to.
    let alike = correlation(&tail[4_800..], &ours[4_800..]);
    assert!(alike > 0.99, "correlation {alike}");
}

#[test]
fn a_part_is_read_back() {
    let frames = opus(Rendition::Opus24, &voice(samples(1)));
    let lead = [write_uuid(UUID_CHAIN, b"record"), write_uuid([7; 16], b"")];
    let decode_time = MediaTime::from_samples(u64::MAX - 5);
    let bytes = write_part(&PartBoxes { sequence: u32::MAX, decode_time, frames: &frames, lead: &lead });
    let part = parse_part(&bytes).unwrap();
    assert_eq!((part.sequence, part.decode_time), (u32::MAX, decode_time));
    assert_eq!(part.frames, frames);
    assert_eq!(part.uuids, [(UUID_CHAIN, &b"record"[..]), ([7; 16], b"")]);
}

#[test]
fn what_is_no_part_is_named() {
    let frames = vec![Bytes::from_static(&[0xf8, 1]); 24];
    let part = parts(3, &frames, &[])[0].to_vec();
    for end in 0..part.len() {
        assert_eq!(parse_part(&part[..end]), Err(Mp4Error::Truncated), "{end} bytes");
    }
    let check = |bytes: &[u8], expected: Mp4Error| assert_eq!(parse_part(bytes), Err(expected));
    let misplaced = |kind: &[u8; 4]| Mp4Error::Misplaced { kind: *kind };
    check(&[&part[..], &write_free(0)].concat(), misplaced(b"free"));
    check(&[&write_free(0), &part[..]].concat(), misplaced(b"free"));
    check(&opus_init(), misplaced(b"ftyp"));
    // One byte changed: sequence and time are free, everything else is noticed or is a frame's.
    let free = [20..24, 64..72, 100..148].map(|range| range.collect::<Vec<usize>>()).concat();
    for at in 0..part.len() {
        let mut other = part.clone();
        other[at] ^= 0x11;
        assert_eq!(parse_part(&other).is_ok(), free.contains(&at), "byte {at}");
    }
}

#[test]
fn a_stream_is_cut_into_its_items_whatever_the_pieces() {
    let frames = vec![Bytes::from_static(&[0xf8, 1]); 48];
    let parts = parts(0, &frames, &[write_uuid(UUID_CHAIN, &[3; 50])]);
    let event = write_emsg("urn:x", "v", 9, MediaTime::from_samples(480), b"hello");
    let items = [opus_init(), write_free(9), parts[0].clone(), event.clone(), parts[1].clone(), opus_init()];
    let stream = items.concat();
    let expected = [
        StreamItem::Init(items[0].clone()),
        StreamItem::Other { kind: *b"free", bytes: items[1].clone() },
        StreamItem::Part(items[2].clone()),
        StreamItem::Event {
            scheme: "urn:x".into(),
            value: "v".into(),
            id: 9,
            presentation: MediaTime::from_samples(480),
            message: Bytes::from_static(b"hello"),
            bytes: event,
        },
        StreamItem::Part(items[4].clone()),
        StreamItem::Init(items[5].clone()),
    ];
    for size in [1, 2, 7, 100, 1_000, stream.len()] {
        let mut splitter = StreamSplitter::new();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            splitter.push(piece);
            while let Some(item) = splitter.next().unwrap() {
                found.push(item);
            }
        }
        assert_eq!(found, expected, "pieces of {size}");
        assert_eq!(splitter.pending(), 0);
    }
}

#[test]
fn a_broken_stream_stays_broken_and_is_bounded() {
    let check = |bytes: &[u8], expected: Mp4Error| {
        let mut splitter = StreamSplitter::new();
        splitter.push(bytes);
        for _ in 0..2 {
            assert_eq!(splitter.next(), Err(expected.clone()));
            splitter.push(&opus_init());
            assert_eq!(splitter.pending(), 0);
        }
    };
    check(b"\0\0\0\x07free", Mp4Error::BadSize { kind: *b"free", size: 7 });
    check(b"\0\0\0\0free", Mp4Error::BadSize { kind: *b"free", size: 0 });
    check(b"\x40\0\0\0mdat", Mp4Error::TooLarge { kind: *b"mdat", size: 1 << 30 });
    check(
        b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff",
        Mp4Error::TooLarge { kind: *b"free", size: u64::MAX },
    );
    check(b"\0\0\0\x10mdat", Mp4Error::Misplaced { kind: *b"mdat" });
    check(
        &[&write_uuid([1; 16], b"")[..], b"\0\0\0\x10free"].concat(),
        Mp4Error::Misplaced { kind: *b"free" },
    );
    // Boxes before a part count with it.
    let half = write_uuid([1; 16], &vec![0; 600_000]);
    let size = 2 * half.len() as u64;
    check(&[half.clone(), half].concat(), Mp4Error::TooLarge { kind: *b"uuid", size });
}
