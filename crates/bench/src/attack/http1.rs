//! Clients of HTTP/1.1 that take their time: slow heads, slow bodies, slow readers, and connections that ask for nothing.

use super::swarm::{Happened, Next, Scene, Script};

/// Most bytes of an answer's head that are looked at.
const ANSWER_MAX: usize = 64;

/// The status of an answer whose head begins like this.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// A head without its end, to which a field is added now and then (slowloris).
pub(crate) fn endless_head(authority: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: Mozilla/5.0\r\n").into_bytes()
}

/// The `n`th field of it.
pub(crate) fn one_more(n: u64) -> Vec<u8> {
    format!("X-{n}: {n}\r\n").into_bytes()
}

/// A head that announces more of a body than will ever come.
pub(crate) fn slow_post(authority: &str, path: &str, length: usize) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{\"token\": \""
    )
    .into_bytes()
}

/// A request, whole.
pub(crate) fn get(authority: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: Mozilla/5.0\r\n\r\n").into_bytes()
}

/// Sends `first`, and then `more` every so often, and never ends.
pub(crate) struct Drip<F> {
    pub(crate) first: Vec<u8>,
    pub(crate) more: F,
    pub(crate) every_ms: u64,
    pub(crate) door: usize,
    pub(crate) opened_ms: u64,
    pub(crate) sent: u64,
}

impl<F: FnMut(u64) -> Vec<u8>> Drip<F> {
    pub(crate) fn new(door: usize, first: Vec<u8>, every_ms: u64, more: F) -> Self {
        Self { first, more, every_ms, door, opened_ms: 0, sent: 0 }
    }
}

impl<F: FnMut(u64) -> Vec<u8>> Script for Drip<F> {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("held");
                self.opened_ms = scene.now_ms;
                scene.out.extend_from_slice(&self.first);
                Next::until(scene.now_ms + self.every_ms)
            }
            Happened::Due => {
                scene.out.extend_from_slice(&(self.more)(self.sent));
                self.sent += 1;
                Next::until(scene.now_ms + self.every_ms)
            }
            Happened::Received(bytes) => {
                answered(bytes, scene);
                Next::until(scene.now_ms + self.every_ms)
            }
            Happened::Refused => Next::Done,
            Happened::Closed => {
                scene.notes.count("closed");
                // How long the most patient door has waited.
                scene.notes.peak("longest held, ms", scene.now_ms.saturating_sub(self.opened_ms));
                Next::Done
            }
        }
    }
}

/// Counts an answer by its status.
pub(crate) fn answered(bytes: &[u8], scene: &mut Scene<'_>) {
    if let Some(status) = status(&bytes[..bytes.len().min(ANSWER_MAX)]) {
        scene.notes.count(&format!("answered {status}"));
    }
}

/// Asks for a stream, and takes a few bytes of it now and then.
pub(crate) struct Sip {
    pub(crate) request: Vec<u8>,
    pub(crate) door: usize,
    /// Bytes taken at a time; none: it never reads.
    pub(crate) bytes: usize,
    pub(crate) every_ms: u64,
    pub(crate) opened_ms: u64,
    pub(crate) begun: bool,
}

impl Script for Sip {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("held");
                self.opened_ms = scene.now_ms;
                scene.out.extend_from_slice(&self.request);
                Next::deaf_until(scene.now_ms + self.every_ms)
            }
            Happened::Due => Next::Wait { due_ms: Some(scene.now_ms + self.every_ms), read: self.bytes },
            Happened::Received(bytes) => {
                if !self.begun {
                    self.begun = true;
                    answered(bytes, scene);
                }
                Next::deaf_until(scene.now_ms + self.every_ms)
            }
            Happened::Refused => Next::Done,
            Happened::Closed => {
                scene.notes.count("closed");
                scene.notes.peak("longest held, ms", scene.now_ms.saturating_sub(self.opened_ms));
                Next::Done
            }
        }
    }
}

/// Connects and says nothing.
pub(crate) struct Hold {
    pub(crate) door: usize,
    pub(crate) opened_ms: u64,
}

impl Script for Hold {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("held");
                self.opened_ms = scene.now_ms;
                Next::LISTEN
            }
            Happened::Received(bytes) => {
                answered(bytes, scene);
                Next::LISTEN
            }
            Happened::Due => Next::LISTEN,
            Happened::Refused => Next::Done,
            Happened::Closed => {
                scene.notes.count("closed");
                scene.notes.peak("longest held, ms", scene.now_ms.saturating_sub(self.opened_ms));
                Next::Done
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Notes;
    use super::*;

    fn act(script: &mut dyn Script, happened: Happened<'_>, now_ms: u64) -> (Vec<u8>, Next, Notes) {
        let (mut out, mut notes) = (Vec::new(), Notes::default());
        let next = script.act(happened, &mut Scene { now_ms, out: &mut out, notes: &mut notes });
        (out, next, notes)
    }

    #[test]
    fn a_head_that_never_ends_has_no_end() {
        let mut all = endless_head("127.0.0.1:1", "/");
        for n in 0..50 {
            all.extend_from_slice(&one_more(n));
        }
        assert!(!all.windows(4).any(|four| four == b"\r\n\r\n"));
        assert!(all.ends_with(b"\r\n"));
    }

    #[test]
    fn a_slow_body_is_announced_longer_than_it_is() {
        let text = String::from_utf8(slow_post("h", "/x", 4_000)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: 4000") && body.len() < 100);
    }

    #[test]
    fn dripping_goes_on_until_it_is_closed() {
        let mut drip = Drip::new(1, b"first".to_vec(), 1_000, one_more);
        assert_eq!(drip.first_door(), 1);
        let (out, next, notes) = act(&mut drip, Happened::Open, 50);
        assert_eq!((out, next, notes.of("held")), (b"first".to_vec(), Next::until(1_050), 1));
        assert_eq!(act(&mut drip, Happened::Due, 1_050).0, b"X-0: 0\r\n");
        assert_eq!(act(&mut drip, Happened::Due, 2_050).0, b"X-1: 1\r\n");
        let (_, _, notes) = act(&mut drip, Happened::Received(b"HTTP/1.1 408 Request Timeout\r\n"), 5_000);
        assert_eq!(notes.of("answered 408"), 1);
        let (_, next, notes) = act(&mut drip, Happened::Closed, 5_050);
        assert_eq!((next, notes.of("longest held, ms")), (Next::Done, 5_000));
    }

    #[test]
    fn a_sipper_is_deaf_between_its_sips() {
        let request = get("h", "/live");
        let mut sip = Sip { request, door: 0, bytes: 1, every_ms: 1_000, opened_ms: 0, begun: false };
        assert_eq!(act(&mut sip, Happened::Open, 0).1, Next::deaf_until(1_000));
        assert_eq!(act(&mut sip, Happened::Due, 1_000).1, Next::Wait { due_ms: Some(2_000), read: 1 });
        assert_eq!(act(&mut sip, Happened::Received(b"H"), 1_001).1, Next::deaf_until(2_001));
    }

    #[test]
    fn only_answers_have_a_status() {
        assert_eq!(status(b"HTTP/1.1 503 Service"), Some(503));
        for other in [&b""[..], b"HTTP/1.1 50", b"\x16\x03\x01", b"HTTP/1.1 abc", b"HTTP/2 200 "] {
            assert_eq!(status(other), None);
        }
    }
}
