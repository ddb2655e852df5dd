//! Low latency HLS at the files door: parts, hints, blocking reloads, and what they cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::*;
use formats::hls::{LowLatency, MediaPlaylist};
use formats::mp3;
use model::{PartNumber, Rendition};
use tokio::task::JoinHandle;

const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Six target durations.
const AWAITED: &str = "public, max-age=24";
/// A request is held for a little less than three target durations.
const HELD_FOR: Duration = Duration::from_millis(11_500);

async fn read(response: Response) -> (MediaPlaylist, LowLatency) {
    assert_eq!((response.status, response.header("content-type")), (200, "application/vnd.apple.mpegurl"));
    let playlist = MediaPlaylist::parse(&response.text().await).unwrap();
    let low = playlist.low_latency.clone().expect("parts");
    (playlist, low)
}

/// Asks for something that is not there yet.
fn ask(edge: &Edge, path: &str) -> JoinHandle<Response> {
    let (files, path) = (edge.files, path.to_owned());
    tokio::spawn(async move { get(files, &path, &[]).await })
}

/// Asks for something that will be there once the test gets to it, which on a busy machine may take longer than a request
/// is held: who was let go for that, and for nothing else, asks again.
fn ask_on(edge: &Edge, path: &str) -> JoinHandle<Response> {
    let (files, path) = (edge.files, path.to_owned());
    tokio::spawn(async move {
        loop {
            let begun = Instant::now();
            let response = get(files, &path, &[]).await;
            if response.status != 503 || begun.elapsed() < HELD_FOR {
                return response;
            }
        }
    })
}

/// Waits until so many requests are held.
async fn held(edge: &Edge, count: u64) {
    const HELD: &str = "minassa_edge_held_requests";
    let held = async {
        while edge.figure(HELD).await != count {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(NEVER, held).await;
    assert!(waited.is_ok(), "{} are held and not {count}", edge.figure(HELD).await);
}

/// The number of a part from its address.
fn number_in(uri: &str) -> u64 {
    let digits: String = uri.rsplit('/').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    digits.strip_suffix(if uri.ends_with(".m4s") { "4" } else { "3" }).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listed_part_is_served_and_makes_up_its_segment() {
    let (directory, mut studio, edge) = on_air(0).await;
    studio.air(tone().into_iter().take(29));
    studio.heard_by("edge-0").await;
    let mut edge = edge;
    for stage in ["live", "restarted, from the disk alone"] {
        for rendition in Rendition::ALL {
            let (first, last) = if stage == "live" {
                let response = edge.get_file(&format!("/live/talk/{rendition}.m3u8")).await;
                assert_eq!(response.header("cache-control"), "public, max-age=1");
                let (playlist, low) = read(response).await;
                assert_eq!((playlist.media_sequence, playlist.segments.len()), (0, 3));
                let numbers: Vec<u64> = low.parts.iter().map(|part| number_in(&part.uri)).collect();
                assert_eq!(numbers, (8..29).collect::<Vec<_>>());
                assert_eq!(number_in(&low.preload_hint.unwrap()), 29);
                (8, 29)
            } else {
                (0, 29)
            };
            for number in first..last {
                let name =
                    if rendition.is_cmaf() { format!("{number}.m4s") } else { format!("p{number}.mp3") };
                let response = edge.get_file(&format!("/live/talk/{rendition}/{name}")).await;
                assert_eq!(
                    (response.status, response.header("cache-control")),
                    (200, FOR_EVER),
                    "{stage} {name}"
                );
                let bytes = response.all().await;
                let aired = &studio.parts[number].payload(rendition).bytes[..];
                if rendition.is_cmaf() {
                    assert!(bytes == aired, "{stage} {rendition} {number}");
                } else {
                    // Each by itself is packed audio, which begins with the time of its first sample.
                    let tag = mp3::parse_id3(&bytes).unwrap().expect("a tag");
                    let start = PartNumber::new(number as u64).start().samples() * 90_000 / 48_000;
                    assert_eq!(tag.timestamp, Some(start));
                    assert!(bytes[tag.length..] == *aired, "{stage} {number}");
                    // With the first of a segment comes what signs the segment before.
                    assert_eq!(tag.private.len(), usize::from(number % 8 == 0 && number > 0), "{number}");
                }
            }
        }
        if stage == "live" {
            edge.stop().await;
            studio.bus =
                backend::bus::UnixBus::bind(&directory.path().join("run/elsewhere"), "origin").unwrap();
            edge = Edge::start(directory.path(), 0, |_| {});
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_and_hinted_parts_are_answered_when_their_part_is_there() {
    let (_directory, mut studio, edge) = on_air(20).await;
    // What is there needs no waiting; the playlist is whole however old the part is that was asked for.
    for asked in
        ["_HLS_msn=0", "_HLS_msn=2&_HLS_part=3", "_HLS_msn=1&_HLS_part=9", "x=1&_HLS_msn=1&_HLS_skip=YES"]
    {
        let response = edge.get_file(&format!("/live/talk/opus-48.m3u8?{asked}")).await;
        assert_eq!(response.header("cache-control"), AWAITED);
        assert_eq!(read(response).await.0.segments.len(), 2, "{asked}");
    }
    let next = Rendition::ALL
        .map(|rendition| ask_on(&edge, &format!("/live/talk/{rendition}.m3u8?_HLS_msn=2&_HLS_part=4")));
    let hinted = Rendition::ALL.map(|rendition| {
        let name = if rendition.is_cmaf() { "20.m4s" } else { "p20.mp3" };
        (rendition, ask_on(&edge, &format!("/live/talk/{rendition}/{name}")))
    });
    let whole = ask_on(&edge, "/live/talk/opus-24.m3u8?_HLS_msn=2");
    let beyond = ask_on(&edge, "/live/talk/opus-24.m3u8?_HLS_msn=2&_HLS_part=8");
    held(&edge, 8).await;
    studio.air_silence(1);
    for next in next {
        let response = next.await.unwrap();
        assert_eq!(response.header("cache-control"), AWAITED);
        let (_, low) = read(response).await;
        assert_eq!(number_in(&low.parts.last().unwrap().uri), 20);
        assert_eq!(number_in(&low.preload_hint.unwrap()), 21);
    }
    for (rendition, part) in hinted {
        let response = part.await.unwrap();
        assert_eq!((response.status, response.header("cache-control")), (200, FOR_EVER), "{rendition}");
        assert!(response.all().await.ends_with(&studio.parts[20].payload(rendition).bytes), "{rendition}");
    }
    held(&edge, 2).await;
    studio.air_silence(3);
    assert_eq!(read(whole.await.unwrap()).await.0.segments.len(), 3);
    held(&edge, 1).await;
    // A segment of which the last part is about to come is waited for too: another edge may list it already.
    studio.air_silence(6);
    assert_eq!(read(beyond.await.unwrap()).await.0.segments.len(), 3);
    // The first of the six answered; without the last the segment's end is too far to be waited for.
    studio.heard_by("edge-0").await;
    let segment = ask_on(&edge, "/live/talk/opus-48/s3.m4s");
    held(&edge, 1).await;
    studio.air_silence(2);
    assert!(segment.await.unwrap().all().await == studio.joined(Rendition::Opus48, 24..32));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_answers_everybody_who_waits() {
    let (_directory, mut studio, edge) = on_air(20).await;
    let reload = ask_on(&edge, "/live/talk/opus-48.m3u8?_HLS_msn=2&_HLS_part=4");
    let hinted = ask_on(&edge, "/live/talk/opus-48/20.m4s");
    held(&edge, 2).await;
    studio.end();
    let response = reload.await.unwrap();
    // What follows from the end will say more soon.
    assert_eq!(response.header("cache-control"), "public, max-age=1");
    let (playlist, low) = read(response).await;
    assert!(playlist.ended && low.preload_hint.is_none() && low.reports.is_empty());
    assert_eq!(playlist.segments.len(), 3);
    let never = hinted.await.unwrap();
    assert_eq!((never.status, never.header("cache-control")), (404, "public, max-age=1"));
    // After the end directives do not count, however far they reach.
    for asked in ["_HLS_msn=2&_HLS_part=4", "_HLS_msn=1000000"] {
        let (playlist, _) = read(edge.get_file(&format!("/live/talk/opus-48.m3u8?{asked}")).await).await;
        assert!(playlist.ended);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_come_is_let_go_within_three_target_durations() {
    let (_directory, _studio, edge) = on_air(20).await;
    let begun = Instant::now();
    let waiting =
        ["opus-48.m3u8?_HLS_msn=2&_HLS_part=4", "mp3-64.m3u8?_HLS_msn=3", "opus-24/20.m4s", "mp3-64/p21.mp3"]
            .map(|path| ask(&edge, &format!("/live/talk/{path}")));
    for response in waiting {
        let response = response.await.unwrap();
        assert_eq!((response.status, response.header("retry-after")), (503, "1"));
        assert_eq!(response.header("cache-control"), "no-store");
    }
    println!("let go after {:.2} s; three target durations are 12 s", begun.elapsed().as_secs_f64());
    held(&edge, 0).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_waits_holds_up_a_shutdown() {
    let (_directory, _studio, edge) = on_air(20).await;
    let reload = ask(&edge, "/live/talk/opus-48.m3u8?_HLS_msn=2&_HLS_part=4");
    let hinted = ask(&edge, "/live/talk/opus-48/20.m4s");
    held(&edge, 2).await;
    edge.stop().await;
    for response in [reload, hinted] {
        assert_eq!(response.await.unwrap().status, 503);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_restarts_goes_on_where_its_players_are() {
    let (directory, mut studio, edge) = on_air(300).await;
    let (before, low) = read(edge.get_file("/live/talk/opus-48.m3u8").await).await;
    assert_eq!((before.media_sequence, low.parts.len()), (22, 20));
    edge.stop().await;
    // Players ask before the window is filled, and are answered from what they have on.
    let edge = Edge::start(directory.path(), 0, |_| {});
    let reload = ask(&edge, "/live/talk/opus-48.m3u8?_HLS_msn=37&_HLS_part=4");
    let plain = ask(&edge, "/live/talk/opus-48.m3u8");
    studio.heard_by("edge-0").await;
    assert_eq!(read(plain.await.unwrap()).await.0, before);
    held(&edge, 1).await;
    studio.air_silence(1);
    let (after, low) = read(reload.await.unwrap()).await;
    assert_eq!((after.media_sequence, number_in(&low.parts.last().unwrap().uri)), (22, 300));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playlists_are_compressed_for_those_who_take_it_so() {
    let (_directory, mut studio, edge) = on_air(300).await;
    let gzip = [("Accept-Encoding", "gzip, deflate, br")];
    for stage in ["live", "ended"] {
        let mut said = String::new();
        for path in
            ["/live/talk/opus-48.m3u8", "/live/talk/opus-48.m3u8?replay", "/e/talk/recording.opus-48.m3u8"]
        {
            let plain = edge.get_file(path).await;
            let zipped = get(edge.files, path, &gzip).await;
            for name in ["content-type", "cache-control", "vary"] {
                assert_eq!(plain.header(name), zipped.header(name));
            }
            assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
            assert_eq!(zipped.header("content-encoding"), "gzip");
            let (plain, zipped) = (plain.text().await, zipped.all().await);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&zipped[..]), &mut text).unwrap();
            assert_eq!(text, plain, "{stage} {path}");
            said.push_str(&format!(" {} of {}", zipped.len(), plain.len()));
        }
        println!("{stage}, bytes compressed:{said}");
        if stage == "live" {
            studio.end();
            while !edge.get_file("/live/talk/opus-48.m3u8?replay").await.text().await.contains("VOD") {
                tokio::task::yield_now().await;
            }
        }
    }
    edge.stop().await;
}

/// Processor time of this process so far, and its memory in bytes.
fn spent() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let pages: u64 = fields[21].parse().unwrap();
    (Duration::from_millis(ticks * 10), pages * 4_096)
}

/// A thousand connections that each wait for the next part: one playlist is rendered, however many wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_wait_are_answered_with_one_playlist() {
    const WAITING: u64 = 1_000;
    const ROUNDS: u64 = 4;
    let (_directory, mut studio, edge) = on_air(20).await;
    let (_, memory) = spent();
    for round in 0..ROUNDS {
        let path: Arc<str> =
            format!("/live/talk/opus-48.m3u8?_HLS_msn={}&_HLS_part={}", (20 + round) / 8, (20 + round) % 8)
                .into();
        let waiting: Vec<_> = (0..WAITING).map(|_| ask_on(&edge, &path)).collect();
        held(&edge, WAITING).await;
        let rendered = edge.figure("minassa_edge_rendered_playlists_total").await;
        let ((processor, now), begun) = (spent(), Instant::now());
        studio.air_silence(1);
        let mut answers = Vec::new();
        for waiting in waiting {
            let response = waiting.await.unwrap();
            assert_eq!(response.status, 200);
            answers.push(response.all().await);
        }
        let took = begun.elapsed();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let playlist = MediaPlaylist::parse(std::str::from_utf8(&answers[0]).unwrap()).unwrap();
        let low = playlist.low_latency.unwrap();
        assert_eq!(number_in(&low.parts.last().unwrap().uri), 20 + round);
        assert_eq!(edge.figure("minassa_edge_rendered_playlists_total").await, rendered + 1);
        println!(
            "{WAITING} waiting reloads: all answered {:.0} ms after the part was made, {:.0} µs of processor each with \
             the client's own share, {:.1} KB of memory each with the client's own share",
            took.as_secs_f64() * 1_000.0,
            (spent().0 - processor).as_secs_f64() * 1_000_000.0 / WAITING as f64,
            now.saturating_sub(memory) as f64 / 1_000.0 / WAITING as f64,
        );
    }
    edge.stop().await;
}
