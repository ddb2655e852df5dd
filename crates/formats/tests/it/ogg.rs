use bytes::Bytes;
use minassa_formats::ogg::{
    HEADER_PAGES, OggCodec, OggError, OggItem, OggPacket, OggReader, OpusHead, opus_headers, page_for_part,
    read_opus,
};
use minassa_formats::opus::OpusError;
use model::{OPUS_FRAMES_PER_PART, PART_SAMPLES, Rendition};
use proptest::prelude::*;

use crate::audio::{correlation, decode_opus, opus, samples, voice};
use crate::ffmpeg::{decode_file, decode_pipe};

const SERIAL: u32 = 0x6d69_6e61;
const TAGS: [(&str, &str); 2] = [("TITLE", "حديث المساء"), ("ENCODER", "Minassa")];

/// What a listener receives who joins at part `first`; granules count from doors.
fn joined(first: u64, frames: &[Bytes], ends: bool) -> Vec<u8> {
    let mut stream = opus_headers(SERIAL, "minassa", &TAGS).to_vec();
    let parts = frames.chunks_exact(OPUS_FRAMES_PER_PART);
    let last = parts.len() as u64 - 1;
    for (n, part) in (0..).zip(parts) {
        let granule = (first + n + 1) * PART_SAMPLES;
        stream.extend(page_for_part(SERIAL, HEADER_PAGES + n as u32, granule, part, ends && n == last));
    }
    stream
}

/// All items of a stream, and what broke it.
fn items(stream: &[u8], piece: usize) -> (Vec<OggItem>, Option<OggError>) {
    let mut reader = OggReader::new();
    let mut items = Vec::new();
    for piece in stream.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

fn packets(items: &[OggItem]) -> Vec<&OggPacket> {
    let packets = items.iter().filter_map(|item| match item {
        OggItem::Packet(packet) => Some(packet),
        _ => None,
    });
    packets.collect()
}

/// A page of any kind.
fn page(flags: u8, granule: i64, serial: u32, sequence: u32, lacing: &[u8], body: &[u8]) -> Vec<u8> {
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend(granule.to_le_bytes());
    page.extend(serial.to_le_bytes());
    page.extend(sequence.to_le_bytes());
    page.extend([0; 4]);
    page.push(lacing.len() as u8);
    page.extend(lacing);
    page.extend(body);
    minassa_formats::fuzz::seal(&mut page);
    page
}

/// A first page with this packet in it.
fn first_page(packet: &[u8]) -> Vec<u8> {
    page(2, 0, 1, 0, &[packet.len() as u8], packet)
}

#[test]
fn ffmpeg_plays_from_any_part() {
    let pcm = voice(samples(12));
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let frames = opus(rendition, &pcm);
        let ours = decode_opus(&frames);
        for (first, ends) in [(0, true), (0, false), (12_345, false), (360_000, true)] {
            let theirs = decode_pipe(&joined(first, &frames, ends), &[]);
            assert_eq!(theirs.len(), ours.len(), "{rendition} from part {first}");
            let alike = correlation(&ours, &theirs);
            assert!(alike > 0.99, "{rendition} from part {first}: correlation {alike}");
        }
    }
}

#[test]
fn ffmpeg_plays_from_a_part_on_with_the_sequence_numbers_of_doors_and_an_empty_last_page() {
    let frames = opus(Rendition::Opus48, &voice(samples(4)));
    let mut stream = opus_headers(SERIAL, "minassa", &[]).to_vec();
    for (n, part) in (500..).zip(frames.chunks_exact(OPUS_FRAMES_PER_PART)) {
        stream.extend(page_for_part(SERIAL, HEADER_PAGES + n, u64::from(n + 1) * PART_SAMPLES, part, false));
    }
    stream.extend(page_for_part::<&[u8]>(SERIAL, HEADER_PAGES + 504, 504 * PART_SAMPLES, &[], true));
    assert_eq!(decode_pipe(&stream, &[]).len(), samples(4));
}

#[test]
fn pages_are_a_pure_function_of_the_part_and_of_constant_size_for_constant_packets() {
    let frames = opus(Rendition::Opus48, &voice(samples(6)));
    let pages = |join: usize| -> Vec<Bytes> {
        (join..6)
            .map(|n| {
                let part = &frames[n * OPUS_FRAMES_PER_PART..][..OPUS_FRAMES_PER_PART];
                page_for_part(SERIAL, n as u32 + 2, (n as u64 + 1) * PART_SAMPLES, part, false)
            })
            .collect()
    };
    let all = pages(0);
    assert!(all.iter().all(|page| page.len() == 27 + 24 + 24 * 120), "27 bytes, 24 of lacing");
    assert_eq!(pages(4), all[4..]);
}

#[test]
fn headers_are_read_back() {
    let long = "x".repeat(70_000);
    let tags = [TAGS[0], ("TOO LONG", long.as_str()), ("BAD=NAME", ""), ("", "no name"), TAGS[1]];
    let headers = opus_headers(SERIAL, "minassa", &tags);
    let (items, error) = items(&headers, 1);
    assert_eq!(error, None);
    let [OggItem::Head(head), OggItem::Tags(tags)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(*head, OpusHead { channels: 1, pre_skip: 0, input_sample_rate: 48_000, output_gain: 0 });
    assert_eq!(tags.vendor, "minassa");
    assert_eq!(tags.comments, TAGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(tags.value("TITLE"), Some("حديث المساء"));
}

#[test]
fn what_is_written_is_read_back_in_any_pieces() {
    let frames = opus(Rendition::Opus24, &voice(samples(5)));
    let stream = joined(100, &frames, true);
    for piece in [1, 26, 27, 28, 1_000, stream.len()] {
        let (items, error) = items(&stream, piece);
        assert_eq!(error, None);
        assert_eq!(items.last(), Some(&OggItem::End));
        let packets = packets(&items);
        assert_eq!(packets.len() + 3, items.len(), "nothing was lost");
        for (n, (packet, frame)) in packets.iter().zip(&frames).enumerate() {
            assert_eq!(packet.data, frame);
            assert_eq!(packet.position, 100 * PART_SAMPLES + 960 * n as u64);
            assert_eq!((packet.samples, packet.trim_end), (960, 0));
        }
    }
}

/// What ffmpeg's Ogg muxer makes: pre-skip, packets across pages, an end within the last packet.
#[test]
fn what_ffmpeg_writes_is_read() {
    let frames = opus(Rendition::Opus48, &voice(samples(4)));
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours.ogg", "theirs.ogg"].map(|name| directory.path().join(name));
    std::fs::write(&ours, joined(0, &frames, true)).unwrap();
    let remux = |options: &[&str]| {
        let status = std::process::Command::new("ffmpeg")
            .args(["-nostdin", "-y", "-v", "error", "-i"])
            .arg(&ours)
            .args(options)
            .arg(&theirs)
            .status()
            .expect("these tests need ffmpeg (on Debian: apt-get install ffmpeg)");
        assert!(status.success());
        std::fs::read(&theirs).unwrap()
    };

    let (head, packets) = read_opus(&remux(&["-c", "copy", "-page_duration", "100000"])).unwrap();
    assert_eq!(head.channels, 1);
    assert_eq!(
        packets.iter().map(|packet| &packet.data).collect::<Vec<_>>(),
        frames.iter().collect::<Vec<_>>()
    );
    assert!((0..).zip(&packets).all(|(n, packet)| packet.position == 960 * n));

    let file = remux(&["-c:a", "libopus", "-b:a", "64k", "-ac", "2", "-t", "1.333"]);
    let (head, packets) = read_opus(&file).unwrap();
    assert_eq!((head.channels, head.pre_skip), (2, 312));
    assert!(packets.windows(2).all(|pair| pair[1].position == pair[0].position + u64::from(pair[0].samples)));
    let last = packets.last().unwrap();
    let end = last.position + u64::from(last.samples - last.trim_end);
    assert_eq!(end - u64::from(head.pre_skip), 63_984, "1.333 s");
    assert_eq!(decode_file(&theirs, &[]).len(), 63_984);
}

#[test]
fn damage_is_passed_over_and_reported() {
    let frames = opus(Rendition::Opus48, &voice(samples(6)));
    let stream = joined(0, &frames, false);
    let headers = opus_headers(SERIAL, "minassa", &TAGS).len();
    let size = 27 + 24 + 24 * 120;
    let third = headers + 2 * size;
    let expect = |stream: &[u8], pages: u32, bytes: u64, lost: std::ops::Range<usize>| {
        let (items, error) = items(stream, 500);
        assert_eq!(error, None);
        let found = items.iter().filter(|item| matches!(item, OggItem::Lost { .. })).collect::<Vec<_>>();
        assert_eq!(found, [&OggItem::Lost { pages, bytes }]);
        let left: Vec<_> = (0..frames.len()).filter(|n| !lost.contains(n)).collect();
        let packets = packets(&items);
        assert_eq!(packets.len(), left.len());
        for (packet, n) in packets.iter().zip(left) {
            assert_eq!((&packet.data, packet.position), (&frames[n], 960 * n as u64));
        }
    };
    // A byte flipped in the third page, in its header or its body.
    for at in [0, 4, 5, 8, 15, 18, 23, 26, 30, 60, size - 1] {
        let mut stream = stream.clone();
        stream[third + at] ^= 0x40;
        expect(&stream, 1, size as u64, 48..72);
    }
    // Two pages cut out; half of one; noise with false beginnings between two.
    expect(&[&stream[..third], &stream[third + 2 * size..]].concat(), 2, 0, 48..96);
    expect(&[&stream[..third], &stream[third + size / 2..]].concat(), 1, (size - size / 2) as u64, 48..72);
    let noise = [&b"OggS\0noise OggOggSOgg"[..], &[7; 300]].concat();
    expect(&[&stream[..third], &noise, &stream[third..]].concat(), 0, noise.len() as u64, 0..0);
}

#[test]
fn a_chained_stream_begins_anew() {
    let frames = opus(Rendition::Opus48, &voice(samples(2)));
    // The first says its end, or just stops.
    for ends in [true, false] {
        let mut second = joined(7, &frames, true);
        second[14] ^= 1; // The serial of each page.
        let size = opus_headers(SERIAL, "minassa", &TAGS).len();
        for start in [47, size, size + 27 + 24 + 24 * 120] {
            second[start + 14] ^= 1;
        }
        minassa_formats::fuzz::seal(&mut second);
        let (items, error) = items(&[joined(0, &frames, ends), second].concat(), 100);
        assert_eq!(error, None);
        assert_eq!(items.iter().filter(|item| matches!(item, OggItem::Head(_))).count(), 2);
        assert_eq!(items.iter().filter(|item| matches!(item, OggItem::Lost { .. })).count(), 0);
        let packets = packets(&items);
        assert_eq!(packets.len(), 96);
        assert_eq!((packets[47].position, packets[48].position), (47 * 960, 7 * PART_SAMPLES));
    }
}

#[test]
fn other_codecs_are_named() {
    let check = |packet: &[u8], expected| {
        assert_eq!(items(&first_page(packet), 9), (vec![], Some(OggError::WrongCodec(expected))));
    };
    check(b"\x01vorbis\0\0\0\0\x02", OggCodec::Vorbis);
    check(b"\x7fFLAC\x01\0", OggCodec::Flac);
    check(b"Speex   1.2", OggCodec::Speex);
    check(b"\x80theora\x03", OggCodec::Theora);
    check(b"fishead\0\x04", OggCodec::Skeleton);
    check(b"", OggCodec::Unknown);
    check(b"OpusTags", OggCodec::Unknown);
}

#[test]
fn real_vorbis_and_flac_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let tone = ["-f", "lavfi", "-i", "sine=duration=1"];
    for (codec, expected) in [("libvorbis", OggCodec::Vorbis), ("flac", OggCodec::Flac)] {
        let path = directory.path().join(codec).with_extension("ogg");
        let mut command = std::process::Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error"]).args(tone).args(["-c:a", codec]).arg(&path);
        assert!(command.status().expect("these tests need ffmpeg").success());
        let file = std::fs::read(path).unwrap();
        assert_eq!(items(&file, 1_000), (vec![], Some(OggError::WrongCodec(expected))));
    }
}

#[test]
fn what_cannot_be_read_on_is_an_error() {
    let headers = opus_headers(SERIAL, "minassa", &TAGS);
    let head = &headers[..47];
    let check = |stream: &[u8], expected: OggError| {
        for piece in [13, stream.len()] {
            assert_eq!(items(stream, piece).1, Some(expected.clone()));
        }
    };
    // An MP3 stream, silence; not yet decided while little came.
    assert_eq!(items(&[0xff; 100_000], 1_000), (vec![], None));
    check(&[0xff; 140_000], OggError::NotOgg);
    check(&[&headers[..], &[0; 140_000]].concat(), OggError::LostSync);
    // Audio and video side by side; a stream within another.
    check(&[head, &first_page(b"\x80theora\x03")].concat(), OggError::Multiplexed);
    check(&[&headers[..], &page(0, -1, 99, 5, &[1], &[0xf8])].concat(), OggError::Multiplexed);
    check(&page(0, 960, 1, 7, &[1], &[0xf8]), OggError::MissingHeader);
    // Headers in disorder.
    check(&[head, &page(0, 0, SERIAL, 1, &[1], &[0xf8])].concat(), OggError::MissingTags);
    check(&page(2, 0, 1, 0, &[255], &[0; 255]), OggError::BadHeaderPage);
    check(&page(2, 0, 1, 0, &[19, 1], &[&head[28..], &[0xf8][..]].concat()), OggError::BadHeaderPage);
    let end = page(4, 960, SERIAL, 2, &[1], &[0xf8]);
    check(&[&headers[..], &end, &page(0, 960, SERIAL, 3, &[1], &[0xf8])].concat(), OggError::AfterEnd);
    // OpusHead itself.
    let with = |at: usize, value: u8| {
        let mut packet = head[28..].to_vec();
        packet[at] = value;
        first_page(&packet)
    };
    check(&with(8, 16), OggError::BadOpusHead);
    check(&with(9, 0), OggError::BadOpusHead);
    check(&with(9, 3), OggError::UnsupportedChannels { channels: 3, family: 0 });
    check(&with(18, 255), OggError::UnsupportedChannels { channels: 1, family: 255 });
    check(&first_page(b"OpusHead\x01\x01"), OggError::BadOpusHead);
    // A packet that never ends.
    let endless = page(0, -1, SERIAL, 2, &[255; 255], &[0; 65_025]);
    check(&[&headers[..], &endless].concat(), OggError::PacketTooLarge);
}

#[test]
fn bad_packets_are_left_out() {
    let mut stream = opus_headers(1, "", &[]).to_vec();
    stream.extend(page(0, 1_920, 1, 2, &[1, 0, 2, 1], &[0xf8, 0xf9, 1, 0xf8]));
    let (items, error) = items(&stream, 100);
    assert_eq!(error, None);
    assert_eq!(items[2..4], [OpusError::Empty, OpusError::Uneven].map(OggItem::BadPacket));
    assert_eq!(packets(&items).iter().map(|packet| packet.position).collect::<Vec<_>>(), [0, 960]);
}

#[test]
fn a_large_comment_header_is_no_reason_to_refuse() {
    let mut tags = b"OpusTags\0\0\0\0\x02\0\0\0\x07\0\0\0title=x".to_vec();
    tags.extend(100_000u32.to_le_bytes());
    tags.resize(tags.len() + 100_000, b'=');
    let (first, rest) = tags.split_at(65_025);
    let mut stream = opus_headers(1, "", &[])[..47].to_vec();
    stream.extend(page(0, -1, 1, 1, &[255; 255], first));
    let mut lacing = vec![255; rest.len() / 255];
    lacing.push((rest.len() % 255) as u8);
    stream.extend(page(1, 0, 1, 2, &lacing, rest));
    stream.extend(page(0, 960, 1, 3, &[1], &[0xf8]));
    let (items, error) = items(&stream, 4_096);
    assert_eq!(error, None);
    let OggItem::Tags(tags) = &items[1] else { panic!("{items:?}") };
    assert_eq!(tags.comments, [("TITLE".to_owned(), "x".to_owned())]);
    assert_eq!(packets(&items).len(), 1);
}

/// A thousand false beginnings of large pages in each 60 KB, again and again: each would cost a checksum over all of
/// it, so the reader soon gives up.
#[test]
fn forged_beginnings_cost_no_more_than_what_was_sent() {
    let mut body = Vec::new();
    while body.len() < 60_000 {
        body.extend(b"OggS\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff");
        body.extend([0xff; 33]);
    }
    let mut stream = opus_headers(1, "", &[]).to_vec();
    body.resize(66_000, 0xff);
    (0..4).for_each(|_| stream.extend_from_slice(&body));
    let (found, error) = items(&stream, 1_000);
    assert_eq!((found.len(), error), (2, Some(OggError::LostSync)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Packets of any size, in pages cut anywhere, some of them within packets.
    #[test]
    fn packets_come_through_any_paging(
        sizes in prop::collection::vec(1usize..3_000, 1..60),
        cuts in prop::collection::vec(1usize..=255, 1..40),
        piece in 1usize..5_000,
    ) {
        let packets: Vec<Vec<u8>> = sizes
            .iter()
            .zip(0u8..)
            .map(|(&size, n)| if size <= 1_276 { vec![0xf8; size] } else { [&[0xfb, 0x03][..], &vec![n; size / 3 * 3]].concat() })
            .collect();
        let mut lacing: Vec<(u8, bool)> = Vec::new();
        for packet in &packets {
            lacing.extend(std::iter::repeat_n((255, false), packet.len() / 255));
            lacing.push(((packet.len() % 255) as u8, true));
        }
        let body = packets.concat();
        let mut stream = opus_headers(1, "", &[]).to_vec();
        let (mut granule, mut offset, mut sequence, mut continued) = (0i64, 0usize, 2, false);
        let mut durations = packets.iter().map(|packet| if packet[0] == 0xf8 { 960 } else { 2_880 });
        let mut cuts = cuts.iter().cycle();
        let mut rest = &lacing[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            let length: usize = now.iter().map(|&(value, _)| usize::from(value)).sum();
            let ended = now.iter().filter(|&&(_, ends)| ends).count();
            granule += durations.by_ref().take(ended).sum::<i64>();
            let values: Vec<u8> = now.iter().map(|&(value, _)| value).collect();
            let at = if ended == 0 { -1 } else { granule };
            stream.extend(page(u8::from(continued), at, 1, sequence, &values, &body[offset..offset + length]));
            offset += length;
            sequence += 1;
            continued = !now[now.len() - 1].1;
            rest = later;
        }
        let (items, error) = items(&stream, piece);
        prop_assert_eq!(error, None);
        let found = self::packets(&items);
        prop_assert_eq!(found.len(), packets.len());
        let mut position = 0;
        for (found, packet) in found.iter().zip(&packets) {
            prop_assert_eq!(&found.data, packet);
            prop_assert_eq!(found.position, position);
            position += u64::from(found.samples);
        }
    }
}
