//! A listener of the pushed stream, as the page is one: one long-lived response, and back by itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use formats::mp4::{StreamItem, StreamSplitter, parse_part};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use model::{Digest, PartNumber, UnixTime};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use crate::peer::Backoff;
use crate::trust::Trust;

/// Scheme of the status that an edge inserts once a second.
const STATUS_SCHEME: &str = "urn:minassa:status:1";
/// Messages kept in a report.
const ERRORS_KEPT: usize = 16;
/// Most parts a report keeps; two days of them.
const PARTS_KEPT: usize = 400_000;
/// No connection may take longer to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How to listen.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// Address of the stream without a query: `http[s]://host:port/[t/{ticket}/]live/{event}/{rendition}.mp4`.
    pub address: String,
    /// Whom to believe that it is the server.
    pub trust: Trust,
    /// First part to ask for; `None` begins at the live edge.
    pub from: Option<PartNumber>,
    /// Parts a flush: 1, 2, 4 or 8.
    pub tier: u8,
    /// Whether the report keeps the bytes of the parts, or only their digests.
    pub keep_bytes: bool,
    /// A connection that brings nothing for this long is given up.
    pub silence_limit: Duration,
    /// Where the draws of the waits before coming back begin.
    pub seed: u64,
}

impl PushConfig {
    /// A listener of tier 1 that begins at the live edge.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            trust: Trust::default(),
            from: None,
            tier: 1,
            keep_bytes: false,
            silence_limit: Duration::from_secs(8),
            seed: 0,
        }
    }
}

/// A part as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedPart {
    /// Its number, from its decode time.
    pub number: PartNumber,
    /// When its last byte was read, by this machine's wall clock.
    pub at: UnixTime,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes, if they were to be kept.
    pub bytes: Option<Bytes>,
    /// The connection that brought it, counted from 1.
    pub connection: u32,
}

/// The edge's status between parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushStatus {
    /// State of the show: `doors`, `live`, `hold`, `ended`…
    pub state: String,
    /// Listeners, if it says so.
    pub listeners: Option<u64>,
    /// End of the newest part the edge has, if it says so.
    pub newest_end: Option<UnixTime>,
    /// The message as it came.
    pub raw: String,
}

/// Everything one listener has received.
#[derive(Clone, Debug, Default)]
pub struct PushReport {
    /// Parts in the order they came.
    pub parts: Vec<ReceivedPart>,
    /// Parts that were passed over: numbers skipped between two parts that came.
    pub missed: u64,
    /// Parts that came again, or late.
    pub repeated: u64,
    /// Connections opened.
    pub connections: u32,
    /// Answers that were no stream (with their status), and connections that failed.
    pub refused: u32,
    /// Bytes of bodies.
    pub bytes: u64,
    /// The stream's `init`.
    pub init: Option<Bytes>,
    /// The latest status.
    pub status: Option<PushStatus>,
    /// Statuses received.
    pub statuses: u64,
    /// Whether the edge said that the event has ended.
    pub ended: bool,
    /// What went wrong, the latest last, at most 16.
    pub errors: Vec<String>,
}

/// Delays from a part's end on the programme's timeline to its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// Parts counted: those that came while they were new.
    pub parts: usize,
    /// Median.
    pub median: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// Longest.
    pub most: Duration,
}

impl PushReport {
    /// The newest part that came.
    pub fn newest(&self) -> Option<PartNumber> {
        self.parts.last().map(|part| part.number)
    }

    /// Whether the parts are `first..=last` without a hole, from the first that came.
    pub fn is_contiguous(&self) -> bool {
        self.parts.windows(2).all(|pair| pair[1].number == pair[0].number.next())
    }

    /// Delays of the parts that came while they were new, for a programme whose part 0 began at `doors` (the
    /// snapshot of the stage door says when). Those of a connection's first burst, the parts of its first 500 ms,
    /// are left out: they were waiting for it.
    pub fn latency(&self, doors: UnixTime) -> LatencySummary {
        let burst = Duration::from_millis(500);
        let mut opened = (0, UnixTime::from_nanos(0));
        let mut delays: Vec<Duration> = self
            .parts
            .iter()
            .filter(|part| {
                if part.connection != opened.0 {
                    opened = (part.connection, part.at);
                }
                part.at.since(opened.1) > burst
            })
            .map(|part| part.at.since(doors.plus(part.number.next().start().to_duration())))
            .collect();
        delays.sort_unstable();
        let rank = |q: f64| delays.get(((delays.len() as f64 * q).ceil() as usize).max(1) - 1).copied();
        LatencySummary {
            parts: delays.len(),
            median: rank(0.5).unwrap_or_default(),
            p95: rank(0.95).unwrap_or_default(),
            most: rank(1.0).unwrap_or_default(),
        }
    }

    fn note(&mut self, error: String) {
        if self.errors.len() >= ERRORS_KEPT {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }
}

/// A listener at work, as one task of the current runtime. Many share a runtime; it stops when dropped.
#[derive(Debug)]
pub struct PushListener {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    report: Mutex<PushReport>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn update<T>(&self, change: impl FnOnce(&mut PushReport) -> T) -> T {
        let result = change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    fn read<T>(&self, look: impl FnOnce(&PushReport) -> T) -> T {
        look(&self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PushListener {
    /// Begins to listen. Needs a running tokio runtime.
    pub fn start(config: PushConfig) -> Self {
        let (changed, changes) = watch::channel(0);
        let shared = Arc::new(Shared { report: Mutex::default(), changed });
        let task = tokio::spawn(run(config, shared.clone()));
        Self { shared, changes, task }
    }

    /// Looks at what has come so far.
    pub fn look<T>(&self, look: impl FnOnce(&PushReport) -> T) -> T {
        self.shared.read(look)
    }

    /// A copy of what has come so far.
    pub fn report(&self) -> PushReport {
        self.look(PushReport::clone)
    }

    /// Waits until `look` yields something, for at most `within`; `None` if it did not.
    pub async fn wait<T>(
        &self,
        within: Duration,
        mut look: impl FnMut(&PushReport) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes.clone();
        timeout(within, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = self.shared.read(&mut look) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return self.shared.read(&mut look);
                }
            }
        })
        .await
        .ok()
        .flatten()
    }

    /// Hangs up and returns everything.
    pub async fn stop(mut self) -> PushReport {
        self.task.abort();
        (&mut self.task).await.ok();
        self.report()
    }
}

impl Drop for PushListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a connection was left.
enum Left {
    /// The event has ended.
    Ended,
    /// Come again after this long at the earliest.
    Again(Duration),
}

/// What went wrong with a connection.
#[derive(Debug)]
struct Trouble(String);

impl<E: fmt::Display> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

async fn run(config: PushConfig, shared: Arc<Shared>) {
    let mut chance = StdRng::seed_from_u64(config.seed);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    loop {
        let before = shared.read(|report| report.parts.len());
        let left = match connection(&config, &shared).await {
            Ok(left) => left,
            Err(Trouble(error)) => {
                shared.update(|report| report.note(error));
                Left::Again(Duration::ZERO)
            }
        };
        if shared.read(|report| report.parts.len()) > before {
            backoff.reset();
        }
        match left {
            Left::Ended => return,
            Left::Again(least) => tokio::time::sleep(least + backoff.wait(&mut chance)).await,
        }
    }
}

/// One connection from its opening to its end.
async fn connection(config: &PushConfig, shared: &Shared) -> Result<Left, Trouble> {
    let address: http::Uri = config.address.parse()?;
    let host = address.authority().ok_or("the address names no host")?.clone();
    let https = address.scheme() == Some(&http::uri::Scheme::HTTPS);
    let port = host.port_u16().unwrap_or(if https { 443 } else { 80 });
    let from = shared.read(PushReport::newest).map(PartNumber::next).or(config.from);
    let query = match from {
        Some(from) => format!("?from={from}&tier={}", config.tier),
        None => format!("?tier={}", config.tier),
    };
    shared.update(|report| report.connections += 1);
    let refused = |error: String| {
        shared.update(|report| report.refused += 1);
        Trouble(error)
    };

    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.host(), port)))
        .await
        .map_err(|_| refused("connecting took too long".into()))?
        .map_err(|error| refused(format!("connecting: {error}")))?;
    stream.set_nodelay(true)?;
    let stream = if https {
        let tls = config.trust.tls().ok_or("this listener speaks no https")?;
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let shaken = TlsConnector::from(tls).connect(ServerName::try_from(name)?, stream);
        let shaken = timeout(CONNECT_TIMEOUT, shaken)
            .await
            .map_err(|_| refused("the handshake took too long".into()))?;
        Either::Right(shaken.map_err(|error| refused(format!("handshake: {error}")))?)
    } else {
        Either::Left(stream)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with this task: dropping the sender and the body closes it.
    let _connection = AbortOnDrop(tokio::spawn(async move {
        connection.await.ok();
    }));
    let request = http::Request::get(format!("{}{query}", address.path()))
        .header(http::header::HOST, host.as_str())
        .body(Empty::<Bytes>::new())?;
    let response = timeout(config.silence_limit, sender.send_request(request))
        .await
        .map_err(|_| refused("no answer".into()))??;
    if response.status() != http::StatusCode::OK {
        let wait = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map_or(Duration::ZERO, |seconds: u64| Duration::from_secs(seconds.min(30)));
        let error = refused(format!("answered {}", response.status()));
        shared.update(|report| report.note(error.0));
        return Ok(Left::Again(wait));
    }

    let mut body = response.into_body();
    let mut splitter = StreamSplitter::new();
    loop {
        let frame = timeout(config.silence_limit, body.frame()).await.map_err(|_| "nothing came")?;
        let Some(frame) = frame else { break };
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        splitter.push(data);
        shared.update(|report| report.bytes += data.len() as u64);
        while let Some(item) = splitter.next()? {
            shared.update(|report| receive(config, report, item))?;
        }
    }
    let ended = shared.read(|report| report.ended);
    Ok(if ended { Left::Ended } else { Left::Again(Duration::ZERO) })
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn receive(config: &PushConfig, report: &mut PushReport, item: StreamItem) -> Result<(), Trouble> {
    match item {
        StreamItem::Init(init) => {
            if report.init.as_ref().is_some_and(|before| *before != init) {
                return Err("another init than before".into());
            }
            report.init = Some(init);
        }
        StreamItem::Event { scheme, message, .. } if scheme == STATUS_SCHEME => {
            receive_status(report, &message);
        }
        StreamItem::Part(bytes) => {
            let number = parse_part(&bytes)?.decode_time.part();
            let newest = report.newest();
            if newest.is_some_and(|newest| number <= newest) {
                report.repeated += 1;
                return Ok(());
            }
            if let Some(newest) = newest {
                report.missed += number.get() - newest.get() - 1;
            }
            if report.parts.len() < PARTS_KEPT {
                report.parts.push(ReceivedPart {
                    number,
                    at: now(),
                    digest: Digest::of(&bytes),
                    bytes: config.keep_bytes.then_some(bytes),
                    connection: report.connections,
                });
            }
        }
        StreamItem::Event { .. } | StreamItem::Other { .. } => {}
    }
    Ok(())
}

fn receive_status(report: &mut PushReport, message: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(message) else {
        report.note("a status that is no JSON".into());
        return;
    };
    let state = value["s"].as_str().unwrap_or_default().to_owned();
    report.ended |= state == "ended";
    report.statuses += 1;
    report.status = Some(PushStatus {
        state,
        listeners: value["n"].as_u64(),
        newest_end: value["t"].as_i64().map(UnixTime::from_millis),
        raw: String::from_utf8_lossy(message).into_owned(),
    });
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
