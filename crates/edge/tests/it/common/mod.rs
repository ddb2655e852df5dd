//! A stage without people: an origin's bus, packager and recorder driven by the test, real edges, and a small client.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use archive::{Marks, Moment, Recorder, RecorderConfig, Sync};
use backend::bus::{Bus, Subscription, UnixBus};
use backend::keys::Keys;
use backend::tls::{Tls, TlsConfig};
use backend::wire::{self, AnchorRecord, BilingualRecord, EventStatus, OriginStatus, StateRecord};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use minassa_edge::{self as edge, EdgeConfig, Place};
use model::{
    Bilingual, BootId, BootTime, ClockReading, Epoch, Event, EventSlug, GreenRoom, MP3_FRAME_SAMPLES,
    OPUS_FRAME_SAMPLES, PART_SAMPLES, Part, PartKind, PartNumber, Rendition, UnixTime,
};
use packager::{Opening, Packager, PartFrames, Resume, SilentFrames};
use programme::codec::{OpusLibrary, OpusSettings, mp3_encoder};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Nothing takes this long unless it is broken.
pub const NEVER: Duration = Duration::from_secs(60);

/// Doors of every event here.
pub fn doors() -> UnixTime {
    UnixTime::parse("2026-11-22T19:45:00Z").unwrap()
}

/// What origin is made of, without its network.
pub struct Studio {
    pub directory: PathBuf,
    pub event: EventSlug,
    pub bus: UnixBus,
    pub parts: Vec<Part>,
    state: StateRecord,
    packager: Packager,
    recorder: Recorder,
    marks: Marks,
    said: u64,
    /// What the edge gives back, which says when it has a part.
    echo: Option<Subscription>,
}

impl Studio {
    /// An event that is live from its first part on.
    pub fn new(directory: &Path, slug: &str) -> Self {
        let event: EventSlug = slug.parse().unwrap();
        let bus = UnixBus::bind(&directory.join("run/bus"), "origin").unwrap();
        let now = ClockReading { unix: doors(), boot: BootTime::from_nanos(7), boot_id: BootId([1; 16]) };
        let packager = Packager::open(Opening {
            event: &event,
            key: &SigningKey::from_bytes(&[9; 32]),
            epoch: Epoch(1),
            doors: doors(),
            now,
            resume: Resume::fresh(),
            silence: SilentFrames::standard(),
        })
        .unwrap();
        let config = RecorderConfig { directories: vec![directory.to_owned()], sync: Sync::Never };
        let (mut recorder, _) = Recorder::open_with(config, &event, Box::new(archive::DiskFiles)).unwrap();
        let live_at = Some(Moment { unix: doors(), media: PartNumber::ZERO.start() });
        let marks = Marks { doors: doors(), live_at, ended_at: None };
        recorder.set_marks(&marks).unwrap();
        let state = StateRecord::Live;
        let mut studio = Self {
            directory: directory.to_owned(),
            event,
            bus,
            parts: Vec::new(),
            state,
            packager,
            recorder,
            marks,
            said: 0,
            echo: None,
        };
        studio.say();
        studio
    }

    /// Tells how the event stands.
    pub fn set_state(&mut self, state: StateRecord) {
        self.state = state;
        self.say();
    }

    fn say(&mut self) {
        let status = EventStatus {
            event: self.event.clone(),
            revision: 1,
            state: self.state.clone(),
            epoch: Some(1),
            anchor: Some(AnchorRecord { doors: doors(), doors_boot_ns: 7, boot_id: [1; 16] }),
            live_at: Some(doors()),
            ended_at: None,
            newest_part: self.parts.last().map(|part| part.number),
            recorded_through: self.recorder.recorded_through(),
            alarms: Vec::new(),
            late: false,
            seats: Vec::new(),
        };
        self.said += 1;
        let status = OriginStatus { pid: 1, at: doors(), events: vec![status] };
        self.bus.publish("status", self.said, wire::encode(&status));
    }

    /// Records and publishes parts of these frames.
    pub fn air(&mut self, frames: impl IntoIterator<Item = PartFrames>) {
        for mut frames in frames {
            frames.number = self.packager.next();
            let part = self.packager.push(frames).unwrap();
            self.publish(part);
        }
        self.say();
    }

    /// Records and publishes silence, which is made fast.
    pub fn air_silence(&mut self, count: usize) {
        self.air(std::iter::repeat_with(silence).take(count));
    }

    fn publish(&mut self, part: Part) {
        self.recorder.append(&part).unwrap();
        let topic = format!("parts/{}", self.event);
        self.bus.publish(&topic, part.number.get(), wire::encode_part(&part));
        self.parts.push(part);
    }

    /// Ends the event and its recording.
    pub fn end(&mut self) {
        let closing = self.packager.close(doors()).unwrap();
        let end = closing.end.start();
        self.marks.ended_at = Some(Moment { unix: doors().plus(end.to_duration()), media: end });
        self.recorder.finish(&closing, &self.marks).unwrap();
        self.set_state(StateRecord::Ended);
    }

    /// Dies and comes back: a new socket, which retains what origin refills from its recording.
    pub fn restart_bus(&mut self) {
        self.echo = None;
        self.bus = UnixBus::bind(&self.directory.join("run/bus"), "origin").unwrap();
        let topic = format!("parts/{}", self.event);
        for part in &self.parts {
            self.bus.publish(&topic, part.number.get(), wire::encode_part(part));
        }
        self.say();
    }

    /// Waits until the edge has everything that was aired.
    pub async fn heard_by(&mut self, edge: &str) {
        let Some(last) = self.parts.last().map(|part| part.number.get()) else { return };
        let topic = format!("window/{}", self.event);
        let echo = self.echo.get_or_insert_with(|| self.bus.subscribe(edge, &topic, Some(0)));
        let heard = async {
            while let Some(message) = echo.next().await {
                if message.sequence == last {
                    return;
                }
            }
            panic!("the bus is gone");
        };
        timeout(NEVER, heard).await.expect("the edge takes parts");
        // The echo stays at the last part; whoever asks again subscribes anew.
        self.echo = None;
    }

    /// The bytes of parts in a rendition, joined.
    pub fn joined(&self, rendition: Rendition, range: std::ops::Range<usize>) -> Vec<u8> {
        self.parts[range].iter().flat_map(|part| part.payload(rendition).bytes.to_vec()).collect()
    }
}

pub fn silence() -> PartFrames {
    let silence = SilentFrames::standard();
    PartFrames {
        number: PartNumber::ZERO,
        kind: PartKind::Live,
        opus24: vec![silence.opus24; model::OPUS_FRAMES_PER_PART],
        opus48: vec![silence.opus48; model::OPUS_FRAMES_PER_PART],
        mp3: vec![silence.mp3; model::MP3_FRAMES_PER_PART],
    }
}

/// Half a minute of a tone, in all renditions. The encoders begin with it, so only the first part sounds odd.
pub fn tone() -> Vec<PartFrames> {
    static TONE: OnceLock<Vec<PartFrames>> = OnceLock::new();
    const PARTS: usize = 61;
    TONE.get_or_init(|| {
        let sample = |n: usize| 0.2 * (n as f32 * 600.0 / 48_000.0 * std::f32::consts::TAU).sin();
        let opus = |settings| {
            let mut encoder = OpusLibrary::default().encoder(settings).unwrap();
            let frames: Vec<Bytes> = (0..PARTS * model::OPUS_FRAMES_PER_PART)
                .map(|frame| {
                    let pcm = std::array::from_fn(|i| sample(frame * OPUS_FRAME_SAMPLES + i));
                    encoder.encode(&pcm).unwrap()
                })
                .collect();
            frames
        };
        let (opus24, opus48) = (opus(OpusSettings::OPUS_24), opus(OpusSettings::OPUS_48));
        let mut encoder = mp3_encoder().unwrap();
        let mp3: Vec<Bytes> = (0..PARTS * model::MP3_FRAMES_PER_PART)
            .map(|frame| {
                let pcm = std::array::from_fn(|i| sample(frame * MP3_FRAME_SAMPLES + i));
                encoder.encode(&pcm).unwrap()
            })
            .collect();
        let of = |frames: &[Bytes], part: usize, each: usize| frames[part * each..(part + 1) * each].to_vec();
        (0..PARTS)
            .map(|part| PartFrames {
                number: PartNumber::ZERO,
                kind: PartKind::Live,
                opus24: of(&opus24, part, model::OPUS_FRAMES_PER_PART),
                opus48: of(&opus48, part, model::OPUS_FRAMES_PER_PART),
                mp3: of(&mp3, part, model::MP3_FRAMES_PER_PART),
            })
            .collect()
    })
    .clone()
}

/// Seconds of a number of parts.
pub fn seconds(parts: usize) -> f64 {
    (parts as u64 * PART_SAMPLES) as f64 / 48_000.0
}

/// A description of an event, as control gives it.
pub fn event(slug: &str, starts_at: UnixTime) -> Event {
    Event {
        slug: slug.parse().unwrap(),
        revision: 1,
        title: Bilingual { ar: "حديث".to_owned(), en: "A talk".to_owned() },
        starts_at,
        duration: None,
        doors_before: Duration::from_secs(900),
        auto_live: true,
        green_room: GreenRoom::Open,
        hold_on_silence: false,
        slate: None,
        invite_key: [0; 32],
        signing_key: [0; 32],
        seats: Vec::new(),
        created_at: doors(),
    }
}

pub fn hold(message: &str) -> StateRecord {
    let message = BilingualRecord { ar: String::new(), en: message.to_owned() };
    StateRecord::Hold { until: Some(UnixTime::from_millis(1_000)), message }
}

/// A running edge.
pub struct Edge {
    pub push: SocketAddr,
    pub files: SocketAddr,
    pub shutdown: CancellationToken,
    pub running: tokio::task::JoinHandle<anyhow::Result<()>>,
    /// What believes its certificate, if it has one.
    pub trust: Option<TlsConnector>,
}

impl Edge {
    pub fn start(directory: &Path, index: u32, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(directory, index, free, free, change)
    }

    pub fn start_on(
        directory: &Path,
        index: u32,
        push: SocketAddr,
        files: SocketAddr,
        change: impl FnOnce(&mut EdgeConfig),
    ) -> Self {
        Self::start_with(directory, index, push, files, None, change)
    }

    /// One whose doors speak TLS.
    pub fn start_tls(directory: &Path, index: u32, tls: Arc<Tls>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_with(directory, index, free, free, Some(tls), |_| {})
    }

    pub fn start_with(
        directory: &Path,
        index: u32,
        push: SocketAddr,
        files: SocketAddr,
        tls: Option<Arc<Tls>>,
        change: impl FnOnce(&mut EdgeConfig),
    ) -> Self {
        let mut config = EdgeConfig::default();
        change(&mut config);
        let trust = tls.is_some().then(|| connector(directory));
        let (push, files) = (edge::bind(push).unwrap(), edge::bind(files).unwrap());
        let addresses = (push.local_addr().unwrap(), files.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let place = Place {
            data: directory.to_owned(),
            more_recordings: Vec::new(),
            index,
            push,
            files,
            tls,
            pulse: None,
        };
        let running = tokio::spawn(edge::run(config, place, shutdown.clone()));
        Self { push: addresses.0, files: addresses.1, shutdown, running, trust }
    }

    pub async fn get_push(&self, path: &str) -> Response {
        get(self.push, path, &[]).await
    }

    pub async fn get_file(&self, path: &str) -> Response {
        match &self.trust {
            None => get(self.files, path, &[]).await,
            Some(trust) => {
                request_on(connect_tls(self.files, trust).await, "GET", path, &[("connection", "close")])
                    .await
            }
        }
    }

    /// A figure from `/metrics`.
    pub async fn figure(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get_file("/metrics").await.all().await).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until a figure has this value.
    pub async fn reaches(&self, name: &str, value: u64) {
        let reached = async {
            while self.figure(name).await != value {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(NEVER, reached).await;
        assert!(waited.is_ok(), "{name} is {} and not {value}", self.figure(name).await);
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(NEVER, self.running).await.expect("it stops").unwrap().unwrap();
    }
}

/// A directory with an event that runs and an edge that knows it.
pub async fn on_air(parts: usize) -> (TempDir, Studio, Edge) {
    let directory = TempDir::new().unwrap();
    let mut studio = Studio::new(directory.path(), "talk");
    let edge = Edge::start(directory.path(), 0, |_| {});
    studio.air_silence(parts);
    studio.heard_by("edge-0").await;
    (directory, studio, edge)
}

/// A certificate made in the directory.
pub fn own_tls(directory: &Path) -> Arc<Tls> {
    let config = TlsConfig { self_signed: true, hsts_s: 600, ..TlsConfig::default() };
    Arc::new(Tls::open(&config, directory).unwrap().expect("it is on"))
}

/// Trusts the certificate that was made in the directory, and remembers tickets.
pub fn connector(directory: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let own = directory.join("keys/tls.pem");
    let certificate = CertificateDer::pem_file_iter(own).unwrap().next().unwrap().unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(backend::tls::provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    TlsConnector::from(Arc::new(config))
}

pub async fn connect_tls(address: SocketAddr, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

pub fn keys(directory: &Path) -> Keys {
    Keys::open(&directory.join("keys")).unwrap()
}

/// A connection, sealed or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An answer whose body comes as it is read.
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// Bytes left of the body or of the present chunk; `None` before a chunk.
    left: Option<u64>,
    chunked: bool,
    ended: bool,
}

pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    request(address, "GET", path, headers).await
}

pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    request_on(TcpStream::connect(address).await.unwrap(), method, path, headers).await
}

pub async fn request_on(
    mut stream: impl Stream + 'static,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: listen.example:8081\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Response {
        status: 0,
        headers: BTreeMap::new(),
        stream: Box::new(stream),
        buffer: Vec::new(),
        left: None,
        chunked: false,
        ended: false,
    };
    let status = response.line().await;
    response.status = status.split(' ').nth(1).unwrap_or_else(|| panic!("{status:?}")).parse().unwrap();
    loop {
        let line = response.line().await;
        let Some((name, value)) = line.split_once(": ") else { break };
        response.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    response.chunked = response.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    if !response.chunked {
        let length = response.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        response.left = Some(if method == "HEAD" { 0 } else { length });
    }
    response.ended = method == "HEAD";
    response
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        let count = timeout(NEVER, self.stream.read(&mut piece)).await.expect("something comes").unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..count]);
        count > 0
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.more().await, "closed within a line");
        }
    }

    /// The next bytes of the body; `None` after its proper end.
    ///
    /// # Errors
    /// The connection was closed before.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        if self.ended {
            return Ok(None);
        }
        if self.chunked && self.left.is_none() {
            while !self.buffer.windows(2).any(|pair| pair == b"\r\n") {
                if !self.more().await {
                    return Err("closed within a body");
                }
            }
            let size = self.line().await;
            let size = u64::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                self.ended = true;
                return Ok(None);
            }
            self.left = Some(size);
        }
        let left = self.left.unwrap_or(0);
        if left == 0 {
            self.ended = true;
            return Ok(None);
        }
        let whole = if self.chunked { left + 2 } else { left };
        while self.buffer.is_empty() || (self.chunked && (self.buffer.len() as u64) < whole) {
            if !self.more().await {
                return Err("closed within a body");
            }
        }
        let count = (self.buffer.len() as u64).min(left) as usize;
        let bytes = self.buffer.drain(..count).collect();
        self.left = Some(left - count as u64);
        if self.chunked {
            self.buffer.drain(..2);
            self.left = None;
        }
        Ok(Some(bytes))
    }

    /// The whole body.
    pub async fn all(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await.expect("the body is complete") {
            body.extend_from_slice(&bytes);
        }
        body
    }

    pub async fn text(self) -> String {
        String::from_utf8(self.all().await).unwrap()
    }
}
