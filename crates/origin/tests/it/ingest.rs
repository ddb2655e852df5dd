//! Icecast sources.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UnixTime;
use programme::codec::{OpusLibrary, OpusSettings};

use crate::house::{House, Origin, PATIENCE, raw};

fn head(method: &str, event: &str, invite: &str, more: &str) -> String {
    let credentials = STANDARD.encode(format!("source:{invite}"));
    format!("{method} /ingest/{event} HTTP/1.0\r\nAuthorization: Basic {credentials}\r\n{more}\r\n")
}

/// An Ogg/Opus stream of a tone: `frames` of 20 ms, 24 a page.
fn stream(frames: usize) -> Vec<u8> {
    let mut encoder = OpusLibrary::default().encoder(OpusSettings::RETURN).unwrap();
    let packets: Vec<_> = (0..frames)
        .map(|frame| {
            let mut samples = [0.0; 960];
            for (n, sample) in samples.iter_mut().enumerate() {
                *sample = 0.3 * ((frame * 960 + n) as f32 / 48_000.0 * 700.0 * std::f32::consts::TAU).sin();
            }
            encoder.encode(&samples).unwrap()
        })
        .collect();
    let mut bytes = formats::ogg::opus_headers(7, "test", &[]).to_vec();
    for (page, packets) in packets.chunks(24).enumerate() {
        let end = ((page * 24 + packets.len()) * 960) as u64;
        let sequence = formats::ogg::HEADER_PAGES + page as u32;
        bytes.extend_from_slice(&formats::ogg::page_for_part(7, sequence, end, packets, false));
    }
    bytes
}

#[test]
fn sources_that_cannot_be_taken_are_told_why() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    let other = house.event("other", Duration::from_secs(600));
    house.announce(&event);
    house.announce(&other);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    house.wait(&other, |_| Some(()));
    let good = house.invite(&event, 2);
    let expired = house.invite_until(&event, 2, UnixTime::from_millis(1_000));
    let length = "Content-Length: 100000\r\n";
    let vorbis = {
        let mut page = stream(24);
        let at = page.windows(8).position(|bytes| bytes == b"OpusHead").unwrap();
        page[at..at + 8].copy_from_slice(b"\x01vorbis\0");
        reseal(&mut page, at - 28);
        page
    };
    let mut broken = stream(240);
    let middle = broken.len() / 2;
    broken[middle..].fill(0x55);
    broken.extend_from_slice(&[0x55; 200_000]);
    let rows: &[(&str, &str, String, &[u8])] = &[
        ("no invitation", "401", "PUT /ingest/talk HTTP/1.1\r\n\r\n".into(), b""),
        ("a wrong one", "401", head("PUT", "talk", "nonsense", length), b""),
        ("an expired one", "401", head("PUT", "talk", &expired, length), b""),
        ("one of another event", "403", head("PUT", "other", &good, length), b""),
        ("an unknown event", "404", head("PUT", "nothing", &good, length), b""),
        ("another address", "404", "SOURCE /elsewhere HTTP/1.0\r\n\r\n".into(), b""),
        ("no request", "400", "SOURCE x\r\n\r\n".into(), b""),
        ("two lengths", "400", head("PUT", "talk", &good, "Content-Length: 1\r\nContent-Length: 2\r\n"), b""),
        ("a long head", "431", head("PUT", "talk", &good, &"x: y\r\n".repeat(3_000)), b""),
        ("MP3", "415", head("PUT", "talk", &good, length), &[0xFF, 0xFB].repeat(80_000)),
        ("Vorbis", "415", head("PUT", "talk", &good, length), &vorbis),
        (
            "chunks that are none",
            "400",
            head("PUT", "talk", &good, "Transfer-Encoding: chunked\r\n"),
            b"xyz\r\n",
        ),
        (
            "an Ogg that breaks off in nonsense",
            "400",
            head("PUT", "talk", &good, "Content-Length: 9999999\r\n"),
            &broken,
        ),
    ];
    for (name, status, head, body) in rows {
        let answer = raw(&origin, &[head.as_bytes(), body].concat());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert!(answer.contains("urn:minassa:problem:"), "{name}: {answer}");
        assert!(!answer.contains(&good), "{name}: a secret is in the answer");
    }
    let unauthorized = raw(&origin, b"PUT /ingest/talk HTTP/1.1\r\n\r\n");
    assert!(unauthorized.contains("www-authenticate: Basic"), "{unauthorized}");
    // Whatever came of them, no seat is taken any more.
    house.wait(&event, |status| status.seats.iter().all(|seat| seat.sources == 0).then_some(()));
    let metrics = house.call(&origin, "GET", "/metrics", None, "text/plain", b"");
    let metrics = metrics.json.as_str().unwrap();
    assert!(metrics.contains("minassa_origin_ingest_broken_total 1"), "{metrics}");
    assert!(metrics.contains("minassa_origin_ingest_wrong_codec_total 2"), "{metrics}");
}

/// Gives a page its right checksum again (RFC 3533 section 6).
fn reseal(bytes: &mut [u8], at: usize) {
    let segments = bytes[at + 26] as usize;
    let body: usize = bytes[at + 27..at + 27 + segments].iter().map(|lacing| usize::from(*lacing)).sum();
    let page = &mut bytes[at..at + 27 + segments + body];
    page[22..26].fill(0);
    let crc = page.iter().fold(0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 }
        })
    });
    page[22..26].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_source_of_the_old_protocol_has_the_seat_while_it_sends() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    let invite = house.invite(&event, 2);
    let sound = stream(500);
    let mut connections = Vec::new();
    for (method, more, chunked) in [("SOURCE", "", false), ("PUT", "Transfer-Encoding: chunked\r\n", true)] {
        let mut connection = TcpStream::connect(origin.stage).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(head(method, "talk", &invite, more).as_bytes()).unwrap();
        if !chunked {
            let mut answer = [0; 19];
            connection.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.0 200 OK\r\n\r\n");
        }
        for piece in sound.chunks(1_000) {
            if chunked {
                connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            }
            connection.write_all(piece).unwrap();
            if chunked {
                connection.write_all(b"\r\n").unwrap();
            }
        }
        connections.push(connection);
        let count = connections.len() as u8;
        house.wait(&event, |status| {
            (status.seats[2].sources == count && status.seats[2].connected).then_some(())
        });
    }
    // Two are alive: a third is told so.
    let third = [head("PUT", "talk", &invite, "Content-Length: 1000000\r\n").as_bytes(), &sound].concat();
    let answer = raw(&origin, &third);
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    drop(connections);
    house.wait(&event, |status| (status.seats[2].sources == 0).then_some(()));
}

fn ffmpeg(house: &House, origin: &Origin, event: &model::Event, more: &[&str]) {
    let invite = house.invite(event, 2);
    let address = format!("icecast://source:{invite}@{}/ingest/{}", origin.stage, event.slug);
    let mut source = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-loglevel",
            "error",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=700:sample_rate=48000",
        ])
        .args(["-c:a", "libopus", "-b:a", "48k", "-f", "ogg"])
        .args(more)
        .arg(&address)
        .stdin(Stdio::null())
        .spawn()
        .expect("ffmpeg is installed");
    house.wait(event, |status| status.seats[2].connected.then_some(()));
    // It is heard: its level shows at the stage.
    let deadline = Instant::now() + PATIENCE;
    let loud = std::iter::repeat_with(|| house.get(origin, "/api/stage/talk", &invite).json)
        .take_while(|_| Instant::now() < deadline)
        .any(|snapshot| snapshot["seats"][2]["level_dbfs"].as_f64().is_some_and(|level| level > -40.0));
    source.kill().unwrap();
    source.wait().unwrap();
    assert!(loud, "the source is connected and not heard");
    house.wait(event, |status| (status.seats[2].sources == 0).then_some(()));
}

#[test]
fn ffmpeg_is_taken_in_both_of_its_manners() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    ffmpeg(&house, &origin, &event, &[]);
    ffmpeg(&house, &origin, &event, &["-legacy_icecast", "1"]);
    ffmpeg(&house, &origin, &event, &["-content_type", "audio/ogg"]);
    assert!(origin.stop().success());
}
