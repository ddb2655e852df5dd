//! The store in SQLite.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use admission::ticket::TicketId;
use async_trait::async_trait;
use model::{
    Bilingual, Digest, Event, EventSlug, GreenRoom, InviteId, Role, Seat, SeatId, ShowState, UnixTime,
};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row as _, SqlSafeStr as _, SqliteConnection, SqlitePool};

use super::{OperatorOrders, Progress, Store, StoreError};

/// Every change of the tables there ever was, in order. One that has been released is never edited.
const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("migrations/0001_events.sql")),
    ("orders", include_str!("migrations/0002_orders.sql")),
];

/// The store in one SQLite file, write-ahead logged, every commit synced to the disk. Cloning shares it.
///
/// It uses one connection: control is the only writer and keeps what it reads often in memory, so there is nothing to
/// wait for, and no lock to lose against itself.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, makes it if needed, and brings its tables up to date.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await?;
        migrator().run(&pool).await?;
        Ok(Self { pool })
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.into_iter().zip(1..).map(|((name, sql), version)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, event: &Event) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO events (slug, revision, title_ar, title_en, starts_at, duration_ms, doors_before_ms, \
             auto_live, attended, hold_on_silence, slate, invite_key, signing_key, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(event.slug.as_str())
        .bind(signed(event.revision))
        .bind(&event.title.ar)
        .bind(&event.title.en)
        .bind(event.starts_at.as_nanos())
        .bind(event.duration.map(millis))
        .bind(millis(event.doors_before))
        .bind(event.auto_live)
        .bind(event.green_room == GreenRoom::Attended)
        .bind(event.hold_on_silence)
        .bind(event.slate.map(|Digest(digest)| digest.to_vec()))
        .bind(&event.invite_key[..])
        .bind(&event.signing_key[..])
        .bind(event.created_at.as_nanos())
        .execute(&mut *transaction)
        .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(StoreError::SlugTaken { slug: event.slug.clone() });
            }
            inserted => _ = inserted?,
        }
        insert_seats(&mut transaction, event).await?;
        Ok(transaction.commit().await?)
    }

    async fn event(&self, slug: &EventSlug) -> Result<Option<Event>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("SELECT * FROM events WHERE slug = ?").bind(slug.as_str());
        let Some(row) = row.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        let seats = seats_of(&mut transaction, slug).await?;
        read_event(&row, seats).map(Some)
    }

    async fn events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query("SELECT * FROM events ORDER BY starts_at DESC, slug LIMIT ?").bind(limit);
        let rows = rows.fetch_all(&mut *transaction).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let slug = read_slug(&row, "slug")?;
            let seats = seats_of(&mut transaction, &slug).await?;
            events.push(read_event(&row, seats)?);
        }
        Ok(events)
    }

    async fn update(&self, event: &Event, expected: u64) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let slug = event.slug.as_str();
        let updated = sqlx::query(
            "UPDATE events SET revision = ?, title_ar = ?, title_en = ?, starts_at = ?, duration_ms = ?, \
             doors_before_ms = ?, auto_live = ?, attended = ?, hold_on_silence = ?, slate = ?, invite_key = ?, \
             signing_key = ? WHERE slug = ? AND revision = ? AND revision < ?",
        )
        .bind(signed(event.revision))
        .bind(&event.title.ar)
        .bind(&event.title.en)
        .bind(event.starts_at.as_nanos())
        .bind(event.duration.map(millis))
        .bind(millis(event.doors_before))
        .bind(event.auto_live)
        .bind(event.green_room == GreenRoom::Attended)
        .bind(event.hold_on_silence)
        .bind(event.slate.map(|Digest(digest)| digest.to_vec()))
        .bind(&event.invite_key[..])
        .bind(&event.signing_key[..])
        .bind(slug)
        .bind(signed(expected))
        .bind(signed(event.revision))
        .execute(&mut *transaction)
        .await?;
        if updated.rows_affected() == 0 {
            let there = sqlx::query("SELECT revision FROM events WHERE slug = ?").bind(slug);
            let there = there.fetch_optional(&mut *transaction).await?.ok_or(StoreError::Unknown)?;
            return Err(StoreError::Conflict { current: unsigned(there.try_get("revision")?, "revision")? });
        }
        sqlx::query("DELETE FROM seats WHERE event = ?").bind(slug).execute(&mut *transaction).await?;
        insert_seats(&mut transaction, event).await?;
        Ok(transaction.commit().await?)
    }

    async fn note_progress(&self, slug: &EventSlug, progress: &Progress) -> Result<(), StoreError> {
        let (until, message) = match &progress.state {
            ShowState::Hold { until, message } => (*until, message.clone()),
            _ => (None, Bilingual::default()),
        };
        let noted = sqlx::query(
            "INSERT INTO progress (event, state, hold_until, hold_message_ar, hold_message_en, doors_at, live_at, \
             ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (event) DO UPDATE SET state = excluded.state, hold_until = excluded.hold_until, \
             hold_message_ar = excluded.hold_message_ar, hold_message_en = excluded.hold_message_en, \
             doors_at = excluded.doors_at, live_at = excluded.live_at, ended_at = excluded.ended_at \
             WHERE progress.state <> 'ended'",
        )
        .bind(slug.as_str())
        .bind(progress.state.name())
        .bind(until.map(UnixTime::as_nanos))
        .bind(message.ar)
        .bind(message.en)
        .bind(progress.doors_at.map(UnixTime::as_nanos))
        .bind(progress.live_at.map(UnixTime::as_nanos))
        .bind(progress.ended_at.map(UnixTime::as_nanos))
        .execute(&self.pool)
        .await;
        match noted {
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Err(StoreError::Unknown),
            noted => Ok(noted.map(|_| ())?),
        }
    }

    async fn progress(&self) -> Result<Vec<(EventSlug, Progress)>, StoreError> {
        let rows = sqlx::query("SELECT * FROM progress ORDER BY event").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((read_slug(row, "event")?, read_progress(row)?))).collect()
    }

    async fn orders(&self) -> Result<OperatorOrders, StoreError> {
        let row = sqlx::query("SELECT pin, cap FROM orders").fetch_one(&self.pool).await?;
        let cap: Option<i64> = row.try_get("cap")?;
        Ok(OperatorOrders { pin: row.try_get("pin")?, cap: cap.map(|cap| unsigned(cap, "cap")).transpose()? })
    }

    async fn note_orders(&self, orders: OperatorOrders) -> Result<(), StoreError> {
        sqlx::query("UPDATE orders SET pin = ?, cap = ?")
            .bind(orders.pin)
            .bind(orders.cap.map(signed))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn revocations(&self, now: UnixTime) -> Result<Vec<(TicketId, UnixTime)>, StoreError> {
        sqlx::query("DELETE FROM revocations WHERE expires < ?")
            .bind(now.as_nanos())
            .execute(&self.pool)
            .await?;
        let rows = sqlx::query("SELECT ticket, expires FROM revocations ORDER BY ticket");
        let rows = rows.fetch_all(&self.pool).await?;
        let read = |row: &SqliteRow| {
            let ticket = TicketId(array(row.try_get("ticket")?, "ticket")?);
            Ok((ticket, UnixTime::from_nanos(row.try_get("expires")?)))
        };
        rows.iter().map(read).collect()
    }

    async fn note_revocation(&self, ticket: TicketId, expires: UnixTime) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO revocations (ticket, expires) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&ticket.0[..])
            .bind(expires.as_nanos())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }
}

async fn insert_seats(connection: &mut SqliteConnection, event: &Event) -> Result<(), StoreError> {
    for seat in &event.seats {
        sqlx::query("INSERT INTO seats (event, seat, role, name, invite, revoked) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(event.slug.as_str())
            .bind(seat.id.0)
            .bind(seat.role.name())
            .bind(&seat.name)
            .bind(&seat.invite.0[..])
            .bind(seat.revoked)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn seats_of(connection: &mut SqliteConnection, slug: &EventSlug) -> Result<Vec<Seat>, StoreError> {
    let rows =
        sqlx::query("SELECT seat, role, name, invite, revoked FROM seats WHERE event = ? ORDER BY seat")
            .bind(slug.as_str())
            .fetch_all(connection)
            .await?;
    rows.iter().map(read_seat).collect()
}

fn read_event(row: &SqliteRow, seats: Vec<Seat>) -> Result<Event, StoreError> {
    let duration: Option<i64> = row.try_get("duration_ms")?;
    let slate: Option<Vec<u8>> = row.try_get("slate")?;
    Ok(Event {
        slug: read_slug(row, "slug")?,
        revision: unsigned(row.try_get("revision")?, "revision")?,
        title: Bilingual { ar: row.try_get("title_ar")?, en: row.try_get("title_en")? },
        starts_at: UnixTime::from_nanos(row.try_get("starts_at")?),
        duration: duration.map(|ms| unsigned(ms, "duration_ms").map(Duration::from_millis)).transpose()?,
        doors_before: Duration::from_millis(unsigned(row.try_get("doors_before_ms")?, "doors_before_ms")?),
        auto_live: row.try_get("auto_live")?,
        green_room: if row.try_get("attended")? { GreenRoom::Attended } else { GreenRoom::Open },
        hold_on_silence: row.try_get("hold_on_silence")?,
        slate: slate.map(|digest| array(digest, "slate").map(Digest)).transpose()?,
        invite_key: array(row.try_get("invite_key")?, "invite_key")?,
        signing_key: array(row.try_get("signing_key")?, "signing_key")?,
        seats,
        created_at: UnixTime::from_nanos(row.try_get("created_at")?),
    })
}

fn read_seat(row: &SqliteRow) -> Result<Seat, StoreError> {
    let role: String = row.try_get("role")?;
    Ok(Seat {
        id: SeatId(row.try_get("seat")?),
        role: Role::from_name(&role).ok_or_else(|| StoreError::Damaged(format!("role {role:?}")))?,
        name: row.try_get("name")?,
        invite: InviteId(array(row.try_get("invite")?, "invite")?),
        revoked: row.try_get("revoked")?,
    })
}

fn read_progress(row: &SqliteRow) -> Result<Progress, StoreError> {
    let moment =
        |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(UnixTime::from_nanos));
    let name: String = row.try_get("state")?;
    let state = match name.as_str() {
        "scheduled" => ShowState::Scheduled,
        "doors" => ShowState::Doors,
        "live" => ShowState::Live,
        "hold" => ShowState::Hold {
            until: moment("hold_until")?,
            message: Bilingual { ar: row.try_get("hold_message_ar")?, en: row.try_get("hold_message_en")? },
        },
        "ended" => ShowState::Ended,
        _ => return Err(StoreError::Damaged(format!("state {name:?}"))),
    };
    Ok(Progress {
        state,
        doors_at: moment("doors_at")?,
        live_at: moment("live_at")?,
        ended_at: moment("ended_at")?,
    })
}

fn read_slug(row: &SqliteRow, column: &str) -> Result<EventSlug, StoreError> {
    let slug: String = row.try_get(column)?;
    slug.parse().map_err(|_| StoreError::Damaged(format!("slug {slug:?}")))
}

fn array<const N: usize>(bytes: Vec<u8>, column: &str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged(format!("{column} has not {N} bytes")))
}

fn unsigned(value: i64, column: &str) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Damaged(format!("{column} is negative")))
}

/// SQLite's integers end where ours go on; nothing of ours comes near.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(slug: &str, starts_at_s: i64) -> Event {
        let seat = |id, role| Seat {
            id: SeatId(id),
            role,
            name: format!("Speaker {id}"),
            invite: InviteId([id as u8; 8]),
            revoked: false,
        };
        Event {
            slug: slug.parse().unwrap(),
            revision: 1,
            title: Bilingual { ar: "حديث".into(), en: "Talk <b>".into() },
            starts_at: UnixTime::from_millis(starts_at_s * 1_000),
            duration: Some(Duration::from_secs(3_600)),
            doors_before: Duration::from_secs(900),
            auto_live: true,
            green_room: GreenRoom::Attended,
            hold_on_silence: true,
            slate: Some(Digest([3; 32])),
            invite_key: [1; 32],
            signing_key: [2; 32],
            seats: vec![seat(0, Role::Host), seat(1, Role::CoHost), seat(2, Role::Speaker)],
            created_at: UnixTime::from_millis(1_000),
        }
    }

    #[tokio::test]
    async fn orders_are_none_until_they_are_given_and_then_survive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minassa.db");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.orders().await.unwrap(), OperatorOrders::default());
        let orders = OperatorOrders { pin: Some(3), cap: Some(9_000_000_000) };
        store.note_orders(orders).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.orders().await.unwrap(), orders);
        let moment = |second: i64| UnixTime::from_millis(second * 1_000);
        for (n, expires) in [(1, 100), (2, 200), (2, 300)] {
            store.note_revocation(TicketId([n; 8]), moment(expires)).await.unwrap();
        }
        let known = [(TicketId([1; 8]), moment(100)), (TicketId([2; 8]), moment(200))];
        assert_eq!(store.revocations(moment(100)).await.unwrap(), known);
        assert_eq!(store.revocations(moment(101)).await.unwrap(), known[1..]);
        store.note_orders(OperatorOrders::default()).await.unwrap();
        assert_eq!(store.orders().await.unwrap(), OperatorOrders::default());
    }

    #[tokio::test]
    async fn everything_survives_closing_and_opening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minassa.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let (first, mut second) = (event("first", 100), event("second", 200));
        second.duration = None;
        second.slate = None;
        second.seats.clear();
        store.create(&first).await.unwrap();
        store.create(&second).await.unwrap();
        let message = Bilingual { ar: "لحظة".into(), en: "A moment".into() };
        let hold = Progress {
            state: ShowState::Hold { until: Some(UnixTime::from_millis(5)), message },
            doors_at: Some(UnixTime::from_millis(1)),
            live_at: Some(UnixTime::from_millis(2)),
            ended_at: None,
        };
        store.note_progress(&first.slug, &hold).await.unwrap();
        store.pool.close().await;

        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.events(10).await.unwrap(), [second.clone(), first.clone()]);
        assert_eq!(store.events(1).await.unwrap(), [second]);
        assert_eq!(store.event(&first.slug).await.unwrap(), Some(first.clone()));
        assert_eq!(store.event(&"third".parse().unwrap()).await.unwrap(), None);
        assert_eq!(store.progress().await.unwrap(), [(first.slug, hold)]);
        store.ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_change_needs_the_revision_it_was_made_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("minassa.db")).await.unwrap();
        let mut changed = event("a", 100);
        store.create(&changed).await.unwrap();
        assert!(matches!(store.create(&changed).await, Err(StoreError::SlugTaken { .. })));
        changed.revision = 2;
        changed.title.en = "Another".into();
        changed.seats[1].revoked = true;
        changed.seats.pop();
        store.update(&changed, 1).await.unwrap();
        assert_eq!(store.event(&changed.slug).await.unwrap(), Some(changed.clone()));
        let again = store.update(&changed, 1).await;
        assert!(matches!(again, Err(StoreError::Conflict { current: 2 })), "{again:?}");
        let same = store.update(&changed, 2).await;
        assert!(matches!(same, Err(StoreError::Conflict { current: 2 })), "a revision grows: {same:?}");
        assert!(matches!(store.update(&event("b", 1), 1).await, Err(StoreError::Unknown)));
    }

    #[tokio::test]
    async fn what_has_ended_stays_ended() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("minassa.db")).await.unwrap();
        let event = event("a", 100);
        store.create(&event).await.unwrap();
        let mut progress = Progress {
            state: ShowState::Ended,
            doors_at: None,
            live_at: None,
            ended_at: Some(event.starts_at),
        };
        store.note_progress(&event.slug, &progress).await.unwrap();
        progress.state = ShowState::Live;
        store.note_progress(&event.slug, &progress).await.unwrap();
        assert_eq!(store.progress().await.unwrap()[0].1.state, ShowState::Ended);
        let unknown = store.note_progress(&"b".parse().unwrap(), &progress).await;
        assert!(matches!(unknown, Err(StoreError::Unknown)));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minassa.db");
        std::fs::write(&path, "this is no database, but long enough to look like one".repeat(100)).unwrap();
        assert!(SqliteStore::open(&path).await.is_err());
        assert!(SqliteStore::open(&directory.path().join("none/minassa.db")).await.is_err());
    }
}
