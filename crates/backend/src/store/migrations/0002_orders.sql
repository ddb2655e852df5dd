-- What the operator wants of the ladder: one row.
CREATE TABLE orders (
    id    INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    pin   INTEGER,
    cap   INTEGER
) STRICT;

INSERT INTO orders (id, pin, cap) VALUES (1, NULL, NULL);

-- Tickets that open no door any more, until they would have ended.
CREATE TABLE revocations (
    ticket  BLOB PRIMARY KEY NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
