//! Control on the bus: what it tells, what it hears, and the small work of every second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use admission::ladder::Admission;
use backend::bus::{Bus, Message};
use backend::clock;
use backend::wire::{
    self, Audience, AudienceTotal, EventRecord, Events, Heartbeat, OriginStatus, SessionChanges,
    SessionLimits,
};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::evidence::Counting;
use crate::observed::EDGES_MAX;
use crate::state::Control;

/// Events that are told on the bus, the latest starts: what fits a message many times over.
const EVENTS_MAX: usize = 4_096;
/// A control that hears no edge for so long says what it thinks all the same.
const SILENCE: Duration = Duration::from_secs(5);
/// State is pushed this often, whether it changed or not.
const EVERY: Duration = Duration::from_secs(1);
/// Ticket keys are changed this often. A key checks for as long again after its last ticket, less [`SETTLE`], and
/// tickets are good for a day at the most.
const ROTATE: Duration = Duration::from_secs(90_000);
/// New ticket keys are used once every edge has had the time to read them again.
const SETTLE: Duration = Duration::from_secs(180);
const _: () = assert!(ROTATE.as_secs() - SETTLE.as_secs() - TICKETS_EVERY_S > crate::config::TICKET_S_MAX);
/// The keys of TLS session tickets are derived from these, and rotate with them.
const _: () = assert!(ROTATE.as_secs() - SETTLE.as_secs() > backend::tls::TICKET_LIFETIME_S as u64);
/// How often waiting rooms are frozen, seconds. How far their lines have come is written every second.
const FREEZE_EVERY_S: u64 = 4;
/// How often ledgers are read, seconds.
const READ_EVERY_S: u64 = 2;
/// How often it is looked whether ticket keys are to be changed, seconds.
const TICKETS_EVERY_S: u64 = 60;

/// Runs until it is aborted.
pub(crate) async fn run(control: Arc<Control>, bus: Arc<dyn Bus>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(tell(control.clone(), bus.clone()));
    tasks.spawn(hear_origin(control.clone(), bus.clone()));
    tasks.spawn(hear_edges(control.clone(), bus));
    tasks.spawn(keep_house(control));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            // The supervisor starts a control that hears and tells again.
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Publishes `events` and `audience`, every second and `events` at every change too.
async fn tell(control: Arc<Control>, bus: Arc<dyn Bus>) {
    let mut changes = control.watch();
    let mut seconds = interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = u64::try_from(clock::unix_now().as_millis()).unwrap_or(0);
    let mut events = encode_events(&control);
    let mut counting = Counting::new(&control, clock::unix_now());
    let begun = Instant::now();
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                events = encode_events(&control);
            }
            _ = seconds.tick() => {
                control.steer();
                control.freeze_queues();
                // Edges go on by themselves for a while when nobody tells them anything.
                if control.steering().has_heard() || begun.elapsed() > SILENCE {
                    bus.publish("audience", sequence, encode_audience(&control));
                }
                let limits = control.sessions().limits(clock::unix_now());
                if let Some(bin) = counting.turn(&control, clock::unix_now()) {
                    bus.publish("bins", sequence, wire::encode(&bin));
                }
                bus.publish("limits", sequence, wire::encode(&SessionLimits::from(limits)));
            }
        }
        bus.publish("events", sequence, events.clone());
        sequence += 1;
    }
}

fn encode_events(control: &Control) -> Bytes {
    let events = control.events(EVENTS_MAX);
    wire::encode(&Events { events: events.iter().map(|known| EventRecord::from(&known.event)).collect() })
}

fn encode_audience(control: &Control) -> Bytes {
    let (observed, now) = (control.observed(), Instant::now());
    let totals = observed.totals(now).into_iter();
    let totals = totals.map(|(event, listeners)| AudienceTotal { event, listeners }).collect();
    drop(observed);
    let anybody_waits = control.rooms().anybody_waits();
    let steering = control.steering();
    let (decision, pinned) = (steering.decision(), steering.orders().pin.is_some());
    let mut measures = decision.measures;
    if anybody_waits && measures.admission == Admission::Open {
        // Players without a ticket do not overtake the line.
        measures.admission = Admission::Waiting;
    }
    let (level, measures) = (decision.level.number(), measures.into());
    wire::encode(&Audience { level, pinned, measures, totals })
}

/// Follows origin's `status`.
async fn hear_origin(control: Arc<Control>, bus: Arc<dyn Bus>) {
    let mut reports = bus.subscribe("origin", "status", None);
    while let Some(message) = reports.next().await {
        let Some(status) = decode::<OriginStatus>("origin", &message) else { continue };
        let known = |slug: &model::EventSlug| control.event(slug).is_some();
        let news = control.observed().handle_status(status, known, Instant::now());
        control.note(news).await;
    }
}

/// Follows the `heartbeat` of every edge that appears.
async fn hear_edges(control: Arc<Control>, bus: Arc<dyn Bus>) {
    let mut followed = BTreeSet::new();
    let mut listening = JoinSet::new();
    let mut seconds = interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        for edge in bus.peers() {
            if !edge.starts_with("edge-") || followed.len() >= EDGES_MAX || !followed.insert(edge.clone()) {
                continue;
            }
            let (listener, mut told) = (control.clone(), bus.subscribe(&edge, "sessions", None));
            let name = edge.clone();
            listening.spawn(async move {
                while let Some(message) = told.next().await {
                    if let Some(said) = decode::<SessionChanges>(&name, &message) {
                        listener.sessions().hear(said.index, said.pid, &said.changes());
                    }
                }
            });
            let (control, mut beats) = (control.clone(), bus.subscribe(&edge, "heartbeat", None));
            listening.spawn(async move {
                while let Some(message) = beats.next().await {
                    if let Some(heartbeat) = decode::<Heartbeat>(&edge, &message) {
                        control.observed().handle_heartbeat(&edge, heartbeat, Instant::now());
                    }
                }
            });
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(peer: &str, message: &Message) -> Option<T> {
    wire::decode(&message.payload)
        .inspect_err(|error| tracing::warn!(peer, %error, "a report cannot be read"))
        .ok()
}

/// Looks where the doors are, and turns ticket keys over.
async fn keep_house(control: Arc<Control>) {
    let mut seconds = interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 1_u64.. {
        seconds.tick().await;
        control.refresh_doors();
        if second % READ_EVERY_S == 0 {
            let control = control.clone();
            // Only this task waits.
            let both = move || {
                if second % FREEZE_EVERY_S == 0 {
                    control.freeze_rooms();
                }
                control.read_ledgers();
            };
            let _ = tokio::task::spawn_blocking(both).await;
        }
        if second % TICKETS_EVERY_S == 0
            && let Err(error) = turn_ticket_keys(&control)
        {
            tracing::warn!(%error, "the keys of tickets cannot be read or changed");
        }
    }
}

fn turn_ticket_keys(control: &Control) -> Result<(), backend::keys::KeyError> {
    // Somebody may have removed the file: then there are new keys.
    let keys = control.keys.tickets()?;
    let age = control.keys.tickets_changed_at().and_then(|at| SystemTime::now().duration_since(at).ok());
    let age = age.unwrap_or_default();
    if age > ROTATE {
        control.keys.rotate_tickets()?;
        tracing::info!("the keys of tickets were changed");
    } else if age > SETTLE {
        control.use_tickets(keys);
    }
    Ok(())
}
