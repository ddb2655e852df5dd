//! From what the disk and the edges hold to events on the media thread: at every start, and for every new event.
//!
//! ```text
//! disk:   event.json  anchor.json  log.jsonl  recording …────────┤ last + 1
//! edges:                                  ├─ window ────────────────┤        adopted: published, not yet recorded
//! clock:                                                                 ├─► the part due now
//!                                                                  └gaps─┘  made by the media thread
//! ```
//!
//! The next number is the greater of the clock's and the highest known plus one, so no number names two contents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use archive::{Recorder, Recovered};
use backend::bus::{Bus as _, Message, UnixBus};
use backend::keys::{KeyError, Keys};
use backend::{clock, wire};
use ed25519_dalek::SigningKey;
use futures_util::future::join_all;
use model::{Anchor, ClockReading, Digest, Epoch, Event, EventSlug, Part, PartNumber, ShowState, UnixTime};
use packager::{Packager, Resume, TailPart};
use programme::slate::Slate;
use stage::{LogEntry, LogItem, Show};
use tokio::task::spawn_blocking;

use crate::counters;
use crate::files::{EventFiles, Kept, Line};
use crate::media::{Registration, open_packager};
use crate::recorder::RecordingState;

/// An event that was never begun here and whose start lies further back than this is none of ours.
const STALE: Duration = Duration::from_secs(86_400);

/// Reads the disk and asks the edges.
#[derive(Clone)]
pub(crate) struct Recovery {
    pub(crate) files: EventFiles,
    pub(crate) keys: Keys,
    pub(crate) directories: Vec<PathBuf>,
}

/// The slates that need no file. Making them takes a few hundred milliseconds, which a start spends on the disk and
/// the edges at the same time: see [`warm_up`].
pub(crate) static WAITING: LazyLock<Slate> = LazyLock::new(Slate::waiting);
static HOLDING: LazyLock<Slate> = LazyLock::new(Slate::holding);

/// Begins to make the slates, on threads of the runtime. Done when both are there.
pub(crate) fn warm_up() -> impl Future<Output = ()> {
    let waiting = spawn_blocking(|| LazyLock::force(&WAITING));
    let holding = spawn_blocking(|| LazyLock::force(&HOLDING));
    async {
        // Should one of them fail, whoever uses it fails, and says why.
        let _ = (waiting.await, holding.await);
    }
}

/// One event as the disk has it.
pub(crate) struct Found {
    kept: Kept,
    key: SigningKey,
    recording: Option<(Box<Recorder>, Recovered)>,
}

/// Why an event cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unservable {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the key on this machine is not the one the event names")]
    OtherKey,
    #[error(transparent)]
    Damaged(#[from] backend::freeze::FreezeError),
    #[error("its start lies more than a day back")]
    Stale,
}

impl Recovery {
    /// Every event on the disk, with its recording opened if it has one that is not finished. Blocking.
    pub(crate) fn read_all(&self) -> std::io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for slug in self.files.all()? {
            match self.read(&slug) {
                Ok(event) => found.extend(event),
                Err(Unservable::Stale) => {}
                Err(error) => tracing::error!(event = %slug, %error, "an event on the disk cannot be served"),
            }
        }
        Ok(found)
    }

    /// One event. `None` if it was never frozen here. Blocking.
    pub(crate) fn read(&self, slug: &EventSlug) -> Result<Option<Found>, Unservable> {
        let Some(kept) = self.files.read(slug)? else { return Ok(None) };
        self.found(kept).map(Some)
    }

    /// An event that control has named for the first time. Blocking.
    pub(crate) fn begin(&self, event: Event) -> Result<Found, Unservable> {
        self.found(Kept { event, anchor: None, log: Vec::new(), epoch: None, finished: false })
    }

    fn found(&self, kept: Kept) -> Result<Found, Unservable> {
        let event = &kept.event;
        let begun = kept.anchor.is_some() || !kept.log.is_empty();
        let ended_long_ago = kept.finished && is_stale(event);
        if ended_long_ago || (!begun && is_stale(event)) {
            return Err(Unservable::Stale);
        }
        let key = self.keys.event(&event.slug)?;
        if key.verifying_key().to_bytes() != event.signing_key {
            return Err(Unservable::OtherKey);
        }
        let recorded =
            || self.directories.iter().any(|data| archive::event_directory(data, &event.slug).is_dir());
        let recording = if kept.finished || !(kept.anchor.is_some() || recorded()) {
            None
        } else {
            match Recorder::open(&self.directories, &event.slug) {
                Ok((recorder, recovered)) => Some((Box::new(recorder), recovered)),
                Err(error) => {
                    tracing::error!(event = %event.slug, %error, "the recording cannot be opened; it is tried again");
                    None
                }
            }
        };
        Ok(Found { kept, key, recording })
    }

    /// Turns what was found, and what the edges hold beyond it, into an event for the media thread. Blocking: writes
    /// the anchor of a machine that was started anew, and the number of this incarnation. Returns the parts that the
    /// publisher's window is to begin with, too.
    pub(crate) fn resume(&self, found: Found, held: BTreeMap<PartNumber, Part>) -> (Registration, Vec<Part>) {
        let Found { kept: Kept { event, anchor, log, epoch, finished }, key, recording } = found;
        // What may take a while comes before the clock is looked at: doors are planned from there.
        let (slate, hold) = (WAITING.clone(), HOLDING.clone());
        let reading = clock::read();
        let slug = event.slug.clone();
        let (recorder, recovered) = recording.unzip();
        let state = Arc::new(RecordingState::default());
        let anchor = self.anchor(&slug, anchor, recovered.as_ref(), reading);
        let now = anchor.map_or(reading.unix, |anchor| anchor.unix_at(reading.boot));
        let log = with_end(log, recovered.as_ref());
        let finished = finished || recovered.as_ref().is_some_and(|recovered| recovered.finished);
        let show = Show::restore(event, &log, anchor.map(|anchor| anchor.doors), now);
        let mut registration = Registration {
            show,
            key,
            anchor,
            resume: Resume::fresh(),
            epoch: Epoch(epoch.map_or(1, |epoch| epoch.0.saturating_add(1))),
            packager: None,
            recorder: None,
            adopted: Vec::new(),
            newest: None,
            recording: state.clone(),
            slate,
            hold,
        };
        let Some(anchor) = anchor else { return (registration, Vec::new()) };
        state.set_anchored();
        state.set_recorded_through(recovered.as_ref().and_then(|recovered| recovered.last));
        if finished {
            state.set_finished();
            registration.newest = state.recorded_through();
            return (registration, Vec::new());
        }
        let mut window = recovered.as_ref().map(|recovered| recovered.tail.clone()).unwrap_or_default();
        let known = [epoch, recovered.as_ref().and_then(|recovered| recovered.epoch)];
        let highest = known.into_iter().flatten().chain(held.values().map(|part| part.epoch)).max();
        registration.epoch = Epoch(highest.map_or(1, |epoch| epoch.0.saturating_add(1)));
        self.note_epoch(&slug, now, registration.epoch);
        registration.resume = recovered.as_ref().map_or_else(
            // The disk does not say where the chain stood: it begins anew behind everything that may be published.
            || Resume { next: anchor.media_at(reading.boot).part(), ..Resume::fresh() },
            |recovered| recovered.resume.clone(),
        );
        registration.recorder = recorder;
        // Where a directory could not be read more may be recorded than is known, up to now.
        let floor = recovered
            .as_ref()
            .filter(|recovered| recovered.unread > 0)
            .map_or(PartNumber::ZERO, |_| anchor.media_at(reading.boot).part());
        adopt(&mut registration, &slug, (anchor, reading), held, floor);
        window.extend(registration.adopted.iter().cloned());
        registration.newest = window.last().map(|part| part.number);
        (registration, window)
    }

    fn anchor(
        &self,
        slug: &EventSlug,
        anchor: Option<Anchor>,
        recovered: Option<&Recovered>,
        reading: ClockReading,
    ) -> Option<Anchor> {
        let kept = anchor.or_else(|| {
            let recovered = recovered.filter(|recovered| recovered.last.is_some())?;
            Some(Anchor::new(recovered.marks?.doors, reading))
        })?;
        let carried = kept.carried_over(reading);
        if anchor != Some(carried) {
            tracing::warn!(event = %slug, doors = %carried.doors, "the timeline is tied to the wall clock anew");
            if let Err(error) = self.files.write_anchor(slug, carried) {
                tracing::error!(event = %slug, %error, "the anchor could not be written");
            }
        }
        Some(carried)
    }

    fn note_epoch(&self, slug: &EventSlug, at: UnixTime, epoch: Epoch) {
        let noted = self.files.log(slug).and_then(|mut log| log.append(&[Line::epoch(at, epoch)]));
        if let Err(error) = noted {
            tracing::error!(event = %slug, %error, "the event's log could not be written");
        }
    }
}

impl Found {
    pub(crate) fn slug(&self) -> &EventSlug {
        &self.kept.event.slug
    }

    pub(crate) fn event(&self) -> &Event {
        &self.kept.event
    }

    /// The first number that edges may know and the disk does not; `None` if nothing was ever published or all is
    /// finished.
    fn missing_from(&self) -> Option<PartNumber> {
        let (_, recovered) = self.recording.as_ref()?;
        self.kept.anchor.filter(|_| !recovered.finished).map(|_| recovered.resume.next)
    }
}

fn is_stale(event: &Event) -> bool {
    clock::unix_now().since(event.starts_at) > STALE
}

/// A recording that says that it ended is believed, should the log not say so.
fn with_end(mut log: Vec<LogEntry>, recovered: Option<&Recovered>) -> Vec<LogEntry> {
    let ended = |entry: &LogEntry| entry.item == LogItem::State(ShowState::Ended);
    let marked = recovered.filter(|recovered| recovered.finished).and_then(|recovered| recovered.marks);
    if let Some(at) = marked.and_then(|marks| marks.ended_at)
        && !log.iter().any(ended)
    {
        log.push(LogEntry { at: at.unix, item: LogItem::State(ShowState::Ended) });
    }
    log
}

/// Opens the packager and takes over what the edges held.
fn adopt(
    registration: &mut Registration,
    slug: &EventSlug,
    (anchor, reading): (Anchor, ClockReading),
    held: BTreeMap<PartNumber, Part>,
    floor: PartNumber,
) {
    let (epoch, resume) = (registration.epoch, registration.resume.clone());
    let open = |resume| open_packager(slug, &registration.key, epoch, anchor, reading, resume);
    let Some((packager, adopted)) = take_over(slug, resume, held, floor, open) else { return };
    counters::ADOPTED.add(adopted.len() as u64);
    if !adopted.is_empty() {
        tracing::info!(event = %slug, parts = adopted.len(), "parts taken over from the edges");
    }
    registration.adopted = adopted;
    registration.packager = Some(packager);
}

/// A packager behind everything that was published, and the parts that edges held of it, to be recorded. What neither
/// disk nor edge has is missing for good; what edges held behind that is recorded as they had it. No number below `floor`
/// is used again.
fn take_over(
    slug: &EventSlug,
    resume: Resume,
    held: BTreeMap<PartNumber, Part>,
    floor: PartNumber,
    open: impl Fn(Resume) -> Option<Packager>,
) -> Option<(Packager, Vec<Part>)> {
    let mut packager = open(resume.clone())?;
    let mut held: VecDeque<Part> = held.into_values().filter(|part| part.number >= resume.next).collect();
    let mut adopted = Vec::new();
    while let Some(part) = held.pop_front() {
        if let Err(error) = packager.adopt(&part) {
            tracing::error!(event = %slug, part = part.number.get(), %error, "a part of an edge does not continue the chain");
            held.push_front(part);
            break;
        }
        adopted.push(part);
    }
    // Listeners have heard these numbers, so they cannot be used again.
    let next = held.back().map_or(floor, |part| part.number.next().max(floor));
    if next > packager.next() {
        tracing::error!(
            event = %slug, from = packager.next().get(), next = next.get(),
            "published parts are missing on the disks that can be read"
        );
        let is_whole =
            |part: &Part| part.payloads.iter().all(|payload| Digest::of(&payload.bytes) == payload.digest);
        held.retain(|part| part.number >= packager.next() && is_whole(part));
        adopted.extend(held);
        let records = adopted.iter().flat_map(|part| &part.records);
        let known = Resume::from_recording(records, adopted.iter().map(TailPart::of));
        let heads = [0, 1, 2]
            .map(|at| if known.heads[at] == Digest::default() { resume.heads[at] } else { known.heads[at] });
        let tail = if known.next == next { known.tail } else { Vec::new() };
        packager = open(Resume { next, heads, tail })?;
    }
    Some((packager, adopted))
}

/// Asks every edge for the parts that the disk does not have, of all events at once.
pub(crate) async fn ask_edges(
    bus: &UnixBus,
    found: &[Found],
    patience: Duration,
) -> BTreeMap<EventSlug, BTreeMap<PartNumber, Part>> {
    let edges: BTreeSet<String> = bus.peers().into_iter().filter(|peer| peer.starts_with("edge-")).collect();
    let questions = found.iter().filter_map(|event| event.missing_from().map(|from| (event.slug(), from)));
    let asked = questions.flat_map(|(slug, from)| edges.iter().map(move |edge| (slug, from, edge)));
    let answers = join_all(asked.map(|(slug, from, edge)| async move {
        let messages = bus.fetch(edge, &format!("window/{slug}"), from.get(), patience).await;
        (slug.clone(), from, messages)
    }))
    .await;
    let mut held: BTreeMap<EventSlug, BTreeMap<PartNumber, Part>> = BTreeMap::new();
    for (slug, from, messages) in answers {
        let parts = held.entry(slug).or_default();
        for Message { payload, .. } in messages {
            match wire::decode_part(payload) {
                Ok(part) if part.number >= from => _ = parts.entry(part.number).or_insert(part),
                Ok(_) => {}
                Err(error) => {
                    counters::BUS_DAMAGED.increment();
                    tracing::warn!(%error, "an edge sent a part that cannot be read");
                }
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_edges_held_behind_a_hole_is_recorded_and_the_chain_goes_on_behind_it() {
        let (slug, key): (EventSlug, _) = ("talk".parse().unwrap(), SigningKey::from_bytes(&[7; 32]));
        let reading = clock::read();
        let anchor = Anchor::new(reading.unix, reading);
        let open = |epoch, resume| open_packager(&slug, &key, Epoch(epoch), anchor, reading, resume);
        let mut before = open(1, Resume::fresh()).unwrap();
        let parts: Vec<Part> = (0..60).map(|_| before.gap(before.next()).unwrap()).collect();
        let recorded = &parts[..10];
        let records = recorded.iter().flat_map(|part| &part.records);
        let resume = Resume::from_recording(records, recorded.iter().map(TailPart::of));
        let after = |held: &[usize]| {
            let floor = PartNumber::ZERO;
            let held = held.iter().map(|at| (parts[*at].number, parts[*at].clone())).collect();
            let (packager, adopted) =
                take_over(&slug, resume.clone(), held, floor, |resume| open(2, resume)).unwrap();
            let adopted: Vec<usize> = adopted.iter().map(|part| part.number.get() as usize).collect();
            (packager, adopted)
        };
        let (all, _) = after(&(10..60).collect::<Vec<_>>());
        let but_one: Vec<usize> = (10..60).filter(|at| *at != 15).collect();
        let (mut packager, adopted) = after(&but_one);
        assert_eq!((packager.next().get(), adopted), (60, but_one));
        // Its next signatures are those of an origin that knows everything.
        let mut all = all;
        for _ in 0..16 {
            let next = packager.next();
            assert_eq!(packager.gap(next).unwrap().records, all.gap(next).unwrap().records);
        }
        // Where edges held only what is far behind, that is recorded too.
        let (packager, adopted) = after(&[40, 41, 50]);
        assert_eq!((packager.next().get(), adopted), (51, vec![40, 41, 50]));
        let (packager, adopted) = after(&[]);
        assert_eq!((packager.next().get(), adopted.len()), (10, 0));
        // Where a directory cannot be read, what it may hold keeps its numbers.
        let floor = parts[50].number;
        let held = BTreeMap::from([(parts[10].number, parts[10].clone())]);
        let (packager, adopted) = take_over(&slug, resume, held, floor, |resume| open(2, resume)).unwrap();
        assert_eq!((packager.next(), adopted.len()), (floor, 1));
    }
}
