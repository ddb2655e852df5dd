//! A speaker against a WHIP endpoint that sends every packet back, so that it hears itself.

// Both ends live in real time.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use minassa_rehearse::{Heard, Phase, Speaker, SpeakerConfig, Tone, Weather};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

const PATIENCE: Duration = Duration::from_secs(60);

/// An echo with one session at a time; a new offer ends the one before.
struct Echo {
    address: SocketAddr,
    /// While set, the session keeps silent.
    silent: Arc<AtomicBool>,
    offers: Arc<AtomicUsize>,
    deleted: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = Self {
            address: listener.local_addr().unwrap(),
            silent: Arc::default(),
            offers: Arc::default(),
            deleted: Arc::default(),
        };
        let (silent, offers, deleted) = (echo.silent.clone(), echo.offers.clone(), echo.deleted.clone());
        std::thread::spawn(move || {
            let mut session: Option<Arc<AtomicBool>> = None;
            for connection in listener.incoming() {
                let Some((method, offer)) = read_request(connection.as_ref().unwrap()) else { continue };
                let mut connection = connection.unwrap();
                if method == "DELETE" {
                    deleted.fetch_add(1, Ordering::SeqCst);
                    write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    continue;
                }
                if let Some(before) = session.take() {
                    before.store(true, Ordering::SeqCst);
                }
                offers.fetch_add(1, Ordering::SeqCst);
                let over = Arc::new(AtomicBool::new(false));
                session = Some(over.clone());
                let answer = answer(&offer, silent.clone(), over);
                write!(
                    connection,
                    "HTTP/1.1 201 Created\r\nlocation: /whip/x/1\r\ncontent-type: application/sdp\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                )
                .unwrap();
            }
        });
        echo
    }

    fn config(&self) -> SpeakerConfig {
        let whip = format!("http://{}/whip/x", self.address);
        SpeakerConfig::new(whip, "secret", Tone { hz: 600, peak: 0.5 })
    }
}

fn read_request(connection: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let method = line.split(' ').next()?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if let Some(value) = header.strip_prefix("authorization:") {
            assert_eq!(value.trim(), "bearer secret");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, String::from_utf8(body).ok()?))
}

fn answer(offer: &str, silent: Arc<AtomicBool>, over: Arc<AtomicBool>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    let mut rtc = Rtc::builder()
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_opus(true, false)
        .build(Instant::now());
    rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
    let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer).unwrap()).unwrap();
    let answer = answer.to_sdp_string();
    std::thread::spawn(move || {
        let mut mid = None;
        let mut buffer = vec![0; 2_000];
        while !over.load(Ordering::SeqCst) && rtc.is_alive() {
            let timeout = loop {
                match rtc.poll_output().unwrap() {
                    Output::Timeout(at) => break at,
                    Output::Transmit(transmit) => {
                        socket.send_to(&transmit.contents, transmit.destination).ok();
                    }
                    Output::Event(Event::MediaAdded(added)) => mid = Some(added.mid),
                    Output::Event(Event::RtpPacket(packet)) if !silent.load(Ordering::SeqCst) => {
                        let header = &packet.header;
                        let (pt, time) = (header.payload_type, header.timestamp);
                        let mut direct = rtc.direct_api();
                        let stream = direct.stream_tx_by_mid(mid.unwrap(), None).unwrap();
                        let payload = packet.payload.clone();
                        stream.write_rtp(RtpWrite::new(pt, packet.seq_no, time, Instant::now(), payload));
                    }
                    Output::Event(_) => {}
                }
            };
            let wait = timeout.saturating_duration_since(Instant::now());
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            socket.set_read_timeout(Some(wait)).unwrap();
            if let Ok((length, source)) = socket.recv_from(&mut buffer)
                && let Ok(packet) = Receive::new(Protocol::Udp, source, local, &buffer[..length])
            {
                rtc.handle_input(Input::Receive(Instant::now(), packet)).unwrap();
            }
            rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        }
    });
    answer
}

/// Takes what is heard until `count` frames came.
fn hear(frames: &mpsc::Receiver<Heard>, count: usize) -> Vec<Heard> {
    (0..count).map(|_| frames.recv_timeout(PATIENCE).expect("something is heard")).collect()
}

fn periods(samples: &[f32]) -> usize {
    samples.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count()
}

#[test]
fn it_is_heard_and_hears() {
    let echo = Echo::start();
    let (tell, frames) = mpsc::channel();
    let mut config = echo.config();
    config.silence_limit = Duration::from_secs(5);
    config.heard = Some(Box::new(move |heard| {
        tell.send(heard).ok();
    }));
    let speaker = Speaker::start(config).unwrap();
    assert!(speaker.wait_connected(PATIENCE), "{:?}", speaker.state());

    let heard = hear(&frames, 100);
    let samples: Vec<f32> = heard[50..].iter().flat_map(|heard| heard.samples.clone()).collect();
    assert_eq!(samples.len(), 48_000);
    assert!(periods(&samples).abs_diff(600) <= 2, "{} periods in a second", periods(&samples));

    let state = speaker.leave();
    assert_eq!((state.phase, state.connections, state.failures), (Phase::Gone, 1, 0), "{state:?}");
    assert_eq!(state.missing, 0);
    assert_eq!(echo.deleted.load(Ordering::SeqCst), 1, "it says goodbye");
}

#[test]
fn silence_makes_it_offer_anew() {
    let echo = Echo::start();
    let speaker = Speaker::start(echo.config()).unwrap();
    assert!(speaker.wait_connected(PATIENCE), "{:?}", speaker.state());
    echo.silent.store(true, Ordering::SeqCst);
    speaker.wait(PATIENCE, |state| (state.phase != Phase::Connected).then_some(())).unwrap();
    echo.silent.store(false, Ordering::SeqCst);
    speaker.wait(PATIENCE, |state| (state.connections == 2).then_some(())).unwrap();
    assert!(echo.offers.load(Ordering::SeqCst) >= 2);
}

#[test]
fn weather_loses_what_it_says_and_the_ear_fills_the_holes() {
    let echo = Echo::start();
    let (tell, frames) = mpsc::channel();
    let mut config = echo.config();
    // The handshake has to get through the same weather.
    config.weather =
        Some(Weather { loss: 0.1, jitter: Duration::from_millis(15), seed: 3, ..Weather::CLEAR });
    config.silence_limit = Duration::from_secs(5);
    config.heard = Some(Box::new(move |heard| {
        tell.send(heard).ok();
    }));
    let speaker = Speaker::start(config).unwrap();
    assert!(speaker.wait_connected(PATIENCE), "{:?}", speaker.state());
    let heard = hear(&frames, 250);
    let concealed = heard.iter().filter(|heard| heard.concealed).count();
    // Lost there or back: nearly 19 of 100, and what was overtaken too late.
    assert!((20..160).contains(&concealed), "{concealed} of 250");
    assert!(heard.windows(2).all(|pair| pair[1].rtp_time > pair[0].rtp_time));

    speaker.cut(true);
    speaker.wait(PATIENCE, |state| (state.phase != Phase::Connected).then_some(())).unwrap();
    speaker.cut(false);
    speaker.wait(PATIENCE, |state| (state.connections >= 2).then_some(())).unwrap();
    let state = speaker.leave();
    assert!(state.weather.lost > 20, "{state:?}");
}

#[test]
fn a_refusal_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            read_request(&connection);
            write!(connection, "HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!")
                .unwrap();
        }
    });
    let mut config =
        SpeakerConfig::new(format!("http://{address}/whip/x"), "secret", minassa_rehearse::Silence);
    config.comes_back = false;
    let speaker = Speaker::start(config).unwrap();
    let state = speaker.wait(PATIENCE, |state| (state.phase == Phase::Gone).then(|| state.clone())).unwrap();
    assert_eq!(state.answer_status, Some(403));
    assert!(state.last_error.unwrap().contains("no!"));
}
