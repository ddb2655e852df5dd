//! The accept loop over real sockets. Limits of time are real and short; what is awaited is their effect.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Door {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

fn open(limits: Limits) -> Door {
    let router = Router::new()
        .route("/", get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.ip().to_string() }))
        .route("/hang", get(std::future::pending::<()>))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/large", get(|| async { vec![b'x'; 32 * 1024 * 1024] }));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, limits, None, shutdown.clone()));
    Door { address, shutdown, serving }
}

fn short() -> Limits {
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
async fn exchange(address: SocketAddr, request: &str) -> String {
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
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
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
