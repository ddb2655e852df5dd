//! A server whose doors speak TLS: its addresses, its commands, its certificate.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use acceptance::server::Server;
use anyhow::{Context as _, Result};
use backend::tls::OwnCertificate;
use rehearse::Trust;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_minassa");
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that believes one certificate, and has no connection yet.
fn agent(pem: &[u8]) -> Result<ureq::Agent> {
    let trust = Trust::only_in(pem).context("there is a certificate")?;
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
    Ok(trust.agent(config))
}

/// What a door says to whom speaks HTTP without TLS.
fn ask_plainly(door: &str) -> Result<String> {
    let mut stream = TcpStream::connect(door)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn every_door_and_address_is_https() -> Result<()> {
    let server = Server::start_with(BINARY, 1, &[], &[("MINASSA_TLS_SELF_SIGNED", "true")])?;
    let certificate = server.data().join("keys/tls.pem");
    let agent = agent(&std::fs::read(&certificate)?)?;
    let said = std::fs::read_to_string(server.data().with_extension("log"))?;
    assert!(said.contains(&format!("pages and API   https://{}/", server.door("control")?)), "{said}");
    let written: Value = serde_json::from_slice(&std::fs::read(server.data().join("run/addresses.json"))?)?;
    assert_eq!(written["scheme"], "https");

    let event = server.create_event(3_600.0, &["--slug", "night", "--doors-before", "2h"])?;
    for link in [&event.listen, &event.host] {
        assert!(link.starts_with("https://127.0.0.1:"), "{link}");
    }
    assert!(server.command(&["event", "list"])?.contains("night"));
    server.wait_state("night", "doors", PATIENCE)?;

    // Control sends to the other doors.
    let control = server.door("control")?;
    let text = |path: &str| -> Result<Value> {
        let mut answer = agent.post(format!("https://{control}{path}")).send_empty()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    };
    let ticket = text("/api/events/night/ticket")?;
    for (key, door) in [("push", "push"), ("hls", "files")] {
        let address = ticket[key].as_str().context("an address")?;
        assert!(address.starts_with(&format!("https://{}/", server.door(door)?)), "{address}");
    }
    let answer = agent.get(format!("https://{control}/live/night/index.m3u8")).call()?;
    let location = answer.headers()["location"].to_str()?.to_owned();
    assert_eq!(location, format!("https://{}/live/night/index.m3u8", server.door("files")?));
    assert!(agent.get(&location).call()?.status().is_success());
    assert!(agent.get(&event.host).call()?.status().is_success());
    for door in ["control", "stage", "files"] {
        let answer = ask_plainly(&server.door(door)?)?;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("tls-required"), "{door}: {answer}");
    }

    for (door, role) in [("control", "control"), ("stage", "origin"), ("files", "edge")] {
        let url = format!("https://{}/metrics", server.door(door)?);
        let figures = agent.get(&url).call()?.body_mut().read_to_string()?;
        let name = format!("minassa_{role}_certificate_expires_timestamp_seconds ");
        let end: f64 =
            figures.lines().find_map(|line| line.strip_prefix(&name)).context("the end")?.parse()?;
        let left = end - SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        assert!((390.0 * 86_400.0..398.0 * 86_400.0).contains(&left), "{role}: {left} s");
    }

    // From elsewhere, by name, if the certificate is trusted there.
    let url = format!("https://localhost:{}", control.rsplit(':').next().context("a port")?);
    let list = |trusted: &Path| {
        Command::new(BINARY)
            .args(["event", "list", "--server", &url, "--token", &server.token()?])
            .env("SSL_CERT_FILE", trusted)
            .stdin(Stdio::null())
            .output()
            .context("it runs")
    };
    let listed = list(&certificate)?;
    assert!(String::from_utf8(listed.stdout)?.contains("night"));
    let other = server.data().join("other.pem");
    std::fs::write(&other, OwnCertificate::make(&["localhost".into()], SystemTime::now())?.pem())?;
    let refused = list(&other)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    Ok(())
}

#[test]
fn a_certificate_is_replaced_without_dropping_anybody() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
    let write = || -> Result<()> {
        // For a name that nothing here is called by: our own clients know the certificate, not its name.
        let made = OwnCertificate::make(&["talk.example".into()], SystemTime::now())?;
        std::fs::write(&key, made.pem())?;
        Ok(std::fs::write(&certificate, made.pem())?)
    };
    write()?;
    let before = std::fs::read(&certificate)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is text");
    let environment =
        [("MINASSA_TLS_CERTIFICATE", &*text(&certificate)?), ("MINASSA_TLS_KEY", &*text(&key)?)];
    let server = Server::start_with(BINARY, 1, &[], &environment)?;
    let old = agent(&before)?;
    let doors =
        ["control", "stage", "files"].map(|door| server.door(door).map(|at| format!("https://{at}/healthz")));
    let doors: Vec<_> = doors.into_iter().collect::<Result<_>>()?;
    // An answer that is read to its end leaves its connection to the next request.
    let fine = |agent: &ureq::Agent, url: &str| {
        agent.get(url).call().is_ok_and(|mut answer| answer.body_mut().read_to_string().is_ok())
    };
    for url in &doors {
        assert!(fine(&old, url), "{url}");
    }

    // What cannot be used changes nothing.
    std::fs::write(&certificate, "no certificate")?;
    acceptance::wait_for("complaints of all roles", PATIENCE, || {
        let log = std::fs::read_to_string(server.data().with_extension("log"))?;
        Ok((log.matches("the changed certificate cannot be used").count() == 3).then_some(()))
    })?;
    write()?;
    for url in &doors {
        // One for each door: a ticket of one door is understood by the others, whichever certificate they show.
        let new = agent(&std::fs::read(&certificate)?)?;
        acceptance::wait_for("the new certificate", PATIENCE, || Ok(fine(&new, url).then_some(())))?;
        // The connection of before is still there: a new one would not be believed.
        assert!(fine(&old, url), "{url}");
        assert!(!fine(&agent(&before)?, url), "{url}");
    }
    assert!(server.command(&["event", "list"])?.contains("no events"));
    Ok(())
}
