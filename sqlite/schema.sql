-- What Freehold keeps in a service's SQLite database, beside the service's own
-- tables. Payloads are the JSON text of the events; times are microseconds since
-- 1970 UTC; hashes are 32 bytes. Schema version 1.

CREATE TABLE freehold_journal (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  source  TEXT    NOT NULL,
  epoch   TEXT    NOT NULL,
  version INTEGER NOT NULL, -- of this schema
  listed  INTEGER NOT NULL  -- freehold_stream has every stream that began up to this position
);

-- One row for each opening of the journal for writing.
CREATE TABLE freehold_incarnation (
  number   INTEGER PRIMARY KEY,
  id       TEXT    NOT NULL UNIQUE,
  position INTEGER NOT NULL,
  chain    BLOB    NOT NULL,
  time     INTEGER NOT NULL
);

-- The journal. A stream's number is the position of its first event: numbers grow
-- with the journal, so a new event touches the end of the index and not a random
-- page of it, as the stream's name would.
CREATE TABLE freehold_event (
  position    INTEGER PRIMARY KEY,
  stream      INTEGER NOT NULL, -- its number
  version     INTEGER NOT NULL,
  stream_name TEXT    NOT NULL,
  type        TEXT    NOT NULL,
  schema      INTEGER NOT NULL, -- version of the type
  time        INTEGER NOT NULL,
  id          TEXT    NOT NULL,
  incarnation INTEGER NOT NULL, -- number in freehold_incarnation
  internal    INTEGER NOT NULL, -- 1: never leaves the service
  last        INTEGER NOT NULL, -- 1: the last event of its transaction
  meta        TEXT,             -- JSON
  payload     TEXT    NOT NULL, -- JSON
  nonce       BLOB    NOT NULL,
  digest      BLOB    NOT NULL,
  chain       BLOB    NOT NULL
);
CREATE UNIQUE INDEX freehold_event_stream ON freehold_event (stream, version);

-- History is only ever added to. REPLACE deletes a row too: Open sets
-- recursive_triggers, without which it would pass these triggers by.
CREATE TRIGGER freehold_event_no_update BEFORE UPDATE ON freehold_event
BEGIN SELECT RAISE(ABORT, 'freehold_event is insert-only: append another event'); END;
CREATE TRIGGER freehold_event_no_delete BEFORE DELETE ON freehold_event
BEGIN SELECT RAISE(ABORT, 'freehold_event is insert-only: append another event'); END;
CREATE TRIGGER freehold_incarnation_no_update BEFORE UPDATE ON freehold_incarnation
BEGIN SELECT RAISE(ABORT, 'freehold_incarnation is insert-only'); END;
CREATE TRIGGER freehold_incarnation_no_delete BEFORE DELETE ON freehold_incarnation
BEGIN SELECT RAISE(ABORT, 'freehold_incarnation is insert-only'); END;

-- The streams by name. Rows are added in bulk and in the order of names, some time
-- after a stream began; until then it is found among the latest events.
CREATE TABLE freehold_stream (
  name   TEXT    PRIMARY KEY,
  number INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE freehold_mark (
  follower TEXT    NOT NULL,
  source   TEXT    NOT NULL,
  epoch    TEXT    NOT NULL,
  position INTEGER NOT NULL,
  chain    BLOB    NOT NULL,
  PRIMARY KEY (follower, source)
) WITHOUT ROWID;

-- What followers keep: parked events, saga instances, snapshots, counts of starts.
CREATE TABLE freehold_keep (
  space TEXT NOT NULL,
  key   TEXT NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (space, key)
) WITHOUT ROWID;

-- The service's own migrations that have been applied.
CREATE TABLE freehold_migration (
  name   TEXT    PRIMARY KEY,
  digest BLOB    NOT NULL,
  time   INTEGER NOT NULL
) WITHOUT ROWID;
