//! The bus over real sockets. Nothing here waits for time to pass: every wait is for something to happen.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::frame::Hello;
use super::{Bus as _, Message, Subscription, UnixBus};

fn bind(directory: &TempDir, name: &str) -> UnixBus {
    UnixBus::bind(directory.path(), name).unwrap()
}

fn payload(sequence: u64) -> Bytes {
    Bytes::from(format!("part {sequence}"))
}

fn publish(bus: &UnixBus, topic: &str, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        bus.publish(topic, sequence, payload(sequence));
    }
}

async fn expect(subscription: &mut Subscription, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        let message = subscription.next().await.unwrap();
        assert_eq!(message, Message { sequence, payload: payload(sequence) });
    }
}

/// Until `done` says so; the runtime turns in between.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_was_missed_is_filled_in_before_what_is_new() {
    let directory = TempDir::new().unwrap();
    let (origin, edge) = (bind(&directory, "origin"), bind(&directory, "edge-0"));
    publish(&origin, "parts/a", 0..100);
    let mut all = edge.subscribe("origin", "parts/a", Some(0));
    let mut tail = edge.subscribe("origin", "parts/a", Some(90));
    let mut ahead = edge.subscribe("origin", "parts/a", Some(101));
    expect(&mut all, 0..100).await;
    expect(&mut tail, 90..100).await;
    publish(&origin, "parts/a", 100..103);
    expect(&mut all, 100..103).await;
    expect(&mut tail, 100..103).await;
    expect(&mut ahead, 101..103).await;
    assert_eq!(edge.fetch("origin", "parts/a", 98, Duration::from_secs(60)).await.len(), 5);
    assert_eq!(edge.fetch("nobody", "parts/a", 0, Duration::from_secs(60)).await, []);
    assert_eq!(origin.peers(), ["edge-0"]);
}

#[tokio::test]
async fn the_last_state_is_there_at_once() {
    let directory = TempDir::new().unwrap();
    let (control, origin) = (bind(&directory, "control"), bind(&directory, "origin"));
    let mut early = origin.subscribe("control", "events", None);
    publish(&control, "events", [5]);
    expect(&mut early, [5]).await;
    publish(&control, "events", [6]);
    expect(&mut early, [6]).await;
    let mut late = origin.subscribe("control", "events", Some(1_000));
    expect(&mut late, [6]).await;
}

#[tokio::test]
async fn a_publisher_that_comes_back_is_found_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let edge = bind(&directory, "edge-0");
    let mut parts = edge.subscribe("origin", "parts/a", Some(0));
    let mut status = edge.subscribe("origin", "status", None);
    let origin = bind(&directory, "origin");
    publish(&origin, "parts/a", 0..10);
    publish(&origin, "status", [900]);
    expect(&mut parts, 0..10).await;
    expect(&mut status, [900]).await;
    assert!(parts.is_connected());
    drop(origin);
    until(|| !parts.is_connected() && !status.is_connected()).await;

    // The socket file of the dead process is still there. The new one retains a tail that overlaps.
    let origin = bind(&directory, "origin");
    publish(&origin, "parts/a", 5..20);
    publish(&origin, "status", [1]);
    expect(&mut parts, 10..20).await;
    expect(&mut status, [1]).await;
}

#[tokio::test]
async fn who_lags_is_cut_off_and_resumes_without_loss() {
    let directory = TempDir::new().unwrap();
    let (origin, edge) = (bind(&directory, "origin"), bind(&directory, "edge-0"));
    // Large enough to fill the inbox and the socket well before the log wraps.
    let large = Bytes::from(vec![7; 64 * 1024]);
    let mut parts = edge.subscribe("origin", "parts/a", Some(0));
    let mut healthy = edge.subscribe("origin", "parts/a", Some(0));
    let mut next = 0;
    while origin.stats().cut_off == 0 {
        assert!(next < 10_000, "never cut off");
        origin.publish("parts/a", next, large.clone());
        let message = healthy.next().await.unwrap();
        assert_eq!(message.sequence, next, "one that lags holds up nobody");
        next += 1;
    }
    for sequence in 0..next {
        assert_eq!(parts.next().await.unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn a_stopped_subscriber_holds_up_nobody() {
    let directory = TempDir::new().unwrap();
    let (origin, edge) = (bind(&directory, "origin"), bind(&directory, "edge-0"));
    // As a stopped process: connected, asked, and reads nothing from then on.
    let mut stopped = UnixStream::connect(directory.path().join("origin.sock")).await.unwrap();
    stopped.write_all(&Hello { topic: "parts/a".into(), from: Some(0) }.encode()).await.unwrap();
    // Another never even asks.
    let _silent = UnixStream::connect(directory.path().join("origin.sock")).await.unwrap();
    until(|| origin.stats().subscribers == 2).await;
    let mut parts = edge.subscribe("origin", "parts/a", Some(0));
    let large = Bytes::from(vec![7; 64 * 1024]);
    for sequence in 0..1_000 {
        origin.publish("parts/a", sequence, large.clone());
        assert_eq!(parts.next().await.unwrap().sequence, sequence);
    }
    until(|| origin.stats().cut_off == 1).await;
}

#[tokio::test]
async fn many_subscribers_hear_the_same() {
    let directory = TempDir::new().unwrap();
    let (origin, edge) = (bind(&directory, "origin"), bind(&directory, "edge-0"));
    let mut all: Vec<_> = (0..100).map(|_| edge.subscribe("origin", "parts/a", Some(0))).collect();
    publish(&origin, "parts/a", 0..50);
    for subscription in &mut all {
        expect(subscription, 0..50).await;
    }
    assert_eq!(origin.stats().subscribers, 100);
    drop(all);
    until(|| origin.stats().subscribers == 0).await;
}

#[tokio::test]
async fn what_cannot_be_published_is_counted() {
    let directory = TempDir::new().unwrap();
    let origin = bind(&directory, "origin");
    publish(&origin, "parts/a", [5, 5, 4]);
    origin.publish("status", 1, Bytes::from(vec![0; super::PAYLOAD_BYTES_MAX + 1]));
    origin.publish(&"t".repeat(129), 1, Bytes::new());
    assert_eq!((origin.stats().published, origin.stats().refused), (1, 4));
    assert!(UnixBus::bind(directory.path(), "../origin").is_err());
}

#[tokio::test]
async fn a_retired_topic_is_forgotten() {
    let directory = TempDir::new().unwrap();
    let (origin, edge) = (bind(&directory, "origin"), bind(&directory, "edge-0"));
    publish(&origin, "parts/a", 0..3);
    let mut parts = edge.subscribe("origin", "parts/a", Some(0));
    expect(&mut parts, 0..3).await;
    origin.retire("parts/a");
    assert_eq!(edge.fetch("origin", "parts/a", 0, Duration::from_secs(60)).await, []);
    // A topic of the same name may begin again; the subscription finds it.
    publish(&origin, "parts/a", 3..5);
    expect(&mut parts, 3..5).await;
}

#[tokio::test]
async fn a_deep_directory_is_no_obstacle() {
    let directory = TempDir::new().unwrap();
    let deep = directory.path().join("d".repeat(100)).join("e".repeat(100)).join("bus");
    let (origin, edge) = (UnixBus::bind(&deep, "origin").unwrap(), UnixBus::bind(&deep, "edge-0").unwrap());
    publish(&origin, "parts/a", 0..3);
    expect(&mut edge.subscribe("origin", "parts/a", Some(1)), 1..3).await;
    assert_eq!(edge.peers(), ["origin"]);
    assert!(Path::new(&deep).join("origin.sock").exists());
}

#[tokio::test]
async fn a_publisher_that_speaks_nonsense_is_left_and_tried_again() {
    let directory = TempDir::new().unwrap();
    let edge = bind(&directory, "edge-0");
    let path = directory.path().join("origin.sock");
    let liar = tokio::net::UnixListener::bind(&path).unwrap();
    let mut parts = edge.subscribe("origin", "parts/a", Some(0));
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x09\0\0\0\x63\0\0\0\0\0\0\0\0", b"\x01\0\0\0\0"] {
        let (mut stream, _) = liar.accept().await.unwrap();
        stream.write_all(nonsense).await.unwrap();
    }
    let origin = bind(&directory, "origin");
    publish(&origin, "parts/a", 0..2);
    expect(&mut parts, 0..2).await;
}
