//! Downloads, clips and the replay's playlist.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{DOORS, Origin, event, ffmpeg, ffprobe, key, marks, part};
use formats::hls::{PlaylistType, StartOffset};
use formats::mp4::{StreamItem, StreamSplitter};
use formats::ogg::{OggItem, OggReader};
use minassa_archive::{ArchiveError, Clip, Download, Recording, Span, event_directory, playlist};
use model::{Rendition, SegmentNumber};
use packager::chain;
use packager::verify::{FoundPart, Report, verify};

/// 100 parts with a restart and gaps; live from 21 to 90. Finished if asked.
fn recorded(data: &Path, finished: bool) -> Recording {
    let mut origin = Origin::on(data);
    origin.recorder.set_marks(&marks(Some(21), None)).unwrap();
    origin.record(43);
    drop(origin);
    let mut origin = Origin::on(data);
    origin.record_gaps(5);
    origin.record(52);
    if finished {
        origin.end(&marks(Some(21), Some(90)));
    }
    Recording::open(&[data.to_owned()], &event()).unwrap()
}

/// All bytes, read in pieces of this many.
fn all(download: &Download, step: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = download.read(bytes.len() as u64, step).unwrap();
        if piece.is_empty() {
            break;
        }
        assert!(piece.len() <= step);
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, download.length());
    bytes
}

/// Any range is the same bytes as the whole file's.
fn check_ranges(download: &Download) -> Vec<u8> {
    let whole = all(download, 1 << 20);
    let length = whole.len() as u64;
    let mut state = 7_u64;
    for _ in 0..400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (state >> 20) % length;
        let limit = 1 + (state >> 50) as usize % 9_000;
        let piece = download.read(offset, limit).unwrap();
        assert!(!piece.is_empty());
        assert_eq!(piece, whole[offset as usize..offset as usize + piece.len()]);
    }
    assert!(download.read(length, 10).unwrap().is_empty());
    assert!(download.read(u64::MAX, 10).unwrap().is_empty());
    assert_eq!(all(download, 777), whole);
    whole
}

/// Verifies a file by itself, as anyone can who has the public key.
fn verify_file(bytes: &[u8], rendition: Rendition) -> (Vec<FoundPart>, Report) {
    let mut splitter = StreamSplitter::new();
    splitter.push(bytes);
    let (mut parts, mut records) = (Vec::new(), Vec::new());
    while let Some(item) = splitter.next().unwrap() {
        match item {
            StreamItem::Part(bytes) => {
                let (part, carried) = FoundPart::read_cmaf(&bytes).unwrap();
                parts.push(part);
                records.extend(carried);
            }
            StreamItem::Other { bytes, .. } => records.extend(chain::from_detached_box(&bytes)),
            StreamItem::Init(_) | StreamItem::Event { .. } => {}
        }
    }
    assert_eq!(splitter.pending(), 0);
    let report = verify(&event(), rendition, &key().verifying_key(), &parts, &records);
    (parts, report)
}

fn play(bytes: &[u8], name: &str) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, bytes).unwrap();
    let (samples, said) = ffmpeg(&file);
    assert_eq!(said, "", "{name}");
    samples
}

fn duration(bytes: &[u8], name: &str) -> Option<u64> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, bytes).unwrap();
    ffprobe(&file)
}

/// The `sidx` of a file: where it begins in media time, how many entries it has, and their bytes and samples. Every
/// entry must begin with a `moof` or with boxes before one.
fn index_of(bytes: &[u8]) -> Option<(u64, usize, u64, u64)> {
    let mut splitter = StreamSplitter::new();
    splitter.push(bytes);
    while let Some(item) = splitter.next().unwrap() {
        let StreamItem::Other { kind, bytes: sidx } = item else { continue };
        if kind != *b"sidx" {
            continue;
        }
        let u32_at = |at: usize| u32::from_be_bytes(sidx[at..at + 4].try_into().unwrap());
        let first = u64::from_be_bytes(sidx[20..28].try_into().unwrap());
        assert_eq!((u32_at(16), u32_at(24 + 4), u32_at(24 + 8)), (48_000, 0, 0));
        let count = u32_at(36) as usize;
        assert_eq!(sidx.len(), 40 + 12 * count);
        let after = bytes.windows(sidx.len()).position(|window| window == sidx).unwrap() + sidx.len();
        let (mut length, mut samples) = (0, 0);
        for at in (40..sidx.len()).step_by(12) {
            let kind = &bytes[after + length as usize + 4..][..4];
            assert!(kind == b"moof" || kind == b"uuid", "{}", kind.escape_ascii());
            length += u64::from(u32_at(at));
            samples += u64::from(u32_at(at + 4));
        }
        return Some((first, count, length, samples));
    }
    None
}

#[test]
fn an_mp4_has_the_parts_as_aired_and_verifies_by_itself() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        for (span, first, end) in [
            (Span::Show, 21, 90),
            (Span::Everything, 0, 100),
            (Span::Parts(part(40)..part(56)), 40, 56),
            (Span::Parts(part(41)..part(46)), 41, 46),
            (Span::Parts(part(95)..part(1_000)), 95, 100),
        ] {
            let download = Download::mp4(&recording, rendition, &span).unwrap();
            assert_eq!(download.parts(), part(first)..part(end));
            assert_eq!(download.content_type(), "audio/mp4");
            let bytes = check_ranges(&download);
            let (parts, report) = verify_file(&bytes, rendition);
            assert_eq!(parts.len() as u64, end - first);
            for (found, number) in parts.iter().zip(first..) {
                assert_eq!(found.number, part(number));
                assert_eq!(found.digest, recording.entry(rendition, part(number)).unwrap().digest);
            }
            assert!(report.intact() && report.unsigned.is_empty(), "{span:?}: {report:#?}");
            assert_eq!(report.complete(), span == Span::Everything);
            assert_eq!(play(&bytes, "recording.mp4"), (end - first) * 23_040);
            // It says how long it is, with one entry a segment that the file touches.
            let media: u64 = (first..end)
                .map(|number| u64::from(recording.entry(rendition, part(number)).unwrap().length))
                .sum();
            let segments = (end.div_ceil(8) - first / 8) as usize;
            let index = (first * 23_040, segments, media, (end - first) * 23_040);
            assert_eq!(index_of(&bytes), Some(index), "{span:?}");
            // Times count from doors, and so does the end that ffmpeg gives.
            assert_eq!(duration(&bytes, "recording.mp4"), Some(end * 23_040));
        }
    }
    // The file on the disk verifies by itself as well.
    let file = event_directory(data.path(), &event()).join("opus-48.mp4");
    let (_, report) = verify_file(&fs::read(file).unwrap(), Rendition::Opus48);
    assert!(report.complete());
}

#[test]
fn an_ogg_is_made_of_the_same_packets() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let download = Download::ogg(&recording, rendition, &Span::Show, "حديث الليل").unwrap();
        let bytes = check_ranges(&download);
        let mut reader = OggReader::new();
        let mut packets = Vec::new();
        let mut ended = false;
        for chunk in bytes.chunks(5_000) {
            reader.push(chunk);
            while let Some(item) = reader.next().unwrap() {
                match item {
                    OggItem::Packet(packet) => packets.push(packet),
                    OggItem::Head(head) => assert_eq!((head.channels, head.pre_skip), (1, 0)),
                    OggItem::Tags(tags) => {
                        assert_eq!(tags.comments, [("TITLE".to_owned(), "حديث الليل".to_owned())]);
                    }
                    OggItem::End => ended = true,
                    OggItem::Lost { .. } | OggItem::BadPacket(_) => panic!("nothing is missing"),
                }
            }
        }
        assert!(ended);
        assert_eq!(packets.len(), 69 * 24);
        for (index, packet) in packets.iter().enumerate() {
            assert_eq!(packet.position, 960 * index as u64);
        }
        let first = recording.read_part(rendition, part(21)).unwrap();
        let first = formats::mp4::parse_part(&first).unwrap();
        assert!(packets[..24].iter().map(|packet| &packet.data[..]).eq(first.frames));
        assert_eq!(play(&bytes, "recording.ogg"), 69 * 23_040);
    }
}

#[test]
fn an_mp3_says_how_long_it_is_and_is_the_frames_as_they_are() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    let download = Download::mp3(&recording, &Span::Show).unwrap();
    let bytes = check_ranges(&download);
    let file = fs::read(event_directory(data.path(), &event()).join("mp3-64.mp3")).unwrap();
    let (info, frames) = bytes.split_at(192);
    assert_eq!(info, formats::mp3::info_frame(69 * 20, 69 * 3_840));
    assert_eq!(frames, &file[21 * 3_840..90 * 3_840]);
    // The frame in front is not heard.
    assert_eq!(play(&bytes, "recording.mp3"), 69 * 23_040);
    assert_eq!(duration(&bytes, "recording.mp3"), Some(69 * 23_040));
}

#[test]
fn validators_tell_downloads_apart() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), false);
    let show = Span::Show;
    let tags = |recording: &Recording| {
        vec![
            Download::mp4(recording, Rendition::Opus24, &show).unwrap(),
            Download::mp4(recording, Rendition::Opus48, &show).unwrap(),
            Download::mp4(recording, Rendition::Opus48, &Span::Everything).unwrap(),
            Download::ogg(recording, Rendition::Opus48, &show, "").unwrap(),
            Download::ogg(recording, Rendition::Opus48, &show, "a").unwrap(),
            Download::mp3(recording, &show).unwrap(),
        ]
    };
    let before = tags(&recording);
    let mut seen: Vec<_> = before.iter().map(|download| download.etag().to_owned()).collect();
    // Made again they are the same.
    assert!(tags(&recording).iter().map(Download::etag).eq(seen.iter()));
    assert!(seen[0].len() == 34 && seen[0].starts_with('"') && seen[0].ends_with('"'));
    // What grew, and what ended, is another file; what was begun can be read to its end.
    let bytes = all(&before[3], 4_096);
    let mut origin = Origin::on(data.path());
    origin.record(3);
    let mut grown = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    let longer = tags(&grown);
    assert_eq!(all(&longer[3], 4_096)[..bytes.len()], bytes);
    seen.extend(longer.iter().map(|download| download.etag().to_owned()));
    origin.end(&marks(Some(21), Some(103)));
    grown.refresh().unwrap();
    let ended: Vec<_> = tags(&grown).iter().map(|download| download.etag().to_owned()).collect();
    // MP3 has nothing that says it ended: the same bytes have the same validator.
    assert_eq!(ended.last(), seen.last());
    seen.extend_from_slice(&ended[..5]);
    assert_eq!(all(&before[3], 4_096), bytes);
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn what_is_recorded_so_far_can_be_had() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), false);
    let download = Download::mp4(&recording, Rendition::Opus48, &Span::Show).unwrap();
    assert_eq!(download.parts(), part(21)..part(100));
    let bytes = all(&download, 1 << 20);
    assert_eq!(play(&bytes, "recording.mp4"), 79 * 23_040);
    let (_, report) = verify_file(&bytes, Rendition::Opus48);
    assert!(report.intact());
    // The newest segment is not signed yet.
    assert_eq!(report.unsigned, [96, 97, 98, 99].map(part));
    // While it grows there is no index that would grow too: every part keeps its place.
    assert_eq!(index_of(&bytes), None);
    let clip = Clip { from: Duration::ZERO, to: Duration::from_secs(5) };
    let clip = Download::clip(&recording, Rendition::Opus48, clip).unwrap();
    assert_eq!(index_of(&all(&clip, 1 << 20)), None);
    let mp3 = all(&Download::mp3(&recording, &Span::Show).unwrap(), 1 << 20);
    let mut origin = Origin::on(data.path());
    origin.record(20);
    let grown = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    let last = recording.read_part(Rendition::Opus48, part(99)).unwrap();
    let end = bytes.windows(last.len()).position(|window| window == last).unwrap() + last.len();
    let longer = all(&Download::mp4(&grown, Rendition::Opus48, &Span::Show).unwrap(), 1 << 20);
    assert_eq!(longer[..end], bytes[..end]);
    let longer_mp3 = all(&Download::mp3(&grown, &Span::Show).unwrap(), 1 << 20);
    assert_eq!(longer_mp3[192..mp3.len()], mp3[192..]);
}

#[test]
fn there_is_no_show_before_it_is_live() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    origin.record(10);
    let mut recording = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    assert!(matches!(Download::mp3(&recording, &Span::Show), Err(ArchiveError::NoPart(_))));
    assert!(playlist::replay(&recording, Rendition::Opus48, &Span::Show, "").is_none());
    origin.recorder.set_marks(&marks(None, None)).unwrap();
    recording.refresh().unwrap();
    assert!(matches!(
        Download::mp4(&recording, Rendition::Opus48, &Span::Show),
        Err(ArchiveError::NoPart(number)) if number == part(10)
    ));
    assert!(matches!(
        Download::mp4(&recording, Rendition::Mp3_64, &Span::Everything),
        Err(ArchiveError::NoPart(_))
    ));
    let clip = Clip { from: Duration::ZERO, to: Duration::from_secs(1) };
    assert!(Download::clip(&recording, Rendition::Opus48, clip).is_err());
    assert_eq!(Download::mp3(&recording, &Span::Everything).unwrap().length(), 192 + 38_400);
}

#[test]
fn clips_are_cut_at_frames_and_whole_parts_stay_as_they_are() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    let seconds = Duration::from_millis;
    for (from, to, frames, whole) in [
        // From the middle of part 23 to the middle of part 31.
        (1_234, 5_678, 223, 24..32),
        // At parts: 480 ms after another.
        (480, 4_800, 216, 22..31),
        // Within one part, and within two.
        (500, 700, 10, 23..23),
        (900, 1_000, 5, 23..23),
        // Longer than the show.
        (30_000, 1_000_000, 156, 84..90),
    ] {
        let clip = Clip { from: seconds(from), to: seconds(to) };
        for rendition in [Rendition::Opus24, Rendition::Opus48] {
            let download = Download::clip(&recording, rendition, clip).unwrap();
            if !whole.is_empty() {
                assert_eq!(download.parts(), part(whole.start)..part(whole.end), "{from}-{to}");
            }
            let bytes = check_ranges(&download);
            assert_eq!(play(&bytes, "clip.mp4"), frames * 960, "{from}-{to}");
            let (_, _, _, indexed) = index_of(&bytes).unwrap();
            assert_eq!(indexed, frames * 960, "{from}-{to}");
        }
    }
    // Whole parts verify; the cut ones cannot.
    let clip = Clip { from: seconds(1_234), to: seconds(9_999) };
    let bytes = all(&Download::clip(&recording, Rendition::Opus48, clip).unwrap(), 4_096);
    let mut splitter = StreamSplitter::new();
    splitter.push(&bytes);
    let (mut parts, mut records) = (Vec::new(), Vec::new());
    while let Some(item) = splitter.next().unwrap() {
        match item {
            StreamItem::Part(bytes) => {
                if let Ok((part, carried)) = FoundPart::read_cmaf(&bytes) {
                    parts.push(part);
                    records.extend(carried);
                }
            }
            StreamItem::Other { bytes, .. } => records.extend(chain::from_detached_box(&bytes)),
            _ => {}
        }
    }
    assert_eq!(parts.len(), 17);
    let report = verify(&event(), Rendition::Opus48, &key().verifying_key(), &parts, &records);
    assert!(report.intact() && report.unsigned.is_empty(), "{report:#?}");
    let empty = Clip { from: seconds(5_000), to: seconds(4_000) };
    assert!(matches!(Download::clip(&recording, Rendition::Opus48, empty), Err(ArchiveError::NoPart(_))));
}

#[test]
fn the_replay_names_every_segment_of_the_show() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), false);
    let live = playlist::replay(&recording, Rendition::Opus48, &Span::Show, "").unwrap();
    assert_eq!((live.kind, live.ended), (PlaylistType::Event, false));
    // Segment 12 has four parts so far and is not named.
    assert_eq!((live.media_sequence, live.segments.len()), (2, 10));

    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    let replay = playlist::replay(&recording, Rendition::Opus24, &Span::Show, "/live/night-talk/").unwrap();
    assert_eq!((replay.kind, replay.ended, replay.target_duration), (PlaylistType::Vod, true, 4));
    assert_eq!((replay.media_sequence, replay.segments.len()), (2, 10));
    // The show begins five parts into segment 2.
    assert_eq!(replay.start_offset, Some(StartOffset::FromStart(Duration::from_millis(2_400))));
    assert!(replay.init_uri.as_ref().unwrap().starts_with("/live/night-talk/opus-24/init-"));
    let first = &replay.segments[0];
    assert_eq!(first.uri, "/live/night-talk/opus-24/s2.m4s");
    assert_eq!(first.duration, Duration::from_millis(3_840));
    assert_eq!(first.program_date_time, DOORS.plus(Duration::from_millis(7_680)));
    assert!(replay.segments.iter().all(|segment| !segment.gap && !segment.discontinuity));

    let all = playlist::replay(&recording, Rendition::Mp3_64, &Span::Everything, "").unwrap();
    assert_eq!((all.media_sequence, all.segments.len(), all.start_offset), (0, 13, None));
    assert_eq!(all.init_uri, None);
    assert_eq!(all.segments[12].uri, "mp3-64/s12.mp3");
    assert_eq!(all.segments[12].duration, Duration::from_millis(4 * 480));
    let text = all.render();
    assert!(text.contains("#EXT-X-ENDLIST"));
    // What it names is there.
    let total: usize = (0..13)
        .map(|number| recording.read_segment(Rendition::Mp3_64, SegmentNumber::new(number)).unwrap().len())
        .sum();
    assert_eq!(total, 100 * 3_840);
}

#[test]
fn the_replay_plays_from_its_files() {
    let data = tempfile::tempdir().unwrap();
    let recording = recorded(data.path(), true);
    let site = tempfile::tempdir().unwrap();
    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let directory = site.path().join(rendition.name());
        fs::create_dir(&directory).unwrap();
        let replay = playlist::replay(&recording, rendition, &Span::Everything, "").unwrap();
        let init = formats::mp4::opus_init();
        fs::write(site.path().join(replay.init_uri.as_ref().unwrap()), init).unwrap();
        for (number, segment) in (0..).map(SegmentNumber::new).zip(&replay.segments) {
            fs::write(site.path().join(&segment.uri), recording.read_segment(rendition, number).unwrap())
                .unwrap();
        }
        let file = site.path().join(format!("{rendition}.m3u8"));
        fs::write(&file, replay.render()).unwrap();
        let (samples, said) = ffmpeg(&file);
        assert_eq!(samples, 100 * 23_040);
        let said: Vec<_> = said.lines().filter(|line| !line.contains("Found duplicated MOOV Atom")).collect();
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn a_segment_of_which_a_part_was_lost_is_a_gap() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::on(data.path());
    origin.recorder.set_marks(&marks(Some(0), None)).unwrap();
    origin.record(20);
    // Published, but never on a disk.
    origin.make();
    origin.record(23);
    origin.end(&marks(Some(0), Some(44)));
    let recording = Recording::open(&[data.path().to_owned()], &event()).unwrap();
    let replay = playlist::replay(&recording, Rendition::Opus48, &Span::Show, "").unwrap();
    let gaps: Vec<_> = replay.segments.iter().map(|segment| segment.gap).collect();
    assert_eq!(gaps, [false, false, true, false, false, false]);
}
