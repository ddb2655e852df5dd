//! A data directory with events, a control that names them, and an origin as a child process that can be killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use archive::Recording;
use backend::bus::{Bus as _, Subscription, UnixBus};
use backend::keys::Keys;
use backend::wire::{self, EventRecord, EventStatus, Events, OriginStatus};
use backend::{clock, http as doors};
use minassa_origin::{self as origin, OriginConfig, Place};
use model::{
    Anchor, Bilingual, Event, EventSlug, GreenRoom, InviteId, PART_SAMPLES, Part, PartNumber, Rendition,
    Role, Seat, SeatId, ShowState, UnixTime,
};
use packager::verify::{FoundPart, Report, verify};
use serde_json::Value;
use stage::invite::{Invite, sign};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long; what does has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const DATA: &str = "MINASSA_TEST_ORIGIN_DATA";
const DOORS: &str = "MINASSA_TEST_ORIGIN_DOORS";
pub(crate) const OPERATOR: &str = "operator-token-of-this-test";

/// The child's side: not a test of its own, but what [`Origin::start`] runs.
#[test]
fn origin_process() {
    let Ok(data) = std::env::var(DATA) else { return };
    let data = PathBuf::from(data);
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("minassa_origin=debug,info")
        .try_init();
    let asked = std::env::var(DOORS).unwrap_or_default();
    let mut asked = asked.split(' ').filter_map(|door| door.parse::<SocketAddr>().ok());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = doors::bind(asked.next().unwrap_or(any), false).unwrap();
    let media = origin::bind_media(asked.next().unwrap_or(any)).unwrap();
    let bound = format!("\ndoors {} {}\n", listener.local_addr().unwrap(), media.local_addr().unwrap());
    std::io::stdout().write_all(bound.as_bytes()).unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    // The parent's end of the pipe is the supervisor: when it closes, origin is to stop.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        stop.cancel();
    });
    let place = Place { data, listener, media, tls: None, pulses: None };
    let runtime = Runtime::new().unwrap();
    // The edge of these tests answers when its thread has its turn.
    let config = OriginConfig { refill_ms: 2_000, ..OriginConfig::default() };
    runtime.block_on(origin::run(config, place, shutdown)).unwrap();
}

/// A running origin.
pub(crate) struct Origin {
    child: Child,
    pub(crate) stage: SocketAddr,
    pub(crate) media: SocketAddr,
    _output: BufReader<ChildStdout>,
}

impl Origin {
    /// As a server kills: no warning, nothing flushed.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a supervisor stops it.
    pub(crate) fn stop(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "origin does not stop"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn whip(&self, event: &Event) -> String {
        format!("http://{}/whip/{}", self.stage, event.slug)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything around it.
pub(crate) struct House {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) keys: Keys,
    pub(crate) runtime: Runtime,
    /// The bus as an edge has it.
    pub(crate) edge: UnixBus,
    control: UnixBus,
    sequence: std::cell::Cell<u64>,
    events: std::cell::RefCell<Vec<Event>>,
    http: ureq::Agent,
}

impl House {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(&directory.path().join("keys")).unwrap();
        let runtime = Runtime::new().unwrap();
        let bus = directory.path().join("run/bus");
        let (edge, control) = runtime.block_on(async {
            (UnixBus::bind(&bus, "edge-0").unwrap(), UnixBus::bind(&bus, "control").unwrap())
        });
        std::fs::write(directory.path().join("run/operator-token"), OPERATOR).unwrap();
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self { directory, keys, runtime, edge, control, sequence: 0.into(), events: Vec::new().into(), http }
    }

    /// An event with a host, a co-host and two speakers.
    pub(crate) fn event(&self, slug: &str, starts_in: Duration) -> Event {
        let slug: EventSlug = slug.parse().unwrap();
        let roles = [Role::Host, Role::CoHost, Role::Speaker, Role::Speaker];
        let seats = roles.into_iter().zip(0..).map(|(role, id)| Seat {
            id: SeatId(id),
            role,
            name: format!("{} {id}", role.name()),
            invite: InviteId([id as u8; 8]),
            revoked: false,
        });
        Event {
            revision: 1,
            title: Bilingual { ar: "حديث".into(), en: "Talk".into() },
            starts_at: clock::unix_now().plus(starts_in),
            duration: None,
            doors_before: Duration::from_secs(900),
            auto_live: true,
            green_room: GreenRoom::Open,
            hold_on_silence: false,
            slate: None,
            invite_key: self.keys.invite().unwrap().verifying_key().to_bytes(),
            signing_key: self.keys.event(&slug).unwrap().verifying_key().to_bytes(),
            seats: seats.collect(),
            created_at: clock::unix_now(),
            slug,
        }
    }

    pub(crate) fn invite(&self, event: &Event, seat: u16) -> String {
        self.invite_until(event, seat, event.starts_at.plus(Duration::from_secs(86_400)))
    }

    pub(crate) fn invite_until(&self, event: &Event, seat: u16, expires: UnixTime) -> String {
        let seat = &event.seats[usize::from(seat)];
        let invite =
            Invite { event: event.slug.clone(), seat: seat.id, role: seat.role, id: seat.invite, expires };
        sign(&invite, &self.keys.invite().unwrap())
    }

    /// Control names this event from now on.
    pub(crate) fn announce(&self, event: &Event) {
        let mut events = self.events.borrow_mut();
        events.retain(|known| known.slug != event.slug);
        events.push(event.clone());
        let all = Events { events: events.iter().map(EventRecord::from).collect() };
        self.sequence.set(self.sequence.get() + 1);
        self.control.publish("events", self.sequence.get(), wire::encode(&all));
    }

    /// Control is gone.
    pub(crate) fn silence_control(&self) {
        self.control.retire("events");
    }

    /// Starts origin, at these doors if any are given.
    pub(crate) fn origin(&self, doors: Option<(SocketAddr, SocketAddr)>) -> Origin {
        let log = self.directory.path().join("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["house::origin_process", "--exact", "--nocapture"])
            .env(DATA, self.directory.path())
            .env(DOORS, doors.map(|(stage, media)| format!("{stage} {media}")).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let (stage, media) = loop {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "origin did not start");
            if let Some((stage, media)) =
                line.trim().strip_prefix("doors ").and_then(|doors| doors.split_once(' '))
            {
                break (stage.parse().unwrap(), media.parse().unwrap());
            }
        };
        Origin { child, stage, media, _output: output }
    }

    /// What origin has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Waits until origin has logged this.
    pub(crate) fn wait_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} never came:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn parts(&self, event: &Event, from: u64) -> Parts<'_> {
        Parts {
            house: self,
            topic: self.edge.subscribe("origin", &format!("parts/{}", event.slug), Some(from)),
        }
    }

    /// Waits until origin's status of an event satisfies `look`.
    pub(crate) fn wait<T>(&self, event: &Event, mut look: impl FnMut(&EventStatus) -> Option<T>) -> T {
        let mut topic = self.edge.subscribe("origin", "status", None);
        let mut last = None;
        self.runtime
            .block_on(async {
                tokio::time::timeout(PATIENCE, async {
                    loop {
                        let message = topic.next().await.unwrap();
                        let status: OriginStatus = wire::decode(&message.payload).unwrap();
                        let Some(ours) = status.events.into_iter().find(|one| one.event == event.slug) else {
                            continue;
                        };
                        if let Some(found) = look(&ours) {
                            return found;
                        }
                        last = Some(ours);
                    }
                })
                .await
            })
            .unwrap_or_else(|_| {
                panic!("origin never said so; last it said {last:?}; its log:\n{}", self.log())
            })
    }

    /// Waits until an event has ended and its last part is on the disk; the number of that part.
    pub(crate) fn wait_ended(&self, event: &Event) -> PartNumber {
        self.wait(event, |status| {
            let end = Anchor::from(status.anchor?).media_of(status.ended_at?).samples();
            let last = PartNumber::new(end.div_ceil(PART_SAMPLES).checked_sub(1)?);
            assert_eq!(ShowState::from(status.state.clone()), ShowState::Ended);
            assert_eq!(status.newest_part, Some(last), "the end is told when the last part is out");
            (status.recorded_through == Some(last)).then_some(last)
        })
    }

    /// Sends a request to the stage door: status and JSON (or text) of the answer.
    pub(crate) fn call(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        token: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", origin.stage))
            .header("content-type", content_type);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = self.http.run(request.body(body).unwrap()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Answer {
            status: response.status().as_u16(),
            location: response
                .headers()
                .get("location")
                .map(|location| location.to_str().unwrap().to_owned()),
            json: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    pub(crate) fn get(&self, origin: &Origin, path: &str, token: &str) -> Answer {
        self.call(origin, "GET", path, Some(token), "text/plain", b"")
    }

    pub(crate) fn post(&self, origin: &Origin, path: &str, token: &str, body: &Value) -> Answer {
        self.call(origin, "POST", path, Some(token), "application/json", body.to_string().as_bytes())
    }

    /// The recording as it lies on the disk, and what its chain proves.
    pub(crate) fn verified(&self, event: &Event) -> (Recording, Vec<Report>) {
        let directories = [self.directory.path().to_owned()];
        let recording = Recording::open(&directories, &event.slug).unwrap();
        let chain = recording.chain().unwrap();
        let key = self.keys.event(&event.slug).unwrap().verifying_key();
        let range = recording.parts();
        let reports = Rendition::ALL.map(|rendition| {
            let parts: Vec<FoundPart> = (range.start.get()..range.end.get())
                .map(PartNumber::new)
                .map(|number| FoundPart::hash(number, &recording.read_part(rendition, number).unwrap()))
                .collect();
            verify(&event.slug, rendition, &key, &parts, &chain)
        });
        (recording, reports.into())
    }
}

/// What the stage door answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) json: Value,
}

/// Parts as an edge gets them.
pub(crate) struct Parts<'a> {
    house: &'a House,
    topic: Subscription,
}

impl Parts<'_> {
    pub(crate) fn next(&mut self) -> Part {
        let next = async { tokio::time::timeout(PATIENCE, self.topic.next()).await };
        let message = self.house.runtime.block_on(next).expect("a part is overdue").unwrap();
        let part = wire::decode_part(message.payload).unwrap();
        assert_eq!(part.number.get(), message.sequence);
        part
    }

    /// The next `count` parts, which follow each other without a hole.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Part> {
        let parts: Vec<Part> = (0..count).map(|_| self.next()).collect();
        for pair in parts.windows(2) {
            assert_eq!(pair[1].number, pair[0].number.next(), "a hole in what is published");
        }
        parts
    }
}

/// Sends datagrams to the media port from many ports.
pub(crate) fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Sends raw bytes to the stage door and reads what comes back until the other end closes or `done` says so.
pub(crate) fn raw(origin: &Origin, bytes: &[u8]) -> String {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(origin.stage).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other end may close before it has read everything.
    let _ = stream.write_all(bytes);
    // Sources end with their connection. An ordinary request must not: a half-closed connection counts as gone.
    if !bytes.starts_with(b"GET ") {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
