//! Limits of the push door that the network can reach: each is reached, and does what the configuration says of it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::common::*;
use backend::machine::Memory;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const STREAM: &str = "/live/talk/opus-48.mp4";
const GET_STREAM: &[u8] = b"GET /live/talk/opus-48.mp4 HTTP/1.1\r\nHost: a\r\n\r\n";
const LATE: &str = "minassa_edge_late_heads_total";
const LEFT: &str = "minassa_edge_left_total";

/// An edge, changed, with an event on the air.
async fn edge_with(
    change: impl FnOnce(&mut minassa_edge::EdgeConfig),
    parts: usize,
) -> (TempDir, Studio, Edge) {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, change);
    studio.air_silence(parts);
    studio.heard_by("edge-0").await;
    (directory, studio, edge)
}

/// Airs a part and takes what comes of it.
async fn goes_on(studio: &mut Studio, listener: &mut Response) {
    studio.air_silence(1);
    assert!(listener.next().await.unwrap().is_some());
}

/// Everything up to the end, which may be a reset.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(NEVER, stream.read_to_end(&mut bytes)).await.expect("an end");
    bytes
}

/// `memory_reserve_mib`: while there is less, nobody new is let in; who listens goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_while_memory_is_short() {
    const MIB: u64 = 1 << 20;
    const SPARE: u64 = 256 * MIB;
    // What the machine has now, but for a little; others may take that little before the listener is here.
    let (_directory, mut studio, edge, mut listener) = loop {
        let reserve = Memory::now().available.saturating_sub(SPARE) / MIB;
        let (directory, studio, edge) = edge_with(|config| config.memory_reserve_mib = reserve, 4).await;
        let listener = edge.get_push(STREAM).await;
        if listener.status == 200 {
            break (directory, studio, edge, listener);
        }
        edge.stop().await;
    };
    let mut taken = Vec::new();
    let refused = async {
        loop {
            let newcomer = edge.get_push(STREAM).await;
            if newcomer.status != 200 {
                assert_eq!(newcomer.status, 503);
                assert!((4..=8).contains(&newcomer.header("retry-after").parse::<u32>().unwrap()));
                // The ladder, which sees it coming, has newcomers wait before that.
                if newcomer.text().await.contains("memory") {
                    return;
                }
            } else {
                drop(newcomer);
            }
            // Weighed once a second: as much again as is spare, in that time.
            let weighed = edge.figure("minassa_edge_memory_available_bytes").await;
            taken.push(vec![1_u8; (SPARE / 2) as usize]);
            while edge.figure("minassa_edge_memory_available_bytes").await == weighed {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(NEVER, refused).await.expect("memory becomes short");
    assert_ne!(edge.figure("minassa_edge_refused_total{why=\"memory\"}").await, 0);
    assert_eq!(edge.figure("minassa_edge_refused_total{why=\"full\"}").await, 0);
    drop(taken);
    goes_on(&mut studio, &mut listener).await;
    edge.stop().await;

    // Where there is never enough, nobody comes in at all; the files door serves whom it can.
    let (_directory, _studio, edge) = edge_with(|config| config.memory_reserve_mib = 1_048_576, 10).await;
    assert_eq!(edge.get_push(STREAM).await.status, 503);
    edge.reaches("minassa_edge_refused_total{why=\"memory\"}", 1).await;
    assert_eq!(edge.get_file("/live/talk/opus-48.m3u8").await.status, 200);
    edge.stop().await;
}

/// Beside `listeners_max` 128 may be at the door, and no longer than ten seconds without a whole request. When all places
/// are taken, whoever has been silent longest makes room for who asks; who listens does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_at_the_door_for_ten_seconds_at_most() {
    let (_directory, mut studio, edge) = edge_with(|config| config.listeners_max = 1, 4).await;
    let mut listener = edge.get_push(STREAM).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for number in 0..128 {
        let mut stream = TcpStream::connect(edge.push).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&GET_STREAM[..30]).await.unwrap();
        }
        silent.push(stream);
    }
    let mut waiting = TcpStream::connect(edge.push).await.unwrap();
    waiting.write_all(GET_STREAM).await.unwrap();
    for _ in 0..3 {
        goes_on(&mut studio, &mut listener).await;
    }
    assert!(rest(&mut waiting).await.starts_with(b"HTTP/1.1 503"), "one is allowed, and listens");
    for mut stream in silent {
        assert_eq!(rest(&mut stream).await, b"");
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "others have their time");
    let evicted = edge.figure("minassa_edge_evicted_total").await;
    assert!(evicted >= 1, "the first of them made room");
    edge.reaches(LATE, 128 - evicted).await;
    goes_on(&mut studio, &mut listener).await;
    edge.stop().await;
}

/// Who got an answer and does not hang up keeps a place for two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_hang_up_is_hung_up_on() {
    let (_directory, _studio, edge) = edge_with(|config| config.listeners_max = 1, 4).await;
    let mut answered = Vec::new();
    for _ in 0..129 {
        let mut stream = TcpStream::connect(edge.push).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 404"));
        answered.push(stream);
    }
    // All places are taken; this one is served as they become free, and not because anybody was late.
    assert_eq!(edge.get_push("/").await.status, 404);
    assert_eq!(edge.figure(LATE).await, 0);
    drop(answered);
    edge.stop().await;
}

/// A head has 16 KiB and 100 fields at most, and no body behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_have_a_limit() {
    let (_directory, _studio, edge) = on_air(4).await;
    let head = |fields: &str| format!("HEAD {STREAM} HTTP/1.1\r\nhost: a\r\n{fields}");
    for (request, status) in [
        (head(&format!("x: {}\r\n\r\n", "x".repeat(16_000))), 200),
        (head(&format!("x: {}", "x".repeat(16_384))), 431),
        (head(&format!("{}\r\n", "a: b\r\n".repeat(99))), 200),
        (head(&format!("{}\r\n", "a: b\r\n".repeat(100))), 431),
        (head("content-length: 0\r\n\r\n"), 200),
        (head("content-length: 1\r\n\r\nx"), 413),
        (head("transfer-encoding: chunked\r\n\r\n"), 413),
    ] {
        let mut stream = TcpStream::connect(edge.push).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(&mut stream).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer}", request.len());
    }
    edge.stop().await;
}

/// Who listens may say 64 KiB that nobody wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_talks_instead_of_listening_is_closed() {
    let (_directory, mut studio, edge) = on_air(4).await;
    let mut listener = edge.get_push(STREAM).await;
    let mut talker = TcpStream::connect(edge.push).await.unwrap();
    talker.write_all(GET_STREAM).await.unwrap();
    edge.reaches("minassa_edge_listeners", 2).await;
    talker.write_all(&[b'x'; 60_000]).await.unwrap();
    for _ in 0..3 {
        goes_on(&mut studio, &mut listener).await;
    }
    assert_eq!(edge.figure(LEFT).await, 0);
    talker.write_all(&[b'x'; 10_000]).await.unwrap();
    edge.reaches(LEFT, 1).await;
    rest(&mut talker).await;
    goes_on(&mut studio, &mut listener).await;
    edge.stop().await;
}

/// `send_buffer` and `stuck_s`: the kernel keeps that much for who takes nothing, at most twice, and the edge a flush more;
/// then it is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_kept_for_who_takes_nothing() {
    const SEND_BUFFER: u64 = 8_192;
    let change = |config: &mut minassa_edge::EdgeConfig| {
        config.send_buffer = SEND_BUFFER as usize;
        config.stuck_s = 1;
    };
    let (_directory, mut studio, edge) = edge_with(change, 0).await;
    studio.air(tone());
    studio.heard_by("edge-0").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stuck = socket.connect(edge.push).await.unwrap();
    stuck.write_all(b"GET /live/talk/opus-48.mp4?from=0 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    edge.reaches("minassa_edge_stuck_total", 1).await;
    let made = edge.figure("minassa_edge_sent_bytes_total").await;
    // What the two kernels had is still read, what the edge kept is gone: of a flush, 16 KiB and the part that fills it.
    let largest = studio.parts.iter().map(|part| part.payload(model::Rendition::Opus48).bytes.len()).max();
    let taken = rest(&mut stuck).await.len() as u64;
    let kept = made - taken;
    assert!((1..=24_576 + largest.unwrap() as u64).contains(&kept), "{kept} of {made}");
    // The reader's own buffer is of the kernel's choosing.
    assert!(taken <= 2 * SEND_BUFFER + 24_576, "{taken} of {made}");
    edge.stop().await;
}

/// `leave_ms`: listeners are let go one after the other over that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_let_go_over_a_while() {
    let (_directory, _studio, edge) = edge_with(|config| config.leave_ms = 2_000, 4).await;
    let mut listeners = Vec::new();
    for _ in 0..20 {
        listeners.push(edge.get_push(STREAM).await);
    }
    let begun = Instant::now();
    edge.shutdown.cancel();
    let ends = listeners.into_iter().map(|listener| tokio::spawn(async move { listener.all().await }));
    for end in ends.collect::<Vec<_>>() {
        // To a proper end.
        end.await.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_800), "{:?}", begun.elapsed());
    timeout(NEVER, edge.running).await.unwrap().unwrap().unwrap();
}

/// Behind TLS: ten seconds for a handshake and as much for a head behind it, so much that nobody wants, so many changes of
/// keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_limits_hold_behind_tls() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start_tls(directory.path(), 0, own_tls(directory.path()));
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    let connector = connector(directory.path());
    let begun = Instant::now();
    let mut slow = Vec::new();
    for bytes in [&b""[..], &[22], &[22, 3, 1, 0, 100, 1, 0]] {
        let mut stream = TcpStream::connect(edge.push).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        slow.push(stream);
    }
    let mut half = connect_tls(edge.push, &connector).await;
    half.write_all(&GET_STREAM[..30]).await.unwrap();
    half.flush().await.unwrap();

    let mut listener = request_on(connect_tls(edge.push, &connector).await, "GET", STREAM, &[]).await;
    assert_eq!(listener.header("strict-transport-security"), "max-age=600");
    let nothing = request_on(connect_tls(edge.push, &connector).await, "GET", "/", &[]).await;
    assert_eq!((nothing.status, nothing.header("strict-transport-security")), (404, "max-age=600"));

    // 32 new keys in a row are allowed, and no more than that without having taken something.
    let mut restless = connect_tls(edge.push, &connector).await;
    restless.write_all(GET_STREAM).await.unwrap();
    edge.reaches("minassa_edge_listeners", 2).await;
    for count in [32, 32] {
        assert_eq!(edge.figure(LEFT).await, 0);
        for _ in 0..count {
            restless.get_mut().1.refresh_traffic_keys().unwrap();
        }
        restless.flush().await.unwrap();
        for _ in 0..3 {
            goes_on(&mut studio, &mut listener).await;
        }
    }
    edge.reaches(LEFT, 1).await;
    let told = timeout(NEVER, restless.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(told.unwrap_err().to_string().contains("UnexpectedMessage"));

    let mut talker = connect_tls(edge.push, &connector).await;
    talker.write_all(GET_STREAM).await.unwrap();
    edge.reaches("minassa_edge_listeners", 2).await;
    // The door may close before it has all.
    let _ = talker.write_all(&[b'x'; 70_000]).await;
    edge.reaches(LEFT, 2).await;
    rest(&mut talker).await;

    for mut stream in slow {
        assert_eq!(rest(&mut stream).await, b"");
    }
    rest(&mut half).await;
    edge.reaches(LATE, 4).await;
    assert!(begun.elapsed() >= Duration::from_secs(10));
    goes_on(&mut studio, &mut listener).await;
    edge.stop().await;
}

/// A request with a body is refused before the body is there; the answer must not be lost to what still comes
/// (RFC 9112 section 9.6). Nor must a request that comes together with its sender's `close_notify`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_behind_tls_reaches_who_still_sends_or_says_no_more() {
    let directory = TempDir::new().unwrap();
    let edge = Edge::start_tls(directory.path(), 0, own_tls(directory.path()));
    let connector = connector(directory.path());
    for _ in 0..20 {
        let mut stream = connect_tls(edge.push, &connector).await;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 40000\r\n\r\n").await.unwrap();
        for _ in 0..4 {
            stream.write_all(&[b'x'; 10_000]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 413 "));

        let mut stream = connect_tls(edge.push, &connector).await;
        // One flight of records: the request, and that no more will come.
        stream.get_mut().1.writer().write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        stream.get_mut().1.send_close_notify();
        stream.flush().await.unwrap();
        assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 404 "));
    }
    edge.stop().await;
}
