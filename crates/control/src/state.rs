//! What control holds: the events, what was observed of them, and the keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use admission::ticket::TicketKeys;
use backend::keys::{KeyError, Keys};
use backend::objects::Objects;
use backend::problem::Problem;
use backend::store::{Progress, Store, StoreError};
use backend::tls::Tls;
use ed25519_dalek::{Signer as _, SigningKey};
use http::StatusCode;
use model::{Event, EventSlug};
use tokio::sync::{Semaphore, watch};

use crate::auth::{Attempts, OperatorToken};
use crate::observed::{Observed, Standing};
use crate::{ControlConfig, Doors, doors, publicity};

/// Requests in progress at once; one more is told to come back.
const REQUESTS_MAX: usize = 1_024;
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
    pub(crate) failed_attempts: AtomicU64,
    pub(crate) server_errors: AtomicU64,
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
    doors: RwLock<Option<Doors>>,
    tickets: RwLock<Arc<TicketKeys>>,
    /// Held while the store is changed and then the copy below, so that both always agree.
    changes: tokio::sync::Mutex<()>,
    events: RwLock<BTreeMap<EventSlug, Arc<Known>>>,
    /// Counts changes of the events; its watchers wake at each.
    changed: watch::Sender<u64>,
    observed: Mutex<Observed>,
}

/// What a [`Control`] is made of.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    pub(crate) local: SocketAddr,
    /// What addresses of our doors begin with: `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The certificate of our door, if it has one.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) doors: Option<Doors>,
    pub(crate) addresses: PathBuf,
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
            store,
            objects,
            keys,
            operator,
            hears_since,
        } = parts;
        let publisher = keys.publisher()?;
        let events = store.events(config.events_max).await?;
        let events = events
            .into_iter()
            .map(|event| (event.slug.clone(), Arc::new(Known::new(event, &publisher))))
            .collect();
        let observed = Observed::new(store.progress().await?, hears_since);
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
        self.observed().standing(event, Instant::now())
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
    pub(crate) fn doors(&self) -> Option<Doors> {
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
