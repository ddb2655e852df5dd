//! An honest newcomer: asks for a ticket, waits if it is told to, listens, leaves, and may come again.
//!
//! ```text
//!            200 ┌──────────────► listening ──► leaving
//! asking ────────┤                    │ cut off
//!   ▲        202 └─► waiting ──┐      └──► listening again, with the same ticket
//!   └── its turn, or time ─────┘
//! ```
//!
//! A state machine: it is told what happened and when, and says what comes next. How it waits is how the page waits: it
//! keeps its token, looks at `queue.json`, and asks again when its turn has come, or when it was told to. A challenge it
//! solves and asks again, as a page does; the processor time of that is this program's.

use std::cell::RefCell;
use std::rc::Rc;

use rehearse::crowd::Times;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attack::requests::Draws;
use crate::attack::swarm::{Happened, Next, Notes, Scene, Script};

/// Doors, by their places in a swarm.
pub(crate) const CONTROL: usize = 0;
pub(crate) const PUSH: usize = 1;
/// Longest answer that is read, bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// Bytes of a stream in which there must be audio: `init`, and more than one part of `opus-48`.
const AUDIO_BYTES: usize = 4_096;
/// Where late ones' ranks begin: 2^52.
const LATE: u64 = 1 << 52;
/// Longest wait for an answer, ms.
const ANSWER_MS: u64 = 10_000;
/// From one look at the line to the next, ms; no page looks more often than once a second.
const LOOK_MS: u64 = 2_000;
/// Waits of who is turned away without being told how long, ms.
const AGAIN_MS: u64 = 2_000;

/// What a guest wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wishes {
    /// The event.
    pub(crate) event: String,
    /// `host:port` of control and of the push door.
    pub(crate) authorities: [String; 2],
    /// How long it listens, ms.
    pub(crate) listen_ms: u64,
    /// How long it waits to be let in before it gives up, ms.
    pub(crate) patience_ms: u64,
    /// When it leaves, whoever is still there, ms since the beginning of all.
    pub(crate) exit_ms: Option<u64>,
    /// Whether it comes again after that.
    pub(crate) returns: bool,
    /// Whether it asks again at once, whatever it is told.
    pub(crate) hasty: bool,
}

/// What became of all guests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Guestbook {
    /// Counts, by kind.
    pub(crate) notes: Notes,
    /// From a guest's first request to its first audio, µs.
    pub(crate) first_audio: Times,
    /// From a request to its answer, µs.
    pub(crate) answers: Times,
    /// Bytes of streams in each second since the beginning.
    pub(crate) bytes: Vec<u64>,
    /// Guests that hear, at their most in each second.
    pub(crate) hearing: Vec<u64>,
    /// Guests that hear now.
    #[serde(skip)]
    pub(crate) now: u64,
}

impl Guestbook {
    fn carry(&mut self, now_ms: u64, bytes: usize) {
        let second = usize::try_from(now_ms / 1_000).unwrap_or(0).min(3_600);
        if self.bytes.len() <= second {
            self.bytes.resize(second + 1, 0);
        }
        self.bytes[second] += bytes as u64;
        if self.hearing.len() <= second {
            self.hearing.resize(second + 1, 0);
        }
        self.hearing[second] = self.hearing[second].max(self.now);
    }
}

/// An answer, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
}

/// The head of an answer, and its body if that has a length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    /// Seconds, if it says so.
    pub(crate) retry_after: Option<u64>,
    /// Bytes behind the head.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Takes bytes; beyond what is read of an answer they are left.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let room = ANSWER_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The head, and what is there of the body.
    fn head(&self) -> Option<(Whole, Option<usize>)> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let (mut retry_after, mut length) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("retry-after") {
                retry_after = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        Some((Whole { status, retry_after, body: self.bytes[end + 4..].to_vec() }, length))
    }

    /// The head, once it is there.
    pub(crate) fn begun(&self) -> Option<Whole> {
        self.head().map(|(whole, _)| whole)
    }

    /// Everything, once it is there. What has no length ends with its connection.
    pub(crate) fn whole(&self, closed: bool) -> Option<Whole> {
        let (mut whole, length) = self.head()?;
        let length = length.unwrap_or(if closed { whole.body.len() } else { usize::MAX });
        if whole.body.len() < length {
            return None;
        }
        whole.body.truncate(length);
        Some(whole)
    }
}

/// A place in the waiting room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    token: String,
    /// Its rank in the line, if it came after doors.
    rank: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Asking,
    Looking,
    /// Waits until then, and then does what is next.
    Waiting {
        looks: bool,
    },
    /// Asked for the stream there.
    Joining,
    Hearing,
    /// Waits to come again after everybody has left.
    Away,
}

/// One guest.
pub(crate) struct Guest {
    wishes: Rc<Wishes>,
    book: Rc<RefCell<Guestbook>>,
    draws: Draws,
    state: State,
    answer: Answer,
    place: Option<Place>,
    /// Of the challenge that it was asked with last, until it is shown.
    solution: Option<String>,
    /// When it was told to ask again, ms.
    ask_ms: u64,
    /// Path of the stream, with the ticket.
    stream: Option<String>,
    begun_ms: Option<u64>,
    asked_ms: u64,
    leave_ms: u64,
    heard: usize,
    /// It has heard before, and counts no more as one who is let in.
    was_in: bool,
    /// It has a place with a range of time, or its draw is to come.
    is_told: bool,
    exited: bool,
}

impl Guest {
    pub(crate) fn new(wishes: Rc<Wishes>, book: Rc<RefCell<Guestbook>>, number: u64) -> Self {
        Self {
            wishes,
            book,
            draws: Draws(number),
            state: State::Asking,
            answer: Answer::default(),
            place: None,
            solution: None,
            ask_ms: 0,
            stream: None,
            begun_ms: None,
            asked_ms: 0,
            leave_ms: u64::MAX,
            heard: 0,
            was_in: false,
            is_told: false,
            exited: false,
        }
    }

    fn note(&self, kind: &str) {
        self.book.borrow_mut().notes.count(kind);
    }

    fn gives_up_ms(&self) -> u64 {
        self.begun_ms.unwrap_or(0).saturating_add(self.wishes.patience_ms)
    }

    /// Until when an answer is waited for.
    fn answer_by_ms(&self) -> u64 {
        let by_ms = self.asked_ms + ANSWER_MS;
        if self.was_in { by_ms } else { by_ms.min(self.gives_up_ms()) }
    }

    /// Waits, if there is patience left, and then asks or looks.
    fn wait(&mut self, now_ms: u64, wait_ms: u64, looks: bool) -> Next {
        if !self.was_in && now_ms >= self.gives_up_ms() {
            self.note(if self.is_told { "gave up with a place" } else { "gave up without a place" });
            return Next::Done;
        }
        // As pages do, so that they do not come back together: half as long to half as long again.
        let wait_ms = wait_ms / 2 + self.draws.draw() % wait_ms.max(1);
        let latest = if self.was_in { u64::MAX } else { self.gives_up_ms() };
        self.state = State::Waiting { looks };
        Next::Rest { due_ms: (now_ms + wait_ms.max(50)).min(latest.max(now_ms + 1)) }
    }

    /// How long somebody who was turned away waits, ms.
    fn pause_ms(&self, retry_after: Option<u64>) -> u64 {
        if self.wishes.hasty {
            200
        } else {
            retry_after.map_or(AGAIN_MS, |seconds| 1_000 * seconds.clamp(1, 300))
        }
    }

    fn ask(&mut self) -> Next {
        self.state = State::Asking;
        self.answer = Answer::default();
        Next::Go { door: CONTROL }
    }

    fn join(&mut self) -> Next {
        self.state = State::Joining;
        self.answer = Answer::default();
        self.heard = 0;
        Next::Go { door: PUSH }
    }

    /// What is said on a connection that is open now.
    fn say(&mut self, scene: &mut Scene<'_>) {
        let now_ms = scene.now_ms;
        self.begun_ms.get_or_insert(now_ms);
        self.asked_ms = now_ms;
        let Wishes { event, authorities: [control, push], .. } = &*self.wishes;
        let text = match self.state {
            State::Joining => {
                let path = self.stream.as_deref().unwrap_or("/");
                format!("GET {path} HTTP/1.1\r\nHost: {push}\r\n\r\n")
            }
            State::Looking => {
                format!(
                    "GET /api/events/{event}/queue.json HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n"
                )
            }
            _ => {
                let body = match (&self.place, self.solution.take()) {
                    (Some(place), _) => format!("{{\"token\":\"{}\"}}", place.token),
                    (None, Some(solution)) => format!("{{\"solution\":\"{solution}\"}}"),
                    (None, None) => "{}".to_owned(),
                };
                format!(
                    "POST /api/events/{event}/ticket HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        scene.out.extend_from_slice(text.as_bytes());
    }

    /// A door that did not answer, or ended an answer before it was whole.
    fn trouble(&mut self, kind: &str, now_ms: u64) -> Next {
        self.note(kind);
        self.wait(now_ms, self.pause_ms(None), false)
    }

    /// Takes a ticket, a place, or a refusal.
    fn answered(&mut self, whole: &Whole, now_ms: u64) -> Next {
        self.book.borrow_mut().answers.record(1_000 * now_ms.saturating_sub(self.asked_ms));
        let body: Value = serde_json::from_slice(&whole.body).unwrap_or(Value::Null);
        match whole.status {
            200 => {
                let path = body["push"].as_str().and_then(|push| push.split_once("://")?.1.split_once('/'));
                let Some((_, path)) = path else { return self.trouble("tickets without an address", now_ms) };
                self.stream = Some(format!("/{path}opus-48.mp4"));
                self.note("tickets");
                self.join()
            }
            202 => {
                self.note("told to wait");
                let Some(token) = body["token"].as_str() else {
                    return self.trouble("places without a token", now_ms);
                };
                let rank = body["line"].as_u64().map(|line| LATE + line);
                let rank = rank.or_else(|| self.place.as_ref().and_then(|place| place.rank));
                self.place = Some(Place { token: token.to_owned(), rank });
                let early = body["early"] == true;
                let told = body["place"].is_u64() && body["low_s"].is_u64() && body["high_s"].is_u64();
                self.is_told |= told || early;
                if !told && !early {
                    // Nothing moves, or nothing is known yet: the page says so.
                    self.note("places without a range of time");
                }
                let retry_s = body["retry_after"].as_u64().or(whole.retry_after);
                self.ask_ms = now_ms + self.pause_ms(retry_s);
                self.wait(now_ms, LOOK_MS.min(self.pause_ms(retry_s)), true)
            }
            401 if body["type"] == "urn:minassa:problem:challenge" => {
                self.note("challenged");
                self.solution = solved(&body);
                match &self.solution {
                    Some(_) => self.ask(),
                    None => self.trouble("challenges that cannot be solved", now_ms),
                }
            }
            status => {
                self.refused(whole);
                if status == 403 {
                    // The token or ticket is worth nothing any more: as somebody new.
                    (self.place, self.stream) = (None, None);
                }
                self.wait(now_ms, self.pause_ms(whole.retry_after), false)
            }
        }
    }

    fn refused(&self, whole: &Whole) {
        self.note(&format!("refused {}", whole.status));
        if whole.status >= 500 && whole.retry_after.is_none() {
            self.note("bare 5xx");
        }
    }

    /// Takes a look at the line.
    fn looked(&mut self, whole: &Whole, now_ms: u64) -> Next {
        self.note("looks at the line");
        let body: Value = serde_json::from_slice(&whole.body).unwrap_or(Value::Null);
        let through = body["admitted_through"].as_u64().unwrap_or(0);
        let turn = self.place.as_ref().and_then(|place| place.rank).is_some_and(|rank| rank < through);
        if turn || body["state"] == "clear" || now_ms >= self.ask_ms {
            return self.ask();
        }
        self.wait(now_ms, LOOK_MS, true)
    }

    /// Takes bytes of the stream.
    fn hear(&mut self, bytes: &[u8], now_ms: u64) -> Next {
        if self.state == State::Joining {
            self.answer.take(bytes);
            let Some(head) = self.answer.begun() else { return Next::until(self.answer_by_ms()) };
            if head.status != 200 {
                self.refused(&head);
                let wait_ms = self.pause_ms(head.retry_after);
                if head.status == 403 {
                    (self.place, self.stream) = (None, None);
                }
                return self.wait(now_ms, wait_ms, false);
            }
            self.state = State::Hearing;
            self.heard = head.body.len();
            // A guest that was cut off leaves when it would have.
            let ends_ms =
                if self.was_in { self.leave_ms } else { now_ms.saturating_add(self.wishes.listen_ms) };
            let exit_ms = self.wishes.exit_ms.filter(|_| !self.exited).unwrap_or(u64::MAX);
            self.leave_ms = ends_ms.min(exit_ms);
        } else {
            self.heard += bytes.len();
        }
        let mut book = self.book.borrow_mut();
        let before = self.heard.saturating_sub(bytes.len());
        if self.heard >= AUDIO_BYTES && (before < AUDIO_BYTES || !self.was_in) {
            book.now += 1;
            if !self.was_in {
                self.was_in = true;
                book.notes.count("let in");
                let since = self.begun_ms.unwrap_or(now_ms);
                book.first_audio.record(1_000 * now_ms.saturating_sub(since).max(1));
            }
        }
        book.carry(now_ms, bytes.len());
        Next::until(self.leave_ms)
    }

    fn goes(&self) {
        if self.state == State::Hearing && self.heard >= AUDIO_BYTES {
            let mut book = self.book.borrow_mut();
            book.now = book.now.saturating_sub(1);
        }
    }

    /// Its time has come to leave.
    fn leave(&mut self, now_ms: u64) -> Next {
        self.goes();
        let exit = !self.exited && self.wishes.exit_ms.is_some_and(|exit| now_ms >= exit);
        if exit && self.wishes.returns {
            self.exited = true;
            self.leave_ms = u64::MAX;
            self.note("left to come again");
            self.heard = 0;
            self.state = State::Away;
            // Hands are quick, but not all alike.
            return Next::Rest { due_ms: now_ms + 1 + self.draws.draw() % 1_000 };
        }
        self.note("left");
        Next::Done
    }
}

/// What a page would send back.
fn solved(asked: &Value) -> Option<String> {
    let text = |key: &str| Some(asked[key].as_str()?.to_owned());
    let (salt, challenge) = (text("salt")?, text("challenge")?);
    let maxnumber = u32::try_from(asked["maxnumber"].as_u64()?).ok().filter(|most| *most <= 1 << 21)?;
    let number = Some(admission::challenge::solve(&salt, &challenge, maxnumber)?);
    let (algorithm, signature) = (text("algorithm")?, text("signature")?);
    Some(admission::challenge::Solution { algorithm, challenge, number, salt, signature }.encode())
}

impl Script for Guest {
    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        let now_ms = scene.now_ms;
        self.begun_ms.get_or_insert(now_ms);
        match happened {
            Happened::Open => {
                self.say(scene);
                Next::until(self.answer_by_ms())
            }
            Happened::Received(bytes) => match self.state {
                State::Joining | State::Hearing => self.hear(bytes, now_ms),
                State::Asking | State::Looking => {
                    self.answer.take(bytes);
                    match self.answer.whole(false) {
                        Some(whole) if self.state == State::Looking => self.looked(&whole, now_ms),
                        Some(whole) => self.answered(&whole, now_ms),
                        None => Next::until(self.answer_by_ms()),
                    }
                }
                // It has no connection then.
                State::Waiting { .. } | State::Away => Next::Done,
            },
            Happened::Due => match self.state {
                State::Hearing => self.leave(now_ms),
                State::Waiting { looks: true } if now_ms < self.ask_ms => {
                    if !self.was_in && now_ms >= self.gives_up_ms() {
                        return self.wait(now_ms, 1, true);
                    }
                    self.state = State::Looking;
                    self.answer = Answer::default();
                    Next::Go { door: CONTROL }
                }
                State::Waiting { .. } if !self.was_in && now_ms >= self.gives_up_ms() => {
                    self.wait(now_ms, 1, false)
                }
                State::Waiting { .. } | State::Away => {
                    if self.stream.is_some() {
                        self.join()
                    } else {
                        self.ask()
                    }
                }
                // An answer that did not come in time.
                State::Asking | State::Looking | State::Joining => self.trouble("not answered", now_ms),
            },
            Happened::Refused => self.trouble("not connected", now_ms),
            Happened::Closed => match self.state {
                State::Hearing => {
                    self.goes();
                    self.note("cut off");
                    self.heard = 0;
                    self.wait(now_ms, 300, false)
                }
                State::Asking | State::Looking => match self.answer.whole(true) {
                    Some(whole) if self.state == State::Looking => self.looked(&whole, now_ms),
                    Some(whole) => self.answered(&whole, now_ms),
                    None => self.trouble("closed without an answer", now_ms),
                },
                State::Joining => self.trouble("closed without an answer", now_ms),
                // It has no connection then.
                State::Waiting { .. } | State::Away => Next::Done,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest, and what it says.
    struct Trial {
        guest: Guest,
        book: Rc<RefCell<Guestbook>>,
        said: Vec<u8>,
    }

    impl Trial {
        fn new(change: impl FnOnce(&mut Wishes)) -> Self {
            let mut wishes = Wishes {
                event: "talk".to_owned(),
                authorities: ["c:1".to_owned(), "p:2".to_owned()],
                listen_ms: 5_000,
                patience_ms: 10_000,
                exit_ms: None,
                returns: false,
                hasty: false,
            };
            change(&mut wishes);
            let book = Rc::new(RefCell::new(Guestbook::default()));
            Self { guest: Guest::new(Rc::new(wishes), Rc::clone(&book), 7), book, said: Vec::new() }
        }

        fn act(&mut self, happened: Happened<'_>, now_ms: u64) -> Next {
            self.said.clear();
            let mut notes = Notes::default();
            self.guest.act(happened, &mut Scene { now_ms, out: &mut self.said, notes: &mut notes })
        }

        fn answer(&mut self, head: &str, body: &str, now_ms: u64) -> Next {
            let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            self.act(Happened::Received(text.as_bytes()), now_ms)
        }

        fn said(&self) -> &str {
            std::str::from_utf8(&self.said).unwrap()
        }

        fn of(&self, kind: &str) -> u64 {
            self.book.borrow().notes.of(kind)
        }

        /// Lets it in at this time.
        fn enter(&mut self, now_ms: u64) -> Next {
            self.act(Happened::Open, now_ms);
            let ticket = r#"{"push":"http://p:2/t/abc/live/talk/"}"#;
            assert_eq!(self.answer("200 OK", ticket, now_ms), Next::Go { door: PUSH });
            self.stream(now_ms)
        }

        fn stream(&mut self, now_ms: u64) -> Next {
            self.act(Happened::Open, now_ms);
            assert!(self.said().starts_with("GET /t/abc/live/talk/opus-48.mp4 HTTP/1.1\r\nHost: p:2\r\n"));
            self.act(Happened::Received(b"HTTP/1.1 200 OK\r\n\r\n"), now_ms);
            self.act(Happened::Received(&[0; AUDIO_BYTES]), now_ms)
        }
    }

    const PLACE: &str = r#"{"token":"tok","state":"moving","place":9,"low_s":3,"high_s":6,"retry_after":4,
        "early":false,"line":41}"#;

    #[test]
    fn a_challenge_is_solved_and_it_asks_again() {
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 0);
        let key = admission::challenge::ChallengeKey([1; 32]);
        let (event, address) = ("talk".parse().unwrap(), std::net::IpAddr::from([127, 0, 0, 1]));
        let now = model::UnixTime::from_millis(2_000_000_000_000);
        let given = key.challenge(&event, address, 1_000, [2; 16], now);
        let problem = serde_json::json!({
            "type": "urn:minassa:problem:challenge", "algorithm": "SHA-256", "salt": given.salt,
            "challenge": given.challenge, "maxnumber": given.maxnumber, "signature": given.signature,
        });
        let next = trial.answer("401 Unauthorized", &problem.to_string(), 10);
        assert_eq!((next, trial.of("challenged")), (Next::Go { door: CONTROL }, 1));
        trial.act(Happened::Open, 20);
        let shown = trial.said().split_once("{\"solution\":\"").unwrap().1.trim_end_matches("\"}").to_owned();
        assert!(key.check(&shown, &event, address, now).is_ok());
        // What cannot be solved is waited out like any trouble.
        let mut unsolvable = problem.clone();
        unsolvable["challenge"] = "00".repeat(32).into();
        trial.answer("401 Unauthorized", &unsolvable.to_string(), 30);
        assert_eq!(trial.of("challenges that cannot be solved"), 1);
    }

    #[test]
    fn a_guest_comes_listens_and_leaves() {
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 100);
        assert!(trial.said().starts_with("POST /api/events/talk/ticket HTTP/1.1\r\nHost: c:1\r\n"));
        let mut trial = Trial::new(|_| ());
        assert_eq!(trial.enter(1_000), Next::until(6_000));
        assert_eq!((trial.of("let in"), trial.book.borrow().now), (1, 1));
        assert_eq!(trial.act(Happened::Received(&[0; 100]), 2_500), Next::until(6_000));
        assert_eq!(trial.act(Happened::Due, 6_000), Next::Done);
        assert_eq!((trial.of("left"), trial.book.borrow().now), (1, 0));
        assert_eq!(trial.book.borrow().bytes[2], 100);
    }

    #[test]
    fn who_has_to_wait_looks_at_the_line_and_asks_in_its_turn() {
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 0);
        let Next::Rest { due_ms } = trial.answer("202 Accepted", PLACE, 10) else { panic!("it waits") };
        assert!((1_000..=3_010).contains(&due_ms), "{due_ms}");
        assert_eq!(trial.act(Happened::Due, due_ms), Next::Go { door: CONTROL });
        trial.act(Happened::Open, due_ms);
        assert!(trial.said().starts_with("GET /api/events/talk/queue.json"));
        let line = |through: u64| format!("{{\"admitted_through\":{through},\"state\":\"moving\"}}");
        // Not yet its turn: everyone up to its place, but not it.
        let next = trial.answer("200 OK", &line(LATE + 41), due_ms);
        let Next::Rest { due_ms } = next else { panic!("{next:?}") };
        trial.guest.ask_ms = due_ms + 5_000;
        assert_eq!(trial.act(Happened::Due, due_ms), Next::Go { door: CONTROL });
        trial.act(Happened::Open, due_ms);
        assert_eq!(trial.answer("200 OK", &line(LATE + 42), due_ms), Next::Go { door: CONTROL });
        trial.act(Happened::Open, due_ms);
        assert!(trial.said().ends_with(r#"{"token":"tok"}"#), "{}", trial.said());
    }

    #[test]
    fn patience_ends_with_a_place_or_without() {
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 0);
        trial.answer("202 Accepted", PLACE, 10);
        assert_eq!(trial.act(Happened::Due, 10_000), Next::Done);
        assert_eq!(trial.of("gave up with a place"), 1);
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 0);
        assert!(matches!(trial.act(Happened::Due, 10_000), Next::Done));
        assert_eq!((trial.of("not answered"), trial.of("gave up without a place")), (1, 1));
    }

    #[test]
    fn refusals_without_advice_are_bare() {
        let mut trial = Trial::new(|_| ());
        trial.act(Happened::Open, 0);
        let next = trial.answer("503 Service Unavailable\r\nRetry-After: 3", "{}", 10);
        assert_eq!((trial.of("refused 503"), trial.of("bare 5xx")), (1, 0));
        let Next::Rest { due_ms } = next else { panic!("{next:?}") };
        assert_eq!(trial.act(Happened::Due, due_ms), Next::Go { door: CONTROL });
        trial.act(Happened::Open, due_ms);
        trial.answer("500 Internal Server Error", "{}", due_ms + 10);
        assert_eq!(trial.of("bare 5xx"), 1);
    }

    #[test]
    fn who_is_cut_off_comes_again_with_its_ticket() {
        let mut trial = Trial::new(|_| ());
        trial.enter(0);
        let Next::Rest { due_ms } = trial.act(Happened::Closed, 1_000) else { panic!("it waits") };
        assert_eq!(trial.book.borrow().now, 0);
        assert_eq!(trial.act(Happened::Due, due_ms), Next::Go { door: PUSH });
        // It leaves when it would have, and was let in once.
        assert_eq!(trial.stream(due_ms), Next::until(5_000));
        assert_eq!((trial.of("let in"), trial.of("cut off"), trial.book.borrow().now), (1, 1, 1));
    }

    #[test]
    fn everybody_leaves_at_once_and_some_come_again() {
        let leave = |wishes: &mut Wishes| (wishes.listen_ms, wishes.exit_ms) = (60_000, Some(8_000));
        let mut trial = Trial::new(leave);
        assert_eq!(trial.enter(0), Next::until(8_000));
        assert_eq!(trial.act(Happened::Due, 8_000), Next::Done);
        let mut trial = Trial::new(|wishes| {
            leave(wishes);
            wishes.returns = true;
        });
        trial.enter(0);
        let Next::Rest { due_ms } = trial.act(Happened::Due, 8_000) else { panic!("it waits") };
        assert!((8_001..=9_001).contains(&due_ms));
        assert_eq!(trial.act(Happened::Due, due_ms), Next::Go { door: PUSH });
        assert_eq!(trial.stream(due_ms), Next::until(u64::MAX));
        assert_eq!((trial.of("let in"), trial.book.borrow().now), (1, 1));
    }

    #[test]
    fn the_hasty_do_not_wait_as_they_are_told() {
        for (hasty, least, most) in [(false, 15_000, 45_000), (true, 100, 400)] {
            let mut trial = Trial::new(|wishes| (wishes.hasty, wishes.patience_ms) = (hasty, 100_000));
            trial.act(Happened::Open, 0);
            let next = trial.answer("503 Service Unavailable\r\nRetry-After: 30", "", 0);
            let Next::Rest { due_ms } = next else { panic!("{next:?}") };
            assert!((least..=most).contains(&due_ms), "{due_ms}");
        }
    }

    #[test]
    fn answers_come_in_pieces() {
        let mut answer = Answer::default();
        for byte in b"HTTP/1.1 202 Accepted\r\nretry-after: 7\r\nContent-Length: 3\r\n\r\nab" {
            answer.take(&[*byte]);
            assert_eq!(answer.whole(false), None);
        }
        assert_eq!(answer.begun().unwrap().status, 202);
        answer.take(b"c and more");
        let whole = Whole { status: 202, retry_after: Some(7), body: b"abc".to_vec() };
        assert_eq!(answer.whole(false), Some(whole));
        // Nobody is read for ever.
        answer.take(&[0; 2 * ANSWER_MAX]);
        assert!(answer.bytes.len() <= ANSWER_MAX);
        let mut other = Answer::default();
        other.take(b"HTTP/1.0 200 OK\r\n\r\nxyz");
        assert_eq!((other.whole(false), other.whole(true).unwrap().body), (None, b"xyz".to_vec()));
    }
}
