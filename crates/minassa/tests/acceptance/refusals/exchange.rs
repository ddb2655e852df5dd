//! One HTTP request over a bare connection: methods, heads and lengths that no ordinary client would send.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Longest wait for a server that owes an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest head read.
const HEAD_MAX: usize = 64 * 1024;

/// A request, and what of it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { line: format!("{method} {target} HTTP/1.1"), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-type", kind).header("content-length", &length)
    }

    fn bytes(&self, door: &str) -> Vec<u8> {
        let mut head = format!("{}\r\nhost: {door}\r\nconnection: close\r\n", self.line);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends it to `door` (`host:port`) and reads the answer.
    pub(crate) fn send(&self, door: &str) -> Result<Answer> {
        exchange(door, &self.bytes(door))
    }
}

/// What came back. The body is there if the answer said how long it is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {} {}", self.head, self.text()))
    }
}

/// Sends bytes and reads one answer; `100 Continue` is passed over.
pub(crate) fn exchange(door: &str, bytes: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(door).with_context(|| format!("connecting to {door}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server that has seen enough answers and closes before everything was sent.
    let sent = stream.write_all(bytes);
    let mut input = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
            match stream.read(&mut piece) {
                Ok(0) => bail!("closed without an answer (sent: {sent:?})"),
                Ok(count) => input.extend_from_slice(&piece[..count]),
                Err(error) => bail!("no answer: {error} (sent: {sent:?})"),
            }
            if input.len() > HEAD_MAX {
                bail!("a head without an end");
            }
            continue;
        };
        let head = String::from_utf8(input[..end].to_vec())?;
        input.drain(..end + 4);
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        if status == 100 {
            continue;
        }
        let mut answer = Answer { status, head, body: input };
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse()?;
            while answer.body.len() < length {
                match stream.read(&mut piece)? {
                    0 => bail!("the answer broke off: {}", answer.head),
                    count => answer.body.extend_from_slice(&piece[..count]),
                }
            }
        }
        return Ok(answer);
    }
}
