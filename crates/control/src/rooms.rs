//! The waiting rooms of all events: who comes without being known, who may go on to the doors.
//!
//! ```text
//! ask ──► a token that was shown ──► may it enter? ──► ticket, always the same for the same token
//!    └──► nobody waits, and there is room ───────────► ticket
//!    └──► otherwise ─────────────────────────────────► a token, a place, a range of time
//! ```
//!
//! A room is made when the first person asks and kept until its event is over. What it holds does not grow with those
//! who wait. It reads no clock and draws no random numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use admission::doorstep::{Meter, Prefix};
use admission::room::{
    Arrival, ArriveError, Capacity, Commitment, Entry, Estimate, Kind, LedgerHead, MintCost, PrefixKey,
    Queue, Room, RoomConfig, RoomKeys, Seed, Token, TokenError, TokenId, jittered,
};
use admission::ticket::TicketId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use model::{EventSlug, ShowState, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::observed::Standing;

/// Rooms at once. An event beyond that has none: who asks comes in as long as there are seats.
pub(crate) const ROOMS_MAX: usize = 64;
/// Tokens that took their seat, remembered so that a copy does not count as another.
const SEATED_MAX: usize = 65_536;
/// Who was let in this many seconds ago may not be in any edge's report yet.
const UNREPORTED_S: usize = 3;
/// Time over which it is remembered what networks were given.
const GIVEN_WINDOW: Duration = Duration::from_secs(10);
/// Places that a network may have in that time in any case: two thousand people behind one address have theirs within two
/// minutes.
const GIVEN_ALWAYS: u32 = 200;
/// Beyond that one network may have this share of all.
const GIVEN_SHARE: u64 = 32;
/// How long after its doors opened a draw waits for the ledger's head. Where there is none by then the seed alone decides,
/// and the record says so.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// How long after the planned doors origin's word is waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// What the draws of an installation are derived from.
#[derive(Clone)]
pub(crate) struct DrawSecret(pub(crate) [u8; 32]);

impl std::fmt::Debug for DrawSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrawSecret(..)")
    }
}

impl DrawSecret {
    /// The seed of an event's draw.
    pub(crate) fn seed(&self, event: &EventSlug) -> Seed {
        Seed::derive(&self.0, event)
    }

    /// What is published of it beforehand.
    pub(crate) fn commitment(&self, event: &EventSlug, allowance: u32) -> Commitment {
        self.seed(event).commitment(event, allowance)
    }

    fn prefixes(&self, event: &EventSlug) -> PrefixKey {
        PrefixKey(self.derive(b"minassa room prefixes 1\0", event))
    }

    fn derive(&self, domain: &[u8], event: &EventSlug) -> [u8; 32] {
        self.mac(domain, event.as_str().as_bytes())
    }

    fn mac(&self, domain: &[u8], text: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("an HMAC takes keys of any length");
        mac.update(domain);
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

/// Somebody who asks for a way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The token they were given before.
    pub(crate) token: Option<&'a str>,
    /// Where they come from.
    pub(crate) address: IpAddr,
    /// The work that they did, checked.
    pub(crate) paid: MintCost,
    /// 16 bytes nobody can foresee: of their token, or of their ticket.
    pub(crate) id: [u8; 16],
    /// Uniform over its range: spreads when they come back.
    pub(crate) jitter: u32,
}

/// What they are answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// A way in, under this identity.
    Enter(TicketId),
    /// A place in the room.
    Wait(Box<Place>),
    /// The event is over.
    Ended,
    /// No token of this room.
    Refused(TokenError),
    /// No token for them.
    NoToken(ArriveError),
    /// Neither a seat nor a room.
    Full,
    /// Their network was given its share for now.
    HadShare,
}

/// A place in the room.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// What to show next time.
    pub(crate) token: String,
    /// What it says, for a page that computes for itself. `None` where the token was shown, and is known there.
    pub(crate) says: Option<Token>,
    pub(crate) estimate: Estimate,
    /// When to ask again.
    pub(crate) delay: Duration,
    pub(crate) queue: Queue,
}

/// An event's room and what goes in beside it. It can be frozen and gone on from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entrance {
    room: Room,
    /// As published last: a room is gone on from here, so that nobody is sent back who was told to come.
    queue: Queue,
    /// Tokens that took their first seat since the last second.
    #[serde(skip)]
    redeemed: u64,
    /// In all.
    #[serde(skip)]
    taken: u64,
    #[serde(skip)]
    seated: Seated,
    /// When its doors were first seen open while its draw was not held.
    #[serde(skip)]
    due_since: Option<UnixTime>,
}

/// Identities that took a seat, the latest [`SEATED_MAX`].
#[derive(Debug, Default)]
struct Seated {
    order: VecDeque<TicketId>,
    known: BTreeSet<TicketId>,
}

impl Seated {
    /// Whether this is the first time.
    fn note(&mut self, id: TicketId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        if self.order.len() >= SEATED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }
}

/// What an event's doors are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoorState {
    /// Whoever comes now takes part in the draw.
    Closed,
    /// The programme is on.
    Open,
    /// It is over.
    Over,
}

impl DoorState {
    /// Of an event that stands so.
    pub(crate) fn of(standing: &Standing, now: UnixTime) -> Self {
        match standing.state {
            ShowState::Ended => Self::Over,
            ShowState::Doors | ShowState::Live | ShowState::Hold { .. } => Self::Open,
            // Origin opens the doors; if it says nothing, the clock does, a little later.
            ShowState::Scheduled if now < standing.doors_at.plus(SILENCE) => Self::Closed,
            ShowState::Scheduled => Self::Open,
        }
    }
}

/// All rooms.
#[derive(Debug)]
pub(crate) struct Rooms {
    secret: DrawSecret,
    keys: RoomKeys,
    config: RoomConfig,
    rooms: BTreeMap<EventSlug, Entrance>,
    /// Seats that nobody waits for, this second.
    spare: u64,
    /// Tokens and seats given of late, by network.
    given: Meter,
    /// Who was let in during this second and the ones before it, the latest last.
    let_in: [u64; UNREPORTED_S],
}

impl Rooms {
    pub(crate) fn new(secret: DrawSecret, keys: RoomKeys, config: RoomConfig) -> Self {
        let given = Meter::new(&secret.mac(b"minassa room given 1\0", &[]), GIVEN_WINDOW, 1);
        Self { secret, keys, config, rooms: BTreeMap::new(), spare: 0, given, let_in: [0; UNREPORTED_S] }
    }

    /// Goes on from a frozen room.
    pub(crate) fn resume(&mut self, event: EventSlug, mut entrance: Entrance) {
        if self.rooms.len() >= ROOMS_MAX {
            tracing::error!(%event, "there are as many waiting rooms as there may be; this one is not gone on from");
            return;
        }
        entrance.room.resume(&entrance.queue);
        self.rooms.insert(event, entrance);
    }

    /// Whether anywhere somebody waits whose turn has not come.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.rooms.values().any(|entrance| entrance.room.draw().is_some() && entrance.waits())
    }

    /// Rooms by event, to be frozen.
    pub(crate) fn entrances(&self) -> &BTreeMap<EventSlug, Entrance> {
        &self.rooms
    }

    /// What is told to all who wait for an event: of one without a room, that nobody does.
    pub(crate) fn queue(&self, event: &EventSlug) -> Option<Queue> {
        self.rooms.get(event).map(|entrance| entrance.queue)
    }

    /// The room of an event, for what is published of its draw.
    pub(crate) fn room(&self, event: &EventSlug) -> Option<&Room> {
        self.rooms.get(event).map(|entrance| &entrance.room)
    }

    /// What is published of an event's draw before it is held.
    pub(crate) fn commitment(&self, event: &EventSlug) -> Commitment {
        self.secret.commitment(event, self.config.allowance)
    }

    /// People who were let in and whom no edge may have reported yet.
    pub(crate) fn unreported(&self) -> u64 {
        self.let_in.iter().sum()
    }

    /// A second is over: opens the rooms whose doors opened, and divides `free` seats among those for whom somebody
    /// waits. What nobody waits for is for who comes. `head` is what an event's ledger says at the moment of its draw; while
    /// it says nothing, the draw waits for up to [`HEAD_WITHIN`].
    pub(crate) fn advance(
        &mut self,
        now: UnixTime,
        free: u64,
        level: u8,
        head: impl Fn(&EventSlug) -> Option<LedgerHead>,
        doors: impl Fn(&EventSlug) -> DoorState,
    ) {
        self.let_in.rotate_left(1);
        self.let_in[UNREPORTED_S - 1] = 0;
        for (event, entrance) in &mut self.rooms {
            match doors(event) {
                DoorState::Closed => {}
                DoorState::Open if entrance.room.draw().is_none() => {
                    let since = *entrance.due_since.get_or_insert(now);
                    let none = || (now >= since.plus(HEAD_WITHIN)).then_some(LedgerHead([0; 32]));
                    let Some(head) = head(event).or_else(none) else { continue };
                    if let Err(error) = entrance.room.open(self.secret.seed(event), head, now) {
                        tracing::error!(%event, %error, "the draw cannot be held");
                    }
                }
                DoorState::Open => {}
                DoorState::Over => entrance.room.end(),
            }
        }
        let wanted: Vec<bool> = self.rooms.values().map(|entrance| entrance.room.wants_seats()).collect();
        let rooms = wanted.iter().filter(|wants| **wants).count() as u64;
        let share = free.checked_div(rooms).unwrap_or(0);
        for (entrance, wants) in self.rooms.values_mut().zip(wanted) {
            let redeemed = std::mem::take(&mut entrance.redeemed);
            let capacity = Capacity { free: if wants { share } else { 0 }, redeemed, level };
            entrance.queue = entrance.room.advance(now, capacity);
        }
        // The same seats are not offered twice: directly only where nobody waits anywhere.
        self.spare = if rooms == 0 { free } else { 0 };
    }

    /// Forgets rooms that nobody needs any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(&EventSlug) -> bool) {
        self.rooms.retain(|event, _| keep(event));
    }

    /// Answers somebody who asks for a way in.
    pub(crate) fn ask(&mut self, event: &EventSlug, ask: Ask<'_>, doors: DoorState, now: UnixTime) -> Answer {
        if doors == DoorState::Over {
            return Answer::Ended;
        }
        if !self.rooms.contains_key(event) && self.rooms.len() >= ROOMS_MAX {
            return self.without_room(ask);
        }
        let secret = &self.secret;
        let entrance = self.rooms.entry(event.clone()).or_insert_with(|| {
            let mut room = Room::new(
                event.clone(),
                self.config.clone(),
                secret.commitment(event, self.config.allowance),
            );
            if doors == DoorState::Open {
                // Nobody came before doors: there is nothing to draw, and nothing that a head could decide.
                let opened = room.open(secret.seed(event), LedgerHead([0; 32]), now);
                debug_assert!(opened.is_ok(), "the seed is the one committed to");
            }
            Entrance {
                queue: room.queue(),
                room,
                redeemed: 0,
                taken: 0,
                seated: Seated::default(),
                due_since: None,
            }
        });
        match ask.token {
            Some(text) => match entrance.room.may_enter(text, &self.keys, now) {
                Entry::Enter(id) => {
                    let is_new = u64::from(entrance.seated.note(id));
                    entrance.redeemed += is_new;
                    entrance.taken += is_new;
                    // Who asks again takes no other seat, however often.
                    self.let_in[UNREPORTED_S - 1] += is_new;
                    Answer::Enter(id)
                }
                Entry::Wait(estimate) => {
                    Answer::Wait(Box::new(entrance.place(text.to_owned(), None, estimate, ask.jitter)))
                }
                Entry::Ended => Answer::Ended,
                Entry::Refused(error) => Answer::Refused(error),
            },
            // Before the draw everybody takes part in it, who comes from one network often too: it weighs them.
            None if entrance.room.draw().is_some() && !has_share(&mut self.given, ask.address, now) => {
                Answer::HadShare
            }
            None if doors == DoorState::Open && self.spare > 0 && !entrance.waits() => {
                self.spare -= 1;
                self.let_in[UNREPORTED_S - 1] += 1;
                Answer::Enter(ticket_id(ask.id))
            }
            None => {
                let tag = secret.prefixes(event).tag(event, ask.address);
                let arrival = Arrival { id: TokenId(ask.id), tag, paid: ask.paid };
                match entrance.room.arrive(arrival, now) {
                    Ok(token) => {
                        let text = self.keys.issue(&token);
                        let place = match (token.kind, entrance.room.draw()) {
                            (Kind::Late { place }, _) => Some(place),
                            (Kind::Early, _) => None,
                        };
                        let estimate =
                            place.map_or(Estimate::UNDRAWN, |place| Estimate::of(place, &entrance.queue));
                        Answer::Wait(Box::new(entrance.place(text, Some(token), estimate, ask.jitter)))
                    }
                    Err(error) => Answer::NoToken(error),
                }
            }
        }
    }

    fn without_room(&mut self, ask: Ask<'_>) -> Answer {
        if self.spare == 0 {
            return Answer::Full;
        }
        self.spare -= 1;
        self.let_in[UNREPORTED_S - 1] += 1;
        Answer::Enter(ticket_id(ask.id))
    }
}

impl Entrance {
    /// Tokens that took their seat since this process began.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The room itself.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Takes a queue that was published after this was frozen.
    pub(crate) fn with_queue(mut self, queue: Queue) -> Self {
        if queue.admitted >= self.queue.admitted {
            self.queue = queue;
        }
        self
    }

    /// As published last.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether there is somebody whose turn has not come.
    fn waits(&self) -> bool {
        self.room.queue().waiting > 0
    }

    fn place(&self, token: String, says: Option<Token>, estimate: Estimate, jitter: u32) -> Place {
        let delay = jittered(estimate.delay(), jitter);
        Place { token, says, estimate, delay, queue: self.queue }
    }
}

/// Whether a network may be given one more. Whoever may not is told to come back; nobody is shut out for good.
fn has_share(given: &mut Meter, address: IpAddr, now: UnixTime) -> bool {
    let (prefix, now) = (Prefix::of(address), Duration::from_millis(now.as_millis().unsigned_abs()));
    let share = u32::try_from(given.total(now) / GIVEN_SHARE).unwrap_or(u32::MAX);
    let may = given.cost(prefix, now) < share.max(GIVEN_ALWAYS);
    if may {
        given.add(prefix, 1, now);
    }
    may
}

/// The identity of a ticket for somebody without a token.
fn ticket_id(id: [u8; 16]) -> TicketId {
    let [a, b, c, d, e, f, g, h, ..] = id;
    TicketId([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::room::{RoomKey, RoomState, Wait};

    const HEAD: LedgerHead = LedgerHead([7; 32]);

    fn rooms() -> Rooms {
        let keys = RoomKeys { current: RoomKey { id: 0, secret: [1; 32] }, previous: None };
        Rooms::new(DrawSecret([2; 32]), keys, RoomConfig::default())
    }

    fn at(second: i64) -> UnixTime {
        UnixTime::from_millis(2_000_000_000_000 + second * 1_000)
    }

    fn talk() -> EventSlug {
        "talk".parse().unwrap()
    }

    fn newcomer(n: u8) -> Ask<'static> {
        let address = IpAddr::from([192, 0, n, 1]);
        Ask { token: None, address, paid: MintCost(0), id: [n; 16], jitter: 1 << 31 }
    }

    fn with<'a>(token: &'a str, n: u8) -> Ask<'a> {
        Ask { token: Some(token), ..newcomer(n) }
    }

    fn waits(answer: Answer) -> Place {
        let Answer::Wait(place) = answer else { panic!("{answer:?}") };
        *place
    }

    #[test]
    fn with_room_for_all_everybody_comes_in_at_once() {
        let mut rooms = rooms();
        rooms.advance(at(0), 2, 0, |_| Some(HEAD), |_| DoorState::Open);
        let mut ask = |n| rooms.ask(&talk(), newcomer(n), DoorState::Open, at(0));
        assert_eq!([ask(1), ask(2)], [1, 2].map(|n| Answer::Enter(TicketId([n; 8]))));
        // Beyond the second's budget people wait, and are first in the next second.
        let place = waits(ask(3));
        assert_eq!(place.estimate.ahead, Some(1));
        assert_eq!(rooms.unreported(), 2);
        rooms.advance(at(1), 1, 0, |_| Some(HEAD), |_| DoorState::Open);
        waits(rooms.ask(&talk(), newcomer(4), DoorState::Open, at(1)));
        let answer = rooms.ask(&talk(), with(&place.token, 3), DoorState::Open, at(1));
        let Answer::Enter(id) = answer else { panic!("{answer:?}") };
        // A copy is the same ticket, and takes no other seat.
        let let_in = rooms.unreported();
        assert_eq!(rooms.ask(&talk(), with(&place.token, 9), DoorState::Open, at(1)), Answer::Enter(id));
        assert_eq!(rooms.unreported(), let_in);
        assert_eq!(rooms.rooms[&talk()].redeemed, 1);
    }

    #[test]
    fn who_came_early_is_drawn_and_comes_in_before_who_came_late() {
        let mut rooms = rooms();
        let early: Vec<Place> =
            (0..20).map(|n| waits(rooms.ask(&talk(), newcomer(n), DoorState::Closed, at(0)))).collect();
        assert!(early.iter().all(|place| place.estimate == Estimate::UNDRAWN));
        rooms.advance(at(1), 1_000, 0, |_| Some(HEAD), |_| DoorState::Closed);
        assert_eq!(rooms.queue(&talk()).unwrap().state, RoomState::Gathering);
        waits(rooms.ask(&talk(), with(&early[0].token, 0), DoorState::Closed, at(1)));
        // Doors open, with five seats free.
        rooms.advance(at(2), 5, 4, |_| Some(HEAD), |_| DoorState::Open);
        let late = waits(rooms.ask(&talk(), newcomer(99), DoorState::Open, at(2)));
        assert!(late.estimate.ahead >= Some(15), "{:?}", late.estimate);
        let mut enters = |place: &Place| {
            matches!(rooms.ask(&talk(), with(&place.token, 0), DoorState::Open, at(2)), Answer::Enter(_))
        };
        let first = early.iter().filter(|place| enters(place)).count();
        assert!((3..=7).contains(&first) && !enters(&late), "{first}: places of a draw are right on average");
        rooms.advance(at(3), 100, 4, |_| Some(HEAD), |_| DoorState::Open);
        let mut enters = |place: &Place| {
            matches!(rooms.ask(&talk(), with(&place.token, 0), DoorState::Open, at(3)), Answer::Enter(_))
        };
        assert!(early.iter().all(&mut enters) && enters(&late));
        // Anybody can draw again.
        let record = rooms.room(&talk()).unwrap().draw().unwrap().record();
        assert_eq!(
            (record.ledger_head, record.seed.commitment(&talk(), record.table.allowance())),
            (HEAD, rooms.commitment(&talk()))
        );
    }

    #[test]
    fn a_frozen_room_goes_on_where_it_was() {
        let mut before = rooms();
        before.advance(at(0), 0, 4, |_| Some(HEAD), |_| DoorState::Open);
        let places: Vec<_> =
            (0..10).map(|n| waits(before.ask(&talk(), newcomer(n), DoorState::Open, at(0)))).collect();
        before.advance(at(1), 4, 4, |_| Some(HEAD), |_| DoorState::Open);
        let frozen = serde_json::to_vec(&before.entrances()[&talk()]).unwrap();
        let mut after = rooms();
        after.resume(talk(), serde_json::from_slice(&frozen).unwrap());
        after.advance(at(2), 0, 4, |_| Some(HEAD), |_| DoorState::Open);
        let enters = |place: &Place| {
            matches!(after.ask(&talk(), with(&place.token, 0), DoorState::Open, at(2)), Answer::Enter(_))
        };
        assert_eq!(places.iter().map(enters).filter(|enters| *enters).count(), 4);
        let late = waits(after.ask(&talk(), newcomer(50), DoorState::Open, at(2)));
        assert!(late.estimate.ahead >= Some(6));
    }

    #[test]
    fn seats_are_shared_and_tokens_are_for_one_event() {
        let mut rooms = rooms();
        let other: EventSlug = "other".parse().unwrap();
        let mine: Vec<_> =
            (0..10).map(|n| waits(rooms.ask(&talk(), newcomer(n), DoorState::Open, at(0)))).collect();
        for n in 0..10 {
            waits(rooms.ask(&other, newcomer(n), DoorState::Open, at(0)));
        }
        rooms.advance(at(1), 6, 4, |_| Some(HEAD), |_| DoorState::Open);
        let admitted = [&talk(), &other].map(|event| rooms.queue(event).unwrap().admitted);
        assert_eq!(admitted, [3, 3]);
        let answer = rooms.ask(&other, with(&mine[0].token, 0), DoorState::Open, at(1));
        assert_eq!(answer, Answer::Refused(TokenError::OtherEvent));
        let answer = rooms.ask(&talk(), with("forged", 0), DoorState::Open, at(1));
        assert_eq!(answer, Answer::Refused(TokenError::Malformed));
        // Nothing moves: nothing is said about time.
        for second in 2..40 {
            rooms.advance(at(second), 0, 5, |_| Some(HEAD), |_| DoorState::Open);
        }
        let place = waits(rooms.ask(&talk(), with(&mine[9].token, 0), DoorState::Open, at(40)));
        assert_eq!((place.queue.state, place.estimate.wait), (RoomState::Still, Wait::Unknown));
        rooms.advance(at(41), 0, 5, |_| Some(HEAD), |_| DoorState::Over);
        assert_eq!(rooms.ask(&talk(), with(&mine[9].token, 0), DoorState::Open, at(41)), Answer::Ended);
        assert_eq!(rooms.ask(&talk(), newcomer(1), DoorState::Over, at(41)), Answer::Ended);
        rooms.retain(|event| *event != talk());
        assert_eq!(rooms.queue(&talk()), None);
    }

    #[test]
    fn a_network_that_asks_without_end_leaves_something_for_others() {
        let mut rooms = rooms();
        rooms.advance(at(0), 0, 4, |_| Some(HEAD), |_| DoorState::Open);
        let mut ask = |n: u8, times: u32, second| {
            let answers = (0..times).map(|_| rooms.ask(&talk(), newcomer(n), DoorState::Open, at(second)));
            answers.filter(|answer| matches!(answer, Answer::Wait(_))).count() as u32
        };
        assert_eq!(ask(1, 1_000, 0), GIVEN_ALWAYS);
        assert_eq!([ask(2, 50, 0), ask(3, 50, 0)], [50, 50]);
        // Later again: nobody is shut out.
        assert_eq!(ask(1, 1_000, 25), GIVEN_ALWAYS);
    }

    #[test]
    fn who_missed_their_turn_comes_in_before_who_comes_now() {
        let mut rooms = rooms();
        let missed = waits(rooms.ask(&talk(), newcomer(1), DoorState::Open, at(0)));
        // Their turn comes and goes.
        for second in 1..40 {
            rooms.advance(at(second), 1, 0, |_| Some(HEAD), |_| DoorState::Open);
        }
        // Sent away once: from then on a seat is kept for those who come back.
        let mut second = 40;
        while !matches!(
            rooms.ask(&talk(), with(&missed.token, 1), DoorState::Open, at(second)),
            Answer::Enter(_)
        ) {
            second += 1;
            rooms.advance(at(second), 1, 0, |_| Some(HEAD), |_| DoorState::Open);
            assert!(second < 45, "they never come in");
        }
    }

    #[test]
    fn rooms_are_bounded() {
        let mut rooms = rooms();
        rooms.advance(at(0), 0, 0, |_| Some(HEAD), |_| DoorState::Open);
        let event = |n: usize| format!("event-{n}").parse::<EventSlug>().unwrap();
        for n in 0..ROOMS_MAX {
            waits(rooms.ask(&event(n), newcomer(1), DoorState::Closed, at(0)));
        }
        assert_eq!(rooms.ask(&event(ROOMS_MAX), newcomer(1), DoorState::Closed, at(0)), Answer::Full);
        rooms.advance(at(1), 1, 0, |_| Some(HEAD), |_| DoorState::Closed);
        let answer = rooms.ask(&event(ROOMS_MAX), newcomer(1), DoorState::Closed, at(1));
        assert!(matches!(answer, Answer::Enter(_)), "gathering rooms take no seats: {answer:?}");
        assert_eq!(rooms.ask(&event(ROOMS_MAX), newcomer(2), DoorState::Closed, at(1)), Answer::Full);
    }
}
