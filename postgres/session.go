package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

// session is a sequencer's time on one connection.
type session struct {
	s           *sequencer
	conn        *pgx.Conn
	holds       bool // the lock
	turn        turn // guards last and stale, and what a pass tells
	last        tick
	stale       bool  // there may be a tick behind last
	lost        error // last is not there: the database was restored
	server      string
	sync        string        // the setting of synchronous_commit
	deferred    bool          // some constraints or triggers wait for the COMMIT
	carried     uint64        // the transaction of the last commit that carried a pass: its events have positions
	telling     atomic.Uint64 // the transaction that has told others last
	alone       bool          // nobody else had committed anything when that was
	incarnation int
	id          string
	looked      time.Time // when the head was last read
	newest      string    // the newest opening then

	untold atomic.Bool // a commit has carried a pass, of which others do not know

	moved  bool      // another sequencer has given positions
	told   bool      // somebody has committed, or will soon
	owes   bool      // others are to be told of it, by who follows
	hinted time.Time // when they were last
}

// tick is the last pass as it is stored.
type tick struct {
	pass  int64
	base  string
	drain *string
	head  freehold.Mark
}

// end closes the connection, when no commit carries a pass of the session any more.
func (c *session) end() {
	c.turn.take()
	c.s.carrier.CompareAndSwap(c, nil)
	c.turn.give()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // releases the lock
}

// open reads the head and tries to become the sequencer.
func (c *session) open(ctx context.Context) error {
	if _, err := c.conn.PgConn().Exec(ctx, planByIndex(nil, false)+`; LISTEN freehold`).ReadAll(); err != nil {
		return err
	}
	err := c.conn.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), EXISTS (SELECT FROM pg_trigger WHERE tgdeferrable), `+thisServer).
		Scan(&c.sync, &c.deferred, &c.server)
	if err != nil {
		return err
	}
	c.s.db.server.Store(&c.server)
	if err := c.compare(ctx); err != nil {
		return err
	}
	if err := c.tryLock(ctx); err != nil {
		return err
	}
	return c.refresh(ctx)
}

// read reads the last tick. What it fails to read stays as it was.
func (c *session) read(ctx context.Context) error {
	c.looked, c.moved = time.Now(), false
	last := tick{head: freehold.Mark{Source: c.s.db.name}}
	var chain []byte
	err := c.conn.QueryRow(ctx, `SELECT pass, base::text, drain::text, position, chain,
			(SELECT epoch FROM freehold.journal), coalesce((SELECT id FROM freehold.incarnation ORDER BY number DESC LIMIT 1), '')
		FROM freehold.tick ORDER BY pass DESC LIMIT 1`).
		Scan(&last.pass, &last.base, &last.drain, (*int64)(&last.head.Position), &chain, &last.head.Epoch, &c.newest)
	if err != nil {
		return err
	}
	copy(last.head.Chain[:], chain)
	if mutant.SnapshotInMemory && c.s.planted != "" {
		last.base = c.s.planted
	}
	c.last, c.stale = last, false
	c.s.db.head.turn(last.head.Epoch)
	return nil
}

// tryLock takes the sequencer's lock, if it is free, and records an incarnation. The
// lock only saves work: a pass of two sequencers is written by one of them.
func (c *session) tryLock(ctx context.Context) error {
	var got bool
	if err := c.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, sequencerLock+c.s.db.opts.hooks.lock).Scan(&got); err != nil || !got {
		return err
	}
	if err := c.refresh(ctx); err != nil {
		return err
	}
	c.id = journal.NewEpoch()
	next := c.last
	next.pass++
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(`INSERT INTO freehold.incarnation (number, id, position, chain, time)
		SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4 FROM freehold.incarnation RETURNING number`,
		c.id, int64(c.last.head.Position), c.last.head.Chain[:], journal.Now().UnixMicro()).
		QueryRow(func(row pgx.Row) error { return row.Scan(&c.incarnation) })
	queueTick(b, c.last, next)
	b.Queue(`COMMIT`)
	if err := c.conn.SendBatch(ctx, b).Close(); fenced(err) { // as long as another one is faster, follow it
		_, err := c.conn.Exec(ctx, `ROLLBACK`)
		return err
	} else if err != nil {
		return err
	}
	c.last, c.holds = next, true
	c.s.openings[c.id] = true
	if err := c.rebase(ctx); err != nil {
		return err
	}
	c.s.carrier.Store(c) // until end
	return nil
}

// rebase makes the snapshots of the ticks those of this cluster, if they are
// another's: transaction ids mean nothing in another system, behind a fail-over, or
// in a database that was restored from a dump.
func (c *session) rebase(ctx context.Context) error {
	var same bool
	if err := c.conn.QueryRow(ctx, `SELECT cluster = `+thisCluster+` FROM freehold.journal`).Scan(&same); err != nil || same {
		return err
	}
	c.s.db.opts.Log.Warn("the database was restored or has failed over: looking for events without a position", "journal", c.s.db.name)
	c.last.drain = nil
	for {
		// What commits from now on is in the difference to this snapshot.
		if err := c.conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&c.last.base); err != nil {
			return err
		}
		n, err := c.run(ctx, anywhere) // fenced, it has not looked anywhere: the next session does
		if err != nil {
			return err
		}
		if n < passSize {
			break
		}
	}
	_, err := c.conn.Exec(ctx, `UPDATE freehold.journal SET cluster = `+thisCluster)
	return err
}

// refresh reads how far the journal reaches, and tells who waits.
func (c *session) refresh(ctx context.Context) error {
	c.turn.take()
	err := c.read(ctx)
	head := c.last.head
	c.turn.give()
	if err != nil {
		return err
	}
	c.s.openings[c.newest] = true
	c.s.db.head.advance(head)
	awaited := c.s.awaited()
	if len(awaited) == 0 {
		return nil
	}
	rows, err := c.conn.Query(ctx, `SELECT seq, e.id, s.position, s.chain FROM freehold.stamp s JOIN freehold.event e USING (seq) WHERE seq = ANY($1)`, awaited)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e drawn
		var chain []byte
		at := freehold.Mark{Source: c.s.db.name, Epoch: c.s.db.head.present()}
		if err := rows.Scan(&e.seq, &e.id, (*int64)(&at.Position), &chain); err != nil {
			return err
		}
		copy(at.Chain[:], chain)
		c.s.db.head.advance(at)
		c.s.mu.Lock()
		c.s.stamped(e, at)
		c.s.mu.Unlock()
	}
	return rows.Err()
}
