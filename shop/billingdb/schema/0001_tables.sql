-- Tables of the Billing service, for SQLite and PostgreSQL alike. Money is whole
-- thousandths in BIGINT, times are microseconds since 1970 in BIGINT.

-- What is known of the payment of each order: the facts, and the call to the
-- provider that is in flight. The only table here whose rows change, with refund.
CREATE TABLE payment (
	order_id    TEXT    NOT NULL PRIMARY KEY,
	reference   TEXT    NOT NULL,
	customer    TEXT    NOT NULL,
	country     TEXT    NOT NULL,
	currency    TEXT    NOT NULL,
	business_at BIGINT  NOT NULL,
	placed      BOOLEAN NOT NULL,
	total       BIGINT  NOT NULL CHECK (total >= 0),
	simulate    TEXT    NOT NULL,
	confirmed   BOOLEAN NOT NULL,
	amount      BIGINT  NOT NULL CHECK (amount >= 0),
	ended       TEXT    NOT NULL, -- rejected, cancelled or empty
	hold        TEXT    NOT NULL, -- held, refused, released, charged or empty
	captured    BIGINT  NOT NULL CHECK (captured >= 0),
	voided      BIGINT  NOT NULL CHECK (voided >= 0),
	reason      TEXT    NOT NULL,
	call        TEXT    NOT NULL, -- last part of the key of the call in flight, or empty
	called      BOOLEAN NOT NULL,
	expires_at  BIGINT  NOT NULL, -- of an unclaimed hold, 0 if there is none
	refunds     BIGINT  NOT NULL, -- rows in refund
	revision    BIGINT  NOT NULL, -- random, another one at each change
	changed_at  BIGINT  NOT NULL,
	CHECK (captured + voided <= total)
);

-- Holds that nobody has claimed, by the time at which they are given up.
CREATE INDEX payment_expiry ON payment (expires_at) WHERE expires_at > 0;

-- Reasons to pay back, by order and return; return_id is empty for the cancellation.
CREATE TABLE refund (
	order_id  TEXT   NOT NULL,
	return_id TEXT   NOT NULL,
	place     BIGINT NOT NULL, -- order of arrival
	asked     BIGINT NOT NULL CHECK (asked >= 0),
	amount    BIGINT NOT NULL CHECK (amount >= 0),
	state     TEXT   NOT NULL,
	PRIMARY KEY (order_id, return_id)
);

-- The series of document numbers of each epoch of the journal.
CREATE TABLE document_series (
	kind   TEXT NOT NULL, -- INV or CN
	epoch  TEXT NOT NULL,
	series TEXT NOT NULL UNIQUE,
	PRIMARY KEY (kind, epoch)
);

-- Invoices. Rows are only ever inserted, with the next number of their series.
CREATE TABLE invoice (
	series      TEXT   NOT NULL,
	number      BIGINT NOT NULL CHECK (number > 0),
	order_id    TEXT   NOT NULL UNIQUE,
	reference   TEXT   NOT NULL,
	customer    TEXT   NOT NULL,
	country     TEXT   NOT NULL,
	currency    TEXT   NOT NULL,
	business_at BIGINT NOT NULL,
	amount      BIGINT NOT NULL CHECK (amount >= 0),
	issued_at   BIGINT NOT NULL,
	PRIMARY KEY (series, number)
);

-- Credit notes. Rows are only ever inserted, with the next number of their series.
CREATE TABLE credit_note (
	series      TEXT   NOT NULL,
	number      BIGINT NOT NULL CHECK (number > 0),
	order_id    TEXT   NOT NULL, -- empty for a return without an order
	return_id   TEXT   NOT NULL, -- empty for a cancelled order
	reference   TEXT   NOT NULL,
	customer    TEXT   NOT NULL,
	country     TEXT   NOT NULL,
	currency    TEXT   NOT NULL,
	business_at BIGINT NOT NULL,
	amount      BIGINT NOT NULL CHECK (amount >= 0),
	issued_at   BIGINT NOT NULL,
	PRIMARY KEY (series, number),
	UNIQUE (return_id, order_id),
	CHECK (order_id <> '' OR return_id <> '')
);

-- The ledger. Each row is a whole entry, debit and credit, so that no set of rows
-- can be out of balance. Rows are only ever inserted, numbered without holes.
CREATE TABLE ledger_entry (
	entry     BIGINT NOT NULL PRIMARY KEY,
	kind      TEXT   NOT NULL,
	debit     TEXT   NOT NULL,
	credit    TEXT   NOT NULL,
	amount    BIGINT NOT NULL CHECK (amount > 0),
	currency  TEXT   NOT NULL,
	document  TEXT   NOT NULL, -- number of the document, key of the refund, or id of the adjustment
	posted_at BIGINT NOT NULL,
	CHECK (debit <> credit)
);

-- Ledger adjustments. Rows are only ever inserted; digest is that of the command.
CREATE TABLE adjustment (
	number        BIGINT NOT NULL PRIMARY KEY,
	adjustment_id TEXT   NOT NULL UNIQUE,
	digest        TEXT   NOT NULL,
	reference     TEXT   NOT NULL,
	customer      TEXT   NOT NULL,
	country       TEXT   NOT NULL,
	currency      TEXT   NOT NULL,
	business_at   BIGINT NOT NULL,
	lines         TEXT   NOT NULL, -- JSON
	amount        BIGINT NOT NULL,
	posted_at     BIGINT NOT NULL
);
