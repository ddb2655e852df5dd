//! The push door behind TLS: what a client of another make hears, and what stays out.

use crate::common::*;
use formats::mp4::{self, StreamItem, StreamSplitter};
use model::Rendition;
use rustls::HandshakeKind;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pushed_stream_is_the_same_behind_tls_and_at_every_edge() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edges = [0, 1].map(|index| Edge::start_tls(directory.path(), index, own_tls(directory.path())));
    studio.air_silence(60);
    studio.heard_by("edge-0").await;
    studio.heard_by("edge-1").await;
    let connector = connector(directory.path());
    let mut kinds = Vec::new();
    let mut listeners = Vec::new();
    for edge in &edges {
        let stream = connect_tls(edge.push, &connector).await;
        // The whole window at once: many records, and more than a socket takes at first.
        let listener = request_on(stream, "GET", "/live/talk/opus-48.mp4?from=0", &[]).await;
        assert_eq!(listener.status, 200);
        listeners.push(listener);
        let mut stream = connect_tls(edge.push, &connector).await;
        kinds.push(stream.get_ref().1.handshake_kind());
        stream.write_all(b"HEAD /live/talk/opus-48.mp4 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // Its end is a proper one, or this would fail.
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(kinds, [Some(HandshakeKind::Resumed); 2], "tickets of one edge are good at the other");
    studio.air_silence(20);
    studio.end();
    for listener in listeners {
        let mut splitter = StreamSplitter::new();
        splitter.push(&listener.all().await);
        let mut parts = Vec::new();
        while let Some(item) = splitter.next().unwrap() {
            match item {
                StreamItem::Init(init) => assert_eq!(init, mp4::opus_init()),
                StreamItem::Part(part) => parts.push(part),
                StreamItem::Event { .. } => {}
                StreamItem::Other { kind, .. } => panic!("{kind:?} between parts"),
            }
        }
        let expected: Vec<_> =
            studio.parts.iter().map(|part| part.payload(Rendition::Opus48).bytes.clone()).collect();
        assert!(parts == expected, "{} parts of {}", parts.len(), expected.len());
    }
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_gets_an_alert_or_nothing() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start_tls(directory.path(), 0, own_tls(directory.path()));
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    for bytes in [
        &b"GET /live/talk/opus-48.mp4 HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0; 100],
        // A hello of 16 KiB that never ends, again and again.
        &[&[22, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &[0; 0x3ffc]].concat().repeat(4),
    ] {
        let mut stream = TcpStream::connect(edge.push).await.unwrap();
        // The door may close before it has all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(&[21, 3]), "{answer:?}");
    }
    // Whoever does it properly is served all the same.
    let stream = connect_tls(edge.push, &connector(directory.path())).await;
    let mut listener = request_on(stream, "GET", "/live/talk/opus-48.mp4", &[]).await;
    assert!(listener.next().await.unwrap().is_some());
    edge.stop().await;
}
