//! Requests in floods: tickets, the API with tokens that are none, playlists that wait for parts of a far future, and
//! tickets that nobody issued.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::http1::answered;
use super::swarm::{Happened, Next, Scene, Script};

/// A generator of numbers that is the same at every run (SplitMix64): floods need no secrets.
#[derive(Clone, Debug)]
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// As many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.draw().to_be_bytes()).flatten().take(count).collect()
    }
}

/// `POST` of a ticket. Without a body and a type it is the plainest way in.
pub(crate) fn ticket(authority: &str, event: &str) -> Vec<u8> {
    format!("POST /api/events/{event}/ticket HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

/// The same with a token of the waiting room, or a ticket, that is none.
pub(crate) fn forged_token(authority: &str, event: &str, draws: &mut Draws) -> Vec<u8> {
    let text = URL_SAFE_NO_PAD.encode(draws.bytes(64));
    let name = if draws.draw().is_multiple_of(2) { "token" } else { "ticket" };
    let body = format!("{{\"{name}\":\"{text}\"}}");
    format!(
        "POST /api/events/{event}/ticket HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request of the operator's, by somebody who guesses.
pub(crate) fn bad_token(authority: &str, event: &str, draws: &mut Draws) -> Vec<u8> {
    let token = URL_SAFE_NO_PAD.encode(draws.bytes(32));
    let (method, path, body) = match draws.draw() % 4 {
        0 => ("GET", "/api/events".to_owned(), ""),
        1 => ("GET", format!("/api/events/{event}"), ""),
        2 => ("POST", "/api/events".to_owned(), "{\"title\":\"x\"}"),
        _ => ("PATCH", "/api/ladder".to_owned(), "{\"pin\":6}"),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A playlist that is to wait for a segment which is far away, or so near that the wait is allowed.
pub(crate) fn far_part(authority: &str, event: &str, draws: &mut Draws) -> Vec<u8> {
    let number = match draws.draw() % 4 {
        0 => draws.draw(),
        1 => draws.draw() % 1_000_000,
        2 => u64::MAX,
        _ => draws.draw() % 64,
    };
    let part = draws.draw() % 12;
    format!(
        "GET /live/{event}/opus-48.m3u8?_HLS_msn={number}&_HLS_part={part} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    )
    .into_bytes()
}

/// What is done to a ticket, or in its stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// Bytes that have its shape.
    Guessed,
    /// A good one with one bit changed.
    Flipped,
    /// A good one that says it was signed with another key.
    OtherKey,
    /// A good one with a class of its bearer's choosing.
    OtherClass,
    /// A good one, cut.
    Cut,
    /// A good one, longer.
    Longer,
}

impl Forgery {
    pub(crate) const ALL: [Self; 6] =
        [Self::Guessed, Self::Flipped, Self::OtherKey, Self::OtherClass, Self::Cut, Self::Longer];

    /// A ticket forged so; `good` is one that is none.
    pub(crate) fn make(self, good: &str, draws: &mut Draws) -> String {
        let mut bytes = URL_SAFE_NO_PAD.decode(good).unwrap_or_default();
        if bytes.len() < 33 {
            // No ticket to begin with: all are guessed.
            bytes = draws.bytes(37);
            bytes[0] = 1;
        }
        let draw = draws.draw();
        match self {
            Self::Guessed => {
                let length = bytes.len();
                bytes = draws.bytes(length);
                bytes[0] = 1;
            }
            Self::Flipped => {
                let at = (draw % (8 * bytes.len() as u64)) as usize;
                bytes[at / 8] ^= 1 << (at % 8);
            }
            Self::OtherKey => bytes[1] = bytes[1].wrapping_add(1 + (draw % 255) as u8),
            Self::OtherClass => bytes[4] ^= 1 + (draw % 15) as u8,
            Self::Cut => bytes.truncate(bytes.len() - 1 - (draw % 16) as usize),
            Self::Longer => bytes.extend_from_slice(&draws.bytes(1 + (draw % 16) as usize)),
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// A request of the pushed stream, or of a playlist, with that ticket.
pub(crate) fn with_ticket(authority: &str, event: &str, ticket: &str, push: bool) -> Vec<u8> {
    let file = if push { "opus-48.mp4" } else { "index.m3u8" };
    format!("GET /t/{ticket}/live/{event}/{file} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes()
}

/// Asks again and again on one connection, answered or not, until it is closed.
pub(crate) struct Ask<F> {
    door: usize,
    make: F,
    every_ms: u64,
    next_ms: u64,
}

impl<F: FnMut() -> Vec<u8>> Ask<F> {
    pub(crate) fn new(door: usize, every_ms: u64, make: F) -> Self {
        Self { door, make, every_ms, next_ms: 0 }
    }
}

impl<F: FnMut() -> Vec<u8>> Script for Ask<F> {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open | Happened::Due => {
                // A door that is slow is not asked less: that is the point.
                if scene.is_taken() {
                    scene.notes.count("requests");
                    scene.out.extend_from_slice(&(self.make)());
                }
                self.next_ms = scene.now_ms + self.every_ms;
                Next::until(self.next_ms)
            }
            Happened::Received(bytes) => {
                answered(bytes, scene);
                Next::until(self.next_ms)
            }
            Happened::Closed => {
                scene.notes.count("closed");
                Next::Done
            }
            Happened::Refused => Next::Done,
        }
    }
}

/// Asks once, notes the answer's status, and leaves.
pub(crate) struct Once {
    pub(crate) door: usize,
    pub(crate) request: Vec<u8>,
    pub(crate) patience_ms: u64,
}

impl Script for Once {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("requests");
                scene.out.extend_from_slice(&self.request);
                Next::until(scene.now_ms + self.patience_ms)
            }
            Happened::Received(bytes) => {
                answered(bytes, scene);
                Next::Done
            }
            Happened::Due => {
                scene.notes.count("not answered");
                Next::Done
            }
            Happened::Closed => {
                scene.notes.count("closed");
                Next::Done
            }
            Happened::Refused => Next::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use admission::ticket::{Cell, Class, Ticket, TicketId, TicketKey, TicketKeys, Tier};
    use model::{EventSlug, UnixTime};

    use super::super::swarm::Notes;
    use super::*;

    #[test]
    fn requests_are_whole_and_say_how_long_they_are() {
        let mut draws = Draws(1);
        for _ in 0..40 {
            let all = [
                ticket("127.0.0.1:1", "talk"),
                forged_token("127.0.0.1:1", "talk", &mut draws),
                bad_token("127.0.0.1:1", "talk", &mut draws),
                far_part("127.0.0.1:1", "talk", &mut draws),
                with_ticket("127.0.0.1:1", "talk", "abc", true),
            ];
            for bytes in all {
                let text = String::from_utf8(bytes).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let said = head.split("Content-Length: ").nth(1);
                let said = said.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
                assert_eq!(said, body.len(), "{head}");
                assert!(head.contains("Host: 127.0.0.1:1"));
            }
        }
    }

    #[test]
    fn no_forgery_opens_a_door_of_ours() {
        let keys = TicketKeys { current: TicketKey { id: 3, secret: [7; 32] }, previous: None };
        let event: EventSlug = "talk".parse().unwrap();
        let (now, cell) = (UnixTime::from_millis(1_000_000), Cell(0));
        let good = keys.issue(&Ticket {
            event: event.clone(),
            cell,
            tier: Tier::ONE,
            class: Class::Newcomer,
            expires: UnixTime::from_millis(9_000_000),
            id: TicketId([5; 8]),
        });
        assert!(keys.check(&good, &event, cell, now).is_ok());
        let mut draws = Draws(2);
        for forgery in Forgery::ALL {
            for _ in 0..500 {
                let forged = forgery.make(&good, &mut draws);
                assert_ne!(forged, good);
                assert!(keys.check(&forged, &event, cell, now).is_err(), "{forgery:?}: {forged}");
            }
        }
        // Without a good one they are guessed.
        assert!(Forgery::Flipped.make("", &mut draws).len() > 40);
    }

    #[test]
    fn draws_are_the_same_at_every_run_and_differ() {
        let (mut one, mut two) = (Draws(9), Draws(9));
        let bytes = one.bytes(100);
        assert_eq!((bytes.len(), &bytes), (100, &two.bytes(100)));
        assert_ne!(one.draw(), one.draw());
    }

    #[test]
    fn who_asks_goes_on_and_who_asks_once_leaves() {
        let (mut out, mut notes) = (Vec::new(), Notes::default());
        let mut ask = Ask::new(2, 10, || b"x".to_vec());
        let mut scene = Scene { now_ms: 0, out: &mut out, notes: &mut notes };
        assert_eq!(ask.act(Happened::Open, &mut scene), Next::until(10));
        assert_eq!(ask.act(Happened::Received(b"HTTP/1.1 429 "), &mut scene), Next::until(10));
        assert_eq!((ask.act(Happened::Closed, &mut scene), ask.first_door()), (Next::Done, 2));
        let mut once = Once { door: 0, request: b"y".to_vec(), patience_ms: 50 };
        assert_eq!(once.act(Happened::Open, &mut scene), Next::until(50));
        assert_eq!(once.act(Happened::Received(b"HTTP/1.1 403 "), &mut scene), Next::Done);
        assert_eq!((notes.of("requests"), notes.of("answered 429"), notes.of("answered 403")), (2, 1, 1));
    }
}
