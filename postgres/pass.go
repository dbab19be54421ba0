package postgres

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

func queueTick(b *pgx.Batch, t tick) {
	b.Queue(`INSERT INTO freehold.tick (pass, base, drain, position, chain) VALUES ($1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, $5)`,
		t.pass, t.base, t.drain, int64(t.head.Position), t.head.Chain[:])
	if t.pass%100 == 0 {
		b.Queue(`DELETE FROM freehold.tick WHERE pass < $1`, t.pass-1000)
	}
}

// passSize is how many events a pass stamps, about: it ends with a transaction.
const passSize = 4096

// dueQuery selects what is visible and has no position. Everything that was visible
// in the last pass's snapshot has one, so only what was not is looked at. Of a
// transaction all events stand together, in the order of their numbers, and it
// stands where its last number does: all that it had read had a lower one.
func dueQuery(scope string) string {
	place := `max(e.seq) OVER (PARTITION BY e.xid)`
	if mutant.OrderBySeq {
		place = `e.seq`
	}
	return `SELECT pg_current_snapshot()::text, ` + place + ` AS tx, e.seq,
		e.stream, e.version, e.type, e.schema, e.time, e.id, e.internal, e.meta, e.payload, e.nonce
	FROM freehold.event e
	WHERE ` + scope + `
		AND ($2::text IS NULL OR pg_visible_in_snapshot(e.xid, $2::text::pg_snapshot))
		AND NOT EXISTS (SELECT FROM freehold.stamp s WHERE s.seq = e.seq)
	ORDER BY tx FETCH FIRST $3 ROWS WITH TIES`
}

// Where to look for what is due: $1 is the last pass's snapshot. What is due is found
// in the difference; in what is recent if check has found that once not to be true; and
// anywhere in a database that was restored.
var (
	inDifference = dueQuery(`(e.xid >= pg_snapshot_xmax($1::text::pg_snapshot) OR e.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))))`)
	inRecent     = dueQuery(`e.xid >= pg_snapshot_xmin($1::text::pg_snapshot)`)
	anywhere     = dueQuery(`$1::text IS NOT NULL`)
)

// missedQuery looks for events that the last pass's snapshot has seen and that have no
// position. There are none; to know that takes as long as the oldest transaction that is
// open has been, during which others may have committed much.
const missedQuery = `SELECT EXISTS (SELECT FROM (SELECT base FROM freehold.tick ORDER BY pass DESC LIMIT 1) t, freehold.event e
	WHERE e.xid >= pg_snapshot_xmin(t.base) AND pg_visible_in_snapshot(e.xid, t.base)
		AND NOT EXISTS (SELECT FROM freehold.stamp s WHERE s.seq = e.seq))`

// check has the next pass look for what is recent if events were missed. It keeps no pass
// waiting.
func (s *sequencer) check(ctx context.Context) {
	var missed bool
	if err := s.db.pool.QueryRow(ctx, missedQuery).Scan(&missed); err != nil || !missed {
		return // if the database does not answer, the next one asks
	}
	s.db.opts.Log.Error("events without a position behind a pass: they are looked for", "journal", s.db.name)
	s.missed.Store(true)
	s.wake()
}

func init() {
	if mutant.SkipInFlight {
		inDifference = dueQuery(`e.xid >= pg_snapshot_xmax($1::text::pg_snapshot)`)
	}
}

// dueEvent is an event that has no position yet.
type dueEvent struct {
	tx, seq int64
	r       freehold.Recorded
}

// pass gives positions to what was committed since the last one, and returns to
// how many events.
func (c *session) pass(ctx context.Context, where string) (n int, err error) {
	begun := time.Now()
	now, due, err := c.due(ctx, where)
	if err != nil {
		return 0, err
	}
	if len(due) == 0 && c.last.drain == nil && where != anywhere {
		return 0, nil
	}
	next := c.last
	next.pass++
	switch whole := len(due) < passSize; {
	case where == anywhere: // the base is what the caller says
	case whole && next.drain != nil:
		next.base, next.drain = *next.drain, nil
	case whole:
		next.base = now
	case next.drain == nil:
		next.drain = &now
	}
	next.head.Epoch = c.s.db.head.present()
	if mutant.SnapshotInMemory {
		c.s.planted = next.base
	}
	events := c.seal(due, &next.head)
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	queueTick(b, next)
	c.queueStamps(b, due, events)
	b.Queue(`SELECT pg_notify('freehold', '')`)
	b.Queue(`COMMIT`)
	if err := c.conn.SendBatch(ctx, b).Close(); err != nil {
		return 0, err
	}
	c.last = next
	db := c.s.db
	db.journal.Remember(events)
	db.head.advance(next.head)
	c.s.tell(due, events)
	if passed := db.opts.hooks.passed; passed != nil {
		passed(len(due), time.Since(begun))
	}
	return max(len(due), 1), nil // a pass that ends a drain has something behind it
}

// turn is a pass, or a look at what another sequencer did that was faster.
func (c *session) turn(ctx context.Context, where string) (n int, err error) {
	n, err = c.pass(ctx, where)
	if !fenced(err) {
		return n, err
	}
	if where != inDifference {
		c.s.missed.Store(true)
	}
	if _, err := c.conn.Exec(ctx, `ROLLBACK`); err != nil {
		return 0, err
	}
	return 1, c.refresh(ctx)
}

// due reads what is visible and has no position, and the snapshot in which it is.
func (c *session) due(ctx context.Context, where string) (now string, due []dueEvent, err error) {
	rows, err := c.conn.Query(ctx, where, c.last.base, c.last.drain, passSize)
	if err != nil {
		return "", nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e dueEvent
		var micros int64
		var meta *string
		r := &e.r
		err := rows.Scan(&now, &e.tx, &e.seq, (*string)(&r.Stream), (*int64)(&r.Version), &r.Type.Name, &r.Type.Version, &micros,
			&r.ID, &r.Internal, &meta, &r.Raw, &r.Nonce)
		if err != nil {
			return "", nil, err
		}
		r.Time = time.UnixMicro(micros).UTC()
		if err := readMeta(meta, r); err != nil {
			return "", nil, err
		}
		due = append(due, e)
	}
	slices.SortFunc(due, func(a, b dueEvent) int {
		if a.tx != b.tx {
			return int(a.tx - b.tx)
		}
		return int(a.seq - b.seq)
	})
	return now, due, rows.Err()
}

// seal gives events their positions, digests and chain values.
func (c *session) seal(due []dueEvent, head *freehold.Mark) []freehold.Recorded {
	events := make([]freehold.Recorded, len(due))
	for i := range due {
		r := due[i].r
		r.Incarnation = c.id
		r.Last = i+1 == len(due) || transactionOf(due[i+1].r.ID) != transactionOf(r.ID)
		r.Digest = journal.Digest(&r)
		head.Position++
		head.Chain = journal.Chain(head.Chain, head.Position, r.Digest)
		r.At = *head
		events[i] = r
	}
	return events
}

// transactionOf is the writer's transaction of an event id: callers of Append share
// one of PostgreSQL's, and each has its own.
func transactionOf(id string) string {
	tx, _, _ := strings.Cut(id, "-")
	return tx
}

func (c *session) queueStamps(b *pgx.Batch, due []dueEvent, events []freehold.Recorded) {
	n := len(due)
	positions, seqs, last := make([]int64, n), make([]int64, n), make([]bool, n)
	digests, chains := make([][]byte, n), make([][]byte, n)
	for i := range events {
		r := &events[i]
		positions[i], seqs[i], last[i] = int64(r.At.Position), due[i].seq, r.Last
		digests[i], chains[i] = r.Digest[:], r.At.Chain[:]
	}
	b.Queue(`INSERT INTO freehold.stamp (position, seq, incarnation, last, digest, chain)
		SELECT position, seq, $3, last, digest, chain FROM unnest($1::int8[], $2::int8[], $4::bool[], $5::bytea[], $6::bytea[]) AS s(position, seq, last, digest, chain)`,
		positions, seqs, c.incarnation, last, digests, chains)
}
