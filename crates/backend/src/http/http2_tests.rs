//! What HTTP/2 lends itself to, in frames written here, over real sockets: each attack ends its own connection, or is
//! bounded, and others are served meanwhile and after.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::frames::FRAMES_MAX;
use super::serve_tests::{Door, exchange, frame, open, short};
use super::*;

/// Nothing takes this long unless it is broken.
const NEVER: Duration = Duration::from_secs(60);
/// The preface and our first SETTINGS, with nothing in them.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 200;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:method: GET`, `:scheme: http`, `:path: /hang`, `:authority: a` (RFC 7541).
const HANG: &[u8] = b"\x82\x86\x04\x05/hang\x01\x01a";
/// The same with `GET /large`, `POST /echo`, `GET /`.
const LARGE: &[u8] = b"\x82\x86\x04\x06/large\x01\x01a";
const ECHO: &[u8] = b"\x83\x86\x04\x05/echo\x01\x01a";
const ROOT: &[u8] = b"\x82\x86\x84\x01\x01a";

/// A connection with both sides' first words said.
async fn connect(door: &Door) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.into_split()
}

type Received = (u8, u8, u32, Vec<u8>);

/// The next frame: type, flags, stream, payload; `None` once the connection has ended, in whatever way.
async fn next(reader: &mut OwnedReadHalf) -> Option<Received> {
    let mut head = [0; 9];
    timeout(NEVER, reader.read_exact(&mut head)).await.expect("a frame or an end").ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    timeout(NEVER, reader.read_exact(&mut payload)).await.expect("a payload or an end").ok()?;
    Some((kind, flags, u32::from_be_bytes(id), payload))
}

/// What came until the end.
#[derive(Debug, Default)]
struct End {
    /// Why, if it was said.
    reason: Option<u32>,
    resets: usize,
    frames: usize,
}

async fn end(reader: &mut OwnedReadHalf) -> End {
    let mut end = End::default();
    while let Some((kind, _, _, payload)) = next(reader).await {
        end.frames += 1;
        match kind {
            GOAWAY => end.reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            RST_STREAM => end.resets += 1,
            _ => {}
        }
    }
    end
}

/// Others get what they ask for.
async fn others_are_served(door: &Door) {
    let answer = exchange(door.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let (mut reader, mut writer) = connect(door).await;
    writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, ROOT)).await.unwrap();
    loop {
        let (kind, _, id, payload) = next(&mut reader).await.expect("an answer");
        if kind == HEADERS {
            assert_eq!((id, payload[0]), (1, 0x88), "200");
            return;
        }
    }
}

/// Sends what `flood` makes of numbers from 0 on, for as long as it is taken, and reads what comes; others ask meanwhile.
async fn attack(door: &Door, flood: impl Fn(u32) -> Vec<u8> + Send + 'static) -> End {
    let (mut reader, mut writer) = connect(door).await;
    let flooding = tokio::spawn(async move {
        for number in 0.. {
            if writer.write_all(&flood(number)).await.is_err() {
                return;
            }
        }
    });
    let (end, ()) = tokio::join!(end(&mut reader), others_are_served(door));
    drop(reader);
    timeout(NEVER, flooding).await.expect("nobody takes it any more").unwrap();
    others_are_served(door).await;
    end
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// CVE-2023-44487: requests that are taken back at once, so that the limit of those in progress is never reached.
#[tokio::test]
async fn rapid_reset() {
    let door = open(Limits::default());
    let pair = |number| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), HANG);
        [request, frame(RST_STREAM, 0, stream(number), &CANCEL)].concat()
    };
    let end = attack(&door, pair).await;
    assert!(end.reason == Some(ENHANCE_YOUR_CALM) || door.count("http2_flood") == 1, "{end:?}");
}

/// The same, each taken back only when it has been looked at: no limit of the library is reached.
#[tokio::test]
async fn patient_rapid_reset() {
    let door = open(Limits::default());
    let (mut reader, mut writer) = connect(&door).await;
    let mut rounds = 0;
    'attack: loop {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(rounds), HANG);
        let asked = [request, frame(PING, 0, 0, &[7; 8])].concat();
        if writer.write_all(&asked).await.is_err() {
            break;
        }
        loop {
            match next(&mut reader).await {
                Some((PING, ACK, ..)) => break,
                Some(_) => {}
                None => break 'attack,
            }
        }
        let _ = writer.write_all(&frame(RST_STREAM, 0, stream(rounds), &CANCEL)).await;
        rounds += 1;
        assert!(rounds <= FRAMES_MAX, "each costs three frames and is worth half a one");
    }
    assert_eq!(door.count("http2_flood"), 1);
    others_are_served(&door).await;
}

/// CVE-2025-8671: requests that the server has to end itself, here because of a window beyond all bounds.
#[tokio::test]
async fn made_you_reset() {
    let door = open(Limits::default());
    let broken = |number| {
        let request = frame(HEADERS, END_HEADERS, stream(number), ECHO);
        [request, frame(WINDOW_UPDATE, 0, stream(number), &0x7fff_ffff_u32.to_be_bytes())].concat()
    };
    let end = attack(&door, broken).await;
    assert_eq!(end.reason, Some(ENHANCE_YOUR_CALM), "{end:?}");
    assert!(end.resets <= ENDED_MAX, "{end:?}");
}

/// The same by asking for more than may be asked for at once.
#[tokio::test]
async fn more_requests_than_allowed_again_and_again() {
    let door = open(Limits::default());
    let request = |number| frame(HEADERS, END_STREAM | END_HEADERS, stream(number), HANG);
    let end = attack(&door, request).await;
    assert!(end.reason == Some(ENHANCE_YOUR_CALM) || door.count("http2_flood") == 1, "{end:?}");
    assert!(end.resets <= ENDED_MAX, "{end:?}");
}

/// CVE-2024-27316: a head that never ends.
#[tokio::test]
async fn continuation_flood() {
    for payload in [&b""[..], b"\0\x01x\x01y"] {
        let door = open(Limits::default());
        let endless = move |number| match number {
            0 => frame(HEADERS, END_STREAM, 1, HANG),
            _ => frame(CONTINUATION, 0, 1, payload),
        };
        let end = attack(&door, endless).await;
        assert_eq!(end.reason, Some(ENHANCE_YOUR_CALM), "{end:?}");
    }
}

/// CVE-2016-6581: few bytes that decode to many. A field of 4,000 bytes goes into the table, and then every byte names it.
#[tokio::test]
async fn hpack_bomb() {
    let length = 4_000_u32;
    let varint = [0x7f, ((length - 127) & 0x7f) as u8 | 0x80, ((length - 127) >> 7) as u8];
    let field = [&b"\x40\x01x"[..], &varint, &vec![b'y'; length as usize]].concat();
    let bomb = move |times: usize| [HANG, &field, &vec![0xbe; times]].concat();
    // Beyond what is allowed: an answer, and the connection goes on.
    let door = open(Limits::default());
    let (mut reader, mut writer) = connect(&door).await;
    writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb(5))).await.unwrap();
    writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, ROOT)).await.unwrap();
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let (kind, flags, id, payload) = next(&mut reader).await.expect("answers");
        if kind == HEADERS {
            // 200 is the byte 0x88; what has no number of its own is in letters.
            answered.push((id, flags & END_STREAM != 0, payload[0] == 0x88));
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [(1, true, false), (3, false, true)]);
    // Far beyond it: an end.
    let door = open(Limits::default());
    let end =
        attack(&door, move |number| frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &bomb(30)))
            .await;
    assert_eq!(end.reason, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

/// CVE-2019-9512, CVE-2019-9515, CVE-2019-9513 and what is like them: frames that each ask for an answer, or for a look.
#[tokio::test]
async fn frames_for_nothing() {
    let dependency = [0, 0, 0, 0, 16];
    let floods: [(&str, Vec<u8>); 6] = [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("PING that answers nothing", frame(PING, ACK, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &dependency)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("unknown", frame(UNKNOWN, 0, 0, b"what")),
    ];
    for (name, bytes) in floods {
        let door = open(Limits::default());
        let end = attack(&door, move |_| bytes.clone()).await;
        assert_eq!(door.count("http2_flood"), 1, "{name}: {end:?}");
        // An answer to a PING is worth half a one.
        assert!(end.frames <= 3 * FRAMES_MAX as usize, "{name}: {end:?}");
    }
}

/// The same from somebody who does not read the answers: they are not kept.
#[tokio::test]
async fn frames_for_nothing_and_nobody_reads_the_answers() {
    for bytes in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let door = open(short());
        let (reader, mut writer) = connect(&door).await;
        while writer.write_all(&bytes).await.is_ok() {}
        drop(reader);
        others_are_served(&door).await;
    }
}

/// CVE-2019-9518, RUSTSEC-2026-0258: DATA without data.
#[tokio::test]
async fn empty_data() {
    for payload in [&b""[..], b"x"] {
        let door = open(Limits::default());
        let drip = move |number| match number {
            0 => frame(HEADERS, END_HEADERS, 1, HANG),
            _ => frame(DATA, 0, 1, payload),
        };
        let end = attack(&door, drip).await;
        assert!(end.reason == Some(ENHANCE_YOUR_CALM) || door.count("http2_flood") == 1, "{end:?}");
    }
}

/// CVE-2019-9511, CVE-2019-9517: who asks for much and opens no window, or one of a byte, keeps neither it nor the place
/// for ever, however lively the connection is otherwise.
#[tokio::test]
async fn a_window_of_no_byte_or_one() {
    for window in [0, 1] {
        let door = open(short());
        let (mut reader, mut writer) = connect(&door).await;
        writer.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window])).await.unwrap();
        writer.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, LARGE)).await.unwrap();
        let lively = tokio::spawn(async move {
            while writer.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        let end = end(&mut reader).await;
        assert_eq!(door.count("http2_stalled"), 1, "{window}: {end:?}");
        drop(reader);
        timeout(NEVER, lively).await.expect("an end").unwrap();
        others_are_served(&door).await;
    }
}

/// What may be sent of a body before anybody reads it is little where bodies are small.
#[tokio::test]
async fn little_of_a_body_is_taken_ahead() {
    for (body_bytes_max, expected) in [(0, 16 * 1024), (100_000, 100_000), (20_000_000, 256 * 1024)] {
        let door = open(Limits { body_bytes_max, ..Limits::default() });
        let (mut reader, _writer) = connect(&door).await;
        let (kind, _, _, payload) = next(&mut reader).await.expect("SETTINGS");
        assert_eq!(kind, SETTINGS);
        let setting = payload.chunks(6).find(|setting| setting[1] == 4).expect("INITIAL_WINDOW_SIZE");
        assert_eq!(u32::from_be_bytes(setting[2..].try_into().unwrap()), expected);
    }
}

/// Somebody who asks and takes what it gets is no flood, however often and however little that is.
#[tokio::test]
async fn who_asks_and_takes_is_no_flood() {
    let door = open(Limits::default());
    let (mut reader, mut writer) = connect(&door).await;
    for number in 0..3 * FRAMES_MAX {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), ROOT);
        let taken = frame(WINDOW_UPDATE, 0, 0, &9_u32.to_be_bytes());
        writer.write_all(&[request, taken].concat()).await.unwrap();
        loop {
            let (kind, flags, id, _) = next(&mut reader).await.expect("an answer");
            if kind == DATA && flags & END_STREAM != 0 && id == stream(number) {
                break;
            }
        }
    }
    assert_eq!(door.count("http2_flood"), 0);
}
