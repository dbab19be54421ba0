-- What Freehold keeps in a service's SQLite database, beside the service's own
-- tables. Payloads are the JSON text of the events; times are microseconds since
-- 1970 UTC; hashes are 32 bytes. Schema version 1.

CREATE TABLE freehold_journal (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  source  TEXT    NOT NULL,
  epoch   TEXT    NOT NULL,
  version INTEGER NOT NULL -- of this schema
);

-- One row for each opening of the journal for writing.
CREATE TABLE freehold_incarnation (
  number   INTEGER PRIMARY KEY,
  id       TEXT    NOT NULL UNIQUE,
  position INTEGER NOT NULL,
  chain    BLOB    NOT NULL,
  time     INTEGER NOT NULL
);

-- Stream ids are mostly random text. Events refer to a number given in order of
-- creation, so that a new event touches the end of the index on events and not a
-- random page of it; only a new stream touches a random page, of the index here.
CREATE TABLE freehold_stream (
  id   INTEGER PRIMARY KEY,
  name TEXT    NOT NULL UNIQUE
);

CREATE TABLE freehold_event (
  position    INTEGER PRIMARY KEY,
  stream      INTEGER NOT NULL,
  version     INTEGER NOT NULL,
  stream_name TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  type        TEXT    NOT NULL,
  schema      INTEGER NOT NULL,
  time        INTEGER NOT NULL,
  incarnation TEXT    NOT NULL,
  flags       INTEGER NOT NULL, -- 1 internal, 2 last of its transaction
  meta        TEXT    NOT NULL, -- JSON, or empty
  payload     TEXT    NOT NULL, -- JSON
  nonce       BLOB    NOT NULL,
  digest      BLOB    NOT NULL,
  chain       BLOB    NOT NULL
);
CREATE UNIQUE INDEX freehold_event_stream ON freehold_event (stream, version);

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
