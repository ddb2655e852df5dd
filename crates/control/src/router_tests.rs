//! The API over the real router, with a real store in a directory of its own.

mod room;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use admission::ledger::{Entry, Head, Opening, append};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use backend::keys::Keys;
use backend::objects::DirectoryObjects;
use backend::store::SqliteStore;
use backend::wire::{EventStatus, Heartbeat, LoadRecord, OriginStatus, StateRecord, UsedRecord};
use http::{HeaderMap, Method, Request, StatusCode};
use model::EventSlug;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::auth::OperatorToken;
use crate::router::router;
use crate::state::{Control, Parts};
use crate::verdicts::Verdicts;
use crate::{ControlConfig, Doors};

/// A year that is to come, and within the five that are allowed.
static YEAR: LazyLock<i32> = LazyLock::new(|| {
    let now = backend::clock::unix_now().to_string();
    now[..4].parse::<i32>().unwrap() + 2
});
/// A moment in it.
static LATER: LazyLock<String> = LazyLock::new(|| format!("{}-01-02T20:00:00+03:00", *YEAR));

struct Door {
    directory: TempDir,
    router: Router,
    control: Arc<Control>,
    token: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json");
            assert_eq!(self.json()["status"], status);
        }
        self
    }

    /// The keys that a problem names.
    fn refused(&self) -> Vec<String> {
        let invalid = self.json()["invalid"].as_array().cloned().unwrap_or_default();
        invalid.iter().map(|field| field["key"].as_str().unwrap().to_owned()).collect()
    }
}

impl Door {
    async fn open() -> Self {
        Self::open_in(TempDir::new().unwrap()).await
    }

    async fn open_in(directory: TempDir) -> Self {
        let path = directory.path().to_owned();
        let control = begin(&path, ControlConfig::default()).await;
        let token = std::fs::read_to_string(path.join("operator-token")).unwrap().trim().to_owned();
        Self { directory, router: router(control.clone()), control, token }
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "talk.example:8080");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.request(request.body(body.into()).unwrap()).await
    }

    async fn request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: head.status, headers: head.headers, bytes }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, Body::empty()).await
    }

    /// A second in which the event's doors are open, and an edge has so many seats.
    fn on_air(&self, slug: &str, seats: u64) {
        let now = std::time::Instant::now();
        let listeners = UsedRecord { used: u64::from(seats == 0), limit: seats.max(1) };
        let load = LoadRecord { listeners, ..LoadRecord::default() };
        let heartbeat = Heartbeat { load, ..Heartbeat::default() };
        let event = EventStatus {
            event: slug.parse().unwrap(),
            revision: 1,
            state: StateRecord::Doors,
            epoch: Some(1),
            anchor: None,
            live_at: None,
            ended_at: None,
            newest_part: None,
            recorded_through: None,
            alarms: Vec::new(),
            late: false,
            seats: Vec::new(),
        };
        let at = backend::clock::unix_now();
        let status = OriginStatus { pid: 1, at, events: vec![event] };
        self.control.observed().handle_status(status, |_| true, now);
        self.control.observed().handle_heartbeat("edge-0", heartbeat, now);
        self.open_ledger(&slug.parse().unwrap());
        self.control.read_ledgers();
        self.control.steer();
    }

    /// As origin does, ten minutes before doors: the draw mixes in its head.
    fn open_ledger(&self, slug: &EventSlug) {
        let path = Verdicts::path(&self.directory.path().join("ledger"), slug);
        if path.exists() {
            return;
        }
        let key = Keys::open(&self.directory.path().join("keys")).unwrap().event(slug).unwrap();
        let opening = Opening::new(slug, &key.verifying_key(), 0, 0, None);
        let (line, _) = append(&Head::EMPTY, &Entry::Open(Box::new(opening)), &key).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{line}\n")).unwrap();
    }

    /// With the operator's token.
    async fn operate(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, Some(&self.token), body.to_string()).await
    }

    async fn create(&self, slug: &str) -> Value {
        let body = json!({ "slug": slug, "title": "A talk", "title_ar": "حديث", "starts_at": *LATER });
        self.operate(Method::POST, "/api/events", &body).await.expect(201).json()
    }

    /// The invitation of a link: what is behind its `#`.
    fn host_of(created: &Value) -> String {
        created["invites"]["host"].as_str().unwrap().to_owned()
    }
}

async fn begin(path: &Path, config: ControlConfig) -> Arc<Control> {
    let doors = Doors {
        push: ([127, 0, 0, 1], 8081).into(),
        stage: ([127, 0, 0, 1], 8082).into(),
        files: ([127, 0, 0, 1], 8083).into(),
    };
    let parts = Parts {
        config,
        local: ([127, 0, 0, 1], 8080).into(),
        scheme: "http",
        tls: None,
        doors: Some(doors),
        addresses: path.join("addresses.json"),
        rooms: path.join("rooms"),
        ledgers: path.join("ledger"),
        store: Arc::new(SqliteStore::open(&path.join("minassa.db")).await.unwrap()),
        objects: Arc::new(DirectoryObjects::new(&path.join("objects"))),
        keys: Keys::open(&path.join("keys")).unwrap(),
        operator: OperatorToken::load_or_make(&path.join("operator-token")).unwrap(),
        // Long enough for origin, which these tests do without, to count as away.
        hears_since: std::time::Instant::now() - std::time::Duration::from_secs(60),
    };
    Control::begin(parts).await.unwrap()
}

/// A second of a tone as a WAV file.
fn tone(seconds: u32) -> Vec<u8> {
    let samples = 8_000 * seconds;
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + 2 * samples).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&8_000_u32.to_le_bytes());
    file.extend_from_slice(&16_000_u32.to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&(2 * samples).to_le_bytes());
    let wave = |n: u32| (f64::from(n) * 0.3).sin() * 8_000.0;
    (0..samples).for_each(|n| file.extend_from_slice(&(wave(n) as i16).to_le_bytes()));
    file
}

#[tokio::test]
async fn an_event_is_made_and_shown() {
    let door = Door::open().await;
    let body = json!({
        "title": " An <b>Evening</b>\u{202E} ", "starts_at": *LATER, "duration_s": 3600,
        "speakers": ["Layla", "\u{2066}Omar"], "green_room": "attended",
    });
    let answer = door.operate(Method::POST, "/api/events", &body).await.expect(201);
    assert_eq!(answer.header("location"), "/api/events/an-b-evening-b");
    assert_eq!(answer.header("etag"), "\"r1\"");
    let created = answer.json();
    assert_eq!(created["event"], "an-b-evening-b");
    assert_eq!(created["listen"], "http://talk.example:8080/e/an-b-evening-b");
    assert_eq!(created["console"], "http://talk.example:8080/console");
    let host = created["host"].as_str().unwrap();
    let (page, secret) = host.split_once('#').unwrap();
    assert_eq!(page, "http://talk.example:8082/e/an-b-evening-b/stage");
    assert_eq!(created["invites"]["host"], secret);
    assert_eq!(created["speakers"].as_array().unwrap().len(), 2);

    let public = door.get("/api/events/an-b-evening-b").await.expect(200).json();
    assert_eq!(public["title"], json!({ "ar": "", "en": "An <b>Evening</b>" }));
    assert_eq!(public["starts_at"], format!("{}-01-02T17:00:00.000Z", *YEAR));
    assert_eq!(public["state"], "scheduled");
    assert_eq!(
        (&public["duration_s"], &public["level"], &public["listeners"]),
        (&json!(3600), &json!(0), &json!(0))
    );
    assert_eq!(public["push"], "http://talk.example:8081/");
    assert_eq!(public["files"], "http://talk.example:8083/");
    assert_eq!(public.get("manage"), None, "not for everyone");
    let doors: &str = public["doors_at"].as_str().unwrap();
    // 234 segments of 3.84 s are the most that fit into a quarter of an hour.
    assert_eq!(doors, format!("{}-01-02T16:45:01.440Z", *YEAR));

    let manage =
        door.operate(Method::GET, "/api/events/an-b-evening-b", &Value::Null).await.expect(200).json();
    assert_eq!(manage["manage"]["green_room"], "attended");
    let seats: Vec<_> =
        manage["manage"]["seats"].as_array().unwrap().iter().map(|seat| &seat["name"]).collect();
    assert_eq!(seats, ["", "Layla", "Omar"]);
    let as_host =
        door.send(Method::GET, "/api/events/an-b-evening-b", Some(secret), Body::empty()).await.expect(200);
    assert_eq!(as_host.json()["manage"], manage["manage"]);
    assert_eq!(as_host.header("cache-control"), "no-store");

    let list = door.get("/api/events").await.expect(200).json();
    assert_eq!(list["events"][0]["event"], "an-b-evening-b");
    let status = door.get("/api/events/an-b-evening-b/status").await.expect(200);
    assert_eq!(status.header("cache-control"), "public, max-age=1");
    assert_eq!(status.json()["sentence"]["en"], "Everything is running as it should.");
}

#[tokio::test]
async fn names_are_made_from_titles() {
    let door = Door::open().await;
    let create = async |title: &str| {
        let body = json!({ "title": title, "starts_at": *LATER });
        door.operate(Method::POST, "/api/events", &body).await.expect(201).json()["event"].clone()
    };
    assert_eq!(create("A talk").await, "a-talk");
    assert_eq!(create("A talk").await, "a-talk-2");
    assert_eq!(create("حديث").await, "hdyth");
    let random = create("講演").await;
    assert!(random.as_str().unwrap().starts_with("talk-"), "{random}");
}

#[tokio::test]
async fn bad_events_are_refused_with_their_reasons() {
    let door = Door::open().await;
    door.create("taken").await;
    let long = "x".repeat(201);
    let with = |key: &str, value: Value| {
        let mut body = json!({ "title": "A talk", "starts_at": *LATER });
        body[key] = value;
        body
    };
    let many: Vec<_> = (0..33).map(|_| "").collect();
    for (body, status, keys) in [
        (json!({}), 422, vec!["title", "starts_at"]),
        (json!([]), 422, vec![""]),
        (with("starts_at", json!("2020-01-01T00:00:00Z")), 422, vec!["starts_at"]),
        (with("starts_at", json!("2900-01-01T00:00:00Z")), 422, vec!["starts_at"]),
        (with("starts_at", json!("2100-01-01T00:00:00Z")), 422, vec!["starts_at"]),
        (with("starts_at", json!(LATER[..19])), 422, vec!["starts_at"]),
        (with("starts_at", json!(1_800_000_000)), 422, vec!["starts_at"]),
        (with("title", json!("")), 422, vec!["title"]),
        (with("title", json!("\u{202A}\u{2069} \n")), 422, vec!["title"]),
        (with("title", json!(long)), 422, vec!["title"]),
        (with("title", json!({ "ar": "", "en": "" })), 422, vec!["title"]),
        (with("title", json!({ "fr": "Causerie" })), 422, vec!["title"]),
        (with("title_ar", json!(7)), 422, vec!["title_ar"]),
        (with("slug", json!("Bad Slug")), 422, vec!["slug"]),
        (with("slug", json!("../../etc")), 422, vec!["slug"]),
        (with("slug", json!("x".repeat(65))), 422, vec!["slug"]),
        (with("slug", json!("")), 422, vec!["slug"]),
        (with("slug", json!("taken")), 409, vec!["slug"]),
        (with("duration_s", json!(0)), 422, vec!["duration_s"]),
        (with("duration_s", json!(1.5)), 422, vec!["duration_s"]),
        (with("doors_before_s", json!(86_401)), 422, vec!["doors_before_s"]),
        (with("auto_live", json!("yes")), 422, vec!["auto_live"]),
        (with("green_room", json!("red")), 422, vec!["green_room"]),
        (with("speakers", json!(many)), 422, vec!["speakers"]),
        (with("speakers", json!([long])), 422, vec!["speakers"]),
        (with("speakers", json!("Layla")), 422, vec!["speakers"]),
        (with("colour", json!("red")), 422, vec!["colour"]),
    ] {
        let answer = door.operate(Method::POST, "/api/events", &body).await.expect(status);
        assert_eq!(answer.refused(), keys, "{body}");
    }
    let answer =
        door.operate(Method::POST, "/api/events", &with("starts_at", json!("soon"))).await.expect(422);
    let field = &answer.json()["invalid"][0];
    assert_eq!(field["value"], "soon");
    assert!(field["allowed"].as_str().unwrap().contains("RFC 3339"), "{field}");

    let post = async |body: &str, kind: &str| {
        let request = Request::post("/api/events")
            .header("authorization", format!("Bearer {}", door.token))
            .header("content-type", kind);
        door.request(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    post("{", "application/json").await.expect(400);
    post("{}", "text/plain").await.expect(415);
    post(&" ".repeat(65 * 1024), "application/json; charset=utf-8").await.expect(413);
    assert_eq!(
        door.get("/api/events").await.json()["events"].as_array().unwrap().len(),
        1,
        "nothing was made"
    );
}

#[tokio::test]
async fn who_may_what() {
    let door = Door::open().await;
    let (one, other) = (door.create("one").await, door.create("other").await);
    let (host, foreign) = (Door::host_of(&one), Door::host_of(&other));
    let speaker = one["invites"]["speakers"][0].as_str().unwrap();
    let new = json!({ "title": "A", "starts_at": *LATER }).to_string();
    type Callers<'a> = &'a [(Option<&'a str>, u16)];
    let cases: [(Method, &str, &str, Callers<'_>); 6] = [
        (Method::POST, "/api/events", &new, &[(None, 401), (Some("wrong"), 401), (Some(&host), 401)]),
        (Method::PATCH, "/api/events/one", "{}", &[(None, 401), (Some("wrong"), 401), (Some(&host), 401)]),
        (Method::PUT, "/api/events/one/slate", "x", &[(None, 401), (Some(&host), 401)]),
        (Method::DELETE, "/api/events/one/slate", "", &[(None, 401), (Some(&host), 401)]),
        (
            Method::POST,
            "/api/events/one/invites",
            "{}",
            &[
                (None, 401),
                (Some("wrong"), 401),
                (Some(speaker), 403),
                (Some(&foreign), 403),
                (Some(&host), 201),
            ],
        ),
        (
            Method::GET,
            "/api/events/one",
            "",
            &[(None, 200), (Some("wrong"), 401), (Some(&foreign), 403), (Some(speaker), 200)],
        ),
    ];
    for (method, path, body, callers) in cases {
        for (token, status) in callers {
            let answer = door.send(method.clone(), path, *token, body.to_owned()).await;
            assert_eq!(answer.status.as_u16(), *status, "{method} {path} {}", answer.text());
            if *status == 401 {
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
    }
    for malformed in [&b"Basic abc"[..], b"Bearer", b"bearer ", b"Bearer \xff"] {
        let request = Request::get("/api/events/one").header("authorization", malformed);
        door.request(request.body(Body::empty()).unwrap()).await.expect(401);
    }
    let speaker_view = door.send(Method::GET, "/api/events/one", Some(speaker), Body::empty()).await.json();
    assert_eq!(speaker_view.get("manage"), None);
}

#[tokio::test]
async fn invitations_are_made_anew_and_withdrawn() {
    let door = Door::open().await;
    let created = door.create("one").await;
    let host = Door::host_of(&created);
    let invite = async |token: &str, body: Value| {
        door.send(Method::POST, "/api/events/one/invites", Some(token), body.to_string()).await
    };
    let guest = invite(&host, json!({ "role": "co-host", "name": " Guest\u{2067} " })).await.expect(201);
    assert_eq!(guest.header("cache-control"), "no-store");
    let path = guest.header("location").to_owned();
    let guest = guest.json();
    assert_eq!(
        (&guest["seat"], &guest["role"], &guest["name"]),
        (&json!(3), &json!("co-host"), &json!("Guest"))
    );
    let token = guest["token"].as_str().unwrap();
    assert_eq!(guest["link"], format!("http://talk.example:8082/e/one/stage#{token}"));

    invite(&host, json!({ "role": "host" })).await.expect(403);
    invite(&host, json!({ "seat": 0 })).await.expect(403);
    invite(&host, json!({ "role": "king" })).await.expect(422);
    invite(&host, json!({ "seat": 99 })).await.expect(422);
    invite(&host, json!({ "seats": 1 })).await.expect(422);
    assert_eq!(invite(&door.token, json!({ "role": "host" })).await.expect(201).json()["seat"], 4);

    // A seat's new invitation ends the one before.
    let event = || door.control.event(&"one".parse().unwrap()).unwrap();
    let verify = |token: &str| stage::invite::verify(token, &event().event, backend::clock::unix_now());
    assert!(verify(token).is_ok());
    let again = invite(&host, json!({ "seat": 3 })).await.expect(201).json();
    assert_eq!((&again["role"], &again["name"]), (&guest["role"], &guest["name"]));
    assert_eq!(verify(token), Err(stage::invite::InviteError::Revoked));
    assert!(verify(again["token"].as_str().unwrap()).is_ok());

    // Withdrawn: neither the old identity, which is gone, nor the new one twice.
    door.send(Method::DELETE, &path, Some(&host), Body::empty()).await.expect(404);
    let path = format!("/api/events/one/invites/{}", again["invite"].as_str().unwrap());
    door.send(Method::DELETE, &path, None, Body::empty()).await.expect(401);
    let revoked = door.send(Method::DELETE, &path, Some(&host), Body::empty()).await;
    assert_eq!(revoked.status, 204);
    assert_eq!(verify(again["token"].as_str().unwrap()), Err(stage::invite::InviteError::Revoked));
    door.send(Method::DELETE, "/api/events/one/invites/nonsense", Some(&host), Body::empty())
        .await
        .expect(404);

    // A host whose invitation the operator withdrew is nobody.
    let manage = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    let id = manage["manage"]["seats"][0]["invite"].as_str().unwrap();
    let path = format!("/api/events/one/invites/{id}");
    door.send(Method::DELETE, &path, Some(&host), Body::empty()).await.expect(403);
    assert_eq!(door.operate(Method::DELETE, &path, &Value::Null).await.status, 204);
    invite(&host, json!({})).await.expect(403);
}

#[tokio::test]
async fn an_event_is_changed_by_who_knows_its_revision() {
    let door = Door::open().await;
    door.create("one").await;
    let patch = async |condition: Option<&str>, body: Value| {
        let mut request =
            Request::patch("/api/events/one").header("authorization", format!("Bearer {}", door.token));
        if let Some(condition) = condition {
            request = request.header("if-match", condition);
        }
        door.request(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let changed = patch(Some("\"r1\""), json!({ "title": "Another", "duration_s": 60 })).await.expect(200);
    assert_eq!(changed.header("etag"), "\"r2\"");
    assert_eq!(changed.json()["title"], json!({ "ar": "", "en": "Another" }));
    patch(Some("\"r1\""), json!({ "title": "Late" })).await.expect(412);
    patch(Some("W/\"r2\""), json!({ "title": "Late" })).await.expect(412);
    let changed =
        patch(Some("\"r9\", \"r2\""), json!({ "duration_s": null, "title_ar": "آخر" })).await.expect(200);
    assert_eq!(changed.json()["title"], json!({ "ar": "آخر", "en": "Another" }));
    assert_eq!(changed.json().get("duration_s"), None);
    let same = patch(None, json!({ "auto_live": true })).await.expect(200);
    assert_eq!(same.header("etag"), "\"r3\"", "nothing changed");
    assert_eq!(
        patch(None, json!({ "auto_live": "no", "slug": "two" })).await.expect(422).refused(),
        ["auto_live", "slug"]
    );
    patch(None, json!({ "starts_at": "2020-01-01T00:00:00Z" })).await.expect(422);
    patch(None, json!({ "title": null })).await.expect(422);

    // Once it is live the start stays where it was.
    let progress = backend::store::Progress {
        state: model::ShowState::Live,
        doors_at: None,
        live_at: None,
        ended_at: None,
    };
    *door.control.observed() =
        crate::observed::Observed::new([("one".parse().unwrap(), progress)], std::time::Instant::now());
    patch(None, json!({ "starts_at": LATER.replace("-02T", "-03T") })).await.expect(409);
    patch(None, json!({ "starts_at": *LATER, "title": "Now" })).await.expect(200);
}

#[tokio::test]
async fn a_slate_is_taken_if_it_is_audio() {
    let door = Door::open().await;
    door.create("one").await;
    let put = async |bytes: Vec<u8>| {
        door.send(Method::PUT, "/api/events/one/slate", Some(&door.token), bytes).await
    };
    let taken = put(tone(2)).await.expect(200).json();
    assert!((taken["duration_s"].as_f64().unwrap() - 2.0).abs() < 0.1, "{taken}");
    let digest = taken["slate"].as_str().unwrap();
    assert!(door.directory.path().join("objects/slates").join(digest).exists());
    let manage = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    assert_eq!(manage["manage"]["slate"], digest);

    put(b"this is a text and no audio at all".to_vec()).await.expect(422);
    put(Vec::new()).await.expect(422);
    let mut torn = tone(2);
    torn.truncate(40);
    put(torn).await.expect(422);
    put(tone(601)).await.expect(422);
    put(vec![0; programme::slate::MAX_SLATE_BYTES + 1]).await.expect(413);
    let manage = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    assert_eq!(manage["manage"]["slate"], digest, "the good one stays");

    assert_eq!(door.operate(Method::DELETE, "/api/events/one/slate", &Value::Null).await.status, 204);
    let manage = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    assert_eq!(manage["manage"].get("slate"), None);
}

#[tokio::test]
async fn callers_are_sent_to_the_right_door() {
    let door = Door::open().await;
    for (method, path, port) in [
        ("GET", "/live/one/opus-48.mp4?from=7&tier=2", 8081),
        ("GET", "/live/one/opus-24.ogg", 8081),
        ("GET", "/live/one/mp3-64.mp3", 8081),
        ("GET", "/live/one/index.m3u8", 8083),
        ("GET", "/live/one/opus-48/17.m4s", 8083),
        ("GET", "/t/abc/live/one/opus-48.mp4", 8081),
        ("GET", "/t/abc/live/one/index.m3u8", 8083),
        ("POST", "/whip/one?standby=1", 8082),
        ("DELETE", "/whip/one/resource", 8082),
        ("PUT", "/ingest/one", 8082),
        ("SOURCE", "/ingest/one", 8082),
        ("GET", "/e/one/stage", 8082),
        ("GET", "/api/stage/one/watch", 8082),
        ("GET", "/e/one/recording.m3u8", 8083),
        ("GET", "/e/one/recording.opus-48.mp4", 8083),
        ("GET", "/e/one/clip?from=1&to=2", 8083),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", "talk.example:8080");
        let answer = door.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 307, "{method} {path}");
        assert_eq!(answer.header("location"), format!("http://talk.example:{port}{path}"));
    }
    for path in ["/live/one", "/t/abc/other/one/x", "/e/one/secret", "/console", "/feed.xml"] {
        door.get(path).await.expect(404);
    }
}

#[tokio::test]
async fn pages_are_for_people_and_problems_for_programs() {
    let door = Door::open().await;
    door.create("one").await;
    let browse = async |path: &str, language: &str| {
        let request = Request::get(path).header("accept", "text/html").header("accept-language", language);
        door.request(request.body(Body::empty()).unwrap()).await
    };
    for (path, language, status, expected) in [
        ("/", "en", 200, "en"),
        ("/e/one", "ar-EG, en;q=0.5", 200, "ar"),
        ("/e/one?lang=en", "ar", 200, "en"),
        ("/e/none", "ar", 404, "ar"),
        ("/nowhere", "en", 404, "en"),
    ] {
        let page = browse(path, language).await;
        assert_eq!((page.status.as_u16(), page.header("content-language")), (status, expected), "{path}");
        assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    }
    door.get("/e/none").await.expect(404);
    door.get("/e/%FF").await.expect(404);
    door.send(Method::DELETE, "/api/events/one", None, "").await.expect(405);

    let style = door.get("/assets/style.css").await.expect(200);
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
    let request = Request::get("/assets/style.css").header("if-none-match", style.header("etag"));
    assert_eq!(door.request(request.body(Body::empty()).unwrap()).await.status, 304);
    door.get("/assets/../Cargo.toml").await.expect(404);
}

#[tokio::test]
async fn the_calendar_file_names_the_event() {
    let door = Door::open().await;
    door.create("one").await;
    let file = door.get("/e/one/event.ics?lang=ar").await.expect(200);
    assert_eq!(file.header("content-type"), "text/calendar; charset=utf-8");
    let start = format!("DTSTART:{}0102T170000Z", *YEAR);
    for line in ["SUMMARY:حديث", &start, "URL:http://talk.example:8080/e/one"] {
        assert!(file.text().contains(&format!("\r\n{line}\r\n")), "{}", file.text());
    }
    door.get("/e/none/event.ics").await.expect(404);
}

#[tokio::test]
async fn keys_are_published_with_their_certificates() {
    use base64::Engine as _;
    use ed25519_dalek::{Signature, VerifyingKey};
    let door = Door::open().await;
    door.create("one").await;
    door.create("two").await;
    let keys = door.get("/.well-known/minassa-keys.json").await.expect(200).json();
    assert_eq!(keys["events"].as_array().unwrap().len(), 2);
    let keys = door.get("/.well-known/minassa-keys.json?event=two").await.expect(200).json();
    let bytes = |value: &Value| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
    };
    let event = &keys["events"][0];
    let publisher: [u8; 32] = bytes(&keys["publisher"]["public_key"]).try_into().unwrap();
    let key: [u8; 32] = bytes(&event["public_key"]).try_into().unwrap();
    let statement = [b"minassa event key v1\0\x03two".as_slice(), &key].concat();
    let signature = Signature::from_slice(&bytes(&event["certificate"])).unwrap();
    VerifyingKey::from_bytes(&publisher).unwrap().verify_strict(&statement, &signature).unwrap();
    let ours =
        Keys::open(&door.directory.path().join("keys")).unwrap().event(&"two".parse().unwrap()).unwrap();
    assert_eq!(ours.verifying_key().to_bytes(), key);
    door.get("/.well-known/minassa-keys.json?event=none").await.expect(404);
}

#[tokio::test]
async fn health_and_metrics_are_there() {
    let door = Door::open().await;
    door.create("one").await;
    assert_eq!(door.get("/healthz").await.expect(200).text(), "ok\n");
    let ready = door.get("/readyz").await.expect(200).json();
    assert_eq!(ready, json!({ "store": true, "doors": true, "origin": false, "edges": 0 }));
    door.send(Method::GET, "/api/events/one", Some("wrong"), "").await.expect(401);
    let metrics = door.get("/metrics").await.expect(200).text();
    for line in [
        "minassa_events 1",
        "minassa_control_failed_attempts_total 1",
        "minassa_origin_up 0",
        "minassa_event_state{event=\"one\",state=\"scheduled\"} 1",
    ] {
        assert!(metrics.lines().any(|given| given == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains(&door.token));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let door = Door::open().await;
    let created = door.create("one").await;
    door.operate(Method::PATCH, "/api/events/one", &json!({ "title": "Changed" })).await.expect(200);
    let keys = door.get("/.well-known/minassa-keys.json").await.json();
    let before = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    let progress = backend::store::Progress {
        state: model::ShowState::Ended,
        doors_at: Some(model::UnixTime::from_millis(1_000)),
        live_at: Some(model::UnixTime::from_millis(2_000)),
        ended_at: Some(model::UnixTime::from_millis(3_000)),
    };
    door.control.note(vec![("one".parse().unwrap(), progress)]).await;
    let Door { directory, token, .. } = door;

    let door = Door::open_in(directory).await;
    assert_eq!(door.token, token);
    assert_eq!(door.get("/.well-known/minassa-keys.json").await.json(), keys);
    let after = door.operate(Method::GET, "/api/events/one", &Value::Null).await.json();
    assert_eq!(after["manage"], before["manage"]);
    assert_eq!((&after["title"], &after["revision"]), (&before["title"], &before["revision"]));
    assert_eq!((&after["state"], &after["ended_at"]), (&json!("ended"), &json!("1970-01-01T00:00:03.000Z")));
    // Invitations made before are good.
    let host = Door::host_of(&created);
    door.send(Method::POST, "/api/events/one/invites", Some(&host), "{}").await.expect(201);
}

#[tokio::test]
async fn there_is_room_for_so_many_events() {
    let directory = TempDir::new().unwrap();
    let control = begin(directory.path(), ControlConfig { events_max: 1, ..ControlConfig::default() }).await;
    let token = std::fs::read_to_string(directory.path().join("operator-token")).unwrap().trim().to_owned();
    let door = Door { directory, router: router(control.clone()), control, token };
    door.create("one").await;
    let body = json!({ "slug": "two", "title": "A", "starts_at": *LATER });
    door.operate(Method::POST, "/api/events", &body).await.expect(507);
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let door = Door::open().await;
    let _all = door.control.places.try_acquire_many(1_024).unwrap();
    let answer = door.get("/api/events").await.expect(503);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((2..=6).contains(&seconds), "{seconds}");
    door.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn the_document_is_the_one_that_was_reviewed() {
    let door = Door::open().await;
    let document = door.get("/api/openapi.json").await.expect(200);
    assert_eq!(document.json()["openapi"], "3.1.0");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &document.bytes).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(document.text() == reviewed, "the API changed; look at the difference after UPDATE_SNAPSHOTS=1");
}

#[tokio::test]
async fn the_operator_sees_and_steers_the_ladder() {
    let directory = TempDir::new().unwrap();
    let door = Door::open_in(directory).await;
    door.get("/api/ladder").await.expect(401);
    let host = Door::host_of(&door.create("talk").await);
    let token = host.rsplit('#').next().unwrap();
    door.send(Method::PATCH, "/api/ladder", Some(token), r#"{"pin":0}"#).await.expect(401);

    let ladder = door.operate(Method::GET, "/api/ladder", &json!(null)).await.expect(200).json();
    assert_eq!((&ladder["level"], &ladder["would"], &ladder["pin"]), (&json!(0), &json!(0), &Value::Null));
    assert_eq!(ladder["measures"]["admission"], "open");

    let patch = |body: Value| async { door.operate(Method::PATCH, "/api/ladder", &{ body }).await };
    assert_eq!(
        patch(json!({ "pin": 7, "cap": -1, "hat": 1 })).await.expect(422).refused(),
        ["pin", "cap", "hat"]
    );
    let ladder = patch(json!({ "pin": 4, "cap": 100 })).await.expect(200).json();
    assert_eq!((&ladder["level"], &ladder["would"], &ladder["cap"]), (&json!(4), &json!(0), &json!(100)));
    assert_eq!(ladder["measures"]["admission"], "waiting");
    assert!(ladder["sentence"]["en"].as_str().unwrap().contains("Newcomers wait"), "{ladder}");
    // Everybody is told.
    let status = door.get("/api/events/talk/status").await.expect(200).json();
    assert_eq!((&status["level"], &status["sentence"]), (&json!(4), &ladder["sentence"]));
    let metrics = door.get("/metrics").await.expect(200).text();
    assert!(metrics.contains("minassa_ladder_level 4\n") && metrics.contains("minassa_ladder_pinned 1\n"));

    // What is not named stays, and orders outlive control.
    let ladder = patch(json!({ "pin": null })).await.expect(200).json();
    assert_eq!((&ladder["level"], &ladder["pin"], &ladder["cap"]), (&json!(0), &Value::Null, &json!(100)));
    patch(json!({ "pin": 2 })).await.expect(200);
    let Door { directory, .. } = door;
    let door = Door::open_in(directory).await;
    let ladder = door.operate(Method::GET, "/api/ladder", &json!(null)).await.expect(200).json();
    assert_eq!((&ladder["level"], &ladder["pin"], &ladder["cap"]), (&json!(2), &json!(2), &json!(100)));
}

#[tokio::test]
async fn an_event_has_a_report_for_people_and_programs() {
    use admission::ledger::{BIN_MS, BinStart, Closing, Entry, Head, Merger, Opening, ProcessBin, append};

    let door = Door::open().await;
    door.create("one").await;
    let ask = async |path: &str, languages: &str| {
        let request = Request::get(path).header("accept", "text/html").header("accept-language", languages);
        door.request(request.body(Body::empty()).unwrap()).await
    };
    // Nothing was written yet.
    let none = door.get("/api/events/one/report.json").await.expect(404);
    assert_eq!(none.json()["type"], "urn:minassa:problem:no-report");
    let none = ask("/e/one/report", "ar").await;
    assert_eq!((none.status.as_u16(), none.header("content-language")), (404, "ar"));
    assert!(none.text().contains("dir=\"rtl\"") && none.text().contains("حديث"), "{}", none.text());
    door.get("/api/events/two/report.json").await.expect(404);
    assert_eq!(ask("/e/two/report", "en").await.status.as_u16(), 404);
    assert_eq!(door.send(Method::POST, "/e/one/report", None, "").await.status.as_u16(), 405);

    door.create("three").await;
    let slug: model::EventSlug = "three".parse().unwrap();
    let key = Keys::open(&door.directory.path().join("keys")).unwrap().event(&slug).unwrap();
    let mut entries = vec![Entry::Open(Box::new(Opening::new(&slug, &key.verifying_key(), 0, 30_000, None)))];
    let mut merger = Merger::new();
    for number in 0..6 {
        let start = BinStart::try_from(number * BIN_MS).unwrap();
        let mut bin = ProcessBin::new(start, 0, 0);
        bin.counts.audio.listeners = 40 + number;
        entries.push(Entry::Bin(Box::new(merger.merge(start, 1, &[bin]))));
    }
    entries.push(Entry::Close(Closing { closed_ms: 70_000 }));
    let (mut text, mut head) = (String::new(), Head::EMPTY);
    for entry in &entries {
        let (line, next) = append(&head, entry, &key).unwrap();
        text.push_str(&line);
        text.push('\n');
        head = next;
    }
    std::fs::create_dir_all(door.directory.path().join("ledger")).unwrap();
    std::fs::write(door.directory.path().join("ledger/three.jsonl"), text).unwrap();
    let answer = door.get("/api/events/three/report.json").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let report = answer.json();
    assert_eq!((&report["phase"], &report["title"]["ar"]), (&json!("final"), &json!("حديث")));
    assert_eq!(report["peaks"]["listening"], json!({ "value": 45, "at": "1970-01-01T00:01:00.000Z" }));
    assert_eq!((&report["integrity"]["holds"], &report["integrity"]["lines"]), (&json!(true), &json!(8)));
    // Every field is documented.
    let document = door.get("/api/openapi.json").await.expect(200).json();
    let described = &document["paths"]["/api/events/{event}/report.json"]["get"]["description"];
    let described =
        format!("{described}{}", document["paths"]["/api/events/{event}/report.json"]["get"]["summary"]);
    for field in report.as_object().unwrap().keys() {
        assert!(described.contains(&format!("`{field}`")), "{field} is not described in {described}");
    }

    for (path, languages, direction) in [
        ("/e/three/report", "ar", "rtl"),
        ("/e/three/report?lang=ar", "en", "rtl"),
        ("/e/three/report", "fr", "ltr"),
    ] {
        let page = ask(path, languages).await.expect(200);
        assert!(page.text().contains(&format!("dir=\"{direction}\"")), "{path} {languages}");
        assert!(page.text().contains("/api/events/three/ledger.jsonl"));
        assert_eq!(page.header("cache-control"), "public, max-age=60");
        assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
        assert!(page.headers.get_all("vary").iter().any(|vary| vary == "accept-language"));
    }
}
