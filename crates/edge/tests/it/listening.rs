//! The push door, with real processes' parts: a bus, a recording and an edge.

use std::time::Duration;

use crate::common::*;
use admission::ticket::{Cell, Class, Ticket, TicketId, Tier};
use backend::bus::Bus as _;
use backend::clock;
use backend::freeze::FrozenEvents;
use backend::wire::{self, Audience, AudienceTotal, Heartbeat, StateRecord};
use bytes::Bytes;
use formats::mp3::icy;
use formats::mp4::{StreamItem, StreamSplitter};
use formats::{mp4, ogg};
use model::{PartNumber, Rendition};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A pushed stream, read.
struct Stream {
    response: Response,
    splitter: StreamSplitter,
    init: Option<Bytes>,
    notices: Vec<serde_json::Value>,
}

impl Stream {
    fn new(response: Response) -> Self {
        assert_eq!(response.status, 200);
        Self { response, splitter: StreamSplitter::new(), init: None, notices: Vec::new() }
    }

    async fn open(edge: &Edge, path: &str) -> Self {
        Self::new(edge.get_push(path).await)
    }

    /// The next part; `None` after the proper end of the response.
    async fn part(&mut self) -> Option<Bytes> {
        loop {
            match self.splitter.next().expect("whole boxes in order") {
                Some(StreamItem::Init(init)) => assert!(self.init.replace(init).is_none(), "one init"),
                Some(StreamItem::Event { scheme, message, .. }) => {
                    assert_eq!(scheme, "urn:minassa:status:1");
                    self.notices.push(serde_json::from_slice(&message).unwrap());
                }
                Some(StreamItem::Part(part)) => return Some(part),
                Some(StreamItem::Other { kind, .. }) => panic!("{kind:?} between parts"),
                None => match self.response.next().await.expect("the response is complete") {
                    Some(bytes) => self.splitter.push(&bytes),
                    None => return None,
                },
            }
        }
    }

    async fn parts(&mut self, count: usize) -> Vec<Bytes> {
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(self.part().await.expect("more parts"));
        }
        parts
    }
}

fn number(part: &Bytes) -> u64 {
    mp4::parse_part(part).unwrap().decode_time.part().get()
}

fn bytes_of(studio: &Studio, rendition: Rendition, range: std::ops::Range<usize>) -> Vec<Bytes> {
    studio.parts[range].iter().map(|part| part.payload(rendition).bytes.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pushed_stream_is_init_parts_and_notices() {
    let (_directory, mut studio, edge) = on_air(20).await;
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?from=0").await;
    for (name, value) in [
        ("content-type", "audio/mp4"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "*"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(stream.response.header(name), value);
    }
    assert_eq!(stream.parts(20).await, bytes_of(&studio, Rendition::Opus48, 0..20));
    assert_eq!(stream.init, Some(mp4::opus_init()));

    studio.air_silence(5);
    assert_eq!(stream.parts(5).await, bytes_of(&studio, Rendition::Opus48, 20..25));

    // The state changes, and is told within two ticks.
    studio.set_state(hold("back soon"));
    while stream.notices.last().is_none_or(|notice| notice["s"] != "hold") {
        studio.air_silence(1);
        stream.part().await.unwrap();
    }
    let notice = stream.notices.last().unwrap();
    assert_eq!(notice["u"], 1_000);
    assert_eq!(notice["m"]["en"], "back soon");
    let end_ms = |parts: u64| doors().as_millis() + parts as i64 * 480;
    assert!(notice["t"].as_i64().unwrap() <= end_ms(studio.parts.len() as u64));

    studio.end();
    assert_eq!(stream.part().await, None);
    assert_eq!(*stream.notices.last().unwrap(), serde_json::json!({"s": "ended"}));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_begins_with_a_burst_or_where_it_says() {
    let (_directory, mut studio, edge) = on_air(300).await;
    for (query, first) in [
        ("", 298),
        ("?tier=2", 297),
        ("?tier=4", 295),
        ("?tier=8", 291),
        ("?from=250", 250),
        ("?from=250&tier=8", 250),
        ("?from=0", 44),
    ] {
        let mut stream = Stream::open(&edge, &format!("/live/talk/opus-24.mp4{query}")).await;
        let parts = stream.parts(300 - first).await;
        assert_eq!(parts, bytes_of(&studio, Rendition::Opus24, first..300), "{query}");
    }
    let mut waiting = Stream::open(&edge, "/live/talk/opus-24.mp4?from=300").await;
    let mut slow = Stream::open(&edge, "/live/talk/opus-24.mp4?from=299&tier=8").await;
    assert_eq!(number(&slow.part().await.unwrap()), 299);
    // Sixteen, since the flushes of a slow tier end somewhere among each eight.
    studio.air_silence(16);
    assert_eq!(waiting.parts(16).await, bytes_of(&studio, Rendition::Opus24, 300..316));
    assert_eq!(slow.parts(8).await, bytes_of(&studio, Rendition::Opus24, 300..308));
    assert_eq!(edge.figure("minassa_edge_skipped_parts_total{why=\"behind\"}").await, 44);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_its_proper_answer() {
    let directory = TempDir::new().unwrap();
    let soon = clock::unix_now().plus(Duration::from_secs(3_600));
    FrozenEvents::open(&directory.path().join("edge/events")).unwrap().freeze(&event("soon", soon)).unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |_| {});
    studio.air_silence(10);
    studio.heard_by("edge-0").await;
    for (method, path, status, kind) in [
        ("GET", "/", 404, "not-found"),
        ("GET", "/live/talk", 404, "not-found"),
        ("GET", "/live/talk/opus-48.webm", 404, "not-found"),
        ("GET", "/live/none/opus-48.mp4", 404, "unknown-event"),
        ("GET", "/live/%2e%2e/opus-48.mp4", 404, "unknown-event"),
        ("GET", "/live/talk/opus-96.mp4", 404, "unknown-rendition"),
        ("GET", "/live/talk/mp3-64.mp4", 404, "unknown-rendition"),
        ("GET", "/live/talk/opus-48.mp4?from=garbage", 400, "invalid-value"),
        ("GET", "/live/talk/opus-48.mp4?from=-1", 400, "invalid-value"),
        ("GET", "/live/talk/opus-48.mp4?tier=3", 400, "invalid-value"),
        ("GET", "/live/talk/opus-48.mp4?from=100000", 400, "future-part"),
        ("GET", "/live/talk/opus-48.mp4?from=18446744073709551615", 400, "future-part"),
        ("HEAD", "/live/talk/opus-48.mp4?from=18446744073709551615", 400, ""),
        ("GET", "/live/soon/opus-48.mp4", 503, "unavailable"),
        ("GET", "/t/forged/live/talk/opus-48.mp4", 403, "ticket"),
        ("GET", "/t//live/talk/opus-48.mp4", 403, "ticket"),
        ("POST", "/live/talk/opus-48.mp4", 405, "method"),
        ("DELETE", "/", 405, "method"),
    ] {
        let response = request(edge.push, method, path, &[("content-length", "0")]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("access-control-allow-origin"), "*");
        assert_eq!(response.header("content-type"), "application/problem+json");
        if status == 503 {
            let seconds: u64 = response.header("retry-after").parse().unwrap();
            assert!((60..65).contains(&seconds), "{seconds}");
        }
        if !kind.is_empty() {
            let problem: serde_json::Value = serde_json::from_slice(&response.all().await).unwrap();
            assert_eq!(problem["type"], format!("urn:minassa:problem:{kind}"), "{method} {path}");
        }
    }
    let head = request(edge.push, "HEAD", "/live/talk/opus-48.mp4", &[]).await;
    assert_eq!((head.status, head.header("content-type")), (200, "audio/mp4"));
    // As the answer to GET: it is endless, not empty.
    assert_eq!((head.header("transfer-encoding"), head.header("content-length")), ("chunked", ""));
    let preflight = request(edge.push, "OPTIONS", "/live/talk/opus-48.mp4", &[]).await;
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-methods")),
        (204, "GET, HEAD, OPTIONS")
    );
    let oversized = request(edge.push, "GET", &format!("/live/{}", "x".repeat(100_000)), &[]).await;
    assert!([414, 431].contains(&oversized.status), "{}", oversized.status);
    assert_eq!(edge.figure("minassa_edge_listeners").await, 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_open_the_door_of_their_event_and_bound_the_tier() {
    let directory = TempDir::new().unwrap();
    let keys = keys(directory.path()).tickets().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |_| {});
    studio.air_silence(20);
    studio.heard_by("edge-0").await;
    let ticket = |event: &str, cell, tier, expires_in: i64| {
        let now = clock::unix_now();
        keys.issue(&Ticket {
            event: event.parse().unwrap(),
            cell: Cell(cell),
            tier: Tier::new(tier).unwrap(),
            class: Class::Holder,
            expires: model::UnixTime::from_millis(now.as_millis() + expires_in * 1_000),
            id: TicketId([3; 8]),
        })
    };
    let path = |ticket: &str, query: &str| format!("/t/{ticket}/live/talk/opus-48.mp4{query}");
    // A ticket of tier 4 begins with five parts, whatever faster tier is asked for.
    for (query, first) in [("", 15), ("?tier=1", 15), ("?tier=8", 11)] {
        let mut stream = Stream::open(&edge, &path(&ticket("talk", 0, 4, 60), query)).await;
        assert_eq!(number(&stream.part().await.unwrap()), first, "{query}");
    }
    let forged = ticket("talk", 0, 1, 60).replace(['A', 'B', 'C', 'D', 'E', 'a', 'b', 'c'], "Z");
    for refused in [ticket("other", 0, 1, 60), ticket("talk", 1, 1, 60), ticket("talk", 0, 1, -60), forged] {
        assert_eq!(edge.get_push(&path(&refused, "")).await.status, 403);
        assert_eq!(edge.get_file(&format!("/t/{refused}/live/talk/index.m3u8")).await.status, 403);
    }
    let listed = edge.get_file(&format!("/t/{}/live/talk/opus-48.m3u8", ticket("talk", 0, 1, 60))).await;
    assert_eq!(listed.status, 200);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_end_the_recording_takes_over() {
    let (_directory, mut studio, edge) = on_air(20).await;
    studio.end();
    // Whoever was cut off just before gets the rest and the last word.
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?from=15").await;
    assert_eq!(stream.parts(5).await, bytes_of(&studio, Rendition::Opus48, 15..20));
    assert_eq!(stream.part().await, None);
    assert_eq!(*stream.notices.last().unwrap(), serde_json::json!({"s": "ended"}));
    let port = edge.files.port();
    for (path, file) in [
        ("opus-48.mp4", "recording.opus-48.mp4"),
        ("opus-24.mp4?tier=8", "recording.opus-24.mp4"),
        ("opus-48.ogg", "recording.ogg"),
        ("mp3-64.mp3", "recording.mp3"),
    ] {
        let response = edge.get_push(&format!("/live/talk/{path}")).await;
        assert_eq!(response.status, 307, "{path}");
        let location = format!("http://listen.example:{port}/e/talk/{file}");
        assert_eq!(response.header("location"), location);
        assert_eq!(edge.get_file(&format!("/e/talk/{file}")).await.status, 200);
    }
    edge.stop().await;

    // An edge that was not there when it happened knows it from origin, or from the disk alone.
    for origin_lives in [true, false] {
        if !origin_lives {
            studio.bus =
                backend::bus::UnixBus::bind(&studio.directory.join("run/elsewhere"), "origin").unwrap();
        }
        let edge = Edge::start(&studio.directory, 0, |_| {});
        assert_eq!(edge.get_push("/live/talk/opus-48.mp4").await.status, 307, "origin lives: {origin_lives}");
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_addresses_are_ogg_and_mp3() {
    let (_directory, mut studio, edge) = on_air(12).await;
    let response = edge.get_push("/live/talk/opus-24.ogg").await;
    assert_eq!(response.header("content-type"), "audio/ogg; codecs=opus");
    let plain = edge.get_push("/live/talk/mp3-64.mp3").await;
    assert_eq!((plain.header("content-type"), plain.header("icy-metaint")), ("audio/mpeg", ""));
    let woven = get(edge.push, "/live/talk/mp3-64.mp3", &[("Icy-MetaData", "1")]).await;
    assert_eq!(woven.header("icy-metaint"), icy::METAINT.to_string());
    studio.air_silence(8);
    studio.heard_by("edge-0").await;
    studio.end();

    let (_, packets) = ogg::read_opus(&response.all().await).unwrap();
    assert_eq!(packets.len(), 18 * model::OPUS_FRAMES_PER_PART);
    assert_eq!(packets[0].position, PartNumber::new(2).start().samples());
    let expected = studio.joined(Rendition::Mp3_64, 2..20);
    assert!(plain.all().await == expected);
    let mut splitter = icy::Splitter::new(icy::METAINT);
    let (mut audio, mut titles) = (Vec::new(), Vec::new());
    splitter.push(&woven.all().await, &mut audio, &mut titles);
    assert!(audio == expected);
    assert_eq!(titles, [""], "the event has no title here, and one block says so");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_when_it_is_full_is_told_so() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.listeners_max = 3);
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4").await;
        stream.part().await.unwrap();
        streams.push(stream);
    }
    for _ in 0..5 {
        let refused = edge.get_push("/live/talk/opus-48.mp4").await;
        assert_eq!((refused.status, refused.header("connection")), (503, "close"));
        let retry_after: u32 = refused.header("retry-after").parse().unwrap();
        assert!((4..=8).contains(&retry_after), "{retry_after}: spread, so that not all come at once");
    }
    assert_eq!(edge.figure("minassa_edge_refused_total{why=\"full\"}").await, 5);
    // Those who listen go on listening.
    studio.air_silence(1);
    for stream in &mut streams {
        while number(&stream.part().await.unwrap()) != 4 {}
    }
    // A place that is given up is free again.
    drop(streams.pop());
    let freed = async {
        while edge.get_push("/live/talk/opus-48.mp4").await.status != 200 {
            studio.air_silence(1);
            tokio::task::yield_now().await;
        }
    };
    timeout(NEVER, freed).await.unwrap();
    edge.stop().await;
}

async fn narrow(edge: &Edge) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(edge.push).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_skips_whole_parts_and_is_counted() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.send_buffer = 16_384);
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    let stream = narrow(&edge).await;
    let mut stream = Stream::new(request_on(stream, "GET", "/live/talk/opus-48.mp4?from=0", &[]).await);
    let mut got = vec![number(&stream.part().await.unwrap())];
    // Three windows pass by while it reads nothing.
    for _ in 0..8 {
        studio.air_silence(100);
        studio.heard_by("edge-0").await;
    }
    studio.end();
    while let Some(part) = stream.part().await {
        let n = number(&part);
        assert_eq!(part, studio.parts[n as usize].payload(Rendition::Opus48).bytes);
        assert!(n > *got.last().unwrap());
        got.push(n);
    }
    assert_eq!(*got.last().unwrap(), 803);
    let skipped = 804 - got.len() as u64;
    assert!(skipped > 200, "{skipped}");
    assert_eq!(edge.figure("minassa_edge_skipped_parts_total{why=\"behind\"}").await, skipped);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_reader_is_closed() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| {
        config.send_buffer = 16_384;
        config.stuck_s = 1;
    });
    studio.air_silence(200);
    studio.heard_by("edge-0").await;
    let stream = narrow(&edge).await;
    let mut stuck = Stream::new(request_on(stream, "GET", "/live/talk/opus-48.mp4?from=0", &[]).await);
    let mut fine = Stream::open(&edge, "/live/talk/opus-48.mp4?from=0").await;
    fine.parts(200).await;
    let closed = async {
        // Each look is a request and its answer; the door closes one second after the last progress.
        while edge.figure("minassa_edge_left_total").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(NEVER, closed).await.unwrap();
    assert_eq!(edge.figure("minassa_edge_listeners").await, 1);
    studio.air_silence(1);
    assert_eq!(number(&fine.part().await.unwrap()), 200);
    // What had been sent is still there to be read; then the connection is gone, without a proper end.
    while stuck.response.next().await.is_ok_and(|bytes| bytes.is_some()) {}
    assert!(stuck.response.next().await.is_err());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_let_go_properly_when_the_edge_stops() {
    let (_directory, mut studio, edge) = on_air(10).await;
    let mut streams = Vec::new();
    for rendition in ["opus-24", "opus-48"].repeat(10) {
        let mut stream = Stream::open(&edge, &format!("/live/talk/{rendition}.mp4?from=9")).await;
        stream.part().await.unwrap();
        streams.push(stream);
    }
    edge.shutdown.cancel();
    studio.air_silence(1);
    for mut stream in streams {
        // Complete boxes, a proper end of the body, and no word of an end of the event.
        while let Some(part) = stream.part().await {
            assert_eq!(number(&part), 10);
        }
        assert!(stream.notices.iter().all(|notice| notice["s"] != "ended"));
    }
    timeout(Duration::from_secs(10), edge.running).await.expect("soon").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_origin_dies_and_comes_back() {
    let (_directory, mut studio, edge) = on_air(10).await;
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?from=0").await;
    stream.parts(10).await;
    studio.restart_bus();
    studio.air_silence(10);
    assert_eq!(stream.parts(10).await, bytes_of(&studio, Rendition::Opus48, 10..20));
    // What it held while origin was away is still there.
    let mut again = Stream::open(&edge, "/live/talk/opus-48.mp4?from=0").await;
    assert_eq!(again.parts(20).await, bytes_of(&studio, Rendition::Opus48, 0..20));
    assert_eq!(edge.figure("minassa_edge_missing_parts_total").await, 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_restarts_is_filled_and_gives_origin_its_window() {
    let (_directory, mut studio, edge) = on_air(200).await;
    edge.stop().await;
    let edge = Edge::start(&studio.directory, 0, |_| {});
    studio.heard_by("edge-0").await;
    // A listener of the edge before asks for what comes next, and gets exactly that.
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?from=150").await;
    assert_eq!(stream.parts(50).await, bytes_of(&studio, Rendition::Opus48, 150..200));
    let held = studio.bus.fetch("edge-0", "window/talk", 0, NEVER).await;
    let held: Vec<_> = held.into_iter().map(|message| wire::decode_part(message.payload).unwrap()).collect();
    assert_eq!(held, studio.parts);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recording_says_that_it_is_over_if_origin_cannot() {
    let (_directory, mut studio, edge) = on_air(10).await;
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?from=0").await;
    stream.parts(10).await;
    // Origin finishes the recording and dies before it can say so.
    studio.bus = backend::bus::UnixBus::bind(&studio.directory.join("run/elsewhere"), "origin").unwrap();
    studio.end();
    assert_eq!(stream.part().await, None);
    assert_eq!(*stream.notices.last().unwrap(), serde_json::json!({"s": "ended"}));
    assert_eq!(edge.get_push("/live/talk/opus-48.mp4").await.status, 307);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_origin_and_control_the_disk_knows_what_should_run() {
    let directory = TempDir::new().unwrap();
    let frozen = FrozenEvents::open(&directory.path().join("edge/events")).unwrap();
    for slug in ["first", "second"] {
        frozen.freeze(&event(slug, clock::unix_now())).unwrap();
    }
    let edge = Edge::start(directory.path(), 0, |config| config.windows_max = 1);
    // The response begins, and says that there is nothing yet; more windows than allowed there are not.
    let mut stream = Stream::open(&edge, "/live/first/opus-48.mp4").await;
    let full = edge.get_push("/live/second/opus-48.mp4").await;
    assert_eq!((full.status, full.header("retry-after")), (503, "2"));
    while stream.notices.is_empty() {
        let bytes = stream.response.next().await.unwrap().unwrap();
        stream.splitter.push(&bytes);
        while let Some(item) = stream.splitter.next().unwrap() {
            if let StreamItem::Event { message, .. } = item {
                stream.notices.push(serde_json::from_slice(&message).unwrap());
            }
        }
    }
    assert_eq!(stream.notices[0]["s"], "scheduled");
    // Origin comes, with an event that nobody had told of.
    let mut studio = Studio::new(directory.path(), "first");
    studio.air_silence(3);
    assert_eq!(stream.parts(2).await.len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_share_their_ports() {
    let (directory, mut studio, first) = on_air(4).await;
    let second = Edge::start_on(directory.path(), 1, first.push, first.files, |_| {});
    studio.heard_by("edge-1").await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(&first, "/live/talk/opus-48.mp4?from=0").await);
    }
    for stream in &mut streams {
        assert_eq!(stream.parts(4).await, bytes_of(&studio, Rendition::Opus48, 0..4));
    }
    // Whoever takes the next call, one of them is enough.
    first.stop().await;
    let mut stream = Stream::open(&second, "/live/talk/opus-48.mp4?from=0").await;
    assert_eq!(stream.parts(4).await, bytes_of(&studio, Rendition::Opus48, 0..4));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_reports_and_tells_what_control_says() {
    let (directory, mut studio, edge) = on_air(10).await;
    let control = backend::bus::UnixBus::bind(&directory.path().join("run/bus"), "control").unwrap();
    let mut heartbeats = control.subscribe("edge-0", "heartbeat", None);
    let mut stream = Stream::open(&edge, "/live/talk/opus-48.mp4?tier=2").await;
    stream.part().await.unwrap();
    let counted = async {
        loop {
            let heartbeat: Heartbeat = wire::decode(&heartbeats.next().await.unwrap().payload).unwrap();
            assert_eq!(heartbeat.index, 0);
            // The first may have been sent before origin was heard.
            let talk = heartbeat.events.iter().find(|talk| talk.event.as_str() == "talk");
            if let Some([listeners]) = talk.map(|talk| &talk.listeners[..]) {
                assert_eq!((listeners.rendition, listeners.tier, listeners.count), (Rendition::Opus48, 2, 1));
                assert!(heartbeat.rss_bytes > 0 && heartbeat.open_files > 0);
                return;
            }
        }
    };
    timeout(NEVER, counted).await.unwrap();
    let total = AudienceTotal { event: "talk".parse().unwrap(), listeners: 123_456 };
    control.publish(
        "audience",
        1,
        wire::encode(&Audience { level: 2, totals: vec![total], ..Audience::default() }),
    );
    while stream.notices.last().is_none_or(|notice| notice["n"] != 123_456 || notice["l"] != 2) {
        studio.air_silence(2);
        stream.parts(2).await;
    }
    // Events of control's are frozen, and known after a restart without it.
    let later = clock::unix_now().plus(Duration::from_secs(7_200));
    let events = wire::Events { events: vec![(&event("later", later)).into()] };
    control.publish("events", 1, wire::encode(&events));
    let freezer = FrozenEvents::open(&directory.path().join("edge/events")).unwrap();
    let frozen = async {
        while freezer.thaw(&"later".parse().unwrap()).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(NEVER, frozen).await.unwrap();
    assert_eq!(edge.get_push("/live/later/opus-48.mp4").await.status, 503);
    edge.stop().await;
    drop(control);
    let edge = Edge::start(directory.path(), 0, |_| {});
    assert_eq!(edge.get_push("/live/later/opus-48.mp4").await.status, 503);
    assert_eq!(studio.bus.stats().cut_off, 0);
    studio.set_state(StateRecord::Live);
    edge.stop().await;
}
