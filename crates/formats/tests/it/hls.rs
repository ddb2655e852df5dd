use std::time::Duration;

use bytes::Bytes;
use minassa_formats::hls::{
    Bandwidth, HlsError, LowLatency, MediaPlaylist, MultivariantPlaylist, PartialSegment, PlaylistType,
    RenditionReport, Segment, StartOffset, TARGET_DURATION_S, Variant, codecs,
};
use minassa_formats::mp3::id3_timestamp;
use minassa_formats::mp4::{PartBoxes, UUID_CHAIN, init_name, opus_init, write_part, write_uuid};
use model::{
    MP3_FRAMES_PER_PART, OPUS_FRAMES_PER_PART, PART_DURATION, PARTS_PER_SEGMENT, PartNumber, Rendition,
    SEGMENT_DURATION, SegmentNumber, UnixTime,
};
use proptest::prelude::*;

use crate::audio::{correlation, decode_opus, mp3, opus, samples, voice};
use crate::ffmpeg::decode_file;

const DOORS: UnixTime = UnixTime::from_millis(1_795_374_000_000);

fn segment(rendition: Rendition, number: SegmentNumber, parts: u32) -> Segment {
    let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
    Segment {
        uri: format!("{rendition}/s{number}.{extension}"),
        duration: PART_DURATION * parts,
        program_date_time: DOORS.plus(number.first_part().start().to_duration()),
        gap: false,
        discontinuity: false,
        byte_range: None,
    }
}

fn playlist(rendition: Rendition, first: u64, count: u64) -> MediaPlaylist {
    MediaPlaylist {
        init_uri: rendition.is_cmaf().then(|| format!("{rendition}/{}", init_name(&opus_init()))),
        kind: PlaylistType::Sliding,
        target_duration: TARGET_DURATION_S,
        media_sequence: first,
        discontinuity_sequence: 0,
        start_offset: None,
        segments: (first..first + count).map(|n| segment(rendition, SegmentNumber::new(n), 8)).collect(),
        ended: false,
        low_latency: None,
    }
}

/// Segments `first..` with the parts of the last, and these of the one that follows.
fn low_latency(rendition: Rendition, first: u64, count: u64, further: u64) -> MediaPlaylist {
    let mut playlist = playlist(rendition, first, count);
    let last = SegmentNumber::new(first + count - 1);
    let next = last.next();
    let part = |number: PartNumber| PartialSegment {
        segment: number.segment().get(),
        uri: format!("{rendition}/{number}.m4s"),
        duration: PART_DURATION,
        independent: true,
        gap: false,
    };
    playlist.low_latency = Some(LowLatency {
        part_target: PART_DURATION,
        part_hold_back: 4 * PART_DURATION,
        parts: (0..PARTS_PER_SEGMENT + further).map(|n| part(last.first_part().plus(n))).collect(),
        next_date: (further > 0).then(|| DOORS.plus(next.first_part().start().to_duration())),
        preload_hint: Some(part(next.first_part().plus(further)).uri),
        reports: vec![RenditionReport { uri: "mp3-64.m3u8".to_owned(), last_segment: 9, last_part: 1 }],
    });
    playlist
}

/// Segments `first..` of this audio, as they lie on the wire.
fn media(rendition: Rendition, pcm: &[f32], first: SegmentNumber) -> Vec<Vec<u8>> {
    let record = [0xa5; 180];
    if rendition.is_cmaf() {
        let frames = opus(rendition, pcm);
        let lead = [write_uuid(UUID_CHAIN, &record)];
        let part = |(n, frames): (u64, &[Bytes])| {
            let number = PartNumber::new(n);
            let lead = if number.index_in_segment() == 0 { &lead[..] } else { &[] };
            write_part(&PartBoxes { sequence: n as u32 + 1, decode_time: number.start(), frames, lead })
        };
        let parts = (first.first_part().get()..).zip(frames.chunks(OPUS_FRAMES_PER_PART)).map(part);
        parts.collect::<Vec<_>>().chunks(PARTS_PER_SEGMENT as usize).map(<[Bytes]>::concat).collect()
    } else {
        let frames = mp3(pcm);
        let segments = frames.chunks(MP3_FRAMES_PER_PART * PARTS_PER_SEGMENT as usize);
        (first.first_part().get()..)
            .step_by(PARTS_PER_SEGMENT as usize)
            .zip(segments)
            .map(|(n, frames)| {
                let tag = id3_timestamp(PartNumber::new(n).start(), &[("minassa.chain", &record)]);
                [&tag[..], &frames.concat()].concat()
            })
            .collect()
    }
}

#[test]
fn a_live_playlist_is_this_text() {
    let mut playlist = playlist(Rendition::Opus24, 1_000, 2);
    playlist.start_offset = Some(StartOffset::FromEnd(Duration::from_millis(11_520)));
    assert_eq!(
        playlist.render(),
        "#EXTM3U\n\
         #EXT-X-VERSION:6\n\
         #EXT-X-TARGETDURATION:4\n\
         #EXT-X-MEDIA-SEQUENCE:1000\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-START:TIME-OFFSET=-11.520\n\
         #EXT-X-MAP:URI=\"opus-24/init-NAME.mp4\"\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T20:04:00.000Z\n\
         #EXTINF:3.840,\n\
         opus-24/s1000.m4s\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T20:04:03.840Z\n\
         #EXTINF:3.840,\n\
         opus-24/s1001.m4s\n"
            .replace("init-NAME.mp4", &init_name(&opus_init()))
    );
}

#[test]
fn a_replay_playlist_with_everything_is_this_text() {
    let mut playlist = playlist(Rendition::Mp3_64, 0, 1);
    playlist.kind = PlaylistType::Vod;
    playlist.discontinuity_sequence = 3;
    playlist.start_offset = Some(StartOffset::FromStart(Duration::from_micros(900_000_500)));
    playlist.segments.push(Segment {
        gap: true,
        discontinuity: true,
        byte_range: Some((30_720, 3_840)),
        ..segment(Rendition::Mp3_64, SegmentNumber::new(1), 1)
    });
    playlist.ended = true;
    assert_eq!(
        playlist.render(),
        "#EXTM3U\n\
         #EXT-X-VERSION:8\n\
         #EXT-X-TARGETDURATION:4\n\
         #EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:3\n\
         #EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-START:TIME-OFFSET=900.000500,PRECISE=YES\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:00:00.000Z\n\
         #EXTINF:3.840,\n\
         mp3-64/s0.mp3\n\
         #EXT-X-DISCONTINUITY\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:00:03.840Z\n\
         #EXT-X-GAP\n\
         #EXTINF:0.480,\n\
         #EXT-X-BYTERANGE:3840@30720\n\
         mp3-64/s1.mp3\n\
         #EXT-X-ENDLIST\n"
    );
    assert_eq!(MediaPlaylist::parse(&playlist.render()), Ok(playlist));
}

#[test]
fn a_playlist_with_parts_is_this_text() {
    let mut playlist = low_latency(Rendition::Opus24, 8, 1, 2);
    let low = playlist.low_latency.as_mut().unwrap();
    (low.parts[9].independent, low.parts[9].gap) = (false, true);
    let text = playlist.render();
    let (head, tail) = text.split_once("#EXT-X-PART:DURATION=0.480,URI=\"opus-24/66.m4s\"").unwrap();
    assert_eq!(
        head,
        "#EXTM3U\n\
         #EXT-X-VERSION:6\n\
         #EXT-X-TARGETDURATION:4\n\
         #EXT-X-MEDIA-SEQUENCE:8\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.920\n\
         #EXT-X-PART-INF:PART-TARGET=0.480\n\
         #EXT-X-MAP:URI=\"opus-24/init-NAME.mp4\"\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:00:30.720Z\n\
         #EXT-X-PART:DURATION=0.480,URI=\"opus-24/64.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PART:DURATION=0.480,URI=\"opus-24/65.m4s\",INDEPENDENT=YES\n"
            .replace("init-NAME.mp4", &init_name(&opus_init()))
    );
    let (_, tail) = tail.split_once("opus-24/70.m4s\",INDEPENDENT=YES\n").unwrap();
    assert_eq!(
        tail,
        "#EXT-X-PART:DURATION=0.480,URI=\"opus-24/71.m4s\",INDEPENDENT=YES\n\
         #EXTINF:3.840,\n\
         opus-24/s8.m4s\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:00:34.560Z\n\
         #EXT-X-PART:DURATION=0.480,URI=\"opus-24/72.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PART:DURATION=0.480,URI=\"opus-24/73.m4s\",GAP=YES\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"opus-24/74.m4s\"\n\
         #EXT-X-RENDITION-REPORT:URI=\"mp3-64.m3u8\",LAST-MSN=9,LAST-PART=1\n"
    );
    assert_eq!(MediaPlaylist::parse(&text), Ok(playlist));
}

#[test]
fn parts_that_players_would_refuse_are_refused() {
    let text = low_latency(Rendition::Opus24, 8, 1, 2).render();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        MediaPlaylist::parse(&text.replacen(from, to, 1))
    };
    let line = |line, what| Err(HlsError::Line { line, what });
    assert_eq!(parse("PART-HOLD-BACK=1.920", "PART-HOLD-BACK=0.950"), Err(HlsError::HoldBack));
    assert_eq!(parse("PART-TARGET=0.480", "PART-TARGET=0.400"), Err(HlsError::PartTooLong { number: 8 }));
    assert_eq!(
        parse("DURATION=0.480", "DURATION=0.440"),
        Err(HlsError::PartsDiffer { number: 8 }),
        "they are as long as their segment"
    );
    // Of a segment that is not whole nobody knows yet how long it will be.
    assert!(parse("0.480,URI=\"opus-24/72", "0.440,URI=\"opus-24/72").is_ok());
    assert_eq!(
        parse("#EXT-X-PART-INF:PART-TARGET=0.480\n", ""),
        Err(HlsError::Missing { tag: "EXT-X-PART-INF" })
    );
    assert_eq!(
        parse("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.920\n", ""),
        Err(HlsError::Missing { tag: "EXT-X-SERVER-CONTROL" })
    );
    let date = "#EXT-X-PROGRAM-DATE-TIME:2026-11-22T19:00:34.560Z\n";
    assert_eq!(parse(date, ""), line(20, "a part without EXT-X-PROGRAM-DATE-TIME"));
    assert_eq!(parse("TYPE=PART", "TYPE=MAP"), line(23, "unreadable"));
    assert_eq!(parse("LAST-PART=1", "LAST-PART=-1"), line(24, "unreadable"));
    assert_eq!(parse("72.m4s\",INDEPENDENT=YES", "72.m4s\",INDEPENDENT=NO"), line(21, "unreadable"));
    assert_eq!(
        parse("LAST-PART=1\n", "LAST-PART=1\nx.m4s\n"),
        line(25, "a segment after what stands at the end")
    );
    assert_eq!(
        parse("LAST-PART=1\n", "LAST-PART=1\n#EXT-X-ENDLIST\n"),
        line(25, "a tag after what stands at the end"),
        "after the end nothing comes, so nothing is hinted at"
    );
    let last = "#EXT-X-PART:DURATION=0.480,URI=\"opus-24/73.m4s\",INDEPENDENT=YES\n";
    assert_eq!(parse(last, &format!("{last}#EXTINF:0.960,\n")), line(24, "a segment described by half"));
}

#[test]
fn a_multivariant_playlist_is_this_text() {
    let variants = [Rendition::Mp3_64, Rendition::Opus24].map(|r| Variant::of(r, format!("{r}.m3u8")));
    let playlist = MultivariantPlaylist { variants: variants.into() };
    let [mp3, opus] = [Rendition::Mp3_64, Rendition::Opus24].map(Bandwidth::of);
    assert_eq!(
        playlist.render(),
        format!(
            "#EXTM3U\n\
             #EXT-X-VERSION:6\n\
             #EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"mp4a.40.34\"\n\
             mp3-64.m3u8\n\
             #EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"Opus\"\n\
             opus-24.m3u8\n",
            mp3.peak, mp3.average, opus.peak, opus.average
        )
    );
    assert_eq!(MultivariantPlaylist::parse(&playlist.render()), Ok(playlist));
}

/// What is announced holds for whatever is said or played, encoded as the programme encodes it, with boxes, tags and
/// records.
#[test]
fn announced_bandwidths_are_those_of_real_segments() {
    let length = samples(8 * 4);
    let babble: Vec<f32> = {
        let voices = voice(3 * length);
        (0..length).map(|n| (voices[n] + voices[n + length] + voices[n + 2 * length]) / 2.0).collect()
    };
    let noise: Vec<f32> = voice(length).iter().map(|sample| (sample * 99_991.0).fract() * 0.3).collect();
    let tone: Vec<f32> = (0..length).map(|n| (n as f32 * 0.13).sin() * 0.5).collect();
    for (name, pcm) in [("voice", voice(length)), ("babble", babble), ("noise", noise), ("tone", tone)] {
        for rendition in Rendition::ALL {
            let segments = media(rendition, &pcm, SegmentNumber::new(500));
            let real = segments.iter().map(|segment| (segment.len() as u64, SEGMENT_DURATION));
            let real = Bandwidth::measured(real).unwrap();
            let said = Bandwidth::of(rendition);
            assert!(real.peak <= said.peak, "{rendition}, {name}: {real:?} {said:?}");
            let constant = rendition != Rendition::Opus24;
            assert!(
                !constant || real.average * 100 > said.average * 99,
                "{rendition}, {name}: {real:?} {said:?}"
            );
            assert!(said.peak < said.average * 6 / 5, "{rendition}: {said:?}");
        }
    }
    assert_eq!(Bandwidth::measured([]), None);
}

#[test]
fn ffmpeg_plays_the_playlists() {
    let pcm = voice(samples(24));
    let directory = tempfile::tempdir().unwrap();
    let variants = Rendition::ALL.map(|rendition| Variant::of(rendition, format!("{rendition}.m3u8")));
    for rendition in Rendition::ALL {
        let folder = directory.path().join(rendition.name());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(init_name(&opus_init())), opus_init()).unwrap();
        let mut playlist = playlist(rendition, 500, 3);
        playlist.ended = true;
        for (segment, bytes) in playlist.segments.iter().zip(media(rendition, &pcm, SegmentNumber::new(500)))
        {
            std::fs::write(directory.path().join(&segment.uri), bytes).unwrap();
        }
        let path = directory.path().join(format!("{rendition}.m3u8"));
        std::fs::write(&path, playlist.render()).unwrap();
        let theirs = decode_file(&path, &[]);
        assert_eq!(theirs.len(), samples(24), "{rendition}");
        if rendition.is_cmaf() {
            let alike = correlation(&theirs, &decode_opus(&opus(rendition, &pcm)));
            assert!(alike > 0.99, "{rendition}: correlation {alike}");
        }
        assert_eq!(codecs(rendition) == "Opus", rendition.is_cmaf());
    }
    let path = directory.path().join("index.m3u8");
    std::fs::write(&path, MultivariantPlaylist { variants: variants.into() }.render()).unwrap();
    assert_eq!(decode_file(&path, &[]).len(), samples(24));
}

#[test]
fn what_players_would_refuse_is_refused() {
    let text = playlist(Rendition::Opus24, 7, 2).render();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        MediaPlaylist::parse(&text.replacen(from, to, 1))
    };
    let line = |line, what| Err(HlsError::Line { line, what });
    assert_eq!(parse("#EXTM3U", "#EXTM3"), Err(HlsError::NotAPlaylist));
    assert_eq!(parse("VERSION:6", "VERSION:3"), Err(HlsError::Version { said: 3, needed: 6 }));
    assert_eq!(
        parse("#EXT-X-TARGETDURATION:4\n", ""),
        Err(HlsError::Missing { tag: "EXT-X-TARGETDURATION" })
    );
    assert_eq!(parse("SEQUENCE:7", "SEQUENCE:07"), line(4, "unreadable"));
    assert_eq!(parse("SEQUENCE:7", "SEQUENCE:18446744073709551616"), line(4, "unreadable"));
    assert_eq!(parse("#EXTINF:3.840", "#EXTINF:4.500"), Err(HlsError::SegmentTooLong { number: 7 }));
    assert_eq!(parse("#EXTINF:3.840,\n", ""), line(8, "a segment without EXTINF"));
    assert_eq!(parse("#EXTINF:3.840", "#EXTINF:-3.840"), line(8, "unreadable"));
    assert_eq!(parse("#EXTINF:3.840,\n", "#EXTINF:3.840,\n#EXTINF:3.840,\n"), line(9, "given twice"));
    assert_eq!(
        parse("#EXTINF:3.840,\n", "#EXT-X-VERSION:6\n"),
        line(8, "a tag of the playlist among its segments")
    );
    assert_eq!(
        parse("opus-24/s7.m4s", "#EXT-X-ENDLIST"),
        line(9, "a tag of the playlist among its segments")
    );
    assert_eq!(parse("opus-24/s7.m4s", "a\tb"), line(9, "an address with control characters"));
    assert_eq!(parse("opus-24/s8.m4s\n", ""), Err(HlsError::Missing { tag: "segment after its tags" }));
    assert_eq!(parse("#EXT-X-MAP", "#EXT-X-KEY"), line(6, "an unknown tag"));
    assert_eq!(parse("880Z", "880+03:00"), line(7, "unreadable"));
    assert_eq!(parse("opus-24/s8.m4s\n", &"x".repeat(8 << 20)), Err(HlsError::TooLong));
    // What readers must pass over.
    assert_eq!(parse("#EXTINF", "# a comment\r\n\n#EXTINF"), Ok(playlist(Rendition::Opus24, 7, 2)));
}

prop_compose! {
    fn any_segment(number: u64, longest_ms: u64)(
        uri in "[a-z0-9/._~%-]{1,40}",
        nanos in prop_oneof![
            (1..=longest_ms).prop_map(|ms| ms * 1_000_000),
            1..=longest_ms * 1_000_000,
        ],
        gap in any::<bool>(),
        discontinuity in any::<bool>(),
        byte_range in prop::option::of((any::<u64>(), any::<u64>())),
    ) -> Segment {
        Segment {
            uri,
            duration: Duration::from_nanos(nanos),
            program_date_time: DOORS.plus(SEGMENT_DURATION * number as u32),
            gap,
            discontinuity,
            byte_range,
        }
    }
}

prop_compose! {
    fn any_playlist()(
        media_sequence in any::<u32>(),
        target_duration in 1u32..10,
    )(
        init_uri in prop::option::of("[a-z0-9/._-]{1,40}"),
        kind in prop::sample::select(vec![PlaylistType::Sliding, PlaylistType::Event, PlaylistType::Vod]),
        discontinuity_sequence in any::<u64>(),
        start in prop::option::of((any::<bool>(), any::<u32>())),
        segments in (0u64..20).prop_flat_map(move |count| {
            let longest = u64::from(target_duration) * 1_000 + 499;
            (0..count).map(|n| any_segment(n, longest)).collect::<Vec<_>>()
        }),
        ended in any::<bool>(),
        low in prop::option::of((0usize..4, 0u64..4, any::<bool>(), any::<bool>())),
        media_sequence in Just(media_sequence),
        target_duration in Just(target_duration),
    ) -> MediaPlaylist {
        let offset = |(from_end, micros): (bool, u32)| {
            let offset = Duration::from_micros(micros.into());
            if from_end { StartOffset::FromEnd(offset) } else { StartOffset::FromStart(offset) }
        };
        let low_latency = low.map(|(with_parts, further, hint, report)| {
            let further = if ended { 0 } else { further };
            any_parts(&segments, u64::from(media_sequence), with_parts, further, hint && !ended, report && !ended)
        });
        MediaPlaylist {
            init_uri,
            kind,
            target_duration,
            media_sequence: media_sequence.into(),
            discontinuity_sequence,
            start_offset: start.map(offset),
            segments,
            ended,
            low_latency,
        }
    }
}

/// Parts of the last segments, two of each, and of the one that follows.
fn any_parts(
    segments: &[Segment],
    first: u64,
    with_parts: usize,
    further: u64,
    hint: bool,
    report: bool,
) -> LowLatency {
    let part = |segment: u64, index: u64, duration| PartialSegment {
        segment,
        uri: format!("opus-24/{segment}.{index}.m4s"),
        duration,
        independent: index == 0,
        gap: index == 1 && segment.is_multiple_of(3),
    };
    let target = segments.iter().map(|segment| segment.duration).max().unwrap_or(PART_DURATION);
    let next = first + segments.len() as u64;
    let numbered = segments.iter().zip(first..).skip(segments.len().saturating_sub(with_parts));
    let whole = numbered.flat_map(|(segment, number)| {
        let begin = segment.duration / 3;
        [part(number, 0, begin), part(number, 1, segment.duration - begin)]
    });
    LowLatency {
        part_target: target,
        part_hold_back: 3 * target,
        parts: whole.chain((0..further).map(|index| part(next, index, target))).collect(),
        next_date: (further > 0).then_some(DOORS),
        preload_hint: hint.then(|| format!("opus-24/{next}.{further}.m4s")),
        reports: if report {
            vec![RenditionReport { uri: "opus-48.m3u8".to_owned(), last_segment: next, last_part: further }]
        } else {
            Vec::new()
        },
    }
}

/// Values of a tag in a playlist's text.
fn values<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(tag)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn playlists_come_back_as_they_were(playlist in any_playlist()) {
        prop_assert_eq!(MediaPlaylist::parse(&playlist.render()), Ok(playlist));
    }

    /// Read from the text alone, as a player does.
    #[test]
    fn no_rounded_duration_exceeds_the_target(playlist in any_playlist()) {
        let text = playlist.render();
        let target: u64 = values(&text, "#EXT-X-TARGETDURATION:")[0].parse().unwrap();
        let durations = values(&text, "#EXTINF:");
        prop_assert_eq!(durations.len(), playlist.segments.len());
        for duration in durations {
            let seconds: f64 = duration.trim_end_matches(',').parse().unwrap();
            prop_assert!(seconds.round() as u64 <= target, "{seconds} {target}");
        }
        let unfinished = playlist.low_latency.is_some_and(|low| low.next_date.is_some());
        let dates = playlist.segments.len() + usize::from(unfinished);
        prop_assert_eq!(values(&text, "#EXT-X-PROGRAM-DATE-TIME:").len(), dates);
        prop_assert_eq!(text.ends_with("#EXT-X-ENDLIST\n"), playlist.ended);
    }

    /// A window that slides over an event: a number always names the same address and time, and none goes back.
    #[test]
    fn sequence_numbers_only_grow(steps in prop::collection::vec((0u64..4, 1u64..20), 1..40)) {
        let mut last: Option<MediaPlaylist> = None;
        let mut first = 0;
        for (step, count) in steps {
            first += step;
            let playlist = MediaPlaylist::parse(&playlist(Rendition::Opus48, first, count).render()).unwrap();
            if let Some(last) = last {
                prop_assert!(playlist.media_sequence >= last.media_sequence);
                let shift = (playlist.media_sequence - last.media_sequence) as usize;
                for (old, new) in last.segments.iter().skip(shift).zip(&playlist.segments) {
                    prop_assert_eq!(old, new);
                }
            }
            let ends = playlist.segments.windows(2).map(|pair| {
                pair[0].program_date_time.plus(pair[0].duration) == pair[1].program_date_time
            });
            prop_assert!(ends.into_iter().all(|meets| meets), "segments meet");
            last = Some(playlist);
        }
    }
}
