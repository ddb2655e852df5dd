//! A listener against a door that breaks off, skips, refuses and ends.

// It lives in real time.
#![allow(clippy::disallowed_methods)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use formats::mp4::{PartBoxes, opus_init, write_emsg, write_part};
use minassa_rehearse::{PushConfig, PushListener};
use model::{MediaTime, PartNumber, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(30);

fn part(number: u64) -> Bytes {
    let frames = vec![Bytes::from_static(&[0xf8; 40]); 24];
    let number = PartNumber::new(number);
    let sequence = number.get() as u32 + 1;
    write_part(&PartBoxes { sequence, decode_time: number.start(), frames: &frames, lead: &[] })
}

fn status(state: &str) -> Bytes {
    let message = format!("{{\"s\":\"{state}\",\"n\":7,\"t\":1000480}}");
    write_emsg("urn:minassa:status:1", "", 1, MediaTime::ZERO, message.as_bytes())
}

/// What one connection is answered with, and then closed.
type Answers = Vec<(&'static str, Vec<Bytes>)>;

/// Answers each connection with the next of `answers`; returns the address and the requests' first lines.
async fn door(answers: Answers) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/live/x/opus-48.mp4", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let line = String::from_utf8(request).unwrap().lines().next().unwrap().to_owned();
            seen.lock().unwrap().push(line);
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
            connection.write_all(head.as_bytes()).await.unwrap();
            for bytes in body {
                // In two pieces: a part does not come in one read.
                let (first, second) = bytes.split_at(bytes.len() / 2);
                connection.write_all(first).await.unwrap();
                connection.write_all(second).await.unwrap();
            }
        }
    });
    (address, requests)
}

#[tokio::test]
async fn it_comes_back_where_it_was_and_counts_what_is_gone() {
    let parts = |numbers: &[u64]| numbers.iter().map(|number| part(*number)).collect::<Vec<_>>();
    let with_init = |mut body: Vec<Bytes>| {
        body.insert(0, opus_init());
        body
    };
    let mut last = with_init(parts(&[12, 15, 16]));
    last.push(status("ended"));
    let (address, requests) = door(vec![
        ("404 Not Found", vec![]),
        ("200 OK", with_init(parts(&[8, 9, 10]))),
        ("200 OK", with_init([parts(&[10, 11]), vec![status("live")]].concat())),
        ("200 OK", last),
    ])
    .await;

    let mut config = PushConfig::new(address);
    config.from = Some(PartNumber::new(8));
    config.keep_bytes = true;
    let listener = PushListener::start(config);
    listener.wait(PATIENCE, |report| report.ended.then_some(())).await.expect("the end");
    let report = listener.stop().await;

    let numbers: Vec<_> = report.parts.iter().map(|part| part.number.get()).collect();
    assert_eq!(numbers, [8, 9, 10, 11, 12, 15, 16], "{:?}", report.errors);
    assert_eq!((report.missed, report.repeated), (2, 1));
    assert!(!report.is_contiguous());
    assert_eq!((report.connections, report.refused, report.statuses), (4, 1, 2));
    assert_eq!(report.parts[3].bytes.as_ref(), Some(&part(11)));
    let status = report.status.unwrap();
    assert_eq!((status.state.as_str(), status.listeners), ("ended", Some(7)));
    assert_eq!(status.newest_end, Some(UnixTime::from_millis(1_000_480)));
    let froms: Vec<_> = requests
        .lock()
        .unwrap()
        .iter()
        .map(|line| line.split(['=', '&']).nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(froms, ["8", "8", "11", "12"]);
}

#[tokio::test]
async fn garbage_ends_a_connection_not_the_listener() {
    let (address, _requests) = door(vec![
        ("200 OK", vec![Bytes::from_static(&[0xff; 64])]),
        ("200 OK", vec![opus_init(), part(3), status("ended")]),
    ])
    .await;
    let listener = PushListener::start(PushConfig::new(address));
    listener.wait(PATIENCE, |report| report.ended.then_some(())).await.expect("the end");
    let report = listener.stop().await;
    assert_eq!(report.newest(), Some(PartNumber::new(3)));
    assert_eq!(report.connections, 2);
    assert!(!report.errors.is_empty());
}
