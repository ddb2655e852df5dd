//! Limits of the files door that the network can reach: each is reached, and does what the configuration says of it.

use std::path::PathBuf;
use std::process::Command;

use crate::common::*;
use model::Rendition;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

fn ask(edge: &Edge, path: &str, range: Option<&'static str>) -> JoinHandle<Response> {
    let (files, path) = (edge.files, path.to_owned());
    let headers: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
    tokio::spawn(async move { get(files, &path, &headers).await })
}

/// Whether a kept connection is answered.
async fn alive(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4_096];
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n").await.unwrap();
    let count = tokio::time::timeout(NEVER, stream.read(&mut answer)).await.unwrap().unwrap();
    answer[..count].ends_with(b"alive\n")
}

/// `files_connections_max`: more connections wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_allowed_wait() {
    let directory = TempDir::new().unwrap();
    let edge = Edge::start(directory.path(), 0, |config| config.files_connections_max = 16);
    let mut connections = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(edge.files).await.unwrap();
        assert!(alive(&mut stream).await);
        connections.push(stream);
    }
    let mut waiting = TcpStream::connect(edge.files).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n").await.unwrap();
    // Those who are in are served meanwhile, and the one who waits is not.
    for stream in &mut connections {
        assert!(alive(stream).await);
    }
    let nothing = waiting.try_read(&mut [0; 16]);
    assert!(nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    drop(connections.pop());
    let mut answer = [0; 4_096];
    let count = tokio::time::timeout(NEVER, waiting.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    drop((connections, waiting));
    edge.stop().await;
}

/// Asks for a file and takes nothing of it but what a small buffer holds.
async fn ask_and_stop(edge: &Edge, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(edge.files).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// `downloads_max`: who comes then gets `503`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_downloads_run() {
    const PATH: &str = "/e/talk/recording.mp3";
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.downloads_max = 2);
    // Twelve megabytes: more than the kernel keeps for a reader.
    studio.air_silence(3_000);
    studio.heard_by("edge-0").await;
    studio.end();
    let mut slow = vec![ask_and_stop(&edge, PATH).await, ask_and_stop(&edge, PATH).await];
    edge.reaches("minassa_edge_downloads", 2).await;
    for path in [PATH, "/e/talk/recording.ogg", "/e/talk/clip?from=1&to=2"] {
        let full = edge.get_file(path).await;
        assert_eq!((full.status, full.header("retry-after")), (503, "5"), "{path}");
        assert_eq!(full.header("cache-control"), "no-store");
    }
    edge.reaches("minassa_edge_downloads_refused_total", 3).await;
    // What needs no place is answered all the same.
    assert_eq!(request(edge.files, "HEAD", PATH, &[]).await.status, 200);
    assert_eq!(get(edge.files, PATH, &[("Range", "bytes=999999999-")]).await.status, 416);
    assert_eq!(edge.get_file("/live/talk/mp3-64/s3.mp3").await.status, 200);
    // One who reads to the end makes room, and so does one who goes.
    drop(slow.pop());
    edge.reaches("minassa_edge_downloads", 1).await;
    let whole = edge.get_file(PATH).await;
    assert_eq!(whole.status, 200);
    assert!(whole.all().await.ends_with(&studio.joined(Rendition::Mp3_64, 0..3_000)));
    edge.reaches("minassa_edge_downloads", 1).await;
    drop(slow);
    edge.reaches("minassa_edge_downloads", 0).await;
    edge.stop().await;
}

/// A recording that cannot be opened for as long as nobody writes into the pipe that is its first file.
struct Stuck(PathBuf);

impl Stuck {
    fn new(directory: &TempDir) -> Self {
        let folder = directory.path().join("recordings/stuck");
        std::fs::create_dir_all(&folder).unwrap();
        let pipe = folder.join("opus-24.mp4");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        Self(pipe)
    }

    fn release(self) {
        // Its reader waits for this very moment, so that opening does not block.
        std::fs::OpenOptions::new().write(true).open(&self.0).unwrap();
    }
}

/// An edge that may read one thing at a time from the disk, and knows an event from the disk alone.
async fn recorded() -> (TempDir, Studio, Edge) {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    studio.air_silence(40);
    studio.end();
    studio.bus = backend::bus::UnixBus::bind(&directory.path().join("run/elsewhere"), "origin").unwrap();
    let edge = Edge::start(directory.path(), 0, |config| config.disk_reads = 1);
    assert_eq!(edge.get_file("/e/talk/recording.mp3").await.status, 200);
    (directory, studio, edge)
}

const READS: &str = "minassa_edge_disk_reads_total";
const SHARED: &str = "minassa_edge_shared_reads_total";

/// What many ask for at the same time is read from the disk once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_read_once_for_all_who_ask_meanwhile() {
    let (directory, studio, edge) = recorded().await;
    let stuck = Stuck::new(&directory);
    edge.reaches("minassa_edge_downloads", 0).await;
    let (reads, shared) = (edge.figure(READS).await, edge.figure(SHARED).await);
    let opening = ask(&edge, "/e/stuck/recording.mp3", None);
    edge.reaches(READS, reads + 1).await;
    let asked = [
        ("/live/talk/opus-48/s1.m4s", None, studio.joined(Rendition::Opus48, 8..16)),
        ("/live/talk/opus-24/7.m4s", None, studio.joined(Rendition::Opus24, 7..8)),
        ("/e/talk/recording.mp3", Some("bytes=192-4031"), studio.joined(Rendition::Mp3_64, 0..1)),
    ];
    let mut waiting = Vec::new();
    for (path, range, expected) in &asked {
        for _ in 0..50 {
            waiting.push((expected, ask(&edge, path, *range)));
        }
    }
    edge.reaches(SHARED, shared + 3 * 49).await;
    assert_eq!(edge.figure(READS).await, reads + 1, "they wait for their turn");
    stuck.release();
    assert_eq!(opening.await.unwrap().status, 404);
    for (expected, answer) in waiting {
        let answer = answer.await.unwrap();
        assert!(matches!(answer.status, 200 | 206));
        assert!(answer.all().await == *expected);
    }
    assert_eq!(edge.figure(READS).await, reads + 4, "150 requests, three readings");
    edge.stop().await;
}

/// `disk_reads`: who waits for too long is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_get_a_turn_at_the_disk_is_told_so() {
    let (directory, studio, edge) = recorded().await;
    let stuck = Stuck::new(&directory);
    let reads = edge.figure(READS).await;
    let opening = ask(&edge, "/e/stuck/recording.mp3", None);
    edge.reaches(READS, reads + 1).await;
    let waiting = [
        ask(&edge, "/live/talk/opus-48/s1.m4s", None),
        ask(&edge, "/live/talk/opus-48/s1.m4s", None),
        ask(&edge, "/e/talk/recording.opus-48.m3u8", None),
    ];
    for waiting in waiting {
        let busy = waiting.await.unwrap();
        assert_eq!((busy.status, busy.header("retry-after")), (503, "5"));
    }
    stuck.release();
    assert_eq!(opening.await.unwrap().status, 404);
    let segment = edge.get_file("/live/talk/opus-48/s1.m4s").await.all().await;
    assert!(segment == studio.joined(Rendition::Opus48, 8..16));
    edge.stop().await;
}

/// `windows_max`: an event that finds no window is not carried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_window_says_when_to_come_back() {
    let directory = TempDir::new().unwrap();
    let frozen = backend::freeze::FrozenEvents::open(&directory.path().join("edge/events")).unwrap();
    for slug in ["first", "second"] {
        frozen.freeze(&event(slug, backend::clock::unix_now())).unwrap();
    }
    let edge = Edge::start(directory.path(), 0, |config| config.windows_max = 1);
    edge.reaches("minassa_edge_windows", 1).await;
    for path in ["opus-48.m3u8", "opus-48.m3u8?_HLS_msn=1&_HLS_part=0"] {
        let full = edge.get_file(&format!("/live/second/{path}")).await;
        assert_eq!(full.status, 503, "{path}");
        assert!(
            ["2", "3", "4", "5"].contains(&full.header("retry-after")),
            "{path}: {}",
            full.header("retry-after")
        );
    }
    // There is nothing of it, and nothing that would hint at a part to come.
    assert_eq!(edge.get_file("/live/second/opus-48/0.m4s").await.status, 404);
    assert_ne!(edge.figure("minassa_edge_refused_events_total").await, 0);
    edge.stop().await;
}

/// `linger_s`: then the recording has it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_of_an_event_that_is_over_goes() {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.linger_s = 1);
    studio.air_silence(20);
    studio.heard_by("edge-0").await;
    edge.reaches("minassa_edge_windows", 1).await;
    studio.end();
    edge.reaches("minassa_edge_windows", 0).await;
    let replay = edge.get_file("/live/talk/opus-48.m3u8?_HLS_msn=2&_HLS_part=3").await.text().await;
    let replay = formats::hls::MediaPlaylist::parse(&replay).unwrap();
    assert_eq!((replay.ended, replay.segments.len(), replay.low_latency), (true, 3, None));
    assert!(
        edge.get_file("/live/talk/opus-48/19.m4s").await.all().await
            == studio.joined(Rendition::Opus48, 19..20)
    );
    edge.stop().await;
}

/// Heads and addresses without measure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_have_a_limit() {
    let (_directory, _studio, edge) = on_air(10).await;
    let long = "x".repeat(70_000);
    assert_eq!(get(edge.files, "/healthz", &[("X-Long", &long)]).await.status, 431);
    assert!(matches!(get(edge.files, &format!("/live/talk/{long}"), &[]).await.status, 414 | 431));
    // What is within it and makes no sense is quoted only in part.
    let problem = edge.get_file(&format!("/live/talk/opus-48/{}.m4s", &long[..9_000])).await;
    assert_eq!(problem.status, 400);
    assert!(problem.all().await.len() < 1_000);
    edge.stop().await;
}
