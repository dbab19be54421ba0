package postgres

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

// queueTick inserts a tick behind the last one, and fails if that is not there, or if
// another sequencer has been faster.
func queueTick(b *pgx.Batch, last, t tick) {
	b.Queue(`INSERT INTO freehold.tick (pass, base, drain, position, chain)
		VALUES ((SELECT pass + 1 FROM freehold.tick WHERE pass = $1 AND chain = $2), $3::text::pg_snapshot, $4::text::pg_snapshot, $5, $6)`,
		last.pass, last.head.Chain[:], t.base, t.drain, int64(t.head.Position), t.head.Chain[:])
	if t.pass%100 == 0 {
		b.Queue(`DELETE FROM freehold.tick WHERE pass < $1`, t.pass-1000)
	}
}

// passSize is how many events a pass stamps, about: it ends with a transaction.
const passSize = 4096

// dueQuery selects what is visible and has no position. Everything that was visible
// in the last pass's snapshot has one, so only what was not is looked at. Of a
// transaction all events stand together, in the order of their numbers, and it
// stands where its last number does: all that it had read had a lower one. What the
// transaction of the pass itself has inserted it knows.
//
// It goes by the indexes whatever statistics say, as all that it takes from the events is
// in between: see between. It may not read the whole journal at each pass.
func dueQuery(from string) string {
	place := `max(e.seq) OVER (PARTITION BY e.xid)`
	if mutant.OrderBySeq {
		place = `e.seq`
	}
	return `SELECT ` + place + ` AS tx, e.seq, ` + ownColumns + `
	FROM (` + from + `) e
	WHERE ($2::text IS NULL OR pg_visible_in_snapshot(e.xid, $2::text::pg_snapshot))
		AND e.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
		AND (SELECT s.seq FROM freehold.stamp s WHERE s.seq = e.seq) IS NULL
	ORDER BY tx FETCH FIRST $3 ROWS WITH TIES`
}

// between selects the events of transactions from one to another. The server takes two
// bounds that it does not know for few rows, and one for a third of the journal: then, and
// if statistics say that a transaction has many events, it may prefer to read all events in
// another order, and does while there are some ten to some hundred thousand. It may not turn
// a part with a LIMIT over.
func between(from, to string) string {
	return `(SELECT * FROM freehold.event WHERE xid >= ` + from + ` AND xid <= ` + to + ` ORDER BY xid, seq LIMIT 1000000000)`
}

// newest is behind all transactions that a statement sees.
const newest = `pg_snapshot_xmax(pg_current_snapshot())`

// openThen are the events of transactions that were open in the last pass's snapshot.
var openThen = `SELECT o.* FROM pg_snapshot_xip($1::text::pg_snapshot) x, LATERAL ` + between(`x`, `x`) + ` o`

// Where to look for what is due: $1 is the last pass's snapshot. What is due is found
// in the difference; in what is recent if check has found that once not to be true; and
// anywhere in a database that was restored.
var (
	inDifference = dueQuery(between(`pg_snapshot_xmax($1::text::pg_snapshot)`, newest) + ` UNION ALL ` + openThen)
	inRecent     = dueQuery(between(`pg_snapshot_xmin($1::text::pg_snapshot)`, newest))
	anywhere     = dueQuery(`SELECT * FROM freehold.event WHERE $1::text IS NOT NULL`)
)

// missedQuery looks for events that the last pass's snapshot has seen and that have no
// position. There are none; to know that takes as long as the oldest transaction that is
// open has been, during which others may have committed much.
var missedQuery = `SELECT EXISTS (SELECT FROM (SELECT base FROM freehold.tick ORDER BY pass DESC LIMIT 1) t,
	LATERAL ` + between(`pg_snapshot_xmin(t.base)`, `pg_snapshot_xmax(t.base)`) + ` e
	WHERE pg_visible_in_snapshot(e.xid, t.base) AND (SELECT s.seq FROM freehold.stamp s WHERE s.seq = e.seq) IS NULL)`

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
		inDifference = dueQuery(between(`pg_snapshot_xmax($1::text::pg_snapshot)`, newest))
	}
}

// dueEvent is an event that has no position yet.
type dueEvent struct {
	tx, seq int64
	r       freehold.Recorded
}

// pass gives positions to what was committed since the last one. It is one transaction:
// the session's own, or one that commits events besides. Whoever makes one has the turn.
type pass struct {
	c     *session
	begun time.Time
	now   string // a snapshot: all that is visible in it is due or has a position
	xid   int64  // of the transaction that carries it, if one does
	due   []dueEvent

	server string // where it is made
	sync   string // the setting of synchronous_commit
	next   tick
	events []freehold.Recorded
}

// run is a pass in a transaction of its own. It returns to how many events it gave
// positions.
func (c *session) run(ctx context.Context, where string) (n int, err error) {
	p := &pass{c: c, begun: time.Now()}
	b := &pgx.Batch{}
	p.queueDue(b, where)
	if err := c.conn.SendBatch(ctx, b).Close(); err != nil {
		return 0, err
	}
	if len(p.due) == 0 && c.last.drain == nil && where != anywhere {
		return 0, nil
	}
	b = &pgx.Batch{}
	b.Queue(`BEGIN`)
	p.queueStamps(b, where)
	b.Queue(`SELECT pg_notify('freehold', $1)`, c.id)
	b.Queue(`COMMIT`)
	if err := c.conn.SendBatch(ctx, b).Close(); err != nil {
		return 0, err
	}
	p.committed()
	return max(len(p.due), 1), nil // a pass that ends a drain has something behind it
}

// committed tells of a pass.
func (p *pass) committed() {
	p.c.last = p.next
	db := p.c.s.db
	db.journal.Remember(p.events)
	db.head.advance(p.next.head)
	p.c.s.tell(p.due, p.events)
	if passed := db.opts.hooks.passed; passed != nil {
		passed(len(p.due), time.Since(p.begun))
	}
}

// pass takes the turn for a pass, or a look at what another sequencer did that was faster.
func (c *session) pass(ctx context.Context, where string) (n int, err error) {
	c.turn.take()
	if c.lost != nil {
		c.turn.give()
		return 0, c.lost
	}
	if !c.stale {
		n, err = c.run(ctx, where)
		c.stale = fenced(err)
	}
	stale := c.stale
	c.turn.give()
	if !stale {
		return n, err
	}
	if where != inDifference {
		c.s.missed.Store(true)
	}
	if err != nil {
		if _, err := c.conn.Exec(ctx, `ROLLBACK`); err != nil {
			return 0, err
		}
	}
	return 1, c.refresh(ctx)
}

// queueDue reads what is visible and has no position. The snapshot that becomes the next
// base is taken before: what is committed between the two is due already, and is found to
// have a position by the next pass.
func (p *pass) queueDue(b *pgx.Batch, where string) {
	p.queueNow(b)
	p.queueLook(b, where)
}

func (p *pass) queueNow(b *pgx.Batch) {
	b.Queue(`SELECT pg_current_snapshot()::text, coalesce(pg_current_xact_id_if_assigned()::text, '0')::int8, current_setting('synchronous_commit'), ` + thisServer).
		QueryRow(func(row pgx.Row) error { return row.Scan(&p.now, &p.xid, &p.sync, &p.server) })
}

func (p *pass) queueLook(b *pgx.Batch, where string) {
	b.Queue(where, p.c.last.base, p.c.last.drain, passSize).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var e dueEvent
			if err := scanOwn(rows, &e.r, &e.tx, &e.seq); err != nil {
				return err
			}
			p.due = append(p.due, e)
		}
		return rows.Err()
	})
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

// queueStamps gives what is due its positions.
func (p *pass) queueStamps(b *pgx.Batch, where string) {
	slices.SortFunc(p.due, func(a, b dueEvent) int { return cmp.Or(cmp.Compare(a.tx, b.tx), cmp.Compare(a.seq, b.seq)) })
	p.next = p.c.last
	p.next.pass++
	switch whole := len(p.due) < passSize; {
	case where == anywhere: // the base is what the caller says
	case whole && p.next.drain != nil:
		p.next.base, p.next.drain = *p.next.drain, nil
	case whole:
		p.next.base = p.now
	case p.next.drain == nil:
		p.next.drain = &p.now
	}
	p.next.head.Epoch = p.c.s.db.head.present()
	if mutant.SnapshotInMemory {
		p.c.s.planted = p.next.base
	}
	p.events = p.c.seal(p.due, &p.next.head)
	queueTick(b, p.c.last, p.next)
	n := len(p.due)
	positions, seqs, last := make([]int64, n), make([]int64, n), make([]bool, n)
	digests, chains := make([][]byte, n), make([][]byte, n)
	for i := range p.events {
		r := &p.events[i]
		positions[i], seqs[i], last[i] = int64(r.At.Position), p.due[i].seq, r.Last
		digests[i], chains[i] = r.Digest[:], r.At.Chain[:]
	}
	b.Queue(`INSERT INTO freehold.stamp (position, seq, incarnation, last, digest, chain)
		SELECT position, seq, $3, last, digest, chain FROM unnest($1::int8[], $2::int8[], $4::bool[], $5::bytea[], $6::bytea[]) AS s(position, seq, last, digest, chain)`,
		positions, seqs, p.c.incarnation, last, digests, chains)
}
