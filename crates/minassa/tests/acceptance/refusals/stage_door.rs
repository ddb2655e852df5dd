//! At the stage door and the media port: offers, invitations, orders, sources, strangers.

use std::net::UdpSocket;
use std::time::Duration;

use acceptance::wait_for;
use anyhow::{Context as _, Result, ensure};
use model::{InviteId, Role, SeatId, UnixTime};
use rehearse::{Speaker, SpeakerConfig, Tone};
use serde_json::{Value, json};
use stage::invite::{self, Invite};

use super::exchange::{Answer, Request, exchange};
use super::inputs::{self, AUDIO, Chance, DATA, VIDEO, offer};
use super::show::{Checks, LONG, OnAir, post};

const SDP: &str = "application/sdp";

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

pub(crate) fn whip(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
    let bad_key = good.replace("4F:4F", "XY:4F");
    let malformed: [(&str, &[u8], &str); 10] = [
        ("an empty offer", b"", "v=0"),
        ("an offer in JSON", b"{\"type\":\"offer\"}", "v=0"),
        ("an offer that is no UTF-8", b"v=0\r\n\xff\xfe", "UTF-8"),
        ("an offer that stops", &good.as_bytes()[..good.len() / 2], "no Opus"),
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

pub(crate) fn directing(show: &OnAir, checks: &mut Checks) -> Result<()> {
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

pub(crate) fn ingest(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
        &["ended before"],
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
    // It is over when what it sent has been played.
    let played = || wait_for("the sources' end", LONG, || Ok((show.sources(2)? == 0).then_some(())));
    played()?;
    checks.status("an Ogg that stops", source(show, invite, "PUT", &opus[..opus.len() / 2]), 200);
    played()?;

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

pub(crate) fn third_source(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
pub(crate) fn media_port(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
