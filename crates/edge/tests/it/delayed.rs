//! The delayed feed at the files door, with real processes' parts: a bus, a recording and an edge.

use crate::common::*;
use formats::hls::{MediaPlaylist, MultivariantPlaylist};
use formats::mp3;
use model::{PartNumber, Rendition};

const FOR_EVER: &str = "public, max-age=31536000, immutable";
const SOON: &str = "public, max-age=1, stale-while-revalidate=1";
const PLAYLIST: &str = "public, max-age=4, stale-while-revalidate=8, stale-if-error=300";
/// Parts in a segment.
const PARTS: usize = 32;

async fn playlist(edge: &Edge, rendition: Rendition) -> (MediaPlaylist, String) {
    let response = edge.get_file(&format!("/live/talk/delayed/{rendition}.m3u8")).await;
    assert_eq!((response.status, response.header("content-type")), (200, "application/vnd.apple.mpegurl"));
    assert!(!response.headers.contains_key("vary"), "one copy for everybody");
    let control = response.header("cache-control").to_owned();
    (MediaPlaylist::parse(&response.text().await).unwrap(), control)
}

/// A segment, its validator first.
async fn segment(edge: &Edge, uri: &str) -> (String, Vec<u8>) {
    let response = edge.get_file(&format!("/live/talk/delayed/{uri}")).await;
    assert_eq!((response.status, response.header("cache-control")), (200, FOR_EVER), "{uri}");
    let etag = response.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() == 34, "{etag}");
    (etag, response.all().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_same_from_the_window_from_the_disk_and_at_every_edge() {
    let (directory, mut studio, edge) = on_air(0).await;
    // Before a segment is whole there is nothing, which caches may say for a moment.
    for path in ["delayed.m3u8", "delayed/opus-48.m3u8", "delayed/mp3-64.m3u8"] {
        let early = edge.get_file(&format!("/live/talk/{path}")).await;
        assert_eq!((early.status, early.header("cache-control")), (503, SOON), "{path}");
        assert!(early.header("retry-after").parse::<u64>().is_ok());
    }
    studio.air(tone().into_iter().take(60));
    studio.air_silence(52);
    studio.heard_by("edge-0").await;
    let index = edge.get_file("/live/talk/delayed.m3u8").await;
    assert_eq!((index.status, index.header("cache-control")), (200, "public, max-age=5"));
    let index = MultivariantPlaylist::parse(&index.text().await).unwrap();
    let names: Vec<_> = index.variants.iter().map(|variant| variant.uri.as_str()).collect();
    assert_eq!(names, ["delayed/opus-48.m3u8", "delayed/opus-24.m3u8", "delayed/mp3-64.m3u8"]);

    let mut seen = Vec::new();
    for rendition in Rendition::ALL {
        let (live, control) = playlist(&edge, rendition).await;
        assert_eq!((live.media_sequence, live.segments.len(), live.ended), (0, 3, false));
        assert_eq!(control, PLAYLIST);
        if let Some(init) = &live.init_uri {
            let init = edge.get_file(&format!("/live/talk/delayed/{init}")).await;
            assert_eq!((init.status, init.header("cache-control")), (200, FOR_EVER));
        }
        for (number, listed) in live.segments.iter().enumerate() {
            let (etag, bytes) = segment(&edge, &listed.uri).await;
            let audio = if rendition.is_cmaf() {
                &bytes[..]
            } else {
                let tag = mp3::parse_id3(&bytes).unwrap().expect("a tag");
                let first = PartNumber::new((number * PARTS) as u64);
                assert_eq!(tag.timestamp, Some(first.start().samples() * 90_000 / 48_000));
                // One for each of the segments that it is made of; the very first has none.
                assert_eq!(tag.private.len(), if number == 0 { 3 } else { 4 });
                &bytes[tag.length..]
            };
            let first = number * PARTS;
            assert!(*audio == studio.joined(rendition, first..first + PARTS)[..], "{}", listed.uri);
            seen.push((listed.uri.clone(), etag, bytes));
        }
    }
    // Another edge, and one that only has the disk, with the same validators.
    let other = Edge::start(directory.path(), 1, |_| {});
    studio.heard_by("edge-1").await;
    for (uri, etag, bytes) in &seen {
        assert!(segment(&other, uri).await == (etag.clone(), bytes.clone()), "{uri}");
    }
    other.stop().await;
    edge.stop().await;
    studio.bus = backend::bus::UnixBus::bind(&directory.path().join("run/elsewhere"), "origin").unwrap();
    let disk = Edge::start(directory.path(), 0, |_| {});
    for (uri, etag, bytes) in &seen {
        assert!(segment(&disk, uri).await == (etag.clone(), bytes.clone()), "{uri}");
    }
    disk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_a_segment_is_read_shares_the_read() {
    let (directory, studio, edge) = on_air(64).await;
    edge.stop().await;
    drop(studio);
    let edge = Edge::start(directory.path(), 0, |_| {});
    // It is open, so that what follows is only the segment.
    assert_eq!(edge.get_file("/e/talk/recording.m3u8").await.status, 200);
    let (reads, shared) = ("minassa_edge_disk_reads_total", "minassa_edge_shared_reads_total");
    let before = (edge.figure(reads).await, edge.figure(shared).await);
    let all = (0..50).map(|_| segment(&edge, "opus-48/1.m4s"));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|one| *one == all[0]));
    // Whoever came while it was read has it from that read; how many did is up to the machine.
    let after = (edge.figure(reads).await, edge.figure(shared).await);
    assert_eq!((after.0 - before.0) + (after.1 - before.1), 50);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_end_it_ends_and_an_edge_that_was_not_there_has_it_whole() {
    let (directory, mut studio, edge) = on_air(300).await;
    let (live, _) = playlist(&edge, Rendition::Opus24).await;
    // 37 segments and a half; of the last fifteen, three times four.
    assert_eq!((live.media_sequence, live.segments.len()), (6, 3));
    studio.end();
    let ended = async {
        loop {
            let (live, control) = playlist(&edge, Rendition::Opus24).await;
            assert!(live.media_sequence >= 6, "it never goes back under those who play it");
            assert_eq!(control, PLAYLIST);
            if live.ended {
                return live;
            }
            tokio::task::yield_now().await;
        }
    };
    let live = tokio::time::timeout(NEVER, ended).await.unwrap();
    // 300 parts are nine segments and 12 parts.
    assert_eq!((live.media_sequence, live.segments.len()), (6, 4));
    assert_eq!(live.segments[3].duration.as_millis(), 12 * 480);
    let (_, last) = segment(&edge, "opus-24/9.m4s").await;
    assert!(last == studio.joined(Rendition::Opus24, 288..300));
    edge.stop().await;
    let edge = Edge::start(directory.path(), 0, |_| {});
    let (whole, control) = playlist(&edge, Rendition::Opus24).await;
    assert_eq!((whole.media_sequence, whole.segments.len(), whole.ended), (0, 10, true));
    assert_eq!(control, "public, max-age=300");
    assert_eq!(whole.segments[6..], live.segments[..], "under the numbers that they had");
    let mut bytes = Vec::new();
    for listed in &whole.segments {
        bytes.extend(segment(&edge, &listed.uri).await.1);
    }
    assert!(bytes == studio.joined(Rendition::Opus24, 0..300));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_its_proper_answer() {
    let (_directory, _studio, edge) = on_air(40).await;
    for (method, path, status, kind, control) in [
        ("GET", "/live/none/delayed.m3u8", 404, "unknown-event", "public, max-age=1"),
        ("GET", "/live/No/delayed.m3u8", 404, "unknown-event", "no-store"),
        ("GET", "/live/talk/delayed", 404, "not-found", "no-store"),
        ("GET", "/live/talk/delayed/flac.m3u8", 404, "unknown-rendition", "no-store"),
        ("GET", "/live/talk/delayed/opus-48/init-0.mp4", 404, "not-found", "public, max-age=300"),
        ("GET", "/live/talk/delayed/opus-48/1.m4s", 404, "future-part", "public, max-age=1"),
        (
            "GET",
            "/live/talk/delayed/opus-48/18446744073709551615.m4s",
            404,
            "future-part",
            "public, max-age=1",
        ),
        ("GET", "/live/talk/delayed/opus-48/01.m4s", 400, "invalid-value", "no-store"),
        ("GET", "/t/forged/live/talk/delayed.m3u8", 404, "not-found", "no-store"),
        ("POST", "/live/talk/delayed.m3u8", 405, "method", "no-store"),
    ] {
        let response = request(edge.files, method, path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("cache-control"), control, "{path}");
        let problem: serde_json::Value = serde_json::from_slice(&response.all().await).unwrap();
        assert_eq!(problem["type"], format!("urn:minassa:problem:{kind}"), "{method} {path}");
    }
    // Whatever the query and the accepted codings, it is one file.
    let plain = edge.get_file("/live/talk/delayed/opus-48.m3u8").await;
    let etag = plain.header("etag").to_owned();
    let gzip = [("accept-encoding", "gzip, br")];
    let asked = get(edge.files, "/live/talk/delayed/opus-48.m3u8?_HLS_msn=99&replay", &gzip).await;
    assert_eq!((asked.status, asked.header("content-encoding"), asked.header("etag")), (200, "", &*etag));
    assert_eq!(asked.all().await, plain.all().await);
    let path = "/live/talk/delayed/opus-48/0.m4s";
    let (etag, whole) = segment(&edge, "opus-48/0.m4s").await;
    let head = request(edge.files, "HEAD", path, &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, &*whole.len().to_string()));
    assert_eq!((head.header("etag"), head.header("cache-control")), (&*etag, FOR_EVER));
    let some = get(edge.files, path, &[("range", "bytes=100-199")]).await;
    assert_eq!(some.status, 206);
    assert_eq!(some.header("content-range"), format!("bytes 100-199/{}", whole.len()));
    assert_eq!(some.all().await, whole[100..200]);
    let same = get(edge.files, path, &[("if-none-match", &*etag)]).await;
    assert_eq!((same.status, same.header("etag")), (304, &*etag));
    edge.stop().await;
}
