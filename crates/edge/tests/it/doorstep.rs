//! The push door when more stand at it than there are places, honest ones beside those who only hold them. Every address
//! that begins with 127 is this machine, so each 127.x.y.0/24 is a prefix of its own.

use std::net::{Ipv4Addr, SocketAddr};

use crate::common::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const EVICTED: &str = "minassa_edge_evicted_total";
const REFUSED: &str = "minassa_edge_refused_connections_total";
/// Places at the door beside those who listen.
const DOORSTEP: usize = 128;

/// A connection from somewhere.
async fn connect_from(from: [u8; 4], door: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
    timeout(NEVER, socket.connect(door)).await.expect("a place in the kernel's queue").unwrap()
}

/// Asks for what is not there; the whole answer.
async fn ask(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(NEVER, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
    answer
}

async fn small_door() -> (TempDir, Studio, Edge) {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.listeners_max = 1);
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    (directory, studio, edge)
}

/// Waits until a figure is at least this.
async fn grows_to(edge: &Edge, name: &str, least: u64) {
    let grown = async { while edge.figure(name).await < least {} };
    timeout(NEVER, grown).await.expect("it grows");
}

/// One prefix holds every place. Who comes from another is served at once, again and again, and those who listen go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_prefix_cannot_keep_the_door_from_the_others() {
    let (_directory, mut studio, edge) = small_door().await;
    let mut listener = edge.get_push("/live/talk/opus-48.mp4").await;
    assert_eq!(listener.status, 200);
    let mut held = Vec::new();
    for number in 0..DOORSTEP {
        held.push(connect_from([127, 66, 0, 1 + (number % 200) as u8], edge.push).await);
    }
    for number in 0..50 {
        let answer = ask(connect_from([127, 1, number, 1], edge.push).await).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        // Each of them leaves a place behind, which is taken again.
        held.push(connect_from([127, 66, 0, 1 + number], edge.push).await);
    }
    assert!(edge.figure(EVICTED).await >= 1);
    studio.air_silence(1);
    assert!(listener.next().await.unwrap().is_some());
    drop(held);
    edge.stop().await;
}

/// Those of one prefix whom there is no room for are closed unheard once the door is blocked, so that whoever stands behind
/// them in the kernel's queue is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_behind_a_blocked_crowd_is_seen() {
    let (_directory, _studio, edge) = small_door().await;
    let mut held = Vec::new();
    // Longer than the door waits for a crowd to pass, and far more than there are places.
    let mut number = 0;
    while edge.figure(REFUSED).await == 0 {
        for _ in 0..DOORSTEP {
            number += 1;
            held.push(connect_from([127, 66, 0, 1 + (number % 200) as u8], edge.push).await);
        }
        let answer = ask(connect_from([127, 1, 0, 1], edge.push).await).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    grows_to(&edge, EVICTED, 1).await;
    drop(held);
    // The door is as open as before.
    let answer = ask(connect_from([127, 66, 0, 1], edge.push).await).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    edge.stop().await;
}

/// Many behind one address, all at once and no more than the kernel queues: all are served, since they ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_behind_one_address_gets_through_a_small_door() {
    let (_directory, _studio, edge) = small_door().await;
    let callers: Vec<_> = (0..2_000)
        .map(|_| tokio::spawn(async move { ask(connect_from([127, 7, 7, 7], edge.push).await).await }))
        .collect();
    for caller in callers {
        let answer = caller.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    assert_eq!(edge.figure(REFUSED).await, 0);
    edge.stop().await;
}

/// One network alone gets half of the door to listen at; the others find a place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_network_does_not_have_all_places_to_listen() {
    const REQUEST: &[u8] = b"GET /live/talk/opus-48.mp4 HTTP/1.1\r\nHost: a\r\n\r\n";
    const LISTENERS: usize = 40;
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |config| config.listeners_max = LISTENERS + DOORSTEP);
    studio.air_silence(4);
    studio.heard_by("edge-0").await;
    let listen = async |from: [u8; 4]| {
        let mut stream = connect_from(from, edge.push).await;
        stream.write_all(REQUEST).await.unwrap();
        let mut head = [0; 64];
        let length = timeout(NEVER, stream.read(&mut head)).await.expect("an answer").unwrap();
        (stream, String::from_utf8_lossy(&head[..length]).into_owned())
    };
    let mut held = Vec::new();
    let half = (LISTENERS + 2 * DOORSTEP) / 2;
    for number in 0..half {
        let (stream, answer) = listen([127, 66, 0, 1 + (number % 200) as u8]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
        held.push(stream);
    }
    let (_, answer) = listen([127, 66, 0, 9]).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(edge.figure("minassa_edge_refused_total{why=\"network\"}").await, 1);
    let (other, answer) = listen([127, 1, 0, 1]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop((held, other));
    edge.stop().await;
}

// ---- behind a proxy ----------------------------------------------------------------------------------------------------

const REFUSED_INTRODUCTIONS: &str = "minassa_edge_refused_introductions_total";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A header of the PROXY protocol, version 2, for a client with an IPv4 address.
fn introduced(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
}

/// An edge whose proxy connects from 127.9.0.1 only; figures are read from 127.0.0.1.
fn behind(directory: &TempDir, protocol: bool) -> Edge {
    Edge::start(directory.path(), 0, |config| {
        config.listeners_max = 1;
        config.proxies = vec!["127.9.0.1".parse().unwrap()];
        config.proxy_protocol = protocol;
    })
}

/// Sends pieces, one write each, and reads to the end, which may be a reset.
async fn exchange(from: [u8; 4], door: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = connect_from(from, door).await;
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        // The door may have closed meanwhile.
        let _ = stream.write_all(piece).await;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = timeout(NEVER, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8(answer).unwrap()
}

/// The PROXY protocol, version 2: required of the proxy, whole or in pieces, and refused from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_at_the_push_door() {
    const PROXY: [u8; 4] = [127, 9, 0, 1];
    let directory = TempDir::new().unwrap();
    let edge = behind(&directory, true);
    let header = introduced([192, 0, 2, 7]);
    let mut bytes: Vec<&[u8]> = header.chunks(1).collect();
    bytes.extend(GET.chunks(1));
    let (whole, own) = ([&header[..], GET].concat(), &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..]);
    for pieces in [&[&header[..], GET][..], &[&whole[..]], &bytes, &[own, GET]] {
        let answer = exchange(PROXY, edge.push, pieces).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    for pieces in [&[GET][..], &[&b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n"[..], GET]] {
        assert_eq!(exchange(PROXY, edge.push, pieces).await, "");
    }
    edge.reaches(REFUSED_INTRODUCTIONS, 2).await;
    // From elsewhere it is no request.
    let answer = exchange([127, 8, 0, 1], edge.push, &[&header, GET]).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = exchange([127, 8, 0, 1], edge.push, &[GET]).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    edge.stop().await;
}

/// The header comes before the handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_before_tls() {
    let directory = TempDir::new().unwrap();
    let tls = own_tls(directory.path());
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let edge = Edge::start_with(directory.path(), 0, free, free, Some(tls), |config| {
        config.proxies = vec!["127.9.0.1".parse().unwrap()];
        config.proxy_protocol = true;
    });
    let connector = connector(directory.path());
    for door in [edge.push, edge.files] {
        let mut stream = connect_from([127, 9, 0, 1], door).await;
        stream.write_all(&introduced([192, 0, 2, 7])).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(request_on(stream, "GET", "/", &[]).await.status, 404);
    }
    edge.stop().await;
}

/// `X-Forwarded-For`: required of the proxy, refused from elsewhere, at both doors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_for_at_both_doors() {
    let directory = TempDir::new().unwrap();
    let edge = behind(&directory, false);
    let named =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n\r\n";
    let unnamed = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for door in [edge.push, edge.files] {
        for (from, request, status) in [
            ([127, 9, 0, 1], &named[..], "404"),
            ([127, 9, 0, 1], &unnamed[..], "400"),
            ([127, 8, 0, 1], &named[..], "400"),
            ([127, 8, 0, 1], &unnamed[..], "404"),
        ] {
            let answer = exchange(from, door, &[request]).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{from:?}: {answer}");
            assert_eq!(answer.contains("problem:forwarded"), status == "400", "{answer}");
        }
    }
    edge.reaches(REFUSED_INTRODUCTIONS, 2).await;
    edge.reaches("minassa_edge_files_door_total{what=\"bad_forwarded_for\"}", 2).await;
    // Whoever comes through the proxy is not on this machine, whatever it says, and may not measure.
    let measure = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 127.0.0.1, 192.0.2.7\r\n\r\n";
    let answer = exchange([127, 9, 0, 1], edge.files, &[measure]).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    edge.stop().await;
}

/// Clients behind a proxy have each their own weight: one of them cannot keep the door from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_behind_a_proxy_is_weighed() {
    const PROXY: [u8; 4] = [127, 9, 0, 1];
    let directory = TempDir::new().unwrap();
    let edge = behind(&directory, true);
    let mut held = Vec::new();
    for number in 0..=DOORSTEP {
        let mut stream = connect_from(PROXY, edge.push).await;
        stream.write_all(&introduced([192, 0, 2, number as u8])).await.unwrap();
        held.push(stream);
    }
    for number in 0..20 {
        let answer = exchange(PROXY, edge.push, &[&introduced([198, 51, number, 1]), GET]).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let mut stream = connect_from(PROXY, edge.push).await;
        stream.write_all(&introduced([192, 0, 2, 200 + number])).await.unwrap();
        held.push(stream);
    }
    assert!(edge.figure(EVICTED).await >= 1);
    edge.stop().await;
}
