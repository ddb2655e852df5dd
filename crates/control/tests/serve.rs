//! Control as a whole: its real door, its real store, and the real bus with an origin and an edge on it.

use std::net::SocketAddr;
use std::path::Path;

use backend::bus::{Bus as _, UnixBus};
use backend::wire::{
    self, AnchorRecord, Audience, EdgeEvent, EventStatus, Events, Form, Heartbeat, ListenerCount,
    OriginStatus, StateRecord,
};
use minassa_control::{ControlConfig, Doors, Place, run};
use model::{Event, Rendition, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

fn start(data: &Path) -> Server {
    let listener = backend::http::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let door = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let doors = Doors { push: door(1), stage: door(2), files: door(3) };
    let place = Place { data: data.to_owned(), listener, doors: Some(doors), tls: None };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(ControlConfig::default(), place, shutdown.clone()));
    Server { address, shutdown, running }
}

impl Server {
    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len(),
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// What control tells of the one event, as soon as it tells of one with this title.
async fn told(bus: &UnixBus, title: &str) -> Event {
    let mut events = bus.subscribe("control", "events", None);
    loop {
        let message = events.next().await.unwrap();
        let events: Events = wire::decode(&message.payload).unwrap();
        if let Some(record) = events.events.into_iter().find(|event| event.title.en == title) {
            return Event::try_from(record).unwrap();
        }
    }
}

fn status(event: &Event, state: StateRecord) -> OriginStatus {
    let doors = UnixTime::parse("2026-11-22T19:45:00Z").unwrap();
    OriginStatus {
        pid: 1,
        at: doors,
        events: vec![EventStatus {
            event: event.slug.clone(),
            revision: event.revision,
            state,
            epoch: Some(1),
            anchor: Some(AnchorRecord { doors, doors_boot_ns: 0, boot_id: [0; 16] }),
            live_at: Some(doors),
            ended_at: None,
            newest_part: Some(model::PartNumber::new(9)),
            recorded_through: Some(model::PartNumber::new(8)),
            alarms: vec![wire::Alarm::DeadAir],
            late: false,
            seats: Vec::new(),
        }],
    }
}

#[tokio::test]
async fn it_tells_hears_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let bus_directory = data.join("run/bus");
    let origin = UnixBus::bind(&bus_directory, "origin").unwrap();
    let edge = UnixBus::bind(&bus_directory, "edge-0").unwrap();
    let server = start(data);
    // Its socket is bound before it runs, so this waits for it.
    assert_eq!(server.ask("GET", "/api/events", "", "").await.0, 401, "an empty token is no token");
    let token = std::fs::read_to_string(data.join("run/operator-token")).unwrap();
    let token = token.trim();

    let soon = backend::clock::unix_now().plus(std::time::Duration::from_secs(3_600));
    let body = format!(r#"{{"slug":"one","title":"A talk","starts_at":"{soon}"}}"#);
    let (status_code, created) = server.ask("POST", "/api/events", token, &body).await;
    assert_eq!(status_code, 201, "{created}");
    let event = told(&origin, "A talk").await;
    assert_eq!((event.slug.as_str(), event.seats.len()), ("one", 3));
    // What origin freezes is enough to check the invitation.
    let invite = created["invites"]["host"].as_str().unwrap();
    stage::invite::verify(invite, &event, backend::clock::unix_now()).unwrap();
    server.ask("PATCH", "/api/events/one", token, r#"{"title":"Another"}"#).await;
    assert_eq!(told(&edge, "Another").await.revision, 2);

    // Reports come every second; here they come until they have been heard.
    let count = ListenerCount { rendition: Rendition::Opus48, form: Form::Push, tier: 1, count: 200 };
    let at_edge = EdgeEvent { event: event.slug.clone(), newest_part: None, listeners: vec![count] };
    let heartbeat = Heartbeat { events: vec![at_edge], ..Heartbeat::default() };
    origin.publish("status", 1, wire::encode(&status(&event, StateRecord::Live)));
    edge.publish("heartbeat", 1, wire::encode(&heartbeat));
    let mut audience = edge.subscribe("control", "audience", None);
    let totals = loop {
        edge.publish("heartbeat", 2, wire::encode(&heartbeat));
        let audience: Audience = wire::decode(&audience.next().await.unwrap().payload).unwrap();
        if !audience.totals.is_empty() {
            break audience.totals;
        }
    };
    assert_eq!((totals[0].event.as_str(), totals[0].listeners), ("one", 200));
    let view = loop {
        let (_, view) = server.ask("GET", "/api/events/one", token, "").await;
        if view["state"] == "live" {
            break view;
        }
    };
    assert_eq!(view["doors_at"], "2026-11-22T19:45:00.000Z");
    assert_eq!(view["manage"]["alarms"], serde_json::json!(["dead_air"]));
    assert_eq!(view["manage"]["recorded_through"], 8);
    server.stop().await;

    // Without origin, what was reported last is still known.
    drop(origin);
    let server = start(data);
    let (_, view) = server.ask("GET", "/api/events/one", token, "").await;
    assert_eq!((&view["state"], &view["revision"]), (&"live".into(), &2.into()));
    assert_eq!(told(&edge, "Another").await.signing_key, event.signing_key);
    server.stop().await;
}

#[tokio::test]
async fn what_it_cannot_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let begin = async |config: ControlConfig, data: &Path| {
        let listener = backend::http::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        let place = Place { data: data.to_owned(), listener, doors: None, tls: None };
        run(config, place, CancellationToken::new()).await.unwrap_err().to_string()
    };
    let config = ControlConfig { ticket_s: 1, ..ControlConfig::default() };
    assert_eq!(begin(config, directory.path()).await, "control.ticket_s = 1 is not allowed: 60 to 86400");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = begin(ControlConfig::default(), &file).await;
    assert!(error.contains("file/run"), "{error}");
    std::fs::write(directory.path().join("minassa.db"), "no database".repeat(1_000)).unwrap();
    let error = begin(ControlConfig::default(), directory.path()).await;
    assert!(error.contains("minassa.db"), "{error}");
}
