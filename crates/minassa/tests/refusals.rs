//! Bad input of every kind, each with its proper answer, while a show is on air that loses nothing: must hold 13.
// Acceptance waits on the real clock and prints its figures.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

#[path = "refusals/exchange.rs"]
mod exchange;
#[path = "refusals/inputs.rs"]
mod inputs;

use std::fmt::Debug;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use acceptance::browser::{Browser, Options};
use acceptance::server::{Links, Server};
use acceptance::signal::{RATE, tone_db};
use acceptance::{ffmpeg, wait_for};
use anyhow::{Context as _, Result, ensure};
use archive::Recording;
use exchange::{Answer, Request, exchange};
use inputs::{AUDIO, Chance, DATA, VIDEO, offer};
use model::{EventSlug, InviteId, PartKind, PartNumber, Rendition, Role, SeatId, UnixTime};
use rehearse::{PushConfig, PushListener, Speaker, SpeakerConfig, Tone};
use serde_json::{Value, json};
use stage::invite::{self, Invite};
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");
/// What the speaker on air says.
const HZ: u32 = 800;
const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
const LONG: Duration = Duration::from_secs(20);

/// A show on air: a speaker who speaks and a listener who listens through everything that follows.
struct OnAir {
    speaker: Speaker,
    listener: PushListener,
    runtime: Runtime,
    event: Links,
    server: Server,
    pids: Vec<u32>,
}

impl OnAir {
    fn start(server: Server) -> Result<Self> {
        let event = server.create_event(2.0, &[])?;
        let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
        let tone = Tone { hz: HZ, peak: 0.25 };
        let speaker = Speaker::start(SpeakerConfig::new(whip, &event.speaker_invites[0], tone))?;
        ensure!(speaker.wait_connected(LONG), "{:?}", speaker.state());
        server.wait_state(&event.event, "live", LONG)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let address = format!("http://{}/live/{}/opus-48.mp4", server.door("push")?, event.event);
        let listener = {
            let _inside = runtime.enter();
            PushListener::start(PushConfig::new(&address))
        };
        let mut show = Self { speaker, listener, runtime, event, server, pids: Vec::new() };
        show.pids = show.pids_now()?;
        show.hear_more(3)?;
        Ok(show)
    }

    fn pids_now(&self) -> Result<Vec<u32>> {
        ["supervisor", "origin", "control", "edge-0"].iter().map(|role| self.server.pid(role)).collect()
    }

    fn newest(&self) -> u64 {
        self.listener.look(|report| report.newest().map_or(0, PartNumber::get))
    }

    /// Waits until the listener has `parts` more.
    fn hear_more(&self, parts: u64) -> Result<()> {
        let before = self.newest();
        wait_for("more to be heard", LONG, || Ok((self.newest() >= before + parts).then_some(())))
    }

    fn slug(&self) -> Result<EventSlug> {
        Ok(self.event.event.parse()?)
    }

    fn alarms(&self) -> Result<Vec<String>> {
        let alarms = self.server.stage(&self.event.event)?["alarms"].take();
        Ok(serde_json::from_value(alarms)?)
    }

    /// Sources of a seat, as the stage shows them.
    fn sources(&self, seat: usize) -> Result<u64> {
        self.server.stage(&self.event.event)?["seats"][seat]["sources"].as_u64().context("sources of a seat")
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let text = Request::new("GET", "/metrics").send(&self.server.door("stage")?)?.text();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().parse()?)
    }

    /// Ends the show and looks at what is left of it: nobody came back, nothing is missing, nothing has leaked.
    fn end(self, directories: &[PathBuf], secrets: &[String]) -> Result<()> {
        let event = self.event.event.clone();
        self.hear_more(2)?;
        assert_eq!(self.pids_now()?, self.pids, "no process died");
        let state = self.speaker.state();
        assert_eq!((state.connections, state.failures), (1, 0), "the speaker never came back: {state:?}");
        self.server.command(&["event", "end", &event])?;
        self.server.wait_state(&event, "ended", LONG)?;
        wait_for("the listener's end", LONG, || Ok(self.listener.look(|report| report.ended).then_some(())))?;
        let report = self.listener.report();
        assert_eq!(report.connections, 1, "the listener never came back: {:?}", report.errors);
        assert!(
            report.is_contiguous() && report.missed == 0,
            "the listener missed parts: {:?}",
            report.errors
        );

        let recording = wait_for("the recording to be finished", LONG, || {
            let recording = Recording::open(directories, &self.slug()?)?;
            Ok(recording.is_finished().then_some(recording))
        })?;
        let range = recording.parts();
        assert_eq!(range.start.get(), 0);
        for number in (range.start.get()..range.end.get()).map(PartNumber::new) {
            let entry =
                recording.entry(Rendition::Opus48, number).with_context(|| format!("part {number}"))?;
            assert_ne!(entry.kind, PartKind::Gap, "part {number} is a gap");
            if let Some(heard) = report.parts.iter().find(|part| part.number == number) {
                assert_eq!(heard.digest, entry.digest, "part {number} is recorded as it was heard");
            }
        }
        assert_eq!(report.newest().map(PartNumber::next), Some(range.end), "all that was made was heard");
        let address = format!("http://{}/e/{event}/recording.opus-48.mp4", self.server.door("files")?);
        let samples = ffmpeg::listen(&[], &address, 3_600.0)?.samples;
        let level = |second: &[f32]| tone_db(second, f64::from(HZ), RATE as f64);
        let levels: Vec<f64> = samples.chunks_exact(RATE).map(level).collect();
        let live = levels.iter().position(|level| *level > -40.0).context("the speaker is not recorded")?;
        let silent: Vec<usize> = (live + 1..levels.len() - 1).filter(|at| levels[*at] < -40.0).collect();
        assert!(silent.is_empty(), "the speaker is missing in seconds {silent:?}: {levels:.0?}");
        println!(
            "{event}: {} parts recorded, no gap; {} heard in one connection; the voice is in each of {} seconds",
            recording.count(),
            report.parts.len(),
            levels.len() - live
        );

        let log = std::fs::read_to_string(self.server.data().with_extension("log")).context("the log")?;
        assert!(!log.contains("panicked"), "a panic in the log");
        let token = self.server.token()?;
        for secret in
            self.event.speaker_invites.iter().chain([&self.event.host_invite, &token]).chain(secrets)
        {
            assert!(!log.contains(secret.as_str()), "a secret is in the log: {secret:.12}…");
        }
        Ok(())
    }
}

/// What was asked and what came of it; wrong answers are gathered, so that one run shows them all.
#[derive(Default)]
struct Checks {
    right: usize,
    wrong: Vec<String>,
    secrets: Vec<String>,
}

impl Checks {
    fn judge(&mut self, what: &dyn Debug, verdict: Result<String>) {
        match verdict {
            Ok(said) => {
                self.right += 1;
                println!("  {what:?}: {said}");
            }
            Err(error) => {
                println!("  WRONG: {what:?}: {error:#}");
                self.wrong.push(format!("{what:?}: {error:#}"));
            }
        }
    }

    /// The answer is this problem (RFC 9457), and its text has each of `names`.
    fn refused(
        &mut self,
        what: impl Debug,
        answer: Result<Answer>,
        status: u16,
        kind: &str,
        names: &[&str],
    ) -> Option<Answer> {
        let judged = answer.and_then(|answer| {
            let text = answer.text();
            ensure!(answer.status == status, "{status} expected: {} {text}", answer.head);
            ensure!(answer.header("content-type") == Some("application/problem+json"), "{}", answer.head);
            let problem = answer.json()?;
            ensure!(problem["type"] == format!("urn:minassa:problem:{kind}"), "{kind} expected: {text}");
            ensure!(problem["status"] == status, "{text}");
            let lacks = names.iter().find(|name| !text.contains(**name));
            ensure!(lacks.is_none(), "{lacks:?} is not named: {text}");
            Ok(answer)
        });
        let (verdict, answer) = match judged {
            Ok(answer) => (Ok(format!("{status} {kind}")), Some(answer)),
            Err(error) => (Err(error), None),
        };
        self.judge(&what, verdict);
        answer
    }

    /// The answer has this status.
    fn status(&mut self, what: impl Debug, answer: Result<Answer>, status: u16) -> Option<Answer> {
        let (verdict, answer) = match answer {
            Ok(answer) if answer.status == status => (Ok(status.to_string()), Some(answer)),
            Ok(answer) => {
                (Err(anyhow::anyhow!("{status} expected: {} {}", answer.head, answer.text())), None)
            }
            Err(error) => (Err(error), None),
        };
        self.judge(&what, verdict);
        answer
    }

    fn holds(&mut self, what: impl Debug, holds: bool, but: impl Debug) {
        self.judge(&what, if holds { Ok("yes".into()) } else { Err(anyhow::anyhow!("{but:?}")) });
    }
}

fn in_an_hour() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    Ok(UnixTime::from_millis(i64::try_from(now)? + 3_600_000).to_string())
}

fn post(path: &str, token: &str, body: &Value) -> Request {
    Request::new("POST", path).bearer(token).body(JSON, body.to_string())
}

/// Invitations that open nothing, with the status, kind and words that say why.
fn bad_invites(show: &OnAir, checks: &mut Checks) -> Result<Vec<(&'static str, String, u16, &'static str)>> {
    let (server, event) = (&show.server, &show.event.event);
    let control = server.door("control")?;
    let token = server.token()?;
    let key = backend::keys::Keys::open(&server.data().join("keys"))?.invite()?;
    let invite = |seat: u16, expires: i64| Invite {
        event: event.parse().expect("the server's own slug"),
        seat: SeatId(seat),
        role: Role::Speaker,
        id: InviteId([7; 8]),
        expires: UnixTime::from_millis(expires),
    };
    let expired = invite::sign(&invite(1, 1_000_000_000_000), &key);
    let unlisted = invite::sign(&invite(999, 32_000_000_000_000), &key);
    let mut altered = show.event.speaker_invites[1].clone().into_bytes();
    altered[3] = if altered[3] == b'A' { b'B' } else { b'A' };
    let foreign = server.create_event(3_600.0, &[])?.speaker_invites[0].clone();

    let made =
        post(&format!("/api/events/{event}/invites"), &token, &json!({ "name": "Gone" })).send(&control)?;
    let made = checks.status("an invitation is made", Ok(made), 201).context("an invitation")?.json()?;
    let revoked = made["token"].as_str().context("a token")?.to_owned();
    let id = made["invite"].as_str().context("an id")?;
    let address = format!("/api/events/{event}/invites/{id}");
    checks.status("and withdrawn", Request::new("DELETE", &address).bearer(&token).send(&control), 204);
    // Control has said yes; origin learns of it over the bus.
    let stage = server.door("stage")?;
    let look = Request::new("GET", &format!("/api/stage/{event}")).bearer(&revoked);
    wait_for("the withdrawal", LONG, || Ok(look.send(&stage)?.text().contains("withdrawn").then_some(())))?;

    let invites = vec![
        ("garbage", "garbage".to_owned(), 401, "unauthorized"),
        ("a long invitation", "A".repeat(4_000), 401, "unauthorized"),
        ("an altered invitation", String::from_utf8(altered)?, 401, "unauthorized"),
        ("an expired invitation", expired, 401, "unauthorized"),
        ("a foreign invitation", foreign, 403, "foreign-invite"),
        ("a revoked invitation", revoked, 403, "revoked-invite"),
        ("an invitation to no seat", unlisted, 403, "unknown-invite"),
    ];
    checks.secrets.extend(invites.iter().skip(2).map(|(_, token, ..)| token.clone()));
    Ok(invites)
}

/// Words of the refusal of an invitation.
fn words(what: &str) -> &'static [&'static str] {
    match what {
        "an expired invitation" => &["has expired"],
        "a foreign invitation" => &["another event"],
        "a revoked invitation" => &["withdrawn"],
        "an invitation to no seat" => &["not known here"],
        _ => &["not an invitation"],
    }
}

fn whip(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let stage = show.server.door("stage")?;
    let path = format!("/whip/{}", show.event.event);
    let (good, invite) = (offer(&[AUDIO]), &show.event.speaker_invites[1]);
    let at = |path: &str| Request::new("POST", path).bearer(invite);
    let post = |body: &[u8]| at(&path).body(SDP, body).send(&stage);

    // What the offers below are spoilt from is good.
    let answer = checks.status("a good offer", post(good.as_bytes()), 201).context("a session")?;
    let session = answer.header("location").context("its address")?.to_owned();
    let of = |method: &str| Request::new(method, &session).bearer(invite);
    let fragment = "application/trickle-ice-sdpfrag";
    checks.refused(
        "a fragment of another type",
        of("PATCH").body(SDP, "x").send(&stage),
        415,
        "unsupported-type",
        &[fragment],
    );
    let restart = of("PATCH").body(fragment, "a=ice-ufrag:other\r\na=ice-pwd:x\r\n").send(&stage);
    checks.refused("an ICE restart", restart, 422, "no-ice-restart", &["post a new offer"]);
    checks.refused(
        "too long a fragment",
        of("PATCH").body(fragment, vec![b'a'; 17_000]).send(&stage),
        413,
        "too-large",
        &["16384"],
    );
    let other = Request::new("DELETE", &session).bearer(&show.event.speaker_invites[0]).send(&stage);
    checks.refused("another's session", other, 403, "forbidden", &["another seat"]);
    checks.status("the end of a session", of("DELETE").send(&stage), 200);
    wait_for("the session's end", LONG, || Ok((of("DELETE").send(&stage)?.status == 404).then_some(())))?;
    checks.refused("a session that is over", of("DELETE").send(&stage), 404, "not-found", &[]);

    for (what, token, status, kind) in bad_invites(show, checks)? {
        let answer = Request::new("POST", &path).bearer(&token).body(SDP, good.as_str()).send(&stage);
        if let Some(answer) = checks.refused(what, answer, status, kind, words(what)) {
            let challenge = answer.header("www-authenticate");
            checks.holds("its challenge", challenge.is_some() == (status == 401), &answer.head);
        }
        let basic = inputs::base64(format!("source:{token}").as_bytes());
        let ingest = Request::new("PUT", &format!("/ingest/{}", show.event.event))
            .header("authorization", &format!("Basic {basic}"))
            .body("audio/ogg", "OggS")
            .send(&stage);
        checks.refused(format!("{what} at the ingest"), ingest, status, kind, words(what));
        checks.secrets.extend((token.len() > 100).then_some(basic));
    }
    let nobody = Request::new("POST", &path).body(SDP, good.as_str()).send(&stage);
    checks.refused("no invitation", nobody, 401, "unauthorized", &["Authorization"]);
    let operator = Request::new("POST", &path).bearer(&show.server.token()?).body(SDP, good.as_str());
    checks.refused("the operator as a speaker", operator.send(&stage), 403, "forbidden", &["no seat"]);

    for name in ["nobody-knows-it", "Not%20a%20name", "..%2f..", "%00"] {
        let answer = at(&format!("/whip/{name}")).body(SDP, good.as_str()).send(&stage);
        checks.refused(format!("an offer to {name}"), answer, 404, "unknown-event", &["event"]);
    }
    for path in ["/whip/%ff", "/api/stage/%ff", "/e/%ff/stage"] {
        checks.refused(
            path,
            Request::new(if path.starts_with("/whip") { "POST" } else { "GET" }, path).send(&stage),
            404,
            "not-found",
            &[],
        );
    }
    let twice = at(&format!("{path}?standby=1&standby=1")).body(SDP, "x").send(&stage);
    checks.refused("a query with a key twice", twice, 400, "bad-offer", &["v=0"]);
    let answer = at(&path).body("text/plain", good.as_str()).send(&stage);
    checks.refused("an offer as text", answer, 415, "unsupported-type", &[SDP]);
    checks.refused("an offer too long", post(&vec![b'v'; 64 * 1024 + 1]), 413, "too-large", &["65536"]);
    let chunk = format!("10001\r\n{}\r\n0\r\n\r\n", "v".repeat(0x10001));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {invite}\r\ncontent-type: {SDP}\r\n\
         transfer-encoding: chunked\r\n\r\n{chunk}"
    );
    checks.refused(
        "an offer too long, in chunks",
        exchange(&stage, head.as_bytes()),
        413,
        "too-large",
        &["65536"],
    );
    let lines = format!("{good}{}", "a=x\r\n".repeat(2_001));
    let credentials = good.replace("a=ice-", "a=x-");
    let no_mid = good.replace("a=mid:0\r\n", "");
    let (bad_port, bad_key) = (good.replace("audio 9", "audio nine"), good.replace("4F:4F", "XY:4F"));
    let malformed: [(&str, &[u8], &str); 11] = [
        ("an empty offer", b"", "v=0"),
        ("an offer in JSON", b"{\"type\":\"offer\"}", "v=0"),
        ("an offer that is no UTF-8", b"v=0\r\n\xff\xfe", "UTF-8"),
        ("an offer that stops", &good.as_bytes()[..good.len() / 2], "no Opus"),
        ("an offer with a port in words", bad_port.as_bytes(), "cannot be read"),
        ("an offer with a broken fingerprint", bad_key.as_bytes(), "cannot be read"),
        ("an offer with nulls", b"v=0\0\0\0\0m=audio", ""),
        ("an offer of 2000 lines", lines.as_bytes(), "too many lines"),
        ("an offer without credentials", credentials.as_bytes(), "cannot be read"),
        ("an offer without a=mid", no_mid.as_bytes(), "a=mid"),
        ("two voices in one offer", &offer(&[AUDIO, AUDIO]).into_bytes(), "2 audio lines"),
    ];
    for (what, body, word) in malformed {
        let (status, kind) = match what {
            "an offer that is no UTF-8" => (400, "bad-request"),
            // What is left of it has no audio, or audio without a codec.
            "an offer with nulls" | "an offer that stops" => (422, "no-audio"),
            _ => (400, "bad-offer"),
        };
        checks.refused(what, post(body), status, kind, &[word]);
    }
    for (what, body, word) in [
        ("no media", offer(&[]), "no audio"),
        ("video only", offer(&[VIDEO]), "no audio"),
        ("data only", offer(&[DATA]), "no audio"),
        ("rejected audio", offer(&[&AUDIO.replace("audio 9", "audio 0")]), "no audio"),
        ("audio without Opus", offer(&[&AUDIO.replace("opus/48000/2", "G722/8000")]), "opus/48000/2"),
        (
            "audio only to be received",
            offer(&[&AUDIO.replace("sendrecv", "recvonly")]),
            "sendrecv or sendonly",
        ),
    ] {
        checks.refused(what, post(body.as_bytes()), 422, "no-audio", &[word]);
    }
    for method in ["GET", "PUT", "BREW"] {
        let answer = Request::new(method, &path).send(&stage);
        let answer = checks.refused(format!("{method} an offer"), answer, 405, "method-not-allowed", &[]);
        let allow = answer.as_ref().and_then(|answer| answer.header("allow"));
        checks.holds("Allow names POST", allow.is_some_and(|allow| allow.contains("POST")), allow);
    }
    Ok(())
}

fn directing(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let stage = show.server.door("stage")?;
    let path = format!("/api/stage/{}/state", show.event.event);
    let host = &show.event.host_invite;
    let speaker = &show.event.speaker_invites[1];
    let forbidden = post(&path, speaker, &json!({ "state": "ended" })).send(&stage);
    checks.refused("a speaker ends the show", forbidden, 403, "forbidden", &["hosts"]);
    for (body, status, kind, word) in [
        (json!({ "state": "party" }), 422, "invalid-value", "live, hold or ended"),
        (json!({ "state": "hold", "until": "2020-01-01T00:00:00Z" }), 422, "invalid-value", "a time to come"),
        (json!({ "state": "hold", "until": "soon" }), 422, "invalid-value", "until"),
        (
            json!({ "state": "hold", "message": { "en": "x".repeat(5_000) } }),
            422,
            "invalid-value",
            "message.en",
        ),
        (json!({ "state": "hold", "colour": "red" }), 400, "bad-request", "colour"),
        (json!({}), 400, "bad-request", "state"),
        (json!([1]), 400, "bad-request", ""),
    ] {
        let answer = post(&path, host, &body).send(&stage);
        checks.refused(format!("{body:.60}"), answer, status, kind, &[word]);
    }
    let seat = |seat: &str| format!("/api/stage/{}/seats/{seat}", show.event.event);
    for name in ["999", "70000", "-1", "x"] {
        let answer = post(&seat(name), host, &json!({ "muted": true })).send(&stage);
        checks.refused(format!("seat {name}"), answer, 404, "unknown-seat", &[]);
    }
    let answer = post(&seat("1"), speaker, &json!({ "muted": true })).send(&stage);
    checks.refused("a speaker mutes another", answer, 403, "forbidden", &[]);
    Ok(())
}

/// An Icecast source over a bare connection, its body of a known length.
fn source(show: &OnAir, invite: &str, method: &str, body: &[u8]) -> Result<Answer> {
    let basic = inputs::base64(format!("source:{invite}").as_bytes());
    Request::new(method, &format!("/ingest/{}", show.event.event))
        .header("authorization", &format!("Basic {basic}"))
        .body("audio/ogg", body)
        .send(&show.server.door("stage")?)
}

fn ingest(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let stage = show.server.door("stage")?;
    let (event, invite) = (&show.event.event, &show.event.speaker_invites[1]);
    let sine = "sine=frequency=300:sample_rate=48000:duration=3";
    let ogg = |codec: &str| inputs::ffmpeg(sine, &["-c:a", codec, "-f", "ogg"]);
    let opus = ogg("libopus")?;
    let wav = inputs::ffmpeg(sine, &["-f", "wav"])?;
    let mp3 = inputs::ffmpeg(sine, &["-c:a", "libmp3lame", "-f", "mp3"])?;
    for (what, body, word) in [
        ("Vorbis", ogg("libvorbis")?, "Opus"),
        ("FLAC in Ogg", ogg("flac")?, "Opus"),
        ("MP3", mp3, "no Ogg"),
        ("WAV", wav, "no Ogg"),
    ] {
        checks.refused(what, source(show, invite, "PUT", &body), 415, "wrong-stream", &[word]);
        // The old protocol is answered before it sends; it sees its connection closed.
        let old = format!(
            "SOURCE /ingest/{event} HTTP/1.0\r\nauthorization: Basic {}\r\n\r\n",
            inputs::base64(format!("source:{invite}").as_bytes())
        );
        let answer = exchange(&stage, &[old.as_bytes(), &body].concat());
        checks.status(format!("{what} by SOURCE"), answer, 200);
    }
    let mut chance = Chance(13);
    let noise: Vec<u8> = (0..100_000).map(|_| chance.next() as u8).collect();
    checks.refused(
        "noise after OggS",
        source(show, invite, "PUT", &[b"OggS\0", &noise[..]].concat()),
        400,
        "wrong-stream",
        &["cannot be taken"],
    );
    let mut headless = opus.clone();
    headless[30] ^= 1;
    checks.refused("a broken first page", source(show, invite, "PUT", &headless), 400, "wrong-stream", &[]);
    // Broken later on, it is taken for what is left of it.
    let mut flipped = opus.clone();
    for at in (2_000..flipped.len()).step_by(2_500) {
        flipped[at + chance.below(2_000).min(opus.len() - at - 1)] ^= 1 << chance.below(8);
    }
    checks.refused("a source that sends nothing", source(show, invite, "PUT", b""), 400, "wrong-stream", &[]);
    checks.refused(
        "headers alone",
        source(show, invite, "PUT", &opus[..60]),
        400,
        "wrong-stream",
        &["ended before"],
    );
    checks.status("flipped bits", source(show, invite, "PUT", &flipped), 200);
    checks.status("an Ogg that stops", source(show, invite, "PUT", &opus[..opus.len() / 2]), 200);

    let basic = inputs::base64(format!("source:{invite}").as_bytes());
    let admin = inputs::base64(format!("admin:{invite}").as_bytes());
    checks.secrets.extend([basic.clone(), admin.clone()]);
    let put = |target: &str, rest: &str| exchange(&stage, format!("PUT {target} {rest}").as_bytes());
    let nobody = put(&format!("/ingest/{event}"), "HTTP/1.1\r\n\r\n");
    checks.refused("a source without a password", nobody, 401, "unauthorized", &["source"]);
    let user = put(&format!("/ingest/{event}"), &format!("HTTP/1.1\r\nauthorization: Basic {admin}\r\n\r\n"));
    checks.refused("a source of another user", user, 401, "unauthorized", &["source"]);
    let unknown =
        put("/ingest/nobody-knows-it", &format!("HTTP/1.1\r\nauthorization: Basic {basic}\r\n\r\n"));
    checks.refused("a source to an unknown event", unknown, 404, "unknown-event", &["nobody-knows-it"]);
    checks.refused("a source to no event", put("/ingest/", "HTTP/1.1\r\n\r\n"), 404, "not-found", &[]);
    checks.refused(
        "a source of HTTP/9",
        put("/ingest/x", "HTTP/9\r\n\r\n"),
        400,
        "bad-request",
        &["request line"],
    );
    checks.refused(
        "a head without colons",
        put("/ingest/x", "HTTP/1.1\r\nx\r\n\r\n"),
        400,
        "bad-request",
        &["field"],
    );
    let lengths = "HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    checks.refused("a source of two lengths", put("/ingest/x", lengths), 400, "bad-request", &["length"]);
    let long = put("/ingest/x", &format!("HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(10_000)));
    checks.refused("a source's head of 10 kB", long, 431, "head-too-long", &["8192"]);
    let chunks =
        format!("HTTP/1.1\r\nauthorization: Basic {basic}\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n");
    let chunks = put(&format!("/ingest/{event}"), &chunks);
    checks.refused("chunks that are none", chunks, 400, "bad-request", &["chunks"]);
    Ok(())
}

fn third_source(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let stage = show.server.door("stage")?;
    let whip = format!("http://{stage}/whip/{}", show.event.event);
    let invite = &show.event.speaker_invites[0];
    let config = SpeakerConfig::new(whip, invite, Tone { hz: 1_500, peak: 0.2 });
    let standby = Speaker::start(config)?;
    ensure!(standby.wait_connected(LONG), "{:?}", standby.state());
    wait_for("two sources", LONG, || Ok((show.sources(1)? == 2).then_some(())))?;
    let path = format!("/whip/{}", show.event.event);
    let third = Request::new("POST", &path).bearer(invite).body(SDP, offer(&[AUDIO])).send(&stage);
    checks.refused("a third source over WHIP", third, 409, "seat-full", &["taken"]);
    let opus =
        inputs::ffmpeg("sine=frequency=300:sample_rate=48000:duration=1", &["-c:a", "libopus", "-f", "ogg"])?;
    checks.refused("a third source over Icecast", source(show, invite, "PUT", &opus), 409, "seat-full", &[]);
    standby.leave();
    wait_for("one source", LONG, || Ok((show.sources(1)? == 1).then_some(())))
}

/// Noise, RTP, RTCP, DTLS and STUN from strangers: ten thousand datagrams a second for two seconds.
fn media_port(show: &OnAir, checks: &mut Checks) -> Result<()> {
    const DATAGRAMS: usize = 20_000;
    let text = std::fs::read_to_string(show.server.data().join("run/addresses.json"))?;
    let addresses: Value = serde_json::from_str(&text)?;
    let port = addresses["stage_udp"].as_str().context("stage_udp")?;
    let strangers: Vec<UdpSocket> =
        (0..8).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let seen = || {
        let kind = |kind: &str| show.metric(&format!("minassa_origin_datagrams_total{{kind=\"{kind}\"}}"));
        anyhow::Ok(kind("strange")? + kind("strange_stun")? + kind("refused")?)
    };
    let before = seen()?;
    let mut chance = Chance(20_000);
    let mut lowest = f64::INFINITY;
    for burst in 0..DATAGRAMS / 100 {
        for at in 0..100 {
            strangers[at % strangers.len()].send_to(&inputs::datagram(&mut chance), port)?;
        }
        if burst % 20 == 10 {
            let stage = show.server.stage(&show.event.event)?;
            lowest = lowest.min(stage["seats"][1]["level_dbfs"].as_f64().context("a level")?);
        }
        // The pace of the flood, not a wait for anything.
        std::thread::sleep(Duration::from_millis(10));
    }
    show.hear_more(2)?;
    let counted = seen()? - before;
    let mut answered = 0;
    for stranger in &strangers {
        stranger.set_nonblocking(true)?;
        answered += usize::from(stranger.recv(&mut [0; 64]).is_ok());
    }
    println!(
        "  {DATAGRAMS} datagrams of strangers, {counted} counted; the speaker was at {lowest:.0} dBFS or more"
    );
    // What the socket's buffer did not hold is the system's to drop; with it, packets of the speaker may be.
    checks.holds("strangers are counted", counted >= 0.5 * DATAGRAMS as f64, counted);
    checks.holds("strangers get no answer", answered == 0, answered);
    checks.holds("the speaker is heard through it", lowest > -40.0, lowest);
    Ok(())
}

fn listening(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let (push, files) = (show.server.door("push")?, show.server.door("files")?);
    let event = &show.event.event;
    let get = |door: &str, path: &str| Request::new("GET", path).send(door);
    let whole = |name: &str| format!("/live/{event}/{name}");
    for name in ["nobody-knows-it", "Not%20a%20name", "..", "%ff"] {
        for (door, path) in [(&push, "opus-48.mp4"), (&files, "index.m3u8")] {
            let answer = get(door, &format!("/live/{name}/{path}"));
            checks.refused(format!("{name}/{path}"), answer, 404, "unknown-event", &["event"]);
        }
        let answer = get(&files, &format!("/e/{name}/recording.ogg"));
        checks.refused(format!("the recording of {name}"), answer, 404, "unknown-event", &["event"]);
    }
    for name in ["opus-96.mp4", "mp3-64.mp4", "opus-48.mp3", "OPUS-48.mp4"] {
        checks.refused(
            name,
            get(&push, &whole(name)),
            404,
            "unknown-rendition",
            &["rendition", "opus-48.mp4"],
        );
    }
    for name in ["opus-96.m3u8", "opus-96/0.m4s", "opus-96/s0.m4s"] {
        checks.refused(name, get(&files, &whole(name)), 404, "unknown-rendition", &["rendition"]);
    }
    for name in ["opus-48.webm", "opus-48", "", "../../../etc/passwd"] {
        checks.refused(name, get(&push, &whole(name)), 404, "not-found", &[]);
        checks.refused(name, get(&files, &whole(name)), 404, "not-found", &[]);
    }
    for from in [
        "",
        "-1",
        "+1",
        "01",
        "1.5",
        "0x10",
        "latest",
        "%31",
        "18446744073709551616",
        "1e9",
        "9999999999999999999999999999",
    ] {
        let answer = get(&push, &whole(&format!("opus-48.mp4?from={from}")));
        checks.refused(format!("from={from}"), answer, 400, "invalid-value", &["\"from\"", "a whole number"]);
    }
    for from in [u64::MAX, u64::MAX - 1, 1 << 63, show.newest() + 1_000] {
        let answer = get(&push, &whole(&format!("opus-48.mp4?from={from}")));
        checks.refused(
            format!("from={from}"),
            answer,
            400,
            "future-part",
            &["\"from\"", "the newest part is"],
        );
    }
    let past = get(&push, &whole("opus-48.mp4?from=0"));
    checks.status("from=0, the oldest there is", past, 200);
    for tier in ["", "0", "3", "16", "-1", "%31", "one", "99999999999999999999"] {
        let answer = get(&push, &whole(&format!("opus-48.mp4?tier={tier}")));
        checks.refused(format!("tier={tier}"), answer, 400, "invalid-value", &["\"tier\"", "1, 2, 4 or 8"]);
    }
    for number in ["x", "-1", "01", "18446744073709551616", "sx", "s-1", "0%20"] {
        let answer = get(&files, &whole(&format!("opus-48/{number}.m4s")));
        checks.refused(format!("part {number}"), answer, 400, "invalid-value", &["a whole number"]);
    }
    for number in ["18446744073709551615", "s18446744073709551615", "s2305843009213693951", "1000000"] {
        let answer = get(&files, &whole(&format!("opus-48/{number}.m4s")));
        checks.refused(format!("part {number}"), answer, 404, "future-part", &["exist"]);
    }
    checks.status("part 0", get(&files, &whole("opus-48/0.m4s")), 200);
    let init = get(&files, &whole("opus-48/init-0123456789abcdef.mp4"));
    checks.refused("another init", init, 404, "not-found", &["init"]);
    for query in ["", "?from=1", "?from=a&to=b", "?from=5&to=2", "?from=-1&to=2", "?from=1&to=99999999999"] {
        let answer = get(&files, &format!("/e/{event}/clip{query}"));
        checks.refused(format!("clip{query}"), answer, 400, "invalid-value", &["\"allowed\""]);
    }
    let ranged = |range: &str| {
        Request::new("GET", &format!("/e/{event}/recording.opus-48.mp4")).header("range", range).send(&files)
    };
    let beyond = ranged("bytes=99999999999-");
    checks.status("a range beyond the end", beyond, 416);
    // RFC 9110 section 14.2: what is no range of ours is as if it were not there.
    for range in ["bytes=", "bytes=x-y", "lines=1-2", "bytes=5-2", "bytes=-", "18446744073709551616"] {
        checks.status(format!("range {range}"), ranged(range), 200);
    }

    // Tickets.
    let control = show.server.door("control")?;
    let ticket = |event: &str| -> Result<String> {
        let made =
            Request::new("POST", &format!("/api/events/{event}/ticket")).body(JSON, "{}").send(&control)?;
        Ok(made.json()?["ticket"].as_str().with_context(|| made.text())?.to_owned())
    };
    let own = ticket(event)?;
    let foreign = ticket(&show.server.create_event(3_600.0, &[])?.event)?;
    let mut altered = own.clone().into_bytes();
    altered[8] = if altered[8] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered)?;
    let opens = get(&push, &format!("/t/{own}{}", whole("opus-48.mp4")));
    checks.status("a good ticket", opens, 200);
    for (what, ticket) in [
        ("none", ""),
        ("garbage", "x"),
        ("long", &"A".repeat(5_000)),
        ("altered", &altered),
        ("foreign", &foreign),
    ] {
        for (door, name) in [(&push, "opus-48.mp4"), (&files, "index.m3u8")] {
            let answer = get(door, &format!("/t/{ticket}{}", whole(name)));
            checks.refused(format!("{what} as a ticket of {name}"), answer, 403, "ticket", &["ticket"]);
        }
    }
    checks.secrets.extend([own, foreign, altered]);
    for (door, path) in [(&push, whole("opus-48.mp4")), (&files, whole("index.m3u8"))] {
        for method in ["POST", "DELETE", "BREW"] {
            let answer = checks.refused(method, Request::new(method, &path).send(door), 405, "method", &[]);
            let allow = answer.as_ref().and_then(|answer| answer.header("allow"));
            checks.holds("Allow names GET", allow.is_some_and(|allow| allow.contains("GET")), allow);
        }
    }
    Ok(())
}

fn events(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let control = show.server.door("control")?;
    let (token, start) = (show.server.token()?, in_an_hour()?);
    let make = |body: &Value| post("/api/events", &token, body).send(&control);
    let with = |key: &str, value: Value| {
        let mut body = json!({ "title": "A title", "starts_at": start });
        body[key] = value;
        make(&body)
    };
    for (key, value, word) in [
        ("starts_at", json!("2020-01-01T00:00:00Z"), "a time to come"),
        ("starts_at", json!("2199-12-31T23:59:59Z"), "five years"),
        ("starts_at", json!("9999-12-31T23:59:59Z"), "starts_at"),
        ("starts_at", json!("tonight"), "RFC 3339"),
        ("starts_at", json!("2030-01-01T00:00:00"), "starts_at"),
        ("starts_at", json!(5), "RFC 3339"),
        ("title", json!(""), "1 to 200 characters"),
        ("title", json!("\u{202E}\u{2066}"), "the text is empty"),
        ("title", json!("x".repeat(201)), "1 to 200 characters"),
        ("title", json!({ "fr": "Titre" }), "ar"),
        ("title", json!(7), "a text"),
        ("slug", json!("Not a slug"), "a-z, 0-9 and -"),
        ("slug", json!("x".repeat(65)), "a-z, 0-9 and -"),
        ("slug", json!("../../etc"), "a-z, 0-9 and -"),
        ("duration_s", json!(-1), "1 to 604800"),
        ("duration_s", json!(1e300), "1 to 604800"),
        ("doors_before_s", json!(u64::MAX), "0 to 86400"),
        ("green_room", json!("closed"), "attended"),
        ("auto_live", json!("yes"), "true or false"),
        ("speakers", json!(vec![""; 33]), "at most 32"),
        ("speakers", json!(["x".repeat(81)]), "80 characters"),
        ("colour", json!("red"), "there is no such field"),
    ] {
        let what = format!("{key} = {:.40}", value.to_string());
        checks.refused(what, with(key, value), 422, "invalid-request", &[&format!("\"{key}\""), word]);
    }
    checks.refused(
        "an event without a title",
        make(&json!({})),
        422,
        "invalid-request",
        &["title", "required"],
    );
    checks.refused(
        "a slug that is taken",
        with("slug", json!(show.event.event)),
        409,
        "slug-taken",
        &["slug"],
    );
    let raw = |kind: &str, body: &[u8]| {
        Request::new("POST", "/api/events").bearer(&token).body(kind, body).send(&control)
    };
    checks.refused("an event that is no JSON", raw(JSON, b"{"), 400, "malformed-json", &["no JSON"]);
    checks.refused("an event with bad UTF-8", raw(JSON, b"{\"title\":\"\xff\"}"), 400, "malformed-json", &[]);
    checks.refused(
        "an event that is deep",
        raw(JSON, &[b'['; 50_000]),
        400,
        "malformed-json",
        &["recursion"],
    );
    checks.refused(
        "an event as a form",
        raw("application/x-www-form-urlencoded", b"a=b"),
        415,
        "not-json",
        &[JSON],
    );
    checks.refused("an event of 64 KiB", raw(JSON, &vec![b' '; 65_537]), 413, "too-large", &["65536"]);
    for (what, request) in [
        ("nobody makes an event", Request::new("POST", "/api/events").body(JSON, "{}")),
        ("a wrong operator", post("/api/events", "not-the-operator", &json!({}))),
        ("a host makes an event", post("/api/events", &show.event.host_invite, &json!({}))),
    ] {
        checks.refused(what, request.send(&control), 401, "unauthorized", &[]);
    }
    for (method, path) in
        [("GET", ""), ("PATCH", ""), ("POST", "/invites"), ("PUT", "/slate"), ("POST", "/ticket")]
    {
        let request = Request::new(method, &format!("/api/events/nobody-knows-it{path}")).bearer(&token);
        checks.refused(
            format!("{method} of an unknown event"),
            request.body(JSON, "{}").send(&control),
            404,
            "unknown-event",
            &["nobody-knows-it"],
        );
    }
    let answer = Request::new("GET", "/api/events/%ff").send(&control);
    checks.refused("an event that is no text", answer, 404, "not-found", &[]);
    let moved = Request::new("PATCH", &format!("/api/events/{}", show.event.event))
        .bearer(&token)
        .body(JSON, json!({ "starts_at": start }).to_string());
    checks.refused("the start of a show on air", moved.send(&control), 409, "already-begun", &["live"]);
    checks.refused(
        "nothing at this address",
        Request::new("GET", "/nothing").send(&control),
        404,
        "not-found",
        &[],
    );
    for method in ["DELETE", "BREW"] {
        let answer = Request::new(method, "/api/events").send(&control);
        checks.refused(format!("{method} events"), answer, 405, "method-not-allowed", &[]);
    }
    Ok(())
}

fn slates(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let control = show.server.door("control")?;
    let other = show.server.create_event(3_600.0, &[])?.event;
    let token = show.server.token()?;
    let path = format!("/api/events/{other}/slate");
    let put = |body: Vec<u8>| Request::new("PUT", &path).bearer(&token).body("audio/x", body).send(&control);
    let silence = "anullsrc=sample_rate=8000:channel_layout=mono";
    // Ten hours, which are 900 kB as FLAC.
    let hours = inputs::ffmpeg(silence, &["-t", "36000", "-c:a", "flac", "-f", "flac"])?;
    println!("  ten hours of silence are {} kB of FLAC", hours.len() / 1_000);
    let video = inputs::ffmpeg("testsrc=size=64x64:rate=5:duration=1", &["-c:v", "mjpeg", "-f", "matroska"])?;
    let binary = std::fs::read(BINARY)?;
    for (what, body, word) in [
        ("nothing as a slate", Vec::new(), "no audio"),
        ("text as a slate", b"This is no audio. ".repeat(500), "no audio"),
        ("a program as a slate", binary[..1_000_000.min(binary.len())].to_vec(), "no audio"),
        ("video as a slate", video, "no audio"),
        ("silence as a slate", inputs::ffmpeg(silence, &["-t", "2", "-f", "wav"])?, "silent"),
        ("ten hours in FLAC", hours, "at most 600 s"),
        ("ten hours as a head says", inputs::boasting_wav(36_000, 20_000_000), "36000 s long"),
        ("ten hours as a head pretends", inputs::boasting_wav(36_000, 8_000), "silent"),
    ] {
        checks.refused(what, put(body), 422, "invalid-slate", &[word]);
    }
    let announced =
        Request::new("PUT", &path).bearer(&token).header("content-length", "67108865").send(&control);
    checks.refused("a slate of more than 64 MiB", announced, 413, "too-large", &["67108864"]);
    let nobody = Request::new("PUT", &path).body("audio/x", "x").send(&control);
    checks.refused("nobody sets a slate", nobody, 401, "unauthorized", &[]);
    Ok(())
}

/// Titles and names that would like to be more than text.
fn titles(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let control = show.server.door("control")?;
    let title = "\u{202A}a\u{202E}b\u{2066}\u{2069} می\u{200C}خ\u{200D}x\r\nEVIL:1 <script>window.pwned=1</script>\"'&amp;";
    let clean = "ab می\u{200C}خ\u{200D}x EVIL:1 <script>window.pwned=1</script>\"'&amp;";
    let name = "<img src=x onerror=window.pwned=1>\u{202E}";
    let body =
        json!({ "title": { "ar": title, "en": title }, "starts_at": in_an_hour()?, "speakers": [name] });
    let made = post("/api/events", &show.server.token()?, &body).send(&control);
    let made = checks.status("a title with overrides and markup", made, 201).context("an event")?.json()?;
    let slug = made["event"].as_str().context("a slug")?.to_owned();
    checks.holds("its slug is plain", slug.parse::<EventSlug>().is_ok(), &slug);
    let shown = Request::new("GET", &format!("/api/events/{slug}")).send(&control)?.json()?;
    for language in ["ar", "en"] {
        checks.holds(
            "overrides are stripped, joiners kept",
            shown["title"][language] == clean,
            &shown["title"],
        );
    }
    let calendar = Request::new("GET", &format!("/e/{slug}/event.ics")).send(&control)?.text();
    checks.holds("no line of its own in the calendar", !calendar.contains("\nEVIL"), &calendar);
    let page = Request::new("GET", &format!("/e/{slug}")).send(&control)?;
    checks.holds(
        "no markup of the title in the page",
        !page.text().contains("<script>window.pwned"),
        "it is there",
    );
    let policy = page.header("content-security-policy").unwrap_or_default();
    checks.holds(
        "the page allows no inline script",
        policy.contains("default-src 'self'") && !policy.contains("unsafe-inline"),
        policy,
    );

    // The browser of these tests ignores the policy, so the pages' own care is what is tried.
    let mut browser = Browser::open(made["listen"].as_str().context("a link")?, &Options::default())?;
    let text = serde_json::to_string(clean)?;
    browser.wait(&format!("document.querySelector('#title').textContent === {text}"), LONG)?;
    let is_safe = "!window.pwned && !document.querySelector('#main script, img[src=\"x\"]')";
    checks.holds(
        "the listener's page shows it as text",
        browser.eval(is_safe)? == true,
        "it took it for markup",
    );
    browser.go(made["host"].as_str().context("a link")?)?;
    browser.wait("document.body.innerText.includes('onerror=window.pwned=1>')", LONG)?;
    checks.holds(
        "the stage's page shows a name as text",
        browser.eval(is_safe)? == true,
        "it took it for markup",
    );
    let tokens =
        made["invites"]["speakers"].as_array().into_iter().flatten().chain([&made["invites"]["host"]]);
    checks.secrets.extend(tokens.filter_map(Value::as_str).map(str::to_owned));
    Ok(())
}

fn heads(show: &OnAir, checks: &mut Checks) -> Result<()> {
    for (name, path) in [("control", "/"), ("stage", "/healthz"), ("push", "/"), ("files", "/healthz")] {
        let door = show.server.door(name)?;
        let long = Request::new("GET", path).header("x-long", &"x".repeat(200_000)).send(&door);
        checks.status(format!("a head of 200 kB at {name}"), long, 431);
        let many =
            (0..500).fold(Request::new("GET", path), |request, n| request.header(&format!("x-{n}"), "y"));
        checks.status(format!("500 fields at {name}"), many.send(&door), 431);
        let target = Request::new("GET", &format!("/{}", "x".repeat(200_000))).send(&door);
        checks.status(format!("an address of 200 kB at {name}"), target, 431);
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n"[..],
            b"GET / FTP/1.0\r\n\r\n",
        ] {
            checks.status(format!("no HTTP at {name}"), exchange(&door, garbage), 400);
        }
        let version = exchange(&door, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        checks.holds(format!("no host at {name}"), version.as_ref().is_ok_and(|v| v.status < 500), &version);
    }
    Ok(())
}

/// What a command of the binary ends with: its status and its standard error.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(BINARY)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn fails(checks: &mut Checks, what: &str, ended: (Option<i32>, String), words: &[&str]) {
    let (status, said) = ended;
    let right =
        status == Some(1) && words.iter().all(|word| said.contains(word)) && !said.contains("panicked");
    checks.holds(what, right, (status, said));
}

fn second_server(show: &OnAir, checks: &mut Checks) -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let data = elsewhere.path().join("data").display().to_string();
    let doors = ["--listen", "--push-listen", "--stage-listen", "--files-listen"];
    for (flag, door) in doors.iter().zip(["control", "push", "stage", "files"]) {
        let taken = show.server.door(door)?;
        let mut arguments = vec!["serve", "--data", &data];
        for other in doors {
            arguments.extend([other, if other == *flag { &taken } else { "127.0.0.1:0" }]);
        }
        fails(checks, &format!("{flag} in use"), run(&arguments, &[])?, &[flag, &taken, "in use"]);
    }
    let own = show.server.data().display().to_string();
    let free = doors.iter().flat_map(|flag| [*flag, "127.0.0.1:0"]);
    let arguments: Vec<&str> = ["serve", "--data", &own].into_iter().chain(free).collect();
    fails(checks, "a data directory in use", run(&arguments, &[])?, &[&own, "process"]);
    Ok(())
}

#[test]
fn bad_input_gets_its_answer_and_the_show_goes_on() -> Result<()> {
    let show = OnAir::start(Server::start(BINARY, 1)?)?;
    let mut checks = Checks::default();
    type Group = fn(&OnAir, &mut Checks) -> Result<()>;
    let groups: [(&str, Group); 10] = [
        ("WHIP", whip),
        ("directing", directing),
        ("Icecast sources", ingest),
        ("a third source", third_source),
        ("the media port", media_port),
        ("listening", listening),
        ("events", events),
        ("slates", slates),
        ("titles", titles),
        ("heads", heads),
    ];
    for (name, group) in groups {
        println!("{name}:");
        if let Err(error) = group(&show, &mut checks) {
            checks.judge(&name, Err(error));
        }
        let (state, connections) = (show.speaker.state(), show.listener.look(|report| report.connections));
        checks.holds("the speaker stays", (state.connections, state.failures) == (1, 0), &state);
        checks.holds("the listener stays", connections == 1, connections);
        show.hear_more(1).with_context(|| format!("after {name}"))?;
    }
    println!("a second server:");
    second_server(&show, &mut checks)?;
    assert!(checks.wrong.is_empty(), "{} wrong:\n{}", checks.wrong.len(), checks.wrong.join("\n"));
    assert_eq!(show.alarms()?, Vec::<String>::new(), "no alarm");
    let directories = [show.server.data().to_path_buf()];
    show.end(&directories, &checks.secrets)?;
    println!("{} bad inputs and their answers are as they should be", checks.right);
    Ok(())
}

/// Everything that is wrong with a configuration names its place, key and value, and what is allowed.
#[test]
fn a_wrong_configuration_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("minassa.toml");
    let file = path.to_str().context("a path that is text")?;
    let mut checks = Checks::default();
    for (text, words) in [
        ("[origin]\nsession_max = 5\n", &["origin.session_max", "there is no key", "sessions_max"][..]),
        ("[orgin]\n", &["there is no key orgin", "origin"]),
        ("edges = 2\n", &["edges"]),
        ("[origin]\nsessions_max = 0\n", &["origin.sessions_max = 0", "1 to 512"]),
        ("[origin]\nsessions_max = -1\n", &["origin.sessions_max = -1"]),
        ("[origin]\nsessions_max = 99999999999999999999\n", &[]),
        ("[origin]\nsessions_max = \"many\"\n", &["origin.sessions_max", "many"]),
        ("[edge]\nstuck_s = 0\n", &["edge.stuck_s = 0", "1 to 600"]),
        ("[control]\nticket_s = 59\n", &["control.ticket_s = 59", "60 to 86400"]),
        ("[control]\nlisten = \"nowhere\"\n", &["control.listen", "nowhere"]),
        ("[server]\nedges = 257\n", &["server.edges = 257", "256"]),
        ("[server]\nlog_format = \"xml\"\n", &["server.log_format", "xml", "json"]),
        ("[server\n", &["is no TOML"]),
        ("\0\u{FEFF}", &["is no TOML"]),
    ] {
        std::fs::write(&path, text)?;
        let words: Vec<&str> = words.iter().copied().chain([file]).collect();
        for command in ["config", "serve"] {
            let ended = run(&[command, "--config", file], &[])?;
            fails(&mut checks, &format!("{command}: {}", text.trim()), ended, &words);
        }
    }
    std::fs::write(&path, b"[origin]\n\xff\xfe = 1\n")?;
    fails(&mut checks, "no text", run(&["config", "--config", file], &[])?, &[file]);
    assert!(checks.wrong.is_empty(), "{}", checks.wrong.join("\n"));
    Ok(())
}

/// A file system of its own on a directory, for as long as this lives; only root can make one.
struct Mounted(PathBuf);

impl Mounted {
    /// Nothing if this process may not, which is said.
    fn tmpfs(at: &Path, options: &str) -> Result<Option<Self>> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output()?;
        if mounted.status.success() {
            return Ok(Some(Self(at.to_owned())));
        }
        println!(
            "left out, it needs a file system of its own: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Ok(None)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What still runs on it keeps it until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_to_is_named() -> Result<()> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("a-file");
    std::fs::write(&file, "")?;
    let mut paths = vec![PathBuf::from("/proc/minassa-data"), file.clone(), file.join("below")];
    let read_only = place.path().join("read-only");
    std::fs::create_dir(&read_only)?;
    let mounted = Mounted::tmpfs(&read_only, "ro")?;
    paths.extend(mounted.is_some().then(|| read_only.clone()));
    paths.extend(mounted.is_some().then(|| read_only.join("below")));
    let mut checks = Checks::default();
    for path in paths {
        let data = path.to_str().context("a path that is text")?;
        let ended = run(&["serve", "--listen", "127.0.0.1:0", "--data", data], &[])?;
        fails(&mut checks, data, ended, &[data, "--data"]);
    }
    assert!(checks.wrong.is_empty(), "{}", checks.wrong.join("\n"));
    Ok(())
}

/// A show on air on a data directory of ten megabytes; nothing if this process may not make one.
fn on_small_disk(environment: &[(&str, &str)]) -> Result<Option<(OnAir, Mounted)>> {
    let mut server = Server::start_with(BINARY, 1, &[], environment)?;
    // The server is started again where nothing is yet but its doors' ports.
    server.kill("supervisor")?;
    let Some(disk) = Mounted::tmpfs(server.data(), "size=10m,mode=700")? else { return Ok(None) };
    server.restart()?;
    Ok(Some((OnAir::start(server)?, disk)))
}

/// Fills the disk to its last byte.
fn fill(directory: &Path) -> Result<PathBuf> {
    use std::io::Write as _;
    let path = directory.join("filler");
    let mut file = std::fs::File::create(&path)?;
    let piece = [0xAA; 4_096];
    while file.write(&piece).is_ok_and(|written| written > 0) {}
    let free = rustix::fs::statvfs(directory)?.f_bfree;
    ensure!(free == 0, "{free} blocks are free");
    Ok(path)
}

#[test]
fn a_full_disk_costs_an_alarm_and_nothing_else() -> Result<()> {
    let Some((show, disk)) = on_small_disk(&[])? else { return Ok(()) };
    let filler = fill(&disk.0)?;
    wait_for("the recorder's alarm", LONG, || {
        Ok(show.alarms()?.contains(&"recorder".to_owned()).then_some(()))
    })?;
    println!("the disk is full: alarms {:?}", show.alarms()?);
    show.hear_more(12)?;
    let control = show.server.door("control")?;
    let body = json!({ "title": "No room", "starts_at": in_an_hour()? });
    let made = post("/api/events", &show.server.token()?, &body).send(&control)?;
    println!("an event on a full disk: {} {}", made.status, made.text());
    assert!((500..600).contains(&made.status), "{}", made.head);
    assert_eq!(made.header("content-type"), Some("application/problem+json"));
    show.server.command(&["event", "hold", &show.event.event]).context("hold on a full disk")?;
    show.server.command(&["event", "start", &show.event.event]).context("live on a full disk")?;
    show.hear_more(2)?;

    std::fs::remove_file(filler)?;
    wait_for("the alarm to be over", LONG, || Ok(show.alarms()?.is_empty().then_some(())))?;
    wait_for("an event again", LONG, || {
        let made = post("/api/events", &show.server.token()?, &body).send(&control)?;
        Ok((made.status == 201).then_some(()))
    })?;
    // What waited in memory is on the disk now: nothing is missing.
    let directories = [show.server.data().to_path_buf()];
    show.end(&directories, &[])
}

#[test]
fn a_full_disk_moves_the_recording_to_another_directory() -> Result<()> {
    let second = tempfile::tempdir()?;
    let fallback = second.path().to_str().context("a path that is text")?;
    let environment = [("MINASSA_ORIGIN_RECORDING_FALLBACKS", &*format!("[{fallback:?}]"))];
    let Some((show, disk)) = on_small_disk(&environment)? else { return Ok(()) };
    fill(&disk.0)?;
    let recorded = || {
        let stage = show.server.stage(&show.event.event)?;
        stage["recorded_through"].as_u64().context("recorded_through")
    };
    let before = recorded()?;
    wait_for("the recording to go on", LONG, || Ok((recorded()? >= before + 15).then_some(())))?;
    ensure!(second.path().join("recordings").join(&show.event.event).is_dir(), "it went on elsewhere");
    println!("the disk is full: recorded through {}, alarms {:?}", recorded()?, show.alarms()?);
    let directories = [show.server.data().to_path_buf(), second.path().to_path_buf()];
    show.end(&directories, &[])
}
