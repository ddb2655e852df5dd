//! Doors behind proxies, over real sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::serve_tests::{exchange, open, short};
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";

fn behind(networks: &[&str], protocol: bool) -> Limits {
    let networks: Vec<_> = networks.iter().map(|network| network.parse().unwrap()).collect();
    Limits { proxies: Proxies::new(&networks, protocol), ..short() }
}

/// A header of the PROXY protocol for a client with an IPv4 address.
fn introduced(client: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = client;
    let addresses = [a, b, c, d, 127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90];
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
}

/// Sends pieces one after the other, each once the one before has gone out, and reads to the end.
async fn exchange_bytes(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        // The door may have closed meanwhile.
        let _ = stream.write_all(piece).await;
        yield_now().await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn forwarded_for_is_believed_of_proxies_and_required_of_them() {
    let door = open(behind(&["127.0.0.0/8", "10.0.0.0/8"], false));
    for (fields, expected) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7"),
        ("X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.9\r\n", "192.0.2.7"),
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
    ] {
        let answer = exchange(door.address, &format!("{GET}{fields}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(expected), "{fields}: {answer}");
    }
    for fields in ["", "X-Forwarded-For: unknown\r\n", "Forwarded: for=192.0.2.7\r\n"] {
        let answer = exchange(door.address, &format!("{GET}{fields}\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("problem:forwarded"),
            "{fields}: {answer}"
        );
    }
    assert_eq!(door.count("bad_forwarded_for"), 3);
    // The proxy looks whether we live.
    let answer =
        exchange(door.address, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "this door has no such page, and was asked for it: {answer}");
}

#[tokio::test]
async fn forwarded_for_is_refused_from_elsewhere() {
    let door = open(behind(&["10.0.0.0/8"], false));
    let answer = exchange(door.address, &format!("{GET}X-Forwarded-For: 192.0.2.7\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("problem:forwarded"), "{answer}");
    let answer = exchange(door.address, &format!("{GET}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    // A door without proxies believes nobody, and minds nobody.
    let door = open(short());
    let answer = exchange(door.address, &format!("{GET}X-Forwarded-For: 192.0.2.7\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn the_proxy_protocol_comes_first_and_is_required() {
    let door = open(behind(&["127.0.0.1"], true));
    let request = format!("{GET}\r\n");
    let header = introduced([192, 0, 2, 7]);
    // In one piece, and byte by byte.
    let answer = exchange_bytes(door.address, &[&[&header[..], request.as_bytes()].concat()]).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("192.0.2.7"), "{answer}");
    let mut pieces: Vec<_> = header.chunks(1).collect();
    pieces.push(request.as_bytes());
    let answer = exchange_bytes(door.address, &pieces).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("192.0.2.7"), "{answer}");
    // The proxy's own connection, to look whether we live.
    let own = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], request.as_bytes()].concat();
    let answer = exchange_bytes(door.address, &[&own]).await;
    assert!(answer.ends_with("127.0.0.1"), "{answer}");
    // What a client says in X-Forwarded-For is nothing to this door.
    let claimed = format!("{GET}X-Forwarded-For: 1.1.1.1\r\n\r\n");
    let answer = exchange_bytes(door.address, &[&[&header[..], claimed.as_bytes()].concat()]).await;
    assert!(answer.ends_with("192.0.2.7"), "{answer}");
    // Without a header, with one of the old kind, with half of one, and with one that is too long.
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 100]].concat();
    let old = format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n{request}");
    for bytes in [request.as_bytes(), old.as_bytes(), &long] {
        assert_eq!(exchange_bytes(door.address, &[bytes]).await, "");
    }
    assert_eq!(door.count("bad_proxy_header"), 3);
    assert_eq!(exchange_bytes(door.address, &[&header[..20]]).await, "");
}

#[tokio::test]
async fn the_proxy_protocol_is_refused_from_elsewhere() {
    for limits in [behind(&["10.0.0.0/8"], true), short()] {
        let door = open(limits);
        let both = [&introduced([192, 0, 2, 7])[..], GET.as_bytes(), b"\r\n"].concat();
        let answer = exchange_bytes(door.address, &[&both]).await;
        assert!(!answer.contains("200 OK"), "{answer}");
        let answer = exchange(door.address, &format!("{GET}\r\n")).await;
        assert!(answer.ends_with("127.0.0.1"), "{answer}");
    }
}

/// Behind a proxy each client has its own weight, not the proxy's.
#[tokio::test]
async fn who_is_behind_a_proxy_is_weighed_and_not_the_proxy() {
    let limits = Limits {
        connections_max: 16,
        header_timeout: Duration::from_secs(60),
        ..behind(&["127.0.0.1"], true)
    };
    let door = open(limits);
    let mut held = Vec::new();
    for number in 0..16 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(&introduced([192, 0, 2, number])).await.unwrap();
        held.push(stream);
    }
    for number in 0..10 {
        let both = [&introduced([198, 51, number, 1])[..], GET.as_bytes(), b"\r\n"].concat();
        let answer = exchange_bytes(door.address, &[&both]).await;
        assert!(answer.ends_with(&format!("198.51.{number}.1")), "{answer}");
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(&introduced([192, 0, 2, 100 + number])).await.unwrap();
        held.push(stream);
    }
    assert!(door.count("evicted") >= 1);
}
