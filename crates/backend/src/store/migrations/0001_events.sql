-- Moments are nanoseconds since 1970, lengths milliseconds, keys and digests raw bytes.
CREATE TABLE events (
    slug            TEXT PRIMARY KEY NOT NULL,
    revision        INTEGER NOT NULL,
    title_ar        TEXT NOT NULL,
    title_en        TEXT NOT NULL,
    starts_at       INTEGER NOT NULL,
    duration_ms     INTEGER,
    doors_before_ms INTEGER NOT NULL,
    auto_live       INTEGER NOT NULL,
    attended        INTEGER NOT NULL,
    hold_on_silence INTEGER NOT NULL,
    slate           BLOB,
    invite_key      BLOB NOT NULL,
    signing_key     BLOB NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX events_by_start ON events (starts_at);

CREATE TABLE seats (
    event   TEXT NOT NULL REFERENCES events (slug) ON DELETE CASCADE,
    seat    INTEGER NOT NULL,
    role    TEXT NOT NULL,
    name    TEXT NOT NULL,
    invite  BLOB NOT NULL,
    revoked INTEGER NOT NULL,
    PRIMARY KEY (event, seat)
) STRICT, WITHOUT ROWID;

-- How far a show has come, as origin last reported it.
CREATE TABLE progress (
    event           TEXT PRIMARY KEY NOT NULL REFERENCES events (slug) ON DELETE CASCADE,
    state           TEXT NOT NULL,
    hold_until      INTEGER,
    hold_message_ar TEXT NOT NULL,
    hold_message_en TEXT NOT NULL,
    doors_at        INTEGER,
    live_at         INTEGER,
    ended_at        INTEGER
) STRICT, WITHOUT ROWID;
