//! Events as control names them: taken, frozen to the disk, and handed to the media thread.
//!
//! Control says everything it knows every second. Nothing here waits for control: what was frozen is served without
//! it, and an event that control no longer names goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backend::bus::{Bus as _, UnixBus};
use backend::objects::{DirectoryObjects, ObjectKey, ObjectKind, Objects as _};
use backend::wire::{self, Events};
use model::{Digest, Event, EventSlug, Part};
use programme::slate::Slate;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::counters;
use crate::media::{Order, Registration};
use crate::recovery::{self, Found, Recovery, Unservable};

/// Most events served at once.
const EVENTS_MAX: usize = 4_096;
/// Pause before a slate that could not be had is tried again.
const SLATE_RETRY: Duration = Duration::from_secs(2);
/// Pause before an event that cannot be served is looked at again.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// What came of fetching a slate.
enum Fetched {
    Slate(Slate),
    /// Not to be had now.
    Missing(String),
    /// There, and no use.
    Unusable(String),
}

/// Keeps the events of this origin.
pub(crate) struct Keeper {
    recovery: Arc<Recovery>,
    bus: UnixBus,
    objects: DirectoryObjects,
    orders: mpsc::Sender<Order>,
    /// Revisions in force. Events that cannot be served are here too, so that they are reported once.
    known: BTreeMap<EventSlug, u64>,
    /// The custom slate in force, or being fetched.
    slates: BTreeMap<EventSlug, Digest>,
    fetching: JoinSet<(EventSlug, Digest, Fetched)>,
    retries: Vec<(Instant, EventSlug, Digest)>,
    /// Events that could not be served, and when they are looked at again.
    refused: BTreeMap<EventSlug, Instant>,
}

impl Keeper {
    pub(crate) fn new(
        recovery: Arc<Recovery>,
        bus: UnixBus,
        objects: DirectoryObjects,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self {
            recovery,
            bus,
            objects,
            orders,
            known: BTreeMap::new(),
            slates: BTreeMap::new(),
            fetching: JoinSet::new(),
            retries: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Puts every event of the disk on the media thread, with what the edges still hold.
    ///
    /// # Errors
    /// If the directory of events cannot be read.
    pub(crate) async fn recover(&mut self, patience: Duration) -> anyhow::Result<()> {
        let recovery = self.recovery.clone();
        let found = spawn_blocking(move || recovery.read_all()).await??;
        let mut held = recovery::ask_edges(&self.bus, &found, patience).await;
        for event in found {
            let parts = held.remove(event.slug()).unwrap_or_default();
            self.register(event, parts).await?;
        }
        Ok(())
    }

    /// Follows control for ever.
    pub(crate) async fn follow(mut self) {
        let mut topic = self.bus.subscribe("control", "events", None);
        loop {
            let retry = self.retries.iter().map(|(at, ..)| *at).min();
            let waiting = async {
                match retry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = topic.next() => match message {
                    Some(message) => self.take(&message.payload).await,
                    None => return,
                },
                Some(fetched) = self.fetching.join_next() => {
                    if let Ok((slug, digest, slate)) = fetched {
                        self.fetched(slug, digest, slate).await;
                    }
                }
                () = waiting => self.retry(),
            }
        }
    }

    async fn take(&mut self, payload: &[u8]) {
        let events: Events = match wire::decode(payload) {
            Ok(events) => events,
            Err(error) => {
                counters::BUS_DAMAGED.increment();
                tracing::warn!(%error, "control's events cannot be read");
                return;
            }
        };
        for record in events.events.into_iter().take(EVENTS_MAX) {
            let slug = record.slug.clone();
            if self.refused.get(&slug).is_some_and(|later| Instant::now() < *later)
                || self.known.get(&slug).is_some_and(|known| *known >= record.revision)
            {
                continue;
            }
            match Event::try_from(record) {
                Ok(event) => self.update(event).await,
                Err(error) => {
                    counters::EVENTS_REFUSED.increment();
                    tracing::warn!(event = %slug, %error, "an event of control cannot be read");
                }
            }
        }
    }

    /// Takes an event that is new or was changed.
    async fn update(&mut self, event: Event) {
        let is_new = !self.known.contains_key(&event.slug);
        if is_new && self.known.len() >= EVENTS_MAX {
            counters::EVENTS_REFUSED.increment();
            return;
        }
        self.known.insert(event.slug.clone(), event.revision);
        let (recovery, changed) = (self.recovery.clone(), event.clone());
        let prepared = spawn_blocking(move || {
            // An event that cannot be served leaves no trace on the disk.
            let found = if is_new { Some(recovery.begin(changed.clone())?) } else { None };
            if let Err(error) = recovery.files.freeze(&changed) {
                tracing::error!(event = %changed.slug, %error, "the event could not be frozen to the disk");
            }
            Ok::<_, Unservable>(found)
        });
        match prepared.await {
            Ok(Ok(Some(found))) => _ = self.register(found, BTreeMap::new()).await,
            Ok(Ok(None)) => {
                self.slate_of(&event).await;
                _ = self.orders.send(Order::Update(Box::new(event))).await;
            }
            Ok(Err(Unservable::Stale)) => {}
            Ok(Err(error)) => {
                counters::EVENTS_REFUSED.increment();
                tracing::error!(event = %event.slug, %error, "an event cannot be served; it is tried again");
                self.known.remove(&event.slug);
                self.refused.insert(event.slug, Instant::now() + REFUSED_RETRY);
            }
            Err(error) => tracing::error!(%error, "an event could not be prepared"),
        }
    }

    async fn register(
        &mut self,
        found: Found,
        held: BTreeMap<model::PartNumber, Part>,
    ) -> anyhow::Result<()> {
        let event = found.event().clone();
        self.known.insert(event.slug.clone(), event.revision);
        let recovery = self.recovery.clone();
        let (registration, window): (Registration, Vec<Part>) =
            spawn_blocking(move || recovery.resume(found, held)).await?;
        let topic = format!("parts/{}", event.slug);
        for part in &window {
            self.bus.publish(&topic, part.number.get(), wire::encode_part(part));
        }
        self.orders
            .send(Order::Register(Box::new(registration)))
            .await
            .map_err(|_| anyhow::anyhow!("the media thread is gone"))?;
        self.slate_of(&event).await;
        Ok(())
    }

    /// Sees to it that the event has the slate it names.
    async fn slate_of(&mut self, event: &Event) {
        match event.slate {
            Some(digest) if self.slates.get(&event.slug) != Some(&digest) => {
                self.slates.insert(event.slug.clone(), digest);
                self.fetch(event.slug.clone(), digest);
            }
            None if self.slates.remove(&event.slug).is_some() => {
                let slate = recovery::WAITING.clone();
                let _ = self.orders.send(Order::Slate { event: event.slug.clone(), slate }).await;
            }
            _ => {}
        }
    }

    fn fetch(&mut self, slug: EventSlug, digest: Digest) {
        let objects = self.objects.clone();
        self.fetching.spawn(async move {
            let key = ObjectKey { kind: ObjectKind::Slate, digest };
            let slate = match objects.read(&key).await {
                Ok(Some(file)) => match spawn_blocking(move || Slate::decode(&file)).await {
                    Ok(Ok(slate)) => Fetched::Slate(slate),
                    Ok(Err(error)) => Fetched::Unusable(error.to_string()),
                    Err(error) => Fetched::Unusable(error.to_string()),
                },
                Ok(None) => Fetched::Missing("it is not there yet".to_owned()),
                Err(error) => Fetched::Missing(error.to_string()),
            };
            (slug, digest, slate)
        });
    }

    async fn fetched(&mut self, slug: EventSlug, digest: Digest, slate: Fetched) {
        if self.slates.get(&slug) != Some(&digest) {
            return;
        }
        match slate {
            Fetched::Slate(slate) => _ = self.orders.send(Order::Slate { event: slug, slate }).await,
            Fetched::Missing(reason) => {
                tracing::warn!(event = %slug, reason, "the slate cannot be had; the default one plays meanwhile");
                self.retries.push((Instant::now() + SLATE_RETRY, slug, digest));
            }
            Fetched::Unusable(reason) => {
                tracing::error!(event = %slug, reason, "the slate cannot be played; the default one plays instead");
            }
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.retries).into_iter().partition(|(at, ..)| *at <= now);
        self.retries = later;
        for (_, slug, digest) in Vec::from_iter::<Vec<(Instant, EventSlug, Digest)>>(due) {
            if self.slates.get(&slug) == Some(&digest) {
                self.fetch(slug, digest);
            }
        }
    }
}
