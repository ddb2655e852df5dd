//! The stage door against everyone who does not belong there.

use std::time::Duration;

use model::UnixTime;
use serde_json::json;
use str0m_offer::{offer, recvonly};

use crate::house::{House, OPERATOR, raw};

/// Offers as clients make them.
mod str0m_offer {
    /// A browser's, shortened: one audio line, both ways.
    pub(crate) fn offer() -> String {
        lines("sendrecv", "111 opus/48000/2")
    }

    pub(crate) fn recvonly() -> String {
        lines("recvonly", "111 opus/48000/2")
    }

    pub(crate) fn lines(direction: &str, codec: &str) -> String {
        let payload = codec.split(' ').next().unwrap();
        let lines = [
            "v=0".to_owned(),
            "o=- 4611731400430051336 2 IN IP4 127.0.0.1".to_owned(),
            "s=-".to_owned(),
            "t=0 0".to_owned(),
            "a=group:BUNDLE 0".to_owned(),
            "a=msid-semantic: WMS".to_owned(),
            format!("m=audio 9 UDP/TLS/RTP/SAVPF {payload}"),
            "c=IN IP4 0.0.0.0".to_owned(),
            "a=rtcp:9 IN IP4 0.0.0.0".to_owned(),
            "a=ice-ufrag:abcd".to_owned(),
            "a=ice-pwd:0123456789abcdefghijklmn".to_owned(),
            format!("a=fingerprint:sha-256 {}", ["AA"; 32].join(":")),
            "a=setup:actpass".to_owned(),
            "a=mid:0".to_owned(),
            format!("a={direction}"),
            "a=rtcp-mux".to_owned(),
            format!("a=rtpmap:{codec}"),
            format!("a=fmtp:{payload} minptime=10;useinbandfec=1"),
        ];
        lines.join("\r\n") + "\r\n"
    }
}

#[test]
fn whip_answers_each_bad_request_as_it_deserves() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    let mut other = house.event("other", Duration::from_secs(600));
    other.seats[2].revoked = true;
    house.announce(&event);
    house.announce(&other);
    let origin = house.origin(None);
    house.wait(&event, |_| Some(()));
    house.wait(&other, |_| Some(()));

    let good = house.invite(&event, 2);
    let expired = house.invite_until(&event, 2, UnixTime::from_millis(1_000));
    let mut tampered = good.clone();
    tampered.replace_range(5..6, if &good[5..6] == "A" { "B" } else { "A" });
    let revoked = house.invite(&other, 2);
    let sdp = "application/sdp";
    let (fine, audio_only_in) = (offer(), recvonly());
    let video = fine.replace("m=audio", "m=video").replace("opus/48000/2", "VP8/90000");
    let pcmu = str0m_offer::lines("sendrecv", "0 PCMU/8000");
    let big = format!("{fine}{}", "a=x\r\n".repeat(14_000));
    let unsigned = fine.replace("a=fingerprint", "a=x");
    let two = format!("{fine}{}", &fine[fine.find("m=audio").unwrap()..].replace("mid:0", "mid:1"));
    /// Name, status; event, token, type, body.
    type Row<'a> = (&'a str, u16, &'a str, Option<&'a str>, &'a str, &'a [u8]);
    let rows: &[Row<'_>] = &[
        ("no invitation", 401, "talk", None, sdp, fine.as_bytes()),
        ("a wrong one", 401, "talk", Some("nonsense"), sdp, fine.as_bytes()),
        ("an altered one", 401, "talk", Some(&tampered), sdp, fine.as_bytes()),
        ("an expired one", 401, "talk", Some(&expired), sdp, fine.as_bytes()),
        ("one of another event", 403, "other", Some(&good), sdp, fine.as_bytes()),
        ("a revoked one", 403, "other", Some(&revoked), sdp, fine.as_bytes()),
        ("the operator has no seat", 403, "talk", Some(OPERATOR), sdp, fine.as_bytes()),
        ("an unknown event", 404, "nothing", Some(&good), sdp, fine.as_bytes()),
        ("a name that is none", 404, "N%2e%2e", Some(&good), sdp, fine.as_bytes()),
        ("another type", 415, "talk", Some(&good), "application/json", fine.as_bytes()),
        ("too large", 413, "talk", Some(&good), sdp, big.as_bytes()),
        ("empty", 400, "talk", Some(&good), sdp, b""),
        ("no SDP", 400, "talk", Some(&good), sdp, b"hello"),
        ("no text", 400, "talk", Some(&good), sdp, b"v=0\xff\xfe"),
        ("no fingerprint", 400, "talk", Some(&good), sdp, unsigned.as_bytes()),
        ("two tracks", 400, "talk", Some(&good), sdp, two.as_bytes()),
        (
            "no line at all",
            422,
            "talk",
            Some(&good),
            sdp,
            b"v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
        ),
        ("video only", 422, "talk", Some(&good), sdp, video.as_bytes()),
        ("no Opus", 422, "talk", Some(&good), sdp, pcmu.as_bytes()),
        ("nothing sent", 422, "talk", Some(&good), sdp, audio_only_in.as_bytes()),
    ];
    for (name, status, event, token, content_type, body) in rows {
        let answer = house.call(&origin, "POST", &format!("/whip/{event}"), *token, content_type, body);
        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        let kind = answer.json["type"].as_str().unwrap_or_default();
        assert!(kind.starts_with("urn:minassa:problem:"), "{name}: {answer:?}");
        let said = answer.json.to_string();
        assert!(!token.is_some_and(|token| said.contains(token)), "{name}: a secret is in the answer");
    }
    assert_eq!(house.call(&origin, "GET", "/whip/talk", Some(&good), sdp, b"").status, 405);
    house.wait(&event, |status| status.seats.iter().all(|seat| seat.sources == 0).then_some(()));

    // And one that is good, twice, so that the third is one too many: nobody has sent anything yet, so it may wait
    // for those two to come.
    let first = house.call(&origin, "POST", "/whip/talk", Some(&good), sdp, fine.as_bytes());
    assert_eq!(first.status, 201, "{first:?}");
    let location = first.location.expect("a session has an address");
    assert!(first.json.as_str().unwrap().contains("a=ice-lite"));
    let second = house.call(&origin, "POST", "/whip/talk?standby=1", Some(&good), sdp, fine.as_bytes());
    assert_eq!(second.status, 201, "{second:?}");
    let third = house.call(&origin, "POST", "/whip/talk", Some(&good), sdp, fine.as_bytes());
    assert_eq!(third.status, 409, "{third:?}");

    let fragment = "application/trickle-ice-sdpfrag";
    let stranger = house.invite(&event, 3);
    let sessions: &[(&str, u16, &str, &str, &str, &str)] = &[
        ("of another seat", 403, "PATCH", &stranger, fragment, ""),
        (
            "a trickle",
            204,
            "PATCH",
            &good,
            fragment,
            "a=ice-ufrag:abcd\r\na=candidate:1 1 UDP 1 x.local 9 typ host\r\n",
        ),
        ("a restart", 422, "PATCH", &good, fragment, "a=ice-ufrag:efgh\r\na=ice-pwd:x\r\n"),
        ("another type", 415, "PATCH", &good, sdp, ""),
        ("of another seat", 403, "DELETE", &stranger, sdp, ""),
        ("its own", 200, "DELETE", &good, sdp, ""),
    ];
    for (name, status, method, token, content_type, body) in sessions {
        let answer = house.call(&origin, method, &location, Some(token), content_type, body.as_bytes());
        assert_eq!(answer.status, *status, "{method} {name}: {answer:?}");
    }
    house.wait(&event, |status| (status.seats[2].sources == 1).then_some(()));
    let gone = house.call(&origin, "DELETE", &location, Some(&good), sdp, b"");
    assert_eq!(gone.status, 404, "{gone:?}");
    assert!(origin.stop().success());
    let log = house.log();
    for secret in [&*good, &expired, &tampered, &revoked, &stranger, OPERATOR, &location[11..]] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn the_api_directs_only_whom_it_should() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |status| status.newest_part);
    let (host, cohost, speaker) = (house.invite(&event, 0), house.invite(&event, 1), house.invite(&event, 2));
    let state = "/api/stage/talk/state";
    let seat = |seat: u16| format!("/api/stage/talk/seats/{seat}");

    let snapshot = house.get(&origin, "/api/stage/talk", &speaker);
    assert_eq!(snapshot.status, 200, "{snapshot:?}");
    assert_eq!(snapshot.json["you"], json!({"seat": 2, "role": "speaker", "name": "speaker 2"}));
    assert_eq!(snapshot.json["state"], "doors");
    assert_eq!(snapshot.json["title"], json!({"ar": "حديث", "en": "Talk"}));
    assert_eq!(snapshot.json["seats"].as_array().unwrap().len(), 4);
    assert_eq!(house.get(&origin, "/api/stage/talk", OPERATOR).json["you"]["role"], "operator");
    assert_eq!(house.get(&origin, "/api/stage/talk", "operator-token-of-this-tesT").status, 401);
    assert_eq!(house.get(&origin, "/api/stage/nothing", &host).status, 404);

    let rows = [
        (403, &seat(2), &speaker, json!({"on_stage": true})),
        (403, &seat(3), &speaker, json!({"muted": true})),
        (403, &seat(0), &cohost, json!({"muted": true})),
        (404, &seat(9), &host, json!({"muted": true})),
        (404, &"/api/stage/talk/seats/x".to_owned(), &host, json!({"muted": true})),
        (400, &seat(2), &host, json!({"mute": true})),
        (400, &seat(2), &host, json!({"muted": "yes"})),
        (200, &seat(2), &speaker, json!({"muted": true})),
        (403, &state.to_owned(), &speaker, json!({"state": "live"})),
        (400, &state.to_owned(), &host, json!({})),
        (400, &state.to_owned(), &host, json!({"state": "live", "x": 1})),
        (422, &state.to_owned(), &host, json!({"state": "paused"})),
        (409, &state.to_owned(), &host, json!({"state": "hold"})),
        (200, &state.to_owned(), &host, json!({"state": "live"})),
        (200, &state.to_owned(), &cohost, json!({"state": "live"})),
        (422, &state.to_owned(), &host, json!({"state": "hold", "until": "soon"})),
        (422, &state.to_owned(), &host, json!({"state": "hold", "until": "2020-01-01T00:00:00Z"})),
        (422, &state.to_owned(), &host, json!({"state": "hold", "message": {"en": "x".repeat(500)}})),
    ];
    for (status, path, token, body) in &rows {
        let answer = house.post(&origin, path, token, body);
        assert_eq!(answer.status, *status, "{path} {body}: {answer:?}");
    }
    let message = json!({"ar": "نعود بعد قليل", "en": "Back <b>soon</b>\u{202E}"});
    let held = house.post(
        &origin,
        state,
        OPERATOR,
        &json!({"state": "hold", "until": "2100-01-01T00:00:00+03:00", "message": message}),
    );
    assert_eq!(held.status, 200, "{held:?}");
    let expected = json!({
        "until": "2099-12-31T21:00:00.000Z",
        "message": {"ar": "نعود بعد قليل", "en": "Back <b>soon</b>"},
    });
    assert_eq!(held.json["hold"], expected);
    assert_eq!(held.json["seats"][2]["muted"], true);
    assert_eq!(house.post(&origin, state, &host, &json!({"state": "ended"})).json["state"], "ended");
    assert_eq!(house.post(&origin, state, &host, &json!({"state": "live"})).status, 409);
    assert_eq!(house.post(&origin, state, &host, &json!({"state": "ended"})).status, 200);
}

#[test]
fn pages_and_health_are_served() {
    let house = House::new();
    let event = house.event("talk", Duration::from_secs(600));
    house.announce(&event);
    let origin = house.origin(None);
    house.wait(&event, |status| status.newest_part);
    let page = raw(&origin, b"GET /e/talk/stage?lang=ar HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for header in [
        "content-security-policy: default-src 'self'",
        "content-language: ar",
        "referrer-policy: no-referrer",
    ] {
        assert!(page.contains(header), "{header}\n{page}");
    }
    let missing = raw(&origin, b"GET /e/other/stage HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    for (path, status, text) in [
        ("/healthz", 200, "ok"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, "minassa_origin_alarm{event=\"talk\",alarm=\"dead_air\"} 0"),
        ("/assets/style.css", 200, ""),
        ("/assets/../Cargo.toml", 404, ""),
        ("/nothing", 404, "urn:minassa:problem:not-found"),
    ] {
        let answer = house.call(&origin, "GET", path, None, "text/plain", b"");
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json.to_string().replace("\\\"", "\"").contains(text), "{path}: {answer:?}");
    }
    // What is no HTTP at all gets an answer or a closed door, and nobody else notices.
    for nonsense in [&b"\x16\x03\x01\x02\x00\x01"[..], b"PUT", b"\0\0\0\0\r\n\r\n", &[b'A'; 100_000]] {
        let answer = raw(&origin, nonsense);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(house.call(&origin, "GET", "/readyz", None, "text/plain", b"").status, 200);
}
