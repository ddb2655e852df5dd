//! What control holds: the events, what was observed of them, and the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use admission::ladder::{Costs, Decision, Level, Orders, Report, Resource};
use admission::room::{Draw, LedgerHead, Queue, RoomConfig};
use admission::sessions::Sessions;
use admission::ticket::{TicketId, TicketKeys};
use backend::clock;
use backend::evidence::ledger_is_open;
use backend::freeze;
use backend::http::DoorCounts;
use backend::keys::{KeyError, Keys};
use backend::objects::Objects;
use backend::problem::Problem;
use backend::store::{OperatorOrders, Progress, Store, StoreError};
use backend::tls::Tls;
use ed25519_dalek::{Signer as _, SigningKey};
use http::StatusCode;
use model::{Digest, Event, EventSlug, ShowState, UnixTime};
use tokio::sync::{Semaphore, watch};

use crate::auth::{Attempts, OperatorToken};
use crate::challenges::Challenges;
use crate::evidence::Arrivals;
use crate::incidents::Incidents;
use crate::observed::{Observed, Standing};
use crate::rooms::{DoorState, DrawSecret, Entrance, Rooms};
use crate::steering::Steering;
use crate::verdicts::Verdicts;
use crate::{ControlConfig, doors, publicity};

/// Most people whose turn comes in a second. There are seldom seats for so many: no more than processors can greet.
const BATCH: u64 = 5_000;
/// Requests in progress at once; one more is told to come back.
const REQUESTS_MAX: usize = 1_024;
/// How long a room outlives its event: who still waits is told that it is over.
const ROOM_AFTER: Duration = Duration::from_secs(600);
/// Longest wait for origin to take in a new event, and how often is looked.
const TAKEN_IN_WITHIN: Duration = Duration::from_millis(1_500);
const TAKEN_IN_EVERY: Duration = Duration::from_millis(10);

/// An event with what was made for it once.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) event: Event,
    /// The publisher's signature that the event's signing key is the event's.
    pub(crate) certificate: [u8; 64],
}

/// What control counts about itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) shed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) tickets: AtomicU64,
    /// Requests for a ticket, renewals not counted.
    pub(crate) asked: AtomicU64,
    /// Tickets renewed.
    pub(crate) renewed: AtomicU64,
    /// Requests for a ticket to which there was no answer but to come back.
    pub(crate) turned_away: AtomicU64,
    /// … because their network was given its share for now.
    pub(crate) had_share: AtomicU64,
    /// Answers with a fault of the request's.
    pub(crate) client_errors: AtomicU64,
    /// Answers that somebody has to wait.
    pub(crate) waits: AtomicU64,
    /// Tokens and tickets that were not taken.
    pub(crate) tokens_refused: AtomicU64,
    pub(crate) failed_attempts: AtomicU64,
    pub(crate) server_errors: AtomicU64,
    /// What happens at the door.
    pub(crate) door: Arc<DoorCounts>,
}

/// Control.
pub(crate) struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) local: SocketAddr,
    /// What addresses of our doors begin with: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The certificate of our door, if it has one.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) keys: Keys,
    pub(crate) publisher: SigningKey,
    pub(crate) invite_key: SigningKey,
    pub(crate) operator: OperatorToken,
    pub(crate) attempts: Attempts,
    pub(crate) counters: Counters,
    /// Places for requests in progress.
    pub(crate) places: Semaphore,
    /// One slate at a time is decoded: it takes a core and much memory.
    pub(crate) slates: Semaphore,
    addresses: PathBuf,
    doors: RwLock<Option<crate::Doors>>,
    tickets: RwLock<Arc<TicketKeys>>,
    /// Held while the store is changed and then the copy below, so that both always agree.
    changes: tokio::sync::Mutex<()>,
    events: RwLock<BTreeMap<EventSlug, Arc<Known>>>,
    /// Counts changes of the events; its watchers wake at each.
    changed: watch::Sender<u64>,
    observed: Mutex<Observed>,
    /// Where both are held, `observed` is taken first.
    steering: Mutex<Steering>,
    rooms: Mutex<Rooms>,
    sessions: Mutex<Sessions>,
    pub(crate) arrivals: Arrivals,
    pub(crate) challenges: Challenges,
    verdicts: Mutex<Verdicts>,
    pub(crate) incidents: Incidents,
    /// Where origin writes ledgers.
    pub(crate) ledgers: PathBuf,
    /// Where rooms are frozen.
    frozen_rooms: PathBuf,
    /// Queues as they were written last.
    told_queues: Mutex<BTreeMap<EventSlug, Queue>>,
    /// Draws of forgotten rooms that are being read.
    thaws: Semaphore,
}

/// What a [`Control`] is made of.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    pub(crate) local: SocketAddr,
    /// What addresses of our doors begin with: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The certificate of our door, if it has one.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) doors: Option<crate::Doors>,
    pub(crate) addresses: PathBuf,
    /// Where waiting rooms are frozen.
    pub(crate) rooms: PathBuf,
    /// Where origin writes ledgers.
    pub(crate) ledgers: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) keys: Keys,
    pub(crate) operator: OperatorToken,
    /// Since when reports of origin and the edges are heard.
    pub(crate) hears_since: Instant,
}

/// Why control cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Control {
    /// Reads what is kept.
    pub(crate) async fn begin(parts: Parts) -> Result<Arc<Self>, BeginError> {
        let Parts {
            config,
            local,
            scheme,
            tls,
            doors,
            addresses,
            rooms: frozen_rooms,
            ledgers,
            store,
            objects,
            keys,
            operator,
            hears_since,
        } = parts;
        let publisher = keys.publisher()?;
        let events = store.events(config.events_max).await?;
        let events: BTreeMap<_, _> = events
            .into_iter()
            .map(|event| (event.slug.clone(), Arc::new(Known::new(event, &publisher))))
            .collect();
        let orders = store.orders().await?;
        let pin = orders.pin.and_then(Level::from_number);
        let orders = Orders { pin, cap: orders.cap, ..Orders::default() };
        let mut rooms = Rooms::new(
            DrawSecret(keys.draw()?),
            keys.room()?,
            RoomConfig { batch: BATCH, ..RoomConfig::default() },
        );
        let progress = store.progress().await?;
        let ended: BTreeSet<EventSlug> = progress
            .iter()
            .filter(|(_, progress)| progress.state == ShowState::Ended)
            .map(|(slug, _)| slug.clone())
            .collect();
        for (slug, entrance) in thaw(&frozen_rooms, events.keys().filter(|slug| !ended.contains(*slug))) {
            rooms.resume(slug, entrance);
        }
        let mut sessions = Sessions::default();
        for (ticket, expires) in store.revocations(clock::unix_now()).await? {
            sessions.revoke(ticket, expires);
        }
        let observed = Observed::new(progress, hears_since);
        Ok(Arc::new(Self {
            invite_key: keys.invite()?,
            tickets: RwLock::new(Arc::new(keys.tickets()?)),
            publisher,
            operator,
            attempts: Attempts::default(),
            counters: Counters::default(),
            places: Semaphore::new(REQUESTS_MAX),
            slates: Semaphore::new(1),
            doors: RwLock::new(doors),
            changes: tokio::sync::Mutex::default(),
            events: RwLock::new(events),
            changed: watch::Sender::new(0),
            observed: Mutex::new(observed),
            steering: Mutex::new(Steering::new(orders)),
            rooms: Mutex::new(rooms),
            sessions: Mutex::new(sessions),
            arrivals: Arrivals::new(rand::random()),
            challenges: Challenges::new(config.challenge, rand::random(), clock::unix_now()),
            verdicts: Mutex::new(Verdicts::new(ledgers.clone())),
            incidents: Incidents::new(ledgers.clone()),
            ledgers,
            frozen_rooms,
            told_queues: Mutex::default(),
            thaws: Semaphore::new(2),
            config,
            local,
            scheme,
            tls,
            addresses,
            store,
            objects,
            keys,
        }))
    }

    /// One event.
    pub(crate) fn event(&self, slug: &EventSlug) -> Option<Arc<Known>> {
        self.events.read().unwrap_or_else(PoisonError::into_inner).get(slug).cloned()
    }

    /// At most `limit` events, the latest start first.
    pub(crate) fn events(&self, limit: usize) -> Vec<Arc<Known>> {
        let mut events: Vec<_> =
            self.events.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        events.sort_by(|a, b| {
            b.event.starts_at.cmp(&a.event.starts_at).then_with(|| a.event.slug.cmp(&b.event.slug))
        });
        events.truncate(limit);
        events
    }

    /// Wakes at every change of the events.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Adds an event.
    pub(crate) async fn create(&self, event: Event) -> Result<Arc<Known>, Problem> {
        let _changing = self.changes.lock().await;
        let count = self.events.read().unwrap_or_else(PoisonError::into_inner).len();
        if count >= self.config.events_max as usize {
            let detail = format!("control.events_max is {}", self.config.events_max);
            let full =
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "too-many-events", "No room for more events");
            return Err(full.detail(detail));
        }
        self.store.create(&event).await.map_err(refused_by_store)?;
        Ok(self.put(event))
    }

    /// Changes an event. `change` sees it as it is at that moment; a `revision` that it must have is checked before.
    pub(crate) async fn change(
        &self,
        slug: &EventSlug,
        change: impl FnOnce(&mut Event) -> Result<(), Problem> + Send,
    ) -> Result<Arc<Known>, Problem> {
        let _changing = self.changes.lock().await;
        let before = self.event(slug).ok_or_else(|| Problem::unknown_event(slug.as_str()))?;
        let mut event = before.event.clone();
        change(&mut event)?;
        if event == before.event {
            return Ok(before);
        }
        event.revision += 1;
        self.store.update(&event, before.event.revision).await.map_err(refused_by_store)?;
        Ok(self.put(event))
    }

    fn put(&self, event: Event) -> Arc<Known> {
        let known = Arc::new(Known::new(event, &self.publisher));
        let mut events = self.events.write().unwrap_or_else(PoisonError::into_inner);
        events.insert(known.event.slug.clone(), known.clone());
        drop(events);
        self.changed.send_modify(|count| *count += 1);
        known
    }

    /// What was observed.
    pub(crate) fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an event stands.
    pub(crate) fn standing(&self, event: &Event) -> Standing {
        let decision = *self.steering().decision();
        self.observed().standing(event, &decision, Instant::now())
    }

    /// The ladder.
    pub(crate) fn steering(&self) -> MutexGuard<'_, Steering> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the edges, decides what is in force from now on, and lets people have their turn. Once a second.
    pub(crate) fn steer(&self) {
        let (decision, reports, cap) = self.decide();
        let alive: BTreeSet<u32> =
            self.observed().edges(Instant::now()).map(|(_, beat)| beat.index).collect();
        self.sessions().retain(&alive);
        self.tend_rooms(&decision, &reports, cap);
    }

    fn decide(&self) -> (Decision, Vec<Report>, Option<u64>) {
        let now = Instant::now();
        let mut observed = self.observed();
        observed.forget_the_silent(now);
        let mut steering = self.steering();
        let before = steering.decision().level;
        steering.set_evidence(self.challenges.any(clock::unix_now()));
        let edges = observed.at_edges(now);
        let decision = *steering.observe(clock::boot_now(), &edges);
        let reports: Vec<Report> = edges.values().map(|edge| edge.report).collect();
        if decision.level != before {
            let binding = decision.binding.map_or("nothing", Resource::name);
            let (from, to) = (before.number(), decision.level.number());
            tracing::info!(from, to, binding, "the ladder's level has changed");
        }
        let cap = steering.orders().cap;
        (decision, reports, cap)
    }

    /// Lets those have their turn for whom there is room.
    fn tend_rooms(&self, decision: &Decision, reports: &[Report], cap: Option<u64>) {
        let now = clock::unix_now();
        let rooms = self.rooms();
        let held = |entrance: &Entrance| entrance.room().draw().is_some();
        let slugs: Vec<_> = rooms.entrances().iter().map(|(slug, room)| (slug.clone(), held(room))).collect();
        drop(rooms);
        let mut heads = BTreeMap::new();
        let mut doors = BTreeMap::new();
        for (slug, is_drawn) in slugs {
            let Some(known) = self.event(&slug) else { continue };
            let standing = self.standing(&known.event);
            let state = DoorState::of(&standing, now);
            if state == DoorState::Open && !is_drawn {
                // While a ledger is being read there is no head for a moment.
                let head = self.verdicts.try_lock().ok().and_then(|verdicts| verdicts.head(&slug));
                heads.extend(head.map(|Digest(head)| (slug.clone(), LedgerHead(head))));
            }
            // Who still waits when it is over is told so for a while.
            let is_gone = state == DoorState::Over && standing.ended_before(now, ROOM_AFTER);
            if !is_gone {
                doors.insert(slug, state);
            }
        }
        let mut rooms = self.rooms();
        let free = Costs::default().newcomers(reports, rooms.unreported(), cap, decision.measures.admission);
        let of = |slug: &EventSlug| doors.get(slug).copied().unwrap_or(DoorState::Over);
        rooms.advance(now, free, decision.level.number(), |slug| heads.get(slug).copied(), of);
        rooms.retain(|slug| doors.contains_key(slug));
    }

    /// Sessions of tickets at all edges.
    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the ledgers say.
    pub(crate) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the ledgers of events that run, or whose doors open soon.
    pub(crate) fn read_ledgers(&self) {
        let now = clock::unix_now();
        let runs = |known: &Arc<Known>| {
            let standing = self.standing(&known.event);
            match standing.state {
                ShowState::Scheduled => ledger_is_open(standing.doors_at, now),
                ShowState::Doors | ShowState::Live | ShowState::Hold { .. } => true,
                // Its last lines come after it.
                ShowState::Ended => !standing.ended_before(now, ROOM_AFTER),
            }
        };
        let running: Vec<_> = self.events(usize::MAX).into_iter().filter(runs).collect();
        let mut verdicts = self.verdicts();
        verdicts.retain(|slug| running.iter().any(|known| known.event.slug == *slug));
        for known in &running {
            verdicts.look(&known.event.slug, known.event.signing_key);
            self.challenges.observe(&known.event.slug, verdicts.latest(&known.event.slug), now);
        }
        self.challenges.retain(|slug| running.iter().any(|known| known.event.slug == *slug));
    }

    /// A ticket is to open no door any more.
    pub(crate) async fn revoke(&self, ticket: TicketId, expires: UnixTime) -> Result<(), Problem> {
        if !self.sessions().revoke(ticket, expires) {
            let problem = Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "too-many-revocations",
                "No room for more revoked tickets",
            );
            return Err(problem.detail("change the keys of tickets instead, which revokes all of them"));
        }
        self.store.note_revocation(ticket, expires).await.map_err(refused_by_store)
    }

    /// The waiting rooms.
    pub(crate) fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes how far lines have come: a few bytes a room, so that a control that begins anew sends nobody away who was told
    /// to come. Not synced: what is lost with the machine is found in [`Self::freeze_rooms`]' file, or in tokens.
    pub(crate) fn freeze_queues(&self) {
        let queues: Vec<(EventSlug, Queue)> = {
            let rooms = self.rooms();
            let drawn = rooms.entrances().iter().filter(|(_, entrance)| entrance.room().draw().is_some());
            drawn.map(|(slug, entrance)| (slug.clone(), *entrance.queue())).collect()
        };
        let mut told = self.told_queues.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|slug, _| queues.iter().any(|(of, _)| of == slug));
        for (slug, queue) in queues {
            if told.insert(slug.clone(), queue) == Some(queue) {
                continue;
            }
            let path = self.frozen_rooms.join(format!("{slug}.queue.json"));
            let temporary = path.with_extension("new");
            let written = serde_json::to_vec(&queue)
                .map_err(std::io::Error::from)
                .and_then(|bytes| std::fs::write(&temporary, bytes))
                .and_then(|()| std::fs::rename(&temporary, &path));
            if let Err(error) = written {
                tracing::warn!(%slug, %error, "how far a line has come cannot be written");
            }
        }
    }

    /// The draw of an event whose room was forgotten, read from the disk.
    pub(crate) async fn past_draw(&self, slug: &EventSlug) -> Option<Draw> {
        let path = self.frozen_rooms.join(format!("{slug}.json"));
        // It may have megabytes: two at a time.
        let _place = self.thaws.acquire().await.ok()?;
        let read = tokio::task::spawn_blocking(move || freeze::read_json::<Entrance>(&path)).await.ok()?;
        read.ok().flatten()?.room().draw().cloned()
    }

    /// Freezes the waiting rooms, so that a control that begins anew goes on with them.
    pub(crate) fn freeze_rooms(&self) {
        let frozen: Vec<(EventSlug, serde_json::Result<Vec<u8>>)> = {
            let rooms = self.rooms();
            let entrances = rooms.entrances().iter();
            entrances.map(|(slug, entrance)| (slug.clone(), serde_json::to_vec(entrance))).collect()
        };
        for (slug, bytes) in frozen {
            let path = self.frozen_rooms.join(format!("{slug}.json"));
            let written = bytes
                .map_err(std::io::Error::from)
                .and_then(|bytes| freeze::write_bytes(&path, &bytes, true));
            if let Err(error) = written {
                tracing::warn!(%slug, %error, "a waiting room cannot be frozen");
            }
        }
    }

    /// Changes what the operator wants of the ladder, for good.
    pub(crate) async fn order(&self, change: impl FnOnce(Orders) -> Orders) -> Result<(), Problem> {
        let _changing = self.changes.lock().await;
        let orders = change(self.steering().orders());
        let noted = OperatorOrders { pin: orders.pin.map(Level::number), cap: orders.cap };
        self.store.note_orders(noted).await.map_err(refused_by_store)?;
        self.steering().set_orders(orders);
        // Not a second for those who wait.
        self.decide();
        tracing::info!(pin = ?noted.pin, cap = ?noted.cap, "the operator's orders have changed");
        Ok(())
    }

    /// Waits until origin has taken in an event that was just made, so that whoever is given its links may use them at
    /// once; at most [`TAKEN_IN_WITHIN`], and not at all while origin is known to be away: it learns of the event when
    /// it comes.
    pub(crate) async fn wait_taken_in(&self, event: &Event) {
        let taken_in = async {
            while !self.observed().origin_is_away(Instant::now()) && self.standing(event).status.is_none() {
                tokio::time::sleep(TAKEN_IN_EVERY).await;
            }
        };
        // What did not happen in time is no error: the event is made.
        tokio::time::timeout(TAKEN_IN_WITHIN, taken_in).await.ok();
    }

    /// Notes in the store how far shows have come. What could not be noted comes again with the next change.
    pub(crate) async fn note(&self, news: Vec<(EventSlug, Progress)>) {
        for (slug, progress) in news {
            if let Err(error) = self.store.note_progress(&slug, &progress).await {
                tracing::warn!(%slug, %error, "cannot note how far a show has come");
            }
        }
    }

    /// The keys that tickets are issued with.
    pub(crate) fn tickets(&self) -> Arc<TicketKeys> {
        self.tickets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on issues with these.
    pub(crate) fn use_tickets(&self, keys: TicketKeys) {
        *self.tickets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Where the other doors are, once that is known.
    pub(crate) fn doors(&self) -> Option<crate::Doors> {
        let known = *self.doors.read().unwrap_or_else(PoisonError::into_inner);
        known.or_else(|| doors::read(&self.addresses))
    }

    /// Looks again where the other doors are.
    pub(crate) fn refresh_doors(&self) {
        if let Some(found) = doors::read(&self.addresses) {
            *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
    }
}

impl Known {
    fn new(event: Event, publisher: &SigningKey) -> Self {
        let statement = publicity::statement(&event.slug, &event.signing_key);
        Self { certificate: publisher.sign(&statement).to_bytes(), event }
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rooms as they were frozen, of these events.
fn thaw<'a>(directory: &Path, events: impl Iterator<Item = &'a EventSlug>) -> Vec<(EventSlug, Entrance)> {
    if let Err(error) = std::fs::create_dir_all(directory) {
        tracing::warn!(directory = %directory.display(), %error, "waiting rooms cannot be frozen");
    }
    let mut rooms = Vec::new();
    for slug in events {
        match freeze::read_json::<Entrance>(&directory.join(format!("{slug}.json"))) {
            Ok(Some(entrance)) => {
                let queue = freeze::read_json(&directory.join(format!("{slug}.queue.json"))).ok().flatten();
                let entrance = match queue {
                    Some(queue) => entrance.with_queue(queue),
                    None => entrance,
                };
                rooms.push((slug.clone(), entrance));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%slug, %error, "a waiting room cannot be gone on from"),
        }
    }
    rooms
}

/// The store's errors as answers; what went wrong inside goes to the log.
pub(crate) fn refused_by_store(error: StoreError) -> Problem {
    match error {
        StoreError::SlugTaken { slug } => {
            Problem::new(StatusCode::CONFLICT, "slug-taken", "There is an event of this name already")
                .detail(format!("{slug} is taken"))
                .invalid("slug", slug.as_str(), "a name that no event has")
        }
        StoreError::Conflict { current } => {
            Problem::new(StatusCode::CONFLICT, "conflict", "The event was changed in between")
                .detail(format!("it has revision {current} by now"))
        }
        StoreError::Unknown => Problem::unknown_event(""),
        StoreError::Database(_) | StoreError::Migration(_) | StoreError::Damaged(_) => {
            tracing::error!(%error, "the store failed");
            Problem::unavailable("the store failed; nothing was changed", 5)
        }
    }
}
