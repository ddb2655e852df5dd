//! An edge in a process that may open few files, and what its files door runs on. A test of its own: the limit and the
//! threads are the process's.

#[path = "it/common/mod.rs"]
mod common;

use common::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const STREAM: &str = "/live/talk/opus-48.mp4";

/// Names and niceness of this process's threads.
fn threads(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (head, rest) = stat.rsplit_once(") ")?;
            // Field 19 of proc_pid_stat(5), of which two are before the name's end.
            head.ends_with(&format!("({name}")).then(|| rest.split(' ').nth(16)?.parse().ok())?
        })
        .collect()
}

/// A figure, asked for on a connection that is there already.
async fn figure_on(stream: &mut TcpStream, name: &str) -> u64 {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 8_192];
        let count = timeout(NEVER, stream.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(count, 0);
        answer.extend_from_slice(&piece[..count]);
        // The last line of the last histogram.
        let text = String::from_utf8_lossy(&answer);
        if text.ends_with('\n') && text.contains("minassa_edge_turn_seconds_count") {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            return line.unwrap().parse().unwrap();
        }
    }
}

/// `listeners_max` is less if the limit of open files asks for it, `files_reserve` stays free, and who comes while there is
/// none left all the same is served once there is; `files_threads`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_files_are_divided_before_they_run_out() {
    // 128 at the door, 7 for a recording, 16 + 64 + 1 for everything else.
    const LISTENERS: usize = 20;
    let limit = Some((128 + 7 + 16 + 64 + 1 + LISTENERS) as u64);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| {
        config.files_connections_max = 16;
        config.files_reserve = 64;
        config.disk_reads = 1;
        config.files_threads = 3;
    });
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    assert_eq!(threads("files"), [15; 3]);
    assert_eq!(edge.figure("minassa_edge_listeners_max").await, LISTENERS as u64);
    let mut listeners = Vec::new();
    let refused = loop {
        let listener = edge.get_push(STREAM).await;
        if listener.status != 200 {
            break listener;
        }
        listeners.push(listener);
    };
    // The last places are not for newcomers.
    assert_eq!((refused.status, listeners.len()), (503, LISTENERS * 9 / 10));
    let kind = r#"{event="talk",rendition="opus-48",form="push",tier="1"}"#;
    assert_eq!(edge.figure(&format!("minassa_edge_event_listeners{kind}")).await, listeners.len() as u64);

    // Somebody takes all that is left but the one for a caller's own end.
    let mut kept = TcpStream::connect(edge.files).await.unwrap();
    assert_eq!(figure_on(&mut kept, "minassa_edge_failed_accepts_total").await, 0);
    let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    files.pop();
    let mut caller = TcpStream::connect(edge.push).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let failed = async { while figure_on(&mut kept, "minassa_edge_failed_accepts_total").await == 0 {} };
    timeout(NEVER, failed).await.unwrap();
    studio.air_silence(1);
    for listener in &mut listeners {
        assert!(listener.next().await.unwrap().is_some());
    }
    drop(files);
    let mut answer = String::new();
    timeout(NEVER, caller.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    drop(kept);
    edge.stop().await;
}
