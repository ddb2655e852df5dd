//! At the doors of listeners, and what every door makes of a head that is none.

use std::time::Duration;

use acceptance::wait_for;
use anyhow::Result;

use super::exchange::{Request, exchange};
use super::show::{Checks, JSON, OnAir};

pub(crate) fn listening(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
        let mut shown = "{}".to_owned();
        // Who comes in the moment in which doors open waits for the draw.
        wait_for("a ticket", Duration::from_secs(40), || {
            let path = format!("/api/events/{event}/ticket");
            let made = Request::new("POST", &path).body(JSON, shown.as_str()).send(&control)?;
            let answer = made.json()?;
            if let Some(token) = answer["token"].as_str() {
                shown = serde_json::json!({ "token": token }).to_string();
            }
            Ok(answer["ticket"].as_str().map(str::to_owned))
        })
    };
    let own = ticket(event)?;
    let foreign = ticket(&show.server.create_event(3_600.0, &["--doors-before", "2h"])?.event)?;
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

pub(crate) fn heads(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
