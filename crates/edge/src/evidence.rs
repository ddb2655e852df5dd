//! What an edge counts for the ledger.
//!
//! What was *acknowledged* would cost a question to the kernel for each listener, so it is bounded from below: the kernel
//! keeps at most twice the send buffer for who takes nothing (socket(7)), and whatever it took beyond that was acknowledged.
//! An honest listener's bytes are counted some seconds late; a connection that takes nothing is never counted.

use std::sync::atomic::Ordering;

use admission::ledger::{Cause, Measure, ProcessBin};
use backend::evidence::{Counts, Tally};
use backend::wire::Form;
use model::UnixTime;

use crate::push::Survey;
use crate::shared::Shared;

/// Counts from one bin to the next.
#[derive(Debug)]
pub(crate) struct Counting {
    tally: Tally,
    before: Sums,
}

/// Counters, as far as they go into the ledger.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    connections: u64,
    handshakes_finished: u64,
    handshakes_failed: u64,
    handshakes_shed: u64,
    evicted: u64,
    timed_out: u64,
    abuse: u64,
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    full: u64,
    prefix: u64,
    forged: u64,
    expired: u64,
    excess: u64,
    excess_closed: u64,
    used: u64,
    arrivals: u64,
    files: u64,
    playlists: u64,
    parts: u64,
    opened: u64,
    stuck: u64,
    moved: u64,
    survey: Survey,
}

impl Sums {
    fn now(shared: &Shared) -> Self {
        let counters = &shared.counters;
        let total = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let answers =
            |class: usize| total(&counters.answers[class - 1]) + total(&counters.push_answers[class - 1]);
        // The push door makes its own.
        let made = shared.tls.as_ref().map(|tls| tls.handshakes().counts()).unwrap_or_default();
        let (failed, late) = (total(&counters.handshakes_failed), total(&counters.handshakes_late));
        Self {
            connections: total(&counters.accepted) + shared.files_door.accepted(),
            handshakes_finished: total(&counters.handshakes_full)
                + total(&counters.handshakes_resumed)
                + made.full
                + made.resumed,
            handshakes_failed: failed + late + made.failed + made.timed_out,
            handshakes_shed: shared.files_door.handshakes_shed(),
            evicted: total(&counters.evicted) + shared.files_door.evicted(),
            timed_out: total(&counters.heads_late) + shared.files_door.slow_bodies(),
            abuse: shared.files_door.abuse(),
            requests: (1..=5).map(answers).sum::<u64>() + total(&counters.joins),
            client_errors: answers(4).saturating_sub(total(&counters.put_off[0])),
            // Being full is no error: it is said when to come back.
            server_errors: answers(5).saturating_sub(total(&counters.put_off[1])),
            full: total(&counters.refused_full)
                + total(&counters.refused_level)
                + total(&counters.refused_memory),
            prefix: total(&counters.refused_heavy) + total(&counters.refused_share),
            forged: total(&counters.tickets_refused).saturating_sub(total(&counters.tickets_expired)),
            expired: total(&counters.tickets_expired),
            excess: total(&counters.sessions_refused) + total(&counters.sessions_closed),
            excess_closed: total(&counters.sessions_closed),
            used: total(&counters.tickets_used),
            arrivals: total(&counters.newcomers),
            files: total(&counters.files_served),
            playlists: total(&counters.playlists_asked),
            parts: total(&counters.parts_sent),
            opened: shared.surveyed().opened,
            stuck: total(&counters.stuck),
            moved: total(&counters.moved),
            survey: shared.surveyed(),
        }
    }
}

impl Counting {
    pub(crate) fn new(shared: &Shared, now: UnixTime) -> Self {
        Self { tally: Tally::new(Counts::Edge(shared.index), now), before: Sums::now(shared) }
    }

    /// The bin that has ended, if one has; to be asked once a second. `late_us`: the longest that turns of the push door
    /// were late in it.
    pub(crate) fn turn(&mut self, shared: &Shared, now: UnixTime, late_us: u64) -> Option<ProcessBin> {
        let mut bin = self.tally.turn(now)?;
        let sums = Sums::now(shared);
        let before = std::mem::replace(&mut self.before, sums);
        let since = |of: fn(&Sums) -> u64| of(&sums).saturating_sub(of(&before));
        let in_force = shared.in_force();
        let counts = &mut bin.counts;
        counts.door.connections = since(|sums| sums.connections);
        counts.door.handshakes_finished = since(|sums| sums.handshakes_finished);
        counts.door.handshakes_shed = since(|sums| sums.handshakes_shed);
        counts.door.handshakes_started = counts.door.handshakes_finished
            + since(|sums| sums.handshakes_failed)
            + counts.door.handshakes_shed;
        counts.door.abuse = since(|sums| sums.abuse);
        counts.door.half_open = sums.survey.shaking;
        counts.door.pending = sums.survey.reading;
        counts.door.silent = since(|sums| sums.evicted);
        counts.door.timed_out = since(|sums| sums.timed_out);
        counts.door.requests = since(|sums| sums.requests);
        counts.door.client_errors = since(|sums| sums.client_errors);
        counts.door.server_errors = since(|sums| sums.server_errors);
        counts.refused.full = since(|sums| sums.full);
        counts.refused.prefix = since(|sums| sums.prefix);
        counts.refused.forged = since(|sums| sums.forged);
        counts.refused.expired = since(|sums| sums.expired);
        counts.refused.excess = since(|sums| sums.excess);
        counts.tickets.used = since(|sums| sums.used);
        counts.admission.arrivals = since(|sums| sums.arrivals);
        counts.audio.playlists = since(|sums| sums.playlists);
        counts.audio.files = since(|sums| sums.files);
        counts.audio.parts = since(|sums| sums.parts);
        counts.audio.opened = since(|sums| sums.opened);
        counts.audio.followed = since(|sums| sums.survey.followed);
        counts.audio.bytes_due = since(|sums| sums.survey.bytes_due);
        counts.audio.bytes_acked = since(|sums| sums.survey.bytes_acked);
        // Players of HLS hold no connection: how many there are is told by their reloads.
        let hls = hls_listeners(shared);
        counts.audio.sessions = sums.survey.sessions + hls;
        counts.audio.starved = sums.survey.starved;
        counts.audio.shut = sums.survey.shut;
        counts.audio.shut_unknown = sums.survey.shut_unknown;
        counts.audio.listeners = sums.survey.listeners + hls;
        counts.own.level = in_force.level.number().into();
        counts.own.capacity = shared.listeners_max;
        counts.own.loop_late_us = late_us;
        bin.mitigate(Measure::SessionsClosed, Cause::Limit, since(|sums| sums.excess_closed));
        bin.mitigate(Measure::SlowClosed, Cause::Limit, since(|sums| sums.stuck));
        bin.mitigate(Measure::ConnectionsCapped, Cause::Limit, since(|sums| sums.evicted));
        bin.mitigate(Measure::PrefixWeighed, Cause::Limit, since(|sums| sums.prefix));
        bin.mitigate(Measure::HandshakesShed, Cause::Limit, since(|sums| sums.handshakes_shed));
        bin.mitigate(Measure::AbuseClosed, Cause::Limit, since(|sums| sums.abuse));
        if in_force.measures.everyones_cap.is_some() {
            bin.mitigate(Measure::BitrateLowered, Cause::Line, since(|sums| sums.moved));
        }
        Some(bin)
    }
}

/// Listeners of HLS, as of the last second.
fn hls_listeners(shared: &Shared) -> u64 {
    let channels = shared.channels();
    let counts = channels.iter().flat_map(|channel| channel.listener_counts());
    counts.filter(|count| count.form == Form::Hls).map(|count| u64::from(count.count)).sum()
}
