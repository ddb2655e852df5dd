//! The waiting room: who comes in first when not everybody can come in at once.
//!
//! ```text
//!            draw held at doors
//!  gathering │                      open                                   │ ended
//! ───────────┼─────────────────────────────────────────────────────────────┼──────▶
//!  early     │ in by their rank in    then     late ones, first come,       │ the recording
//!  tokens    │ the draw (`draw`)      ────▶    first served                 │ is there
//!
//!  rank:     0 ………………………… 2^52 ……………………………………………… 2^53
//!                 ▲ admitted_through: goes up by a batch a second (`gate`), and never down
//! ```
//!
//! Whoever waits keeps a signed [`Token`] and shows it to come in; leaving and coming back changes nothing. The server
//! keeps what does not grow with those who wait: a count per tag of address prefixes until the draw (1 MiB), after it
//! the table of heavy tags, the number of those who came late, and a few turns. It says one thing a second to all
//! ([`Queue`]), from which each page computes its place and a range of time.
//!
//! A late token's place is how many were there before it, signed with the time of its arrival; places and times go up
//! together. So the line is exact to the person, however long it is, and one number.
//!
//! # What a page computes
//!
//! From `queue.json`, its token's fields, and, for an early one, the draw's page ([`DrawPage`]) and the shard of the
//! table that its tag is in, all of it in integers below 2^53 or in doubles that are right within one person:
//!
//! ```js
//! // Late: place is the token's, rank is 2 ** 52 + place. Early, with u = first 4 bytes of HMAC-SHA256(key, "minassa draw number 1\0" + id):
//! const shard = Math.floor(tag * draw.shards / 262144);
//! const count = heavy.get(tag);                          // from that shard; undefined for most
//! const rank = count ? Math.floor(u * count / draw.allowance) : u;
//! const myTurn = rank < queue.admitted_through;
//! const y = rank * draw.allowance / 2 ** 32;
//! let place = draw.light * Math.min(1, rank / 2 ** 32), x0 = 0, s0 = 0;
//! for (const [x, s] of draw.knots) {
//!     if (y < x) { s0 += (s - s0) * (y - x0) / (x - x0); break; }
//!     [x0, s0] = [x, s];
//! }
//! place = Math.floor(place + s0);
//! ```
//!
//! and then what [`estimate`] says. Only the server decides: who asks too early is told to wait.
//!
//! # What is not decided here
//!
//! Whether anybody has to wait (the ladder), whether a token costs work ([`MintCost`] is set from outside), how many
//! sessions a ticket may have. Whoever asks without a token while others wait gets a token, not a seat.

use model::{EventSlug, UnixTime};
use serde::{Deserialize, Serialize};

pub mod draw;
pub mod estimate;
mod gate;
mod line;
pub mod prefix;
#[cfg(test)]
mod tests;
pub mod token;

pub use draw::{
    Claim, Commitment, Draw, DrawError, DrawPage, DrawRecord, LedgerHead, Rank, Seed, verify_draw,
};
pub use estimate::{Estimate, Queue, Rate, RoomState, Wait, jittered};
use gate::Gate;
pub use gate::{RETURNED_MAX, TURN_MS, TURNS_MAX};
use line::Line;
use prefix::Census;
pub use prefix::{PrefixKey, PrefixTag, Table};
pub use token::{Kind, RoomKey, RoomKeys, Token, TokenError, TokenId};

use crate::ticket::TicketId;

/// Most people whose turn can come in one step.
pub const BATCH_MAX: u64 = 100_000;
/// The ladder's highest level.
const LEVEL_MAX: u8 = 6;

/// What can be set. Values out of range are taken as the nearest in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoomConfig {
    /// Early tokens that one group of address prefixes may have before they weigh less. For crowds of many millions,
    /// more than four times the mean of all groups: `tokens / 65,536`. It is committed to together with the seed.
    /// From 2 to 2,097,151; default 64.
    pub allowance: u32,
    /// Most people whose turn comes in one step, of about a second. From 1 to [`BATCH_MAX`]; default 500.
    pub batch: u64,
    /// For how long a token is good, in seconds; give out none earlier than this before the end. Default a day.
    pub token_age_max_s: u64,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self { allowance: 64, batch: 500, token_age_max_s: 86_400 }
    }
}

/// Work that a token costs, in leading zero bits of a hash: each bit doubles it. 0 is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MintCost(pub u8);

/// Someone who comes without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The identity for their token: 16 random bytes.
    pub id: TokenId,
    /// Where they come from.
    pub tag: PrefixTag,
    /// The work that they did, checked.
    pub paid: MintCost,
}

/// Why somebody gets no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArriveError {
    /// Work is asked for first.
    #[error("{} bits of work are asked for", .asked.0)]
    Unpaid {
        /// How much.
        asked: MintCost,
    },
    /// The draw has as many from there as it can weigh: come back after doors.
    #[error("the draw has 2097151 tokens from there")]
    Full,
    /// There is nothing to wait for.
    #[error("the event has ended")]
    Ended,
}

/// Why no draw is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Seed or allowance are not those that were committed to.
    #[error("the seed or the allowance is not the one that was committed to")]
    Commitment,
    /// It has been held.
    #[error("the draw has been held")]
    Open,
}

/// What there is for those who wait, measured by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Seats free at this moment, also where nobody waits: who missed their turn comes in on these. 0 where nobody may
    /// come in.
    pub free: u64,
    /// Tokens that took their first seat since the last step; not their copies.
    pub redeemed: u64,
    /// The ladder's level, 0 to 6.
    pub level: u8,
}

/// What is answered to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Entry {
    /// Comes in, with a ticket of this identity: the same for every copy of the token.
    Enter(TicketId),
    /// Not yet. [`Estimate::delay`], [`jittered`], is when to ask again.
    Wait(Estimate),
    /// The event has ended: the recording is there.
    Ended,
    /// No token of this room.
    Refused(TokenError),
}

/// What a room holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Counters of tags: 2^18 before the draw, none after it.
    pub census: usize,
    /// Entries in the table of heavy tags, at most 2^18, and knots of the curve.
    pub table: usize,
    /// Turns and those who came back late: at most [`TURNS_MAX`] and [`RETURNED_MAX`].
    pub turns: usize,
    /// Seats held for those whose turn it is.
    pub seats: u64,
    /// People who missed their turn and have not come back, as well as that is known.
    pub absent: u64,
}

/// An event's waiting room. Its serialised form is the frozen state that a restart goes on from, with
/// [`Self::resume`]. It may be older than the queue that was published last: what it does not know of is in the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    #[serde(with = "slug")]
    event: EventSlug,
    config: RoomConfig,
    commitment: Commitment,
    mint: MintCost,
    phase: Phase,
    gate: Gate,
    level: u8,
    ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Gathering(Census),
    Open(Box<Line>),
}

impl Room {
    /// A room for `event`, with what was published of its draw: see [`Seed::commitment`].
    pub fn new(event: EventSlug, config: RoomConfig, commitment: Commitment) -> Self {
        Self {
            event,
            config,
            commitment,
            mint: MintCost::default(),
            phase: Phase::Gathering(Census::default()),
            gate: Gate::default(),
            level: 0,
            ended: false,
        }
    }

    /// Sets what a token costs from now on.
    pub fn charge(&mut self, mint: MintCost) {
        self.mint = mint;
    }

    /// Gives a token to somebody who came without one: before the draw one that takes part in it, after it one at the
    /// end of the line. Arrivals after doors do not go back even if the clock does.
    ///
    /// # Errors
    /// [`ArriveError`] if there is no token to be had.
    pub fn arrive(&mut self, arrival: Arrival, now: UnixTime) -> Result<Token, ArriveError> {
        if arrival.paid < self.mint {
            return Err(ArriveError::Unpaid { asked: self.mint });
        }
        if self.ended {
            return Err(ArriveError::Ended);
        }
        let (kind, arrival_us) = match &mut self.phase {
            Phase::Gathering(census) => {
                if !census.count(arrival.tag) {
                    return Err(ArriveError::Full);
                }
                (Kind::Early, token::micros(now))
            }
            Phase::Open(line) => {
                let (place, arrival_us) = line.arrive(token::micros(now));
                (Kind::Late { place }, arrival_us)
            }
        };
        Ok(Token { event: self.event.clone(), id: arrival.id, arrival_us, tag: arrival.tag, kind })
    }

    /// Opens the doors: closes the census and holds the draw. From here on the draw's record and page are public.
    ///
    /// # Errors
    /// [`OpenError`], where the draw cannot be held; nothing has changed then.
    pub fn open(&mut self, seed: Seed, ledger_head: LedgerHead, now: UnixTime) -> Result<&Draw, OpenError> {
        if seed.commitment(&self.event, self.config.allowance) != self.commitment {
            return Err(OpenError::Commitment);
        }
        let Phase::Gathering(census) = &self.phase else { return Err(OpenError::Open) };
        let table = census.close(self.config.allowance);
        let draw = Draw::from(DrawRecord { event: self.event.clone(), seed, ledger_head, table });
        self.phase = Phase::Open(Box::new(Line::new(draw, token::micros(now))));
        Ok(self.draw().expect("it was held just now"))
    }

    /// The draw, once it was held.
    pub fn draw(&self) -> Option<&Draw> {
        match &self.phase {
            Phase::Gathering(_) => None,
            Phase::Open(line) => Some(line.draw()),
        }
    }

    /// What was committed to.
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// Lets the next have their turn; to be called about once a second, whatever happens, also when nobody waits.
    pub fn advance(&mut self, now: UnixTime, capacity: Capacity) -> Queue {
        self.level = capacity.level.min(LEVEL_MAX);
        if let Phase::Open(line) = &mut self.phase
            && !self.ended
        {
            let waited = line.waiting() > 0;
            let batch = self.config.batch.clamp(1, BATCH_MAX);
            let people = self.gate.step(now.as_millis(), capacity.free, capacity.redeemed, batch);
            let moved = line.take(people);
            self.gate.moved(moved, line.through(), waited);
        }
        self.queue()
    }

    /// What all who wait are told.
    pub fn queue(&self) -> Queue {
        let (admitted_through, admitted, waiting) = match &self.phase {
            Phase::Gathering(census) => (Rank::FIRST, 0, census.tokens()),
            Phase::Open(line) => (line.through(), line.admitted(), line.waiting()),
        };
        let rate = self.gate.rate();
        let state = match &self.phase {
            _ if self.ended => RoomState::Ended,
            Phase::Gathering(_) => RoomState::Gathering,
            Phase::Open(_) if waiting == 0 => RoomState::Clear,
            Phase::Open(_) if rate == Rate::default() => RoomState::Still,
            Phase::Open(_) => RoomState::Moving,
        };
        Queue { admitted_through, admitted, waiting, rate, level: self.level, state }
    }

    /// Goes on from the last queue that was published, which may be newer than the frozen state: whoever was told to
    /// come in is not sent back. As many places are left out as people came in a step of late, for those whose tokens
    /// were given since: who comes now stands behind them. Before the draw such tokens are only missing in the census.
    pub fn resume(&mut self, published: &Queue) {
        if let Phase::Open(line) = &mut self.phase {
            let people = line.resume(published);
            self.gate.turn(people, line.through());
        }
    }

    /// Ends the waiting.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether whoever shows this token may come in now. Whoever was told so once is told so again during their turn;
    /// who comes later takes one of the seats kept for such, or waits for the next.
    pub fn may_enter(&mut self, token: &str, keys: &RoomKeys, now: UnixTime) -> Entry {
        let age_max_us = self.config.token_age_max_s.saturating_mul(1_000_000);
        let token::Checked { token, ticket } = match keys.check(token, &self.event, now, age_max_us) {
            Ok(checked) => checked,
            Err(error) => return Entry::Refused(error),
        };
        if self.ended {
            return Entry::Ended;
        }
        let Phase::Open(line) = &mut self.phase else { return Entry::Wait(Estimate::UNDRAWN) };
        if let Kind::Late { place } = token.kind {
            line.witness(place);
        }
        let (rank, place) = line.stand(&token);
        if rank < line.through() && self.gate.admits(rank, ticket) {
            Entry::Enter(ticket)
        } else {
            // At least one where the estimate is behind the order.
            let place = if rank < line.through() { line.admitted() } else { place.max(line.admitted() + 1) };
            Entry::Wait(Estimate::at(place, line.admitted(), self.gate.rate()))
        }
    }

    /// Whether free seats are wanted here, beyond those held: somebody waits, or missed their turn and was sent away a
    /// short while ago.
    pub fn wants_seats(&self) -> bool {
        let Phase::Open(line) = &self.phase else { return false };
        !self.ended && (line.waiting() > 0 || self.gate.sent_away())
    }

    /// What it holds.
    pub fn held(&self) -> Held {
        let (census, table) = match &self.phase {
            Phase::Gathering(census) => (census.entries(), 0),
            Phase::Open(line) => {
                (0, line.draw().record().table.heavy().len() + line.draw().curve().knots().len())
            }
        };
        let (turns, seats, absent) = (self.gate.entries(), self.gate.held(), self.gate.absent());
        Held { census, table, turns, seats, absent }
    }
}

/// HMAC-SHA256 over the parts, one after the other.
pub(crate) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    use hmac::{KeyInit as _, Mac as _};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("an HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// An event's name as a text.
mod slug {
    use model::EventSlug;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(slug: &EventSlug, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(slug.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventSlug, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
