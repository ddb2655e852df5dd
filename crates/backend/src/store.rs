//! Events and their seats, kept by control alone.

mod sqlite;

use admission::ticket::TicketId;
use async_trait::async_trait;
use model::{Event, EventSlug, ShowState, UnixTime};

pub use sqlite::SqliteStore;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An event of this name exists.
    #[error("there is an event called {slug} already")]
    SlugTaken {
        /// Its name.
        slug: EventSlug,
    },
    /// Somebody else changed the event in between.
    #[error("the event has revision {current} by now")]
    Conflict {
        /// The revision it has.
        current: u64,
    },
    /// There is no such event.
    #[error("there is no such event")]
    Unknown,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's own tables could not be brought up to date.
    #[error("the database cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what no version of ours writes.
    #[error("the database holds what it should not: {0}")]
    Damaged(String),
}

/// How far a show has come, kept so that a page can tell when origin no longer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: ShowState,
    /// When doors opened.
    pub doors_at: Option<UnixTime>,
    /// When it first went live.
    pub live_at: Option<UnixTime>,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
}

/// What the operator wants of the ladder, whatever is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorOrders {
    /// The level to stand at, 0 to 6.
    pub pin: Option<u8>,
    /// At most so many live listeners.
    pub cap: Option<u64>,
}

/// A place for events. Every call is one transaction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds an event with its seats.
    ///
    /// # Errors
    /// [`StoreError::SlugTaken`], or the database's.
    async fn create(&self, event: &Event) -> Result<(), StoreError>;

    /// One event; `None` if there is none of this name.
    ///
    /// # Errors
    /// The database's.
    async fn event(&self, slug: &EventSlug) -> Result<Option<Event>, StoreError>;

    /// Every event, latest start first, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    async fn events(&self, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// Replaces an event and its seats if its revision still is `expected`; `event.revision` must be greater.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Unknown`], or the database's.
    async fn update(&self, event: &Event, expected: u64) -> Result<(), StoreError>;

    /// Notes how far a show has come. An ended show stays ended.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], or the database's.
    async fn note_progress(&self, slug: &EventSlug, progress: &Progress) -> Result<(), StoreError>;

    /// How far every show has come that has begun.
    ///
    /// # Errors
    /// The database's.
    async fn progress(&self) -> Result<Vec<(EventSlug, Progress)>, StoreError>;

    /// What the operator wants of the ladder; nothing, until it was noted.
    ///
    /// # Errors
    /// The database's.
    async fn orders(&self) -> Result<OperatorOrders, StoreError>;

    /// Notes what the operator wants of the ladder.
    ///
    /// # Errors
    /// The database's.
    async fn note_orders(&self, orders: OperatorOrders) -> Result<(), StoreError>;

    /// Tickets that were revoked and would still open doors at `now`, and until when. The others are forgotten.
    ///
    /// # Errors
    /// The database's.
    async fn revocations(&self, now: UnixTime) -> Result<Vec<(TicketId, UnixTime)>, StoreError>;

    /// Notes that a ticket was revoked; it would have opened doors until `expires`.
    ///
    /// # Errors
    /// The database's.
    async fn note_revocation(&self, ticket: TicketId, expires: UnixTime) -> Result<(), StoreError>;

    /// Whether the store answers.
    ///
    /// # Errors
    /// The database's.
    async fn ping(&self) -> Result<(), StoreError>;
}
