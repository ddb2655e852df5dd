//! What all tasks of an edge share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use admission::ladder::{Admission, Occupancy, Priority, may_admit};
use admission::ticket::{Cell, Ticket, TicketError, TicketKeys};
use axum::response::Response;
use backend::bus::Bus;
use backend::http::DoorCounts;
use backend::keys::Keys;
use backend::machine::Memory;
use backend::tls::Tls;
use http::{StatusCode, header};
use model::EventSlug;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::EdgeConfig;
use crate::bell::Bell;
use crate::channel::{Channel, Phase};
use crate::files::downloads::Downloads;
use crate::files::hold::Holds;
use crate::ladder::InForce;
use crate::push::{Histogram, Survey, Surveyed, Told};
use crate::recordings::Recordings;
use crate::sessions::Sessions;

/// Events an edge knows at once.
const EVENTS_MAX: usize = 8_192;

/// Counters of the process; all but the last four only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) joins: AtomicU64,
    /// Connections accepted at the push door.
    pub(crate) accepted: AtomicU64,
    /// Answers of the push door that are no stream, by the first digit of their status.
    pub(crate) push_answers: [AtomicU64; 5],
    /// Listeners who came in on a ticket, and not to go on from a part.
    pub(crate) tickets_used: AtomicU64,
    /// Requests for a stream without a ticket, let in or not.
    pub(crate) newcomers: AtomicU64,
    /// Live playlists asked for.
    pub(crate) playlists_asked: AtomicU64,
    /// Parts and segments served whole.
    pub(crate) files_served: AtomicU64,
    /// Listeners refused because there were as many of their class as there may be.
    pub(crate) refused_full: AtomicU64,
    /// Listeners refused because the ladder lets none of their class in.
    pub(crate) refused_level: AtomicU64,
    /// Listeners refused because memory was short.
    pub(crate) refused_memory: AtomicU64,
    /// Of all these, players that were sent to the delayed feed.
    pub(crate) sent_to_delayed: AtomicU64,
    pub(crate) tickets_refused: AtomicU64,
    /// Of those, ours and past their time.
    pub(crate) tickets_expired: AtomicU64,
    /// Requests with a ticket that is used by as many as it carries, or was revoked.
    pub(crate) sessions_refused: AtomicU64,
    /// Listeners closed for the same reasons.
    pub(crate) sessions_closed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) parts_sent: AtomicU64,
    pub(crate) skipped_behind: AtomicU64,
    pub(crate) skipped_missing: AtomicU64,
    /// Writes to listeners of the push door.
    pub(crate) writes: AtomicU64,
    /// Listeners moved to another rendition inside their response.
    pub(crate) moved: AtomicU64,
    /// Listeners whose connection closed before their response was complete: gone, or stuck.
    pub(crate) left: AtomicU64,
    /// Of those, the ones closed because they took nothing for too long.
    pub(crate) stuck: AtomicU64,
    /// Connections closed because no whole head came in time.
    pub(crate) heads_late: AtomicU64,
    /// Handshakes of the push door, and those of them whose client came back with a ticket.
    pub(crate) handshakes_full: AtomicU64,
    pub(crate) handshakes_resumed: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    /// Connections closed to make room for others, because they had asked for nothing.
    pub(crate) evicted: AtomicU64,
    /// Connections closed unheard because the push door was full and their site had most of it.
    pub(crate) refused_heavy: AtomicU64,
    /// Listeners refused because most are of their network.
    pub(crate) refused_share: AtomicU64,
    /// Connections and requests through a proxy that did not say properly who is behind it, or said so without one.
    pub(crate) introductions_refused: AtomicU64,
    /// Questions to the disk refused because there were too many.
    pub(crate) questions_refused: AtomicU64,
    /// Rounds of writes that newer ones overtook.
    pub(crate) rounds_cut: AtomicU64,
    /// Connections that the system could not give us.
    pub(crate) accepts_failed: AtomicU64,
    /// Time from each listener's turn to its write.
    pub(crate) lateness: Histogram,
    /// Length of the push loop's turns.
    pub(crate) turns: Histogram,
    /// Turns of the push loop that came late.
    pub(crate) stretch: Told,
    /// Processor time of the push door's thread, µs.
    pub(crate) push_cpu_us: AtomicU64,
    pub(crate) parts_received: AtomicU64,
    pub(crate) parts_missing: AtomicU64,
    pub(crate) parts_stale: AtomicU64,
    pub(crate) messages_damaged: AtomicU64,
    pub(crate) events_refused: AtomicU64,
    /// Live playlists rendered.
    pub(crate) playlists_rendered: AtomicU64,
    pub(crate) downloads_refused: AtomicU64,
    /// Answers of the files door by the first digit of their status, 1 to 5.
    pub(crate) answers: [AtomicU64; 5],
    /// Answers of both doors that say when to come back, or that too much was asked: no errors of anybody's.
    pub(crate) put_off: [AtomicU64; 2],
    /// Handshakes that took too long.
    pub(crate) handshakes_late: AtomicU64,
    /// Connections of the push door now that are asked for nothing, and make room for others.
    pub(crate) resting: AtomicU64,
    /// Listeners at the push door now.
    pub(crate) listeners: AtomicU64,
    /// Windows now.
    pub(crate) windows: AtomicU64,
    /// Memory that can still be used, bytes, as of the last second.
    pub(crate) memory_available: AtomicU64,
}

impl Counters {
    /// Counts an answer by the first digit of its status.
    pub(crate) fn tell(&self, answers: &[AtomicU64; 5], response: &Response) {
        let status = response.status();
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        count(&answers[class - 1]);
        match status {
            StatusCode::TOO_MANY_REQUESTS => count(&self.put_off[0]),
            _ if class == 5 && response.headers().contains_key(header::RETRY_AFTER) => {
                count(&self.put_off[1])
            }
            _ => {}
        }
    }
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The state of an edge.
pub(crate) struct Shared {
    pub(crate) config: EdgeConfig,
    pub(crate) index: u32,
    /// Listeners allowed at once: configured, or less if files are short.
    pub(crate) listeners_max: u64,
    /// Open files allowed.
    pub(crate) files_max: u64,
    pub(crate) files_address: SocketAddr,
    /// What addresses of our doors begin with: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The certificate of both doors, if they have one.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) bus: Arc<dyn Bus>,
    /// Wakes the push door.
    pub(crate) bell: Arc<Bell>,
    pub(crate) recordings: Recordings,
    pub(crate) counters: Counters,
    /// What happens at the files door.
    pub(crate) files_door: Arc<DoorCounts>,
    /// Places for requests at the files door that wait for a part or a playlist.
    pub(crate) holds: Holds,
    /// Places for downloads.
    pub(crate) downloads: Arc<Downloads>,
    /// Cancelled when the doors close.
    pub(crate) closing: CancellationToken,
    /// Whether there is too little memory for more listeners.
    short_of_memory: AtomicBool,
    /// Whether origin has spoken since the start, or was given time enough to.
    oriented: watch::Sender<bool>,
    keys: Keys,
    tickets: RwLock<Option<TicketKeys>>,
    channels: RwLock<BTreeMap<EventSlug, Arc<Channel>>>,
    in_force: RwLock<InForce>,
    pub(crate) sessions: Sessions,
    pub(crate) survey: Surveyed,
}

/// What [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) config: EdgeConfig,
    pub(crate) index: u32,
    pub(crate) listeners_max: u64,
    pub(crate) files_max: u64,
    pub(crate) files_address: SocketAddr,
    /// What addresses of our doors begin with: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The certificate of both doors, if they have one.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) recordings: Recordings,
    pub(crate) closing: CancellationToken,
    pub(crate) keys: Keys,
}

/// Whether less than the reserve is left for everything, or of TCP's share less than the reserve or an eighth. Who was
/// short stays so until there is a quarter more than that, so that the door does not flutter.
fn is_short(memory: Memory, reserve: u64, was: bool) -> bool {
    let enough = |least: u64| if was { least.saturating_add(least / 4) } else { least };
    memory.available < enough(reserve) || memory.tcp_available < enough(reserve.min(memory.tcp_limit / 8))
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let shared = Self {
            holds: Holds::new(parts.config.held_max, parts.closing.clone()),
            downloads: Downloads::new(parts.config.downloads_max),
            config: parts.config,
            index: parts.index,
            listeners_max: parts.listeners_max,
            files_max: parts.files_max,
            files_address: parts.files_address,
            scheme: parts.scheme,
            tls: parts.tls,
            bus: parts.bus,
            bell: parts.bell,
            recordings: parts.recordings,
            counters: Counters::default(),
            files_door: Arc::default(),
            closing: parts.closing,
            short_of_memory: AtomicBool::new(false),
            oriented: watch::Sender::new(false),
            keys: parts.keys,
            tickets: RwLock::new(None),
            channels: RwLock::default(),
            in_force: RwLock::default(),
            sessions: Sessions::default(),
            survey: Surveyed::default(),
        };
        shared.reload_tickets();
        shared
    }

    /// Says that what is known now is what is to be known: origin has spoken, or will not.
    pub(crate) fn set_oriented(&self) {
        if self.oriented.send_if_modified(|oriented| !std::mem::replace(oriented, true)) {
            self.bell.ring();
        }
    }

    /// What the last look at everybody found.
    pub(crate) fn surveyed(&self) -> Survey {
        self.survey.get()
    }

    /// What everything here goes by.
    pub(crate) fn in_force(&self) -> InForce {
        *self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on goes by this; tells every channel, and wakes the push door if it is something else.
    pub(crate) fn set_in_force(&self, new: InForce) {
        let old = std::mem::replace(&mut *self.in_force.write().unwrap_or_else(PoisonError::into_inner), new);
        if old == new {
            return;
        }
        if old.level != new.level {
            tracing::info!(
                from = old.level.number(),
                to = new.level.number(),
                "the ladder's level has changed"
            );
        }
        for channel in self.channels() {
            channel.update(|facts| facts.level = new.level.number());
        }
        self.bell.ring();
    }

    /// Why nobody more of a class is let in at the push door, if that is so. Counts it.
    pub(crate) fn refusal(&self, class: Priority) -> Option<&'static str> {
        // Places kept for hosts stay kept, whoever of them is here already.
        let sitting = Occupancy { all: self.counters.listeners.load(Ordering::Relaxed), hosts: 0 };
        if sitting.all >= self.listeners_max {
            count(&self.counters.refused_full);
            return Some("the edge has as many listeners as it can carry");
        }
        if self.short_of_memory.load(Ordering::Relaxed) {
            count(&self.counters.refused_memory);
            return Some("the edge has no memory to spare for another listener");
        }
        let InForce { level, measures } = self.in_force();
        let is_shut = match measures.admission {
            Admission::Open => false,
            Admission::Waiting => class >= Priority::Newcomer,
            Admission::Frozen => class >= Priority::Holder,
        };
        if is_shut || class.shed_at().is_some_and(|shed| level >= shed) {
            count(&self.counters.refused_level);
            return Some("so many are here that newcomers have to wait");
        }
        if !may_admit(class, sitting, self.listeners_max, level) {
            count(&self.counters.refused_full);
            return Some("the places that are left are for those who listened before or hold a ticket");
        }
        None
    }

    /// Takes in what memory there is.
    pub(crate) fn weigh_memory(&self, memory: Memory) {
        let was = self.short_of_memory.load(Ordering::Relaxed);
        let short = is_short(memory, self.config.memory_reserve_mib << 20, was);
        if short != was {
            tracing::warn!(?memory, short, "whether memory allows more listeners has changed");
            self.short_of_memory.store(short, Ordering::Relaxed);
        }
        self.counters.memory_available.store(memory.available, Ordering::Relaxed);
    }

    /// Whether [`Self::set_oriented`] was called.
    pub(crate) fn is_oriented(&self) -> bool {
        *self.oriented.borrow()
    }

    /// Waits, just after the start, until it is known which events run: who comes back to a restarted edge must not be
    /// told that the event does not exist, or is over.
    pub(crate) async fn oriented(&self) {
        // The sender lives as long as this.
        let _ = self.oriented.subscribe().wait_for(|oriented| *oriented).await;
    }

    /// Reads the keys of tickets again, a file of some bytes. On failure those known stay.
    pub(crate) fn reload_tickets(&self) {
        match self.keys.tickets() {
            Ok(keys) => *self.tickets.write().unwrap_or_else(PoisonError::into_inner) = Some(keys),
            Err(error) => tracing::warn!(%error, "cannot read the keys of tickets"),
        }
    }

    /// Checks a ticket for an event.
    pub(crate) fn check_ticket(&self, text: &str, event: &EventSlug) -> Result<Ticket, TicketError> {
        let now = backend::clock::unix_now();
        let tickets = self.tickets.read().unwrap_or_else(PoisonError::into_inner);
        let checked = match &*tickets {
            Some(keys) => keys.check(text, event, Cell(self.config.cell), now),
            None => Err(TicketError::Forged),
        };
        checked.inspect_err(|error| {
            count(&self.counters.tickets_refused);
            if *error == TicketError::Expired {
                count(&self.counters.tickets_expired);
            }
        })
    }

    /// An event, if it is known.
    pub(crate) fn channel(&self, event: &EventSlug) -> Option<Arc<Channel>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(event).cloned()
    }

    /// An event, made known if there is room for it.
    pub(crate) fn channel_or_new(&self, event: &EventSlug) -> Option<Arc<Channel>> {
        if let Some(channel) = self.channel(event) {
            return Some(channel);
        }
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= EVENTS_MAX && !channels.contains_key(event) {
            let Some(over) = longest_over(&channels) else {
                count(&self.counters.events_refused);
                return None;
            };
            channels.remove(&over);
        }
        Some(Arc::clone(
            channels.entry(event.clone()).or_insert_with(|| Arc::new(Channel::new(event.clone()))),
        ))
    }

    /// Every event known, in order of the names.
    pub(crate) fn channels(&self) -> Vec<Arc<Channel>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Of the events that are over, the one that began first: its recording needs nobody who knows it.
fn longest_over(channels: &BTreeMap<EventSlug, Arc<Channel>>) -> Option<EventSlug> {
    let now = backend::clock::unix_now();
    let over = channels.values().filter(|channel| channel.live().is_none()).filter_map(|channel| {
        let facts = channel.facts();
        let starts_at = facts.event.as_ref().map(|event| event.starts_at);
        (facts.phase(now) == Phase::Over).then_some((starts_at, &channel.slug))
    });
    over.min().map(|(_, slug)| slug.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_below_the_reserve_and_until_well_above_it() {
        let memory = |available, tcp_available| Memory { available, tcp_available, tcp_limit: 800 };
        for (memory, was, short) in [
            (memory(1_000, 800), false, false),
            (memory(999, 800), false, true),
            (memory(1_249, 800), true, true),
            (memory(1_250, 800), true, false),
            (memory(5_000, 100), false, false),
            (memory(5_000, 99), false, true),
            (memory(5_000, 124), true, true),
            (memory(5_000, 125), true, false),
            (memory(u64::MAX, u64::MAX), true, false),
        ] {
            assert_eq!(is_short(memory, 1_000, was), short, "{memory:?} {was}");
        }
        assert!(!is_short(memory(0, 0), 0, true), "without a reserve nobody is refused");
    }
}
