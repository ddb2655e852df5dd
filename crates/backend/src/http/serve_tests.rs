//! The accept loop over real sockets. Limits of time are real and short; what is awaited is their effect.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    counts: Arc<DoorCounts>,
}

impl Door {
    /// How often this happened.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.counts.series().into_iter().find(|(other, _)| *other == name).unwrap().1
    }
}

pub(super) fn open(limits: Limits) -> Door {
    let router = Router::new()
        .route("/", get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.ip().to_string() }))
        .route("/hang", get(std::future::pending::<()>))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/large", get(|| async { vec![b'x'; 32 * 1024 * 1024] }));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let counts = limits.counts.clone();
    let serving = tokio::spawn(serve(listener, router, limits, None, shutdown.clone()));
    Door { address, shutdown, serving, counts }
}

pub(super) fn short() -> Limits {
    let short = Duration::from_millis(100);
    Limits {
        header_timeout: short,
        idle_timeout: short,
        write_timeout: short,
        body_pause: short,
        ..Limits::default()
    }
}

/// Sends `request` and reads until the server closes.
pub(super) async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end like any other.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_are_answered_and_know_their_peer() {
    let door = open(Limits::default());
    let answer = exchange(door.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn http_2_is_spoken_only_where_it_should_be() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for http2 in [true, false] {
        let door = open(Limits { http2, ..Limits::default() });
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut head = [0; 9];
        // Type 4: SETTINGS. The door without HTTP/2 closes.
        let spoken = stream.read_exact(&mut head).await.is_ok() && head[3] == 4;
        assert_eq!(spoken, http2, "{head:?}");
    }
}

/// A frame (RFC 9113, section 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame: type, flags, stream, payload.
async fn next_frame(stream: &mut TcpStream) -> (u8, u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.unwrap();
    (kind, flags, u32::from_be_bytes(id), payload)
}

#[tokio::test]
async fn an_http_2_connection_has_only_so_many_requests_and_so_long_heads() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    // `:method: GET`, `:scheme: http`, `:path: /hang`, `:authority: a` (RFC 7541).
    const HANG: &[u8] = b"\x82\x86\x04\x05/hang\x01\x01a";
    let door = open(Limits::default());
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    for number in 0..=STREAMS_MAX {
        stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, HANG)).await.unwrap();
    }
    loop {
        let (kind, flags, id, payload) = next_frame(&mut stream).await;
        match kind {
            SETTINGS if flags == 0 => {
                let setting = |name: u8| payload.chunks(6).find(|setting| setting[1] == name);
                assert_eq!(setting(3), Some(&[0, 3, 0, 0, 0, STREAMS_MAX as u8][..]));
                assert_eq!(setting(6), Some(&[&[0, 6][..], &HEAD_BYTES_MAX.to_be_bytes()].concat()[..]));
            }
            RST_STREAM => {
                // REFUSED_STREAM: it may be asked for again.
                assert_eq!((id, &payload[..]), (2 * STREAMS_MAX + 1, &[0, 0, 0, 7][..]));
                break;
            }
            HEADERS => panic!("an answer on {id}"),
            _ => {}
        }
    }

    // A head of more than 16 KiB, in two frames: `x: aaa…`, of 17,000 bytes.
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let long = 17_000_usize;
    let varint = [
        0x7f,
        ((long - 127) & 0x7f) as u8 | 0x80,
        ((long - 127) >> 7) as u8 | 0x80,
        ((long - 127) >> 14) as u8,
    ];
    let head = [HANG, b"\0\x01x", &varint, &vec![b'a'; long]].concat();
    let (first, second) = head.split_at(16_000);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, first)).await.unwrap();
    stream.write_all(&frame(CONTINUATION, END_HEADERS, 1, second)).await.unwrap();
    loop {
        let (kind, flags, id, payload) = next_frame(&mut stream).await;
        if kind == HEADERS {
            assert_eq!((id, flags & END_STREAM), (1, END_STREAM), "an answer without a body");
            // `:status` in letters, as those that have no number of their own: 200 would be the byte 0x88.
            assert!(matches!(payload[0], 0x08 | 0x48), "{payload:?}");
            break;
        }
        assert_ne!(kind, RST_STREAM, "{payload:?}");
    }
}

#[tokio::test]
async fn who_sends_nothing_or_half_or_idles_is_closed() {
    for http2 in [true, false] {
        let door = open(Limits { http2, ..short() });
        for request in ["", "PRI", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
            let answer = exchange(door.address, request).await;
            assert!(!answer.contains("200 OK"), "{request:?}: {answer}");
        }
        let kept = exchange(door.address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(kept.starts_with("HTTP/1.1 200 OK"), "{kept}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_pause() {
    let door = open(Limits { body_bytes_max: 10, ..short() });
    let post = |length: usize, body: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let answer = exchange(door.address, &post(10, "0123456789")).await;
    assert!(answer.ends_with("0123456789"), "{answer}");
    let answer = exchange(door.address, &post(11, "0123456789a")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = exchange(door.address, &post(5, "01")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(door.count("slow_body"), 1);
}

/// A body that never pauses for long and never ends: beyond the first pause it has to come at 4 KiB a second.
#[tokio::test]
async fn a_body_does_not_drip_for_ever() {
    let door = open(Limits { body_pause: Duration::from_millis(500), ..Limits::default() });
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = [0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    assert_eq!(door.count("slow_body"), 1);
    drop(reader);
    drip.await.unwrap();
}

/// A few bytes of a compressed body could become many.
#[tokio::test]
async fn bodies_are_taken_as_they_are() {
    let door = open(Limits::default());
    let post = |fields: &str| {
        let body = "Connection: close\r\nContent-Length: 4\r\n\r\nabcd";
        format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}{body}")
    };
    let answer = exchange(door.address, &post("Content-Encoding: gzip\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    assert!(answer.contains("\r\naccept-encoding: identity\r\n"), "{answer}");
    assert!(answer.contains("urn:minassa:problem:encoded"), "{answer}");
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let answer = exchange(door.address, chunked).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert_eq!(door.count("encoded_body"), 2);
    let answer = exchange(door.address, &post("Content-Encoding: identity\r\n")).await;
    assert!(answer.ends_with("abcd"), "{answer}");
}

#[tokio::test]
async fn who_reads_nothing_loses_the_connection() {
    let door = open(short());
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Without a reader the answer cannot end, so only the broken limit ends the connection: then the door drains.
    door.shutdown.cancel();
    door.serving.await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 32 * 1024 * 1024);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let door = open(Limits { connections_max: 1, ..short() });
    // Holds the only place until the limit for sending nothing is reached.
    let _holder = TcpStream::connect(door.address).await.unwrap();
    let answer = exchange(door.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// A connection from somewhere on this machine: each 127.x.y.0/24 is a prefix of its own.
async fn connect_from(from: [u8; 4], door: &Door) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(door.address).await.unwrap()
}

async fn ask_from(from: [u8; 4], door: &Door) -> String {
    let mut stream = connect_from(from, door).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Who is refused while it still sends learns why: nothing resets the connection before the answer is read.
#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_the_answer_arrives() {
    let door = open(Limits { body_bytes_max: 1_024, ..Limits::default() });
    for _ in 0..8 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 16777216\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream.write_all(&vec![b'a'; 16 << 20]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

/// One prefix holds every place, asking for nothing or for nothing more: who comes from others is served at once, and does
/// not lose a connection that is in use.
#[tokio::test]
async fn the_heaviest_prefix_makes_room() {
    let door = open(Limits { connections_max: 16, ..Limits::default() });
    let mut busy = connect_from([127, 2, 0, 1], &door).await;
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    let mut held = Vec::new();
    for number in 0..15 {
        let mut stream = connect_from([127, 66, 0, 1 + number], &door).await;
        if number % 2 == 0 {
            // It has been answered, and is kept.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert_ne!(stream.read(&mut [0; 1_024]).await.unwrap(), 0);
        }
        held.push(stream);
    }
    for number in 1..=20 {
        let answer = ask_from([127, 1, number, 1], &door).await;
        assert!(answer.ends_with(&format!("127.1.{number}.1")), "{answer}");
        held.push(connect_from([127, 66, 1, number], &door).await);
    }
    assert!(door.count("evicted") >= 1);
    busy.write_all(b"cd").await.unwrap();
    let mut answer = [0; 1_024];
    let count = busy.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
}

/// Requests in progress are shared among prefixes: one alone gets half of all, and there is one for who has none.
#[tokio::test]
async fn one_prefix_does_not_have_all_requests() {
    let door = open(Limits { requests_max: 8, ..Limits::default() });
    let mut hanging = Vec::new();
    for _ in 0..4 {
        let mut stream = connect_from([127, 66, 0, 1], &door).await;
        stream.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        hanging.push(stream);
    }
    // Those four may still be on their way; one of them, or this one, is the fifth.
    let mut answers = Vec::new();
    while !answers.iter().any(|answer: &String| answer.starts_with("HTTP/1.1 503 ")) {
        answers.push(ask_from([127, 66, 0, 2], &door).await);
    }
    let refused = answers.last().unwrap();
    assert!(refused.contains("\r\nretry-after: 2\r\n"), "{refused}");
    assert!(door.count("crowded_request") >= 1);
    for number in 1..10 {
        let answer = ask_from([127, 1, number, 1], &door).await;
        assert!(answer.ends_with(&format!("127.1.{number}.1")), "{answer}");
    }
    drop(hanging);
    // They have their share again once those are gone.
    while !ask_from([127, 66, 0, 2], &door).await.starts_with("HTTP/1.1 200 ") {}
}

/// Those in use are not closed for anybody; but one network alone may use half of the door, and the last places are for
/// those who have few.
#[tokio::test]
async fn the_last_places_are_not_for_who_has_most() {
    let door = open(Limits { connections_max: 64, ..Limits::default() });
    let mut busy = Vec::new();
    for (network, count) in [(66, 32), (67, 16), (68, 8), (69, 4), (70, 2)] {
        for _ in 0..count {
            let mut stream = connect_from([127, network, 0, 1], &door).await;
            stream.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            busy.push(stream);
        }
        // All of those may still be on their way. Beyond the last two nobody of theirs comes in.
        while count > 2 && !ask_from([127, network, 0, 2], &door).await.starts_with("HTTP/1.1 503 ") {}
    }
    // Two more of the first: one is held, the other not heard. Then somebody from elsewhere.
    let (one, mut other) =
        (connect_from([127, 66, 0, 1], &door).await, connect_from([127, 66, 0, 1], &door).await);
    let answer = ask_from([127, 1, 0, 1], &door).await;
    assert!(answer.ends_with("127.1.0.1"), "{answer}");
    assert_eq!(other.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!((door.count("refused"), door.count("evicted")), (1, 0));
    drop(one);
}

#[tokio::test]
async fn a_shutdown_finishes_what_was_begun() {
    let door = open(Limits::default());
    let mut busy = TcpStream::connect(door.address).await.unwrap();
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    let mut idle = TcpStream::connect(door.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    door.shutdown.cancel();
    assert_eq!(idle.read(&mut [0; 1024]).await.unwrap(), 0, "an idle connection is closed at once");
    busy.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("abcd"), "{answer}");
    door.serving.await.unwrap();
    assert!(TcpStream::connect(door.address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_waits_only_so_long() {
    let door = open(Limits { drain: Duration::from_millis(100), ..Limits::default() });
    let mut busy = TcpStream::connect(door.address).await.unwrap();
    busy.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut kept = TcpStream::connect(door.address).await.unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_ne!(kept.read(&mut [0; 1024]).await.unwrap(), 0);
    door.shutdown.cancel();
    door.serving.await.unwrap();
    let mut answer = Vec::new();
    let _ = busy.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

#[tokio::test]
async fn edges_share_a_port() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), true).unwrap();
    let address = first.local_addr().unwrap();
    assert!(bind(address, true).is_ok());
    assert!(bind(address, false).is_err());
}

#[tokio::test]
async fn what_was_peeked_is_read_again() {
    let mut io = Prefixed::new(Bytes::from_static(b"GET "), &b"/ HTTP"[..]);
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "GET / HTTP");
}

#[tokio::test]
async fn what_is_written_and_who_rests_is_counted() {
    let limits = Limits::default();
    let counts = limits.counts.clone();
    let door = open(limits);
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 4_096];
    let length = stream.read(&mut answer).await.unwrap();
    assert_eq!(counts.sent_bytes(), length as u64);
    // It keeps the connection, and asks for nothing more.
    let resting = async |expected| {
        while counts.resting() != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), resting(1)).await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(20), resting(0)).await.unwrap();
}
