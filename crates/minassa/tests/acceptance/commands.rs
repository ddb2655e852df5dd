//! Commands as a person or a script runs them: results on standard output, errors on standard error, exit statuses.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use acceptance::server::Server;
use anyhow::{Context as _, Result};
use model::UnixTime;
use rustix::process::Signal;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");

fn minassa(arguments: &[&str]) -> Result<Output> {
    minassa_in(arguments, &[])
}

fn minassa_in(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let directory = tempfile::tempdir()?;
    Ok(Command::new(BINARY)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()?)
}

#[track_caller]
fn assert_fails(output: &Output, status: i32, expected: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert!(output.stdout.is_empty(), "a failure prints no result");
    for part in expected {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("this is no JSON: {text}"))
}

/// One second of a tone as a WAV file.
fn wav() -> Vec<u8> {
    let samples: Vec<u8> = (0..48_000_u32)
        .flat_map(|n| {
            let phase = f64::from(n % 120) / 120.0 * std::f64::consts::TAU;
            ((phase.sin() * 8_000.0) as i16).to_le_bytes()
        })
        .collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\xbb\0\0\0\x77\x01\0\x02\0\x10\0data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

#[test]
fn the_configuration_is_printed() -> Result<()> {
    let sample = minassa(&["config", "--sample"])?;
    assert_eq!(String::from_utf8(sample.stdout)?, include_str!("../../../../minassa.sample.toml"));

    let environment = [("MINASSA_EDGE_STUCK_S", "7"), ("MINASSA_SERVER_EDGES", "5")];
    let effective = minassa_in(&["config", "--json", "--edges", "3"], &environment)?;
    let effective = json(&String::from_utf8(effective.stdout)?)?;
    assert_eq!(effective["edge"]["stuck_s"], 7);
    assert_eq!(effective["server"]["edges"], 3);
    Ok(())
}

#[test]
fn bad_usage_and_bad_configuration_are_told_apart() -> Result<()> {
    assert_fails(&minassa(&["serve", "--listen", "nowhere"])?, 2, &["--listen", "nowhere"]);
    assert_fails(&minassa(&["nonsense"])?, 2, &["nonsense"]);
    assert_fails(&minassa(&["event", "create", "--title", "T", "--starts", "tonight"])?, 2, &["RFC 3339"]);
    assert_fails(&minassa(&["config", "--edges", "1000"])?, 2, &["--edges", "server.edges = 1000", "256"]);
    let wrong = [("MINASSA_CONTROL_TICKET_S", "1")];
    assert_fails(&minassa_in(&["config"], &wrong)?, 1, &["MINASSA_CONTROL_TICKET_S", "60 to 86400"]);
    let typo = [("MINASSA_CONTROL_TICKETS", "1")];
    assert_fails(&minassa_in(&["config"], &typo)?, 1, &["MINASSA_CONTROL_TICKETS", "there is no key"]);
    assert_fails(&minassa(&["config", "--config", "/nowhere.toml"])?, 1, &["/nowhere.toml"]);
    assert_fails(&minassa(&["event", "list"])?, 1, &["no server is up", "minassa serve"]);
    assert_fails(
        &minassa(&["event", "list", "--server", "http://127.0.0.1:1", "--token", "x"])?,
        1,
        &["cannot reach"],
    );
    assert!(minassa(&["--help"])?.status.success());
    Ok(())
}

#[test]
fn the_doctor_answers() -> Result<()> {
    let output = minassa(&["doctor", "--json", "--listen", "127.0.0.1:0"])?;
    // Whether this machine is fit is not for a test to say; that the doctor does, is.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let checks = json(&String::from_utf8(output.stdout)?)?;
    for name in ["open files", "port", "clock", "disk speed", "disk space", "accept queue", "processors"] {
        let check = checks.as_array().into_iter().flatten().find(|check| check["name"] == name);
        let verdict = check.with_context(|| format!("no check of {name}"))?["verdict"].as_str();
        assert!(matches!(verdict, Some("ok" | "warn" | "fail" | "unknown")), "{check:?}");
    }
    Ok(())
}

#[test]
fn an_event_from_its_creation_to_its_end() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let slate = server.data().join("slate.wav");
    std::fs::write(&slate, wav())?;
    let slate = slate.to_str().context("a path that is text")?;
    let event = server.create_event(
        600.0,
        &[
            "--slug",
            "night",
            "--title-ar",
            "حديث",
            "--duration",
            "1h30m",
            "--slate",
            slate,
            "--wait-for-host",
        ],
    )?;
    assert_eq!(event.event, "night");
    assert_eq!((event.speakers.len(), event.speaker_invites.len()), (2, 2));

    assert!(server.command(&["event", "list"])?.contains("night"));
    let shown = json(&server.command(&["event", "show", "night", "--json"])?)?;
    assert!(shown.to_string().contains("حديث"), "{shown}");
    assert!(server.command(&["event", "show", "night"])?.contains("حديث"));

    let invited = json(&server.command(&["event", "invite", "night", "--role", "co-host", "--json"])?)?;
    assert!(invited.is_object(), "{invited}");

    // Directing goes to the stage: control need not answer.
    server.wait_state("night", "doors", Duration::from_secs(20))?;
    let control = server.signal("control", Signal::STOP)?;
    server.command(&["event", "start", "night"])?;
    server.wait_state("night", "live", Duration::from_secs(20))?;
    server.command(&["event", "hold", "night", "--message", "Back soon", "--message-ar", "نعود"])?;
    server.wait_state("night", "hold", Duration::from_secs(20))?;
    server.command(&["event", "end", "night"])?;
    server.wait_state("night", "ended", Duration::from_secs(20))?;
    server.wait_replaced("control", control, Duration::from_secs(60))?;

    // Elsewhere: by address and token.
    let url = format!("http://{}", server.door("control")?);
    acceptance::wait_for("control", Duration::from_secs(30), || {
        Ok(ureq::get(format!("{url}/readyz")).call().ok().map(drop))
    })?;
    let token = server.token()?;
    let listed = minassa(&["event", "list", "--json", "--server", &url, "--token", &token])?;
    assert!(String::from_utf8(listed.stdout)?.contains("night"));
    let listed = minassa_in(&["event", "list", "--server", &url], &[("MINASSA_TOKEN", &token)])?;
    assert!(String::from_utf8(listed.stdout)?.contains("night"));
    let at_stage = minassa_in(&["event", "start", "night", "--server", &url], &[("MINASSA_TOKEN", &token)])?;
    assert_fails(&at_stage, 1, &["status 4"]);
    Ok(())
}

#[test]
fn an_operator_pins_a_level_and_takes_it_back() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let data = server.data().to_str().context("a path that is text")?.to_owned();
    let ladder = |arguments: &[&str]| minassa(&[&["ladder", "--data", &data], arguments].concat());
    let shown = |output: Output| -> Result<String> { Ok(String::from_utf8(output.stdout)?) };
    assert!(shown(ladder(&[])?)?.starts_with("level 0 of 6: "));
    ladder(&["--pin", "4", "--cap", "100"])?;
    acceptance::wait_for("the pin to count", Duration::from_secs(10), || {
        let text = shown(ladder(&[])?)?;
        let counts = text.starts_with("level 4 of 6: ") && text.contains("pinned 4; cap 100");
        Ok(counts.then_some(()))
    })?;
    let answer = json(&shown(ladder(&["--pin", "none", "--json"])?)?)?;
    assert_eq!((&answer["pin"], &answer["cap"]), (&Value::Null, &Value::from(100)));
    assert_fails(&ladder(&["--pin", "7"])?, 2, &["0 to 6"]);
    Ok(())
}

#[test]
fn what_the_server_refuses_is_told() -> Result<()> {
    let server = Server::start(BINARY, 1)?;
    let data = server.data().to_str().context("a path that is text")?.to_owned();
    let event = |arguments: &[&str]| minassa(&[&["event"], arguments, &["--data", &data]].concat());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let in_an_hour = &UnixTime::from_millis(i64::try_from(now)? + 3_600_000).to_string();
    assert_fails(&event(&["show", "nothing"])?, 1, &["status 404"]);
    assert_fails(&event(&["start", "nothing"])?, 1, &["status 404"]);
    assert_fails(
        &event(&["create", "--title", "T", "--starts", "2020-01-01T00:00:00Z"])?,
        1,
        &["starts_at", "status 422"],
    );
    assert_fails(
        &event(&["create", "--title", "T", "--starts", in_an_hour, "--slate", "/nowhere.wav"])?,
        1,
        &["/nowhere.wav"],
    );
    assert_fails(
        &event(&["create", "--title", "T", "--starts", in_an_hour, "--slate", BINARY])?,
        1,
        &["was created, but not with this slate", "status 4"],
    );
    let wrong = event(&["list", "--token", "not-the-operator"])?;
    assert_fails(&wrong, 1, &["status 401"]);
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains("not-the-operator"), "secrets are not repeated");
    Ok(())
}

#[test]
fn the_demonstration_shows_a_whole_event() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let output = Command::new(BINARY)
        .args(["demo", "--minutes", "0.1", "--starts-in", "6", "--edges", "1"])
        .env("TMPDIR", temporary.path())
        .current_dir(temporary.path())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    for part in ["  listen     http://127.0.0.1:", "/stage#", "On air", "2/2 speak", "The replay is at"] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    assert!(said.contains("The recording is complete") && said.contains("no gap"), "{said}");
    assert!(said.contains("and missed 0"), "{said}");
    assert_eq!(std::fs::read_dir(temporary.path())?.count(), 0, "it cleans up");
    Ok(())
}
