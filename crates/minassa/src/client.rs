//! Client commands: `event …` against a running server.
//!
//! What directs a show (start, hold, end) goes to the stage door and works with control dead. Everything else is
//! control's.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use backend::tls::Certificate;
use rehearse::Trust;
use serde_json::{Value, json};

use crate::cli::{CreateFlags, EventCommand, InviteRole, ServerChoice, ServerFlags};
use crate::config::Config;
use crate::supervisor::{Addresses, Scheme};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Bytes from which on a body waits for the server's word.
const LONG: usize = 1 << 20;
/// Largest slate sent; the server says what it allows.
const SLATE_BYTES_MAX: u64 = 256 << 20;

/// Carries out a command and prints its result.
///
/// # Errors
/// If the server cannot be found or reached, or refuses.
pub fn run(command: EventCommand) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match command {
        EventCommand::Create(flags) => create(&flags, &mut out),
        EventCommand::Start { event, server } => direct(&event, &server, json!({"state": "live"}), &mut out),
        EventCommand::Hold { event, until, message, message_ar, server } => {
            let mut body = json!({"state": "hold"});
            if let Some(until) = until {
                body["until"] = until.to_string().into();
            }
            if message.is_some() || message_ar.is_some() {
                let (ar, en) = (message_ar.unwrap_or_default(), message.unwrap_or_default());
                body["message"] = json!({"ar": ar, "en": en});
            }
            direct(&event, &server, body, &mut out)
        }
        EventCommand::End { event, server } => direct(&event, &server, json!({"state": "ended"}), &mut out),
        EventCommand::Show { event, server } => {
            let answer =
                Client::find(&server)?.control("GET", &format!("/api/events/{}", slug(&event)), None)?;
            print(&mut out, server.json, &answer, show)
        }
        EventCommand::List { server } => {
            let answer = Client::find(&server)?.control("GET", "/api/events", None)?;
            print(&mut out, server.json, &answer, list)
        }
        EventCommand::Invite { event, revoke: Some(id), server, .. } => {
            let path = format!("/api/events/{}/invites/{}", slug(&event), slug(&id));
            let answer = Client::find(&server)?.control("DELETE", &path, None)?;
            print(&mut out, server.json, &answer, |_, out| writeln!(out, "The invitation is withdrawn."))
        }
        EventCommand::Invite { event, role, name, revoke: None, server } => {
            let path = format!("/api/events/{}/invites", slug(&event));
            let role = match role {
                InviteRole::Host => "host",
                InviteRole::CoHost => "co-host",
                InviteRole::Speaker => "speaker",
            };
            let body = json!({"role": role, "name": name});
            let answer = Client::find(&server)?.control("POST", &path, Some(&body))?;
            print(&mut out, server.json, &answer, fields)
        }
    }
}

/// A server, found.
pub struct Client {
    http: ureq::Agent,
    control: String,
    stage: Option<String>,
    token: String,
}

impl Client {
    /// Finds the server by its data directory or its address.
    ///
    /// # Errors
    /// If nothing is up there, or the token cannot be read.
    pub fn find(choice: &ServerChoice) -> anyhow::Result<Self> {
        if let Some(server) = &choice.server {
            let token = choice.token.clone().context("--server needs --token")?;
            let https =
                [Some(server), choice.stage.as_ref()].into_iter().flatten().any(|address| is_https(address));
            let trust = if https { system_trust()? } else { Trust::default() };
            return Self::at(server, choice.stage.as_deref(), token, &trust);
        }
        let data = match &choice.data {
            Some(data) => data.clone(),
            None => ServerFlags::default().load()?.server.data,
        };
        Self::of(&data, choice.token.clone())
    }

    /// The server on this machine that uses the directory `data`.
    ///
    /// # Errors
    /// If none is up, or its token cannot be read.
    pub fn of(data: &Path, token: Option<String>) -> anyhow::Result<Self> {
        let addresses = Addresses::read(data)?;
        let token = match token {
            Some(token) => token,
            None => {
                let path = data.join("run/operator-token");
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read the operator's token {}", path.display()))?;
                text.trim().to_owned()
            }
        };
        let trust = trust_in(&addresses, data)?;
        let base = |door| addresses.url(door, "");
        Self::at(&base(addresses.control), Some(&base(addresses.stage)), token, &trust)
    }

    fn at(control: &str, stage: Option<&str>, token: String, trust: &Trust) -> anyhow::Result<Self> {
        for address in stage.into_iter().chain([control]) {
            if !is_address(address) {
                bail!("{address}: an address begins with http:// or https://");
            }
        }
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        let http = trust.agent(http);
        let base = |address: &str| address.trim_end_matches('/').to_owned();
        Ok(Self { http, control: base(control), stage: stage.map(base), token })
    }

    /// Asks control.
    ///
    /// # Errors
    /// If it cannot be reached or refuses; its problem is the message.
    pub fn control(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let bytes = body.map(serde_json::to_vec).transpose()?;
        self.ask(method, &format!("{}{path}", self.control), bytes.as_deref(), "application/json")
    }

    /// Asks the stage door.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub fn stage(
        &self,
        method: &str,
        event: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let stage = match &self.stage {
            Some(stage) => stage.clone(),
            None => self.find_stage(event)?,
        };
        let bytes = body.map(serde_json::to_vec).transpose()?;
        let url = format!("{stage}/api/stage/{}{path}", slug(event));
        self.ask(method, &url, bytes.as_deref(), "application/json")
    }

    /// Control points to the stage's page; the stage door is where that is.
    fn find_stage(&self, event: &str) -> anyhow::Result<String> {
        let url = format!("{}/e/{}/stage", self.control, slug(event));
        let response =
            self.http.get(&url).call().with_context(|| format!("cannot reach {}", self.control))?;
        let location = response
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .and_then(|location| location.split("/e/").next())
            .filter(|stage| is_address(stage))
            .context("control does not say where the stage door is; name it with --stage")?;
        Ok(location.to_owned())
    }

    fn ask(&self, method: &str, url: &str, body: Option<&[u8]>, kind: &str) -> anyhow::Result<Value> {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json, application/problem+json");
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", kind);
                // A server that refuses says so before anything long is sent.
                let request =
                    if body.len() > LONG { request.header("expect", "100-continue") } else { request };
                self.http.run(request.body(body)?)
            }
            None => self.http.run(request.body(())?),
        };
        // The address, without what might be secret in it: only paths of ours are called, and they are not.
        let mut response = response.with_context(|| format!("cannot reach {url}"))?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .with_context(|| format!("the answer of {url} cannot be read"))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        bail!("{}", problem(status.as_u16(), &answer))
    }
}

pub(crate) fn is_https(address: &str) -> bool {
    address.starts_with("https://")
}

pub(crate) fn is_address(address: &str) -> bool {
    is_https(address) || address.starts_with("http://")
}

/// Whom to believe that it is the server that uses the directory `data`: who shows the certificate that is in its
/// files, whatever name that is for.
///
/// # Errors
/// If its configuration or its certificate cannot be read.
pub fn trust_in(addresses: &Addresses, data: &Path) -> anyhow::Result<Trust> {
    if addresses.scheme == Scheme::Http {
        return Ok(Trust::default());
    }
    let config = Config::load_effective(&data.join("run/config.toml"))?;
    let file = config.tls.certificate_file(data).context("the server speaks TLS without a certificate")?;
    let certificate = Certificate::load_chain(&file)?.swap_remove(0);
    Ok(Trust::only(certificate))
}

/// Where the certificates are that this machine trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whoever this machine trusts; `SSL_CERT_FILE` names others.
pub(crate) fn system_trust() -> anyhow::Result<Trust> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let found = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
    let file = named.or(found).context(
        "this machine has no file of trusted certificates: install ca-certificates, or name one in SSL_CERT_FILE",
    )?;
    Ok(Trust::roots(Certificate::load_chain(&file)?))
}

/// A problem (RFC 9457) in one line.
fn problem(status: u16, answer: &Value) -> String {
    let mut line = answer["title"].as_str().unwrap_or("the server refused").to_owned();
    if let Some(detail) = answer["detail"].as_str() {
        line.push_str(": ");
        line.push_str(detail);
    }
    for invalid in answer["invalid"].as_array().into_iter().flatten() {
        let text = |key: &str| invalid[key].as_str().unwrap_or_default().to_owned();
        if line.contains(&text("allowed")) {
            continue;
        }
        line.push_str(&format!("; {} = {:?}, allowed: {}", text("key"), text("value"), text("allowed")));
    }
    line.push_str(&format!(" (status {status})"));
    line
}

/// A path segment from what somebody typed: whatever is no letter, digit or dash is escaped.
fn slug(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

fn direct(event: &str, server: &ServerChoice, body: Value, out: &mut impl Write) -> anyhow::Result<()> {
    let answer = Client::find(server)?.stage("POST", event, "/state", Some(&body))?;
    print(out, server.json, &answer, |answer, out| {
        writeln!(out, "{event}: {}", answer["state"].as_str().unwrap_or("as told"))
    })
}

fn create(flags: &CreateFlags, out: &mut impl Write) -> anyhow::Result<()> {
    // What cannot be read is better found out before there is an event.
    let slate = flags.slate.as_deref().map(read_slate).transpose()?;
    let client = Client::find(&flags.server)?;
    let mut body = json!({"title": flags.title, "starts_at": flags.starts.to_string()});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[key] = value;
        }
    };
    set("title_ar", flags.title_ar.clone().map(Value::from));
    set("slug", flags.slug.clone().map(Value::from));
    set("duration_s", flags.duration.map(|duration| duration.as_secs().into()));
    set("doors_before_s", flags.doors_before.map(|duration| duration.as_secs().into()));
    set("auto_live", flags.wait_for_host.then_some(false.into()));
    set("green_room", flags.green_room.clone().map(Value::from));
    set("hold_on_silence", flags.hold_on_silence.then_some(true.into()));
    set("speakers", (!flags.speaker.is_empty()).then(|| flags.speaker.clone().into()));
    let answer = client.control("POST", "/api/events", Some(&body))?;
    if let Some(slate) = slate {
        let event = answer["event"].as_str().context("the answer names no event")?;
        let url = format!("{}/api/events/{}/slate", client.control, slug(event));
        client
            .ask("PUT", &url, Some(&slate), "application/octet-stream")
            .with_context(|| format!("the event {event} was created, but not with this slate"))?;
    }
    print(out, flags.server.json, &answer, |answer, out| {
        writeln!(out, "{} starts at {}.", answer["event"].as_str().unwrap_or_default(), flags.starts)?;
        writeln!(out, "  listen   {}", answer["listen"].as_str().unwrap_or_default())?;
        writeln!(out, "Each of these is for one person: whoever holds it is on stage.")?;
        writeln!(out, "  host     {}", answer["host"].as_str().unwrap_or_default())?;
        for speaker in answer["speakers"].as_array().into_iter().flatten() {
            writeln!(out, "  speaker  {}", speaker.as_str().unwrap_or_default())?;
        }
        Ok(())
    })
}

fn read_slate(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read the slate {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    if size > SLATE_BYTES_MAX {
        bail!("the slate {} has {size} bytes, at most {SLATE_BYTES_MAX} are sent", path.display());
    }
    std::fs::read(path).with_context(cannot)
}

/// Prints an answer as JSON, or as `words` puts it.
/// Prints an answer: as JSON, or in words.
pub(crate) fn print<W: Write>(
    out: &mut W,
    json: bool,
    answer: &Value,
    words: impl FnOnce(&Value, &mut W) -> io::Result<()>,
) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, answer)?;
        writeln!(out)?;
    } else {
        words(answer, out)?;
    }
    Ok(())
}

fn list(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let events = answer.as_array().or_else(|| answer["events"].as_array());
    if events.is_none_or(Vec::is_empty) {
        return writeln!(out, "There are no events.");
    }
    for event in events.into_iter().flatten() {
        let text = |key: &str| event[key].as_str().unwrap_or("-");
        let slug = event["event"].as_str().or(event["slug"].as_str()).unwrap_or("-");
        writeln!(out, "{slug:<24} {:<10} {}  {}", text("state"), text("starts_at"), title(event))?;
    }
    Ok(())
}

fn title(event: &Value) -> String {
    let of = |language: &str| event["title"][language].as_str().filter(|title| !title.is_empty());
    match (event["title"].as_str(), of("en"), of("ar")) {
        (Some(title), ..) => title.to_owned(),
        (_, Some(en), Some(ar)) => format!("{en} · {ar}"),
        (_, Some(title), None) | (_, None, Some(title)) => title.to_owned(),
        (None, None, None) => String::new(),
    }
}

fn show(event: &Value, out: &mut impl Write) -> io::Result<()> {
    let title = title(event);
    if !title.is_empty() {
        writeln!(out, "{title}")?;
    }
    fields(event, out)
}

/// Every field on a line of its own, what is nested further in.
fn fields(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    indented(answer, 2, out)
}

fn indented(answer: &Value, indent: usize, out: &mut impl Write) -> io::Result<()> {
    for (key, value) in answer.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => {
                writeln!(out, "{:indent$}{key}", "")?;
                indented(value, indent + 2, out)?;
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                writeln!(out, "{:indent$}{key}", "")?;
                for item in items {
                    writeln!(out, "{:indent$}  {}", "", in_a_row(item))?;
                }
            }
            other => writeln!(out, "{:indent$}{key:<18} {}", "", plain(other))?,
        }
    }
    Ok(())
}

/// The fields of an object in one line.
fn in_a_row(item: &Value) -> String {
    let fields = item.as_object().into_iter().flatten();
    fields.map(|(key, value)| format!("{key} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        let answer = json!({
            "type": "urn:minassa:problem:invalid", "title": "A value is not allowed", "status": 422,
            "detail": "the start has passed",
            "invalid": [{"key": "starts_at", "value": "2020", "allowed": "a time to come"}],
        });
        assert_eq!(
            problem(422, &answer),
            "A value is not allowed: the start has passed; starts_at = \"2020\", allowed: a time to come (status 422)"
        );
        assert_eq!(problem(502, &Value::Null), "the server refused (status 502)");
    }

    #[test]
    fn what_is_typed_cannot_leave_its_segment() {
        assert_eq!(slug("night-talk"), "night-talk");
        assert_eq!(slug("../x?y"), "%2E%2E%2Fx%3Fy");
    }
}
