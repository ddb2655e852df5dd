//! At control's door: events, slates, titles.

use acceptance::browser::{Browser, Options};
use anyhow::{Context as _, Result};
use model::EventSlug;
use serde_json::{Value, json};

use super::exchange::Request;
use super::inputs;
use super::show::{Checks, JSON, LONG, OnAir, in_an_hour, post};

pub(crate) fn events(show: &OnAir, checks: &mut Checks) -> Result<()> {
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

pub(crate) fn slates(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
    let binary = std::fs::read(super::BINARY)?;
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
pub(crate) fn titles(show: &OnAir, checks: &mut Checks) -> Result<()> {
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
