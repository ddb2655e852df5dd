//! The files door, with real processes' parts: a bus, a recording and an edge.

use crate::common::*;
use formats::hls::{MediaPlaylist, MultivariantPlaylist};
use formats::mp4::{StreamItem, StreamSplitter};
use formats::{mp3, mp4};
use model::{PARTS_PER_SEGMENT, Part, PartNumber, Rendition};
use tempfile::TempDir;

const FOR_EVER: &str = "public, max-age=31536000, immutable";

async fn playlist(edge: &Edge, path: &str) -> MediaPlaylist {
    let response = edge.get_file(path).await;
    assert_eq!((response.status, response.header("content-type")), (200, "application/vnd.apple.mpegurl"));
    MediaPlaylist::parse(&response.text().await).unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn bytes(edge: &Edge, path: &str) -> Vec<u8> {
    let response = edge.get_file(path).await;
    assert_eq!((response.status, response.header("cache-control")), (200, FOR_EVER), "{path}");
    assert_eq!(response.header("access-control-allow-origin"), "*");
    let length: usize = response.header("content-length").parse().unwrap();
    let body = response.all().await;
    assert_eq!(body.len(), length);
    body
}

/// A segment without its ID3 tag; the tag's time is the segment's.
fn without_tag(segment: &[u8], first: PartNumber) -> &[u8] {
    let tag = mp3::parse_id3(segment).unwrap().expect("a tag");
    let ticks = first.start().samples() * 90_000 / 48_000;
    assert_eq!(tag.timestamp, Some(ticks & ((1 << 33) - 1)));
    &segment[tag.length..]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_listed_and_recorded_is_the_same() {
    let (directory, mut studio, edge) = on_air(0).await;
    studio.air(tone().into_iter().take(30));
    studio.heard_by("edge-0").await;
    // Read as it comes: who takes nothing is not waited for when an edge stops.
    let pushed = tokio::spawn(edge.get_push("/live/talk/opus-48.mp4?from=0").await.all());

    let index =
        MultivariantPlaylist::parse(&edge.get_file("/live/talk/index.m3u8").await.text().await).unwrap();
    let names: Vec<_> = index.variants.iter().map(|variant| variant.uri.as_str()).collect();
    assert_eq!(names, ["opus-48.m3u8", "opus-24.m3u8", "mp3-64.m3u8"]);

    // From the window, after the end from the recording, after a restart from the recording alone.
    let mut edge = edge;
    for stage in ["live", "ended", "restarted"] {
        for rendition in Rendition::ALL {
            let live = playlist(&edge, &format!("/live/talk/{rendition}.m3u8")).await;
            assert_eq!(live.media_sequence, 0);
            assert_eq!(live.ended, stage != "live", "{stage}");
            assert_eq!(live.segments.len(), if stage == "live" { 3 } else { 4 });
            let mut whole = Vec::new();
            for (number, segment) in live.segments.iter().enumerate() {
                let bytes = bytes(&edge, &format!("/live/talk/{}", segment.uri)).await;
                let first = PartNumber::new(number as u64 * PARTS_PER_SEGMENT);
                let media = if rendition.is_cmaf() { &bytes[..] } else { without_tag(&bytes, first) };
                whole.extend_from_slice(media);
            }
            assert!(whole == studio.joined(rendition, 0..whole_parts(stage)), "{stage} {rendition}");
            if let Some(init) = live.init_uri {
                assert_eq!(bytes(&edge, &format!("/live/talk/{init}")).await, mp4::opus_init());
            }
            let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
            for part in [0, 17, 29] {
                let bytes = bytes(&edge, &format!("/live/talk/{rendition}/{part}.{extension}")).await;
                assert!(bytes == studio.parts[part].payload(rendition).bytes, "{stage} {rendition} {part}");
            }
        }
        match stage {
            "live" => {
                studio.end();
                let ended = async {
                    for rendition in Rendition::ALL {
                        while !playlist(&edge, &format!("/live/talk/{rendition}.m3u8")).await.ended {
                            tokio::task::yield_now().await;
                        }
                    }
                };
                tokio::time::timeout(NEVER, ended).await.unwrap();
            }
            "ended" => {
                edge.stop().await;
                edge = Edge::start(directory.path(), 0, |_| {});
            }
            _ => {}
        }
    }

    for rendition in [Rendition::Opus24, Rendition::Opus48] {
        let file = edge.get_file(&format!("/e/talk/recording.{rendition}.mp4")).await.all().await;
        assert!(parts_in(&file) == payloads(&studio.parts, rendition), "{rendition}");
    }
    let mp3 = edge.get_file("/e/talk/recording.mp3").await.all().await;
    assert!(mp3.ends_with(&studio.joined(Rendition::Mp3_64, 0..30)));
    assert!(parts_in(&pushed.await.unwrap()) == payloads(&studio.parts, Rendition::Opus48));
    edge.stop().await;
}

fn whole_parts(stage: &str) -> usize {
    if stage == "live" { 24 } else { 30 }
}

fn payloads(parts: &[Part], rendition: Rendition) -> Vec<Vec<u8>> {
    parts.iter().map(|part| part.payload(rendition).bytes.to_vec()).collect()
}

fn parts_in(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut splitter = StreamSplitter::new();
    let mut parts = Vec::new();
    for piece in stream.chunks(10_000) {
        splitter.push(piece);
        while let Some(item) = splitter.next().unwrap() {
            if let StreamItem::Part(part) = item {
                parts.push(part.to_vec());
            }
        }
    }
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_the_same_from_the_window_and_from_the_disk() {
    let (directory, mut studio, edge) = on_air(0).await;
    studio.air(tone().into_iter().take(48));
    studio.heard_by("edge-0").await;
    studio.bus = backend::bus::UnixBus::bind(&directory.path().join("run/elsewhere"), "origin").unwrap();
    let mut held = Vec::new();
    for number in 0..6 {
        held.push(bytes(&edge, &format!("/live/talk/mp3-64/s{number}.mp3")).await);
    }
    edge.stop().await;
    // Origin is gone, and nobody tells this edge of the event: only the disk knows it.
    let edge = Edge::start(directory.path(), 0, |_| {});
    for (number, held) in held.iter().enumerate() {
        let read = bytes(&edge, &format!("/live/talk/mp3-64/s{number}.mp3")).await;
        assert!(read == *held, "segment {number}");
        let tag = mp3::parse_id3(&read).unwrap().unwrap();
        let records: Vec<_> = tag.private.iter().map(|(owner, _)| *owner).collect();
        // The record of a segment comes with the next one.
        assert_eq!(records, if number == 0 { vec![] } else { vec!["urn:minassa:chain:1"] });
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_playlist_slides_and_its_segments_stay() {
    let (_directory, mut studio, edge) = on_air(300).await;
    let live = playlist(&edge, "/live/talk/opus-24.m3u8").await;
    assert_eq!((live.media_sequence, live.segments.len()), (37 - 15, 15));
    assert_eq!(
        live.segments[0].program_date_time,
        doors().plus(PartNumber::new(22 * 8).start().to_duration())
    );
    studio.air_silence(8);
    studio.heard_by("edge-0").await;
    let live = playlist(&edge, "/live/talk/opus-24.m3u8").await;
    assert_eq!(live.media_sequence, 23);
    // The window has lost the first; the recording has it.
    for number in [0, 5, 22, 37] {
        let first = number * 8;
        let segment = bytes(&edge, &format!("/live/talk/opus-24/s{number}.m4s")).await;
        assert!(segment == studio.joined(Rendition::Opus24, first..first + 8));
    }
    let response = edge.get_file("/live/talk/opus-24.m3u8").await;
    assert_eq!(response.header("cache-control"), "public, max-age=1");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_end_the_live_playlist_first_ends_and_then_names_everything() {
    let (directory, mut studio, edge) = on_air(300).await;
    studio.end();
    let ended = async {
        loop {
            let live = playlist(&edge, "/live/talk/opus-24.m3u8").await;
            assert!(live.media_sequence >= 22, "it never goes back under those who play it");
            if live.ended {
                return live;
            }
            tokio::task::yield_now().await;
        }
    };
    let live = tokio::time::timeout(NEVER, ended).await.unwrap();
    // The last one is short: 300 parts are 37 segments and a half.
    assert_eq!((live.media_sequence, live.segments.len()), (38 - 15, 15));
    // Whoever comes now gets everything.
    let index =
        MultivariantPlaylist::parse(&edge.get_file("/live/talk/index.m3u8").await.text().await).unwrap();
    let whole = playlist(&edge, &format!("/live/talk/{}", index.variants[0].uri)).await;
    assert_eq!((whole.media_sequence, whole.segments.len(), whole.ended), (0, 38, true));
    edge.stop().await;
    // An edge that nobody played from has nobody to lead to the end.
    let edge = Edge::start(directory.path(), 0, |_| {});
    let whole = playlist(&edge, "/live/talk/opus-24.m3u8").await;
    assert_eq!((whole.media_sequence, whole.segments.len(), whole.ended), (0, 38, true));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_its_proper_answer() {
    let (directory, studio, edge) = on_air(20).await;
    let part = |number: &str| format!("/live/talk/opus-48/{number}.m4s");
    let init = mp4::init_name(&mp4::opus_init());
    for (method, path, status, kind) in [
        ("GET", "/", 404, "not-found"),
        ("GET", "/live/talk", 404, "not-found"),
        ("GET", "/live/talk/../../etc/passwd", 404, "not-found"),
        ("GET", "/live/none/index.m3u8", 404, "unknown-event"),
        ("GET", "/live/No/index.m3u8", 404, "unknown-event"),
        ("GET", "/e/none/recording.mp3", 404, "unknown-event"),
        ("GET", "/live/talk/flac.m3u8", 404, "unknown-rendition"),
        ("GET", "/live/talk/opus-48/init-0123456789abcdef.mp4", 404, "not-found"),
        // The next two are about to come, and are waited for.
        ("GET", &part("22"), 404, "future-part"),
        ("GET", &part("18446744073709551615"), 404, "future-part"),
        ("GET", &part("18446744073709551616"), 400, "invalid-value"),
        ("GET", &part("-1"), 400, "invalid-value"),
        ("GET", &part("latest"), 400, "invalid-value"),
        ("GET", &part("s2"), 404, "future-part"),
        ("GET", &part("s18446744073709551615"), 404, "future-part"),
        ("GET", &part("sx"), 400, "invalid-value"),
        ("GET", "/live/talk/opus-48.m3u8?_HLS_part=3", 400, "invalid-value"),
        ("GET", "/live/talk/opus-48.m3u8?_HLS_msn=x", 400, "invalid-value"),
        // Two whole segments, so that 0 to 3 may be asked for.
        ("GET", "/live/talk/opus-48.m3u8?_HLS_msn=4", 400, "future-part"),
        ("GET", "/live/talk/opus-48.m3u8?_HLS_msn=3&_HLS_part=8", 400, "future-part"),
        ("GET", "/live/talk/opus-48.m3u8?_HLS_msn=18446744073709551615&_HLS_part=9", 400, "future-part"),
        ("GET", "/e/talk/clip", 400, "invalid-value"),
        ("GET", "/e/talk/clip?from=2&to=1", 400, "invalid-value"),
        ("GET", "/e/talk/clip?from=NaN&to=1", 400, "invalid-value"),
        ("GET", "/e/talk/clip?from=100000&to=100001", 404, "no-recording"),
        ("GET", "/t/forged/live/talk/index.m3u8", 403, "ticket"),
        ("POST", "/e/talk/recording.mp3", 405, "method"),
    ] {
        let response = request(edge.files, method, path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("access-control-allow-origin"), "*");
        let seldom =
            if path.starts_with("/live/talk/opus-48/init") { "public, max-age=300" } else { "no-store" };
        let expected =
            if kind == "future-part" || path.contains("none/") { "public, max-age=1" } else { seldom };
        assert_eq!(response.header("cache-control"), expected, "{path}");
        let problem: serde_json::Value = serde_json::from_slice(&response.all().await).unwrap();
        assert_eq!(problem["type"], format!("urn:minassa:problem:{kind}"), "{method} {path}");
    }
    for path in [&format!("/live/talk/opus-24/{init}"), "/live/talk/index.m3u8", "/e/talk/recording.mp3"] {
        let head = request(edge.files, "HEAD", path, &[]).await;
        let got = edge.get_file(path).await;
        assert_eq!((head.status, got.status), (200, 200), "{path}");
        for name in ["content-length", "content-type", "etag"] {
            assert_eq!(head.header(name), got.header(name), "{path} {name}");
        }
    }
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200)] {
        assert_eq!(edge.get_file(path).await.status, status);
    }
    edge.stop().await;

    // A part that was lost for good is gone, not to come.
    std::fs::remove_dir_all(archive::event_directory(directory.path(), &studio.event)).unwrap();
    let hole = TempDir::new().unwrap();
    let mut studio = Studio::new(hole.path(), "talk");
    let edge = Edge::start(hole.path(), 0, |_| {});
    studio.air_silence(300);
    studio.heard_by("edge-0").await;
    std::fs::remove_dir_all(archive::event_directory(hole.path(), &studio.event)).unwrap();
    assert_eq!(edge.get_file("/live/talk/opus-48/299.m4s").await.status, 200);
    assert_eq!(edge.get_file("/live/talk/opus-48/3.m4s").await.status, 410);
    edge.stop().await;
}

/// Waits until so many requests for playlists are held.
async fn held(edge: &Edge, count: u64) {
    let held = async {
        while edge.figure("minassa_edge_held_requests").await != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, held).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_playlist_before_its_first_segment_is_answered_when_that_is_there() {
    let (_directory, mut studio, edge) = on_air(7).await;
    let files = edge.files;
    let early = Rendition::ALL.map(|rendition| {
        tokio::spawn(async move { get(files, &format!("/live/talk/{rendition}.m3u8"), &[]).await })
    });
    held(&edge, 3).await;
    studio.air_silence(1);
    for early in early {
        let response = early.await.unwrap();
        assert_eq!((response.status, response.header("cache-control")), (200, "public, max-age=1"));
        assert_eq!(MediaPlaylist::parse(&response.text().await).unwrap().segments.len(), 1);
    }
    held(&edge, 0).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_wait_for_a_first_segment_and_none_of_them_when_the_doors_close() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.held_max = 8);
    studio.air_silence(7);
    studio.heard_by("edge-0").await;
    let files = edge.files;
    let waiting: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { get(files, "/live/talk/opus-48.m3u8", &[]).await }))
        .collect();
    held(&edge, 8).await;
    let told = |response: Response| {
        assert_eq!(response.status, 503);
        assert!(
            ["2", "3", "4", "5"].contains(&response.header("retry-after")),
            "{}",
            response.header("retry-after")
        );
        assert_eq!(response.header("cache-control"), "no-store");
    };
    told(edge.get_file("/live/talk/opus-48.m3u8").await);
    held(&edge, 8).await;
    assert_eq!(edge.figure("minassa_edge_held_requests_refused_total").await, 1);
    edge.stop().await;
    for response in waiting {
        told(response.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_playlist_whose_first_segment_does_not_come_says_when_to_come_back() {
    let (_directory, _studio, edge) = on_air(7).await;
    // Held for five seconds, and let go by itself.
    let early = edge.get_file("/live/talk/opus-48.m3u8").await;
    assert_eq!(early.status, 503);
    assert!(["2", "3", "4", "5"].contains(&early.header("retry-after")), "{}", early.header("retry-after"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_have_ranges_and_validators() {
    let (_directory, mut studio, edge) = on_air(0).await;
    studio.air(tone().into_iter().take(16));
    studio.heard_by("edge-0").await;
    studio.end();
    for file in ["recording.opus-48.mp4", "recording.ogg", "recording.mp3", "clip?from=1&to=3.5"] {
        let path = format!("/e/talk/{file}");
        let whole = edge.get_file(&path).await;
        assert_eq!((whole.status, whole.header("accept-ranges")), (200, "bytes"), "{file}");
        let etag = whole.header("etag").to_owned();
        assert!(etag.starts_with('"'), "strong: {etag}");
        let whole = whole.all().await;
        let length = whole.len();
        let last = length - 1;
        for (range, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=0-", Some(0..length)),
            ("bytes=100-299", Some(100..300)),
            ("bytes=-100", Some(length - 100..length)),
            (&format!("bytes={last}-"), Some(last..length)),
            (&format!("bytes={last}-999999999999"), Some(last..length)),
            (&format!("bytes={length}-"), None),
            ("bytes=-0", None),
        ] {
            let response = get(edge.files, &path, &[("Range", range)]).await;
            match expected {
                Some(expected) => {
                    assert_eq!(response.status, 206, "{file} {range}");
                    let said = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
                    assert_eq!(response.header("content-range"), said);
                    assert!(response.all().await == whole[expected], "{file} {range}");
                }
                None => {
                    assert_eq!(response.status, 416, "{file} {range}");
                    assert_eq!(response.header("content-range"), format!("bytes */{length}"));
                }
            }
        }
        for ignored in ["bytes=5-1", "bytes=x", "chapters=1-2", "bytes=0-1,4-5"] {
            let response = get(edge.files, &path, &[("Range", ignored)]).await;
            assert_eq!(response.status, 200, "{file} {ignored}");
            assert!(response.all().await == whole);
        }
        for (headers, status) in [
            ([("Range", "bytes=0-1"), ("If-Range", etag.as_str())], 206),
            ([("Range", "bytes=0-1"), ("If-Range", "\"else\"")], 200),
            ([("Range", "bytes=0-1"), ("If-None-Match", etag.as_str())], 304),
            ([("Range", "bytes=0-1"), ("If-None-Match", "\"else\"")], 206),
        ] {
            let response = get(edge.files, &path, &headers).await;
            assert_eq!(response.status, status, "{file} {headers:?}");
            assert_eq!(response.header("etag"), etag);
        }
        let head = request(edge.files, "HEAD", &path, &[("Range", "bytes=10-19")]).await;
        assert_eq!(head.status, 200, "only a GET has ranges");
        assert_eq!(head.header("content-length"), length.to_string());
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_event_downloads_are_what_is_recorded_so_far() {
    let (_directory, mut studio, edge) = on_air(10).await;
    let first = edge.get_file("/e/talk/recording.mp3").await;
    assert_eq!((first.status, first.header("cache-control")), (200, "no-store"));
    let etag = first.header("etag").to_owned();
    assert!(first.all().await.ends_with(&studio.joined(Rendition::Mp3_64, 0..10)));
    studio.air_silence(10);
    studio.end();
    let grown = async {
        loop {
            let response = edge.get_file("/e/talk/recording.mp3").await;
            if response.header("etag") != etag {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    let grown = tokio::time::timeout(NEVER, grown).await.unwrap();
    assert!(grown.all().await.ends_with(&studio.joined(Rendition::Mp3_64, 0..20)));
    let replay = playlist(&edge, "/e/talk/recording.opus-48.m3u8").await;
    assert!(replay.ended);
    for segment in replay.segments {
        bytes(&edge, &segment.uri).await;
    }
    let index =
        MultivariantPlaylist::parse(&edge.get_file("/e/talk/recording.m3u8").await.text().await).unwrap();
    for variant in index.variants {
        playlist(&edge, &format!("/e/talk/{}", variant.uri)).await;
    }
    edge.stop().await;
}
