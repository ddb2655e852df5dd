//! Packets waiting for their turn: ordered by timestamp, bounded, sceptical of timestamps that make no sense.
//!
//! ```text
//!        offset = arrival − timestamp
//!  ───────┬──────────────┬───────────────────────┬──────────►
//!   low − 200 ms        low                low + longest delay
//!   "from the future"    │◄──── believed ──────►│ "hopelessly late"
//! ```
//!
//! A packet outside the believed range changes nothing by itself: it may be garbage. Four in a row that agree with each
//! other are a sender that has restarted, and become the new truth.

use std::collections::BTreeMap;

use super::SourceKind;
use super::arrivals::Arrivals;
use crate::codec::OpusPacket;

/// Packets in a row that prove a new timeline.
const PROOF: usize = 4;
/// How far their offsets may lie apart: 200 ms.
const AGREEMENT: i64 = 9_600;
/// How far from the future a packet may seem to come: 200 ms.
const AHEAD: i64 = 9_600;
/// Longest hole in an Ogg stream's granule positions that is taken as a pause: 1 s. A longer one is a mistake or a new
/// stream, and is closed.
const OGG_PAUSE: u64 = 48_000;
/// Granule positions may be off by so much without meaning anything: 120 ms.
const OGG_SLACK: u64 = 5_760;

/// A packet in its place.
pub(super) struct Waiting {
    /// RTP's sequence number.
    pub(super) sequence: Option<u16>,
    pub(super) packet: OpusPacket,
    pub(super) payload: Box<[u8]>,
}

/// Counted here, told in [`crate::SourceStats`].
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) late: u64,
    pub(super) duplicate: u64,
    pub(super) invalid: u64,
    pub(super) resyncs: u64,
}

/// Bounds of one kind of source, in samples.
pub(super) struct Bounds {
    /// Longest delay aimed at, beyond a packet's own length.
    pub(super) delay_max: i64,
    /// Most sound waiting.
    pub(super) waiting_max: i64,
    /// Most packets waiting.
    pub(super) packets_max: usize,
}

pub(super) struct Intake {
    kind: SourceKind,
    bounds: Bounds,
    pub(super) arrivals: Arrivals,
    pub(super) counts: Counts,
    waiting: BTreeMap<i64, Waiting>,
    /// Timestamps below this have had their turn. `None` while nothing plays.
    pub(super) turn: Option<i64>,
    /// Latest believed RTP timestamp, as sent and extended.
    reference: Option<(u32, i64)>,
    /// Where an Ogg stream should go on: its own position, and ours.
    ogg: Option<(u64, i64)>,
    /// Packets that were not believed: timestamp, offset, packet (none if it was taken all the same).
    doubted: Vec<(i64, i64, Option<Waiting>)>,
    /// Timestamps of the latest packets that were taken out, to tell a duplicate from a late one.
    taken: [i64; 32],
    taken_at: usize,
    /// Set when the timeline was abandoned; playing has to start afresh.
    pub(super) restarted: bool,
}

impl Intake {
    pub(super) fn new(kind: SourceKind, bounds: Bounds) -> Self {
        // RTP: one packet in a hundred may be late, it will be concealed. TCP loses nothing.
        let tolerated = match kind {
            SourceKind::Rtp => 100,
            SourceKind::Ogg => 0,
        };
        Self {
            kind,
            bounds,
            arrivals: Arrivals::new(tolerated),
            counts: Counts::default(),
            waiting: BTreeMap::new(),
            turn: None,
            reference: None,
            ogg: None,
            doubted: Vec::with_capacity(PROOF),
            taken: [i64::MIN; 32],
            taken_at: 0,
            restarted: false,
        }
    }

    pub(super) fn push_rtp(&mut self, sequence: u16, timestamp: u32, payload: &[u8], arrival: i64) {
        let Some(waiting) = self.read(payload, Some(sequence)) else { return };
        let (sent, extended) = *self.reference.get_or_insert((timestamp, i64::from(timestamp)));
        let position = extended + i64::from(timestamp.wrapping_sub(sent) as i32);
        let offset = arrival - position;
        if self.arrivals.is_empty() {
            self.reference = Some((timestamp, position));
            self.accept(position, offset, waiting);
            return;
        }
        let low = self.arrivals.low();
        if offset < low - AHEAD {
            self.doubt(timestamp, position, offset, Some(waiting));
        } else if offset > low + self.bounds.delay_max {
            // Late beyond all bounds, yet sound that is still missing is better played than thrown away.
            let wanted = self.turn.is_none_or(|turn| position >= turn);
            let rest = if wanted {
                self.insert(position, waiting);
                None
            } else {
                self.count_stale(position);
                Some(waiting)
            };
            self.doubt(timestamp, position, offset, rest);
        } else {
            self.dismiss();
            self.reference = Some((timestamp, position));
            self.accept(position, offset, waiting);
        }
    }

    pub(super) fn push_ogg(&mut self, timestamp: u64, payload: &[u8], arrival: i64) {
        let Some(waiting) = self.read(payload, None) else { return };
        let samples = waiting.packet.samples;
        let position = match self.ogg {
            None => 0,
            Some((expected, position)) => {
                let ahead = timestamp.wrapping_sub(expected);
                if ahead <= OGG_SLACK || ahead.wrapping_neg() <= OGG_SLACK {
                    position
                } else if ahead <= OGG_PAUSE {
                    position.saturating_add(ahead as i64)
                } else {
                    self.counts.resyncs += 1;
                    position
                }
            }
        };
        self.ogg = Some((timestamp.wrapping_add(samples as u64), position.saturating_add(samples as i64)));
        // A stall of the connection is no jitter to provide for: remember it as the longest delay there is.
        let offset = arrival - position;
        if !self.arrivals.is_empty() && offset > self.arrivals.low() + 2 * self.bounds.delay_max {
            self.arrivals.reset();
        }
        self.accept(position, offset, waiting);
    }

    fn read(&mut self, payload: &[u8], sequence: Option<u16>) -> Option<Waiting> {
        match OpusPacket::parse(payload) {
            Some(packet) => Some(Waiting { sequence, packet, payload: payload.into() }),
            None => {
                self.counts.invalid += 1;
                None
            }
        }
    }

    fn accept(&mut self, position: i64, offset: i64, waiting: Waiting) {
        self.arrivals.note(offset);
        if self.turn.is_some_and(|turn| position < turn) {
            self.count_stale(position);
        } else {
            self.insert(position, waiting);
        }
    }

    fn insert(&mut self, position: i64, waiting: Waiting) {
        if self.waiting.contains_key(&position) {
            self.counts.duplicate += 1;
            return;
        }
        self.counts.packets += 1;
        self.waiting.insert(position, waiting);
        // What has waited longest goes first: the newest is what a listener should hear.
        while self.waiting.len() > self.bounds.packets_max || self.backlog() > self.bounds.waiting_max {
            self.waiting.pop_first();
            self.counts.late += 1;
        }
    }

    fn count_stale(&mut self, position: i64) {
        if self.taken.contains(&position) {
            self.counts.duplicate += 1;
        } else {
            self.counts.late += 1;
        }
    }

    fn doubt(&mut self, timestamp: u32, position: i64, offset: i64, waiting: Option<Waiting>) {
        if self.doubted.first().is_some_and(|(_, first, _)| (offset - first).abs() > AGREEMENT) {
            self.dismiss();
        }
        self.doubted.push((position, offset, waiting));
        if self.doubted.len() < PROOF {
            return;
        }
        self.counts.resyncs += 1;
        self.arrivals.reset();
        let doubted = std::mem::take(&mut self.doubted);
        let late = doubted.iter().any(|(_, _, waiting)| waiting.is_none());
        for (_, offset, _) in &doubted {
            self.arrivals.note(*offset);
        }
        if !late {
            // Another timeline. What is left of the old one has nowhere to go.
            self.waiting.clear();
            self.turn = None;
            self.restarted = true;
            for (position, _, waiting) in doubted {
                if let Some(waiting) = waiting {
                    self.insert(position, waiting);
                }
            }
        }
        self.reference = Some((timestamp, position));
    }

    /// The doubted were wrong.
    fn dismiss(&mut self) {
        let dismissed = self.doubted.drain(..).filter(|(_, _, waiting)| waiting.is_some()).count();
        self.counts.invalid += dismissed as u64;
    }

    /// The packet that waits for the earliest turn.
    pub(super) fn first(&self) -> Option<(i64, &Waiting)> {
        self.waiting.first_key_value().map(|(position, waiting)| (*position, waiting))
    }

    /// Takes the earliest packet out.
    pub(super) fn take(&mut self) -> Option<(i64, Waiting)> {
        let (position, waiting) = self.waiting.pop_first()?;
        self.taken[self.taken_at] = position;
        self.taken_at = (self.taken_at + 1) % self.taken.len();
        Some((position, waiting))
    }

    /// Throws away what lies before `turn`.
    pub(super) fn skip_to(&mut self, turn: i64) {
        while self.waiting.first_key_value().is_some_and(|(position, _)| *position < turn) {
            self.waiting.pop_first();
            self.counts.late += 1;
        }
    }

    /// Sound waiting, holes included, in samples.
    pub(super) fn backlog(&self) -> i64 {
        match (self.waiting.first_key_value(), self.waiting.last_key_value()) {
            (Some((first, _)), Some((last, waiting))) => last - first + waiting.packet.samples as i64,
            _ => 0,
        }
    }

    pub(super) fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Longest delay aimed at, beyond a packet's own length, in samples.
    pub(super) fn delay_max(&self) -> i64 {
        self.bounds.delay_max
    }
}
