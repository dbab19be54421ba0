package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// A transaction that commits events carries a pass with it, if no other one is being
// made: then its events, and all that were committed before, have their positions as soon
// as they are there, and one sync of the disk does for both. If another one is being made
// it commits without, and the next pass gives its events their positions.
//
// For the order of positions it is as if the transaction had been committed in the
// snapshot of its pass. Its own events are due as well; it has drawn its last number
// behind all that it has read; and nobody who is not due yet can have been read by it, nor
// have read it. It has the turn for the last thing that it does, and waits for locks that
// somebody else holds for carryPatience then: the tick of another sequencer, by which one
// of the two is undone, a kept value, a table that is being altered. In a database with
// constraints or triggers that are deferred to the COMMIT, which may take any time, no
// commit carries a pass.
//
// Its connection is not the sequencer's, which is the one that ends when the server does,
// so it asks whether the server is the same: behind a fail-over or a restore nothing has a
// position before this process has compared what it knows. And a closure may have turned
// synchronous_commit off.

// carryPatience is for how long a commit that carries a pass waits for a lock at most, and
// carryLimit for how long it is sent what it ends with, before its COMMIT.
const (
	carryPatience = "50ms"
	carryLimit    = 2 * time.Second
)

// errCarried is the error of a commit that failed with the pass that it carried: it is
// run again without one.
var errCarried = errors.New("postgres: nothing was written: the commit carried a pass that failed")

// thisServer is another one as soon as the server was started again, or the tables were
// made again.
const thisServer = `(extract(epoch FROM pg_postmaster_start_time())::text || ' ' || 'freehold.tick'::regclass::oid::text)`

// mayCarry reports whether it is worth while to wait for the turn.
func (s *sequencer) mayCarry() bool {
	c := s.carrier.Load()
	return c != nil && !c.deferred
}

// tryCarry takes the turn for the pass of a commit of events. It returns nil if another
// pass has it for longer than patience, or the journal is not in a state for one.
func (s *sequencer) tryCarry(patience time.Duration) *session {
	c := s.carrier.Load()
	if c == nil || !c.turn.tryTake(patience) {
		return nil
	}
	if s.carrier.Load() != c || c.deferred || c.stale || c.lost != nil || c.last.drain != nil {
		c.turn.give()
		return nil
	}
	return c
}

// carry sends what a transaction ends with, which inserts events and sets seqs to the
// numbers that they drew, and commits it with a pass. It gives the turn back.
func (c *session) carry(ctx context.Context, conn *pgx.Conn, b *pgx.Batch, events []freehold.Recorded, seqs *[]int64) error {
	defer c.turn.give()
	p := &pass{c: c, begun: time.Now()}
	if err := p.begin(ctx, conn, b); err != nil {
		return err
	}
	if p.sync != c.sync { // what it commits would not be durable when it is told of
		_, err := conn.Exec(ctx, `COMMIT`)
		return err
	}
	if p.server != c.server {
		c.lost = fmt.Errorf("postgres: %s: commits are made on another server than the sequencer's", c.s.db.name)
		c.s.wake()
		_, err := conn.Exec(ctx, `COMMIT`)
		return err
	}
	own := int64(0)
	if others := len(p.due); others < passSize || mutant.OvertakeDrain { // or else its own have to wait, too
		own = p.xid
		for i, seq := range *seqs {
			place := (*seqs)[len(*seqs)-1]
			if mutant.OrderBySeq {
				place = seq
			}
			p.due = append(p.due, dueEvent{place, seq, events[i]})
		}
	}
	b = &pgx.Batch{}
	p.queueStamps(b, inDifference)
	b.Queue(`COMMIT`)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		c.stale = true // the session finds out which tick is the last
		if gone(err) {
			c.lost = err
		}
		c.s.wake()
		if definite(err) {
			err = fmt.Errorf("%w: %w", errCarried, err)
		}
		return err
	}
	p.committed()
	c.carried = uint64(own)
	c.untold.Store(true)
	if c.last.drain != nil {
		c.s.due.Store(true)
	}
	c.s.nudge()
	return nil
}

// begin sends what the transaction ends with, and reads what else is due. If it fails
// nothing was committed.
func (p *pass) begin(ctx context.Context, conn *pgx.Conn, b *pgx.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, carryLimit)
	defer cancel()
	const patience = `SELECT set_config('lock_timeout', $1, true)`
	first := &pgx.Batch{}
	first.Queue(patience, carryPatience)
	known := conn.PgConn().CustomData()
	if _, prepared := known[patience]; !prepared {
		// Statements are prepared before the first of them is run, and that takes locks, too.
		if err := conn.SendBatch(ctx, first).Close(); err != nil {
			return fmt.Errorf("%w: %w", errCarried, err)
		}
		first = &pgx.Batch{}
	}
	first.QueuedQueries = append(first.QueuedQueries, b.QueuedQueries...)
	p.queueNow(first)
	looks := !p.c.alone
	if looks {
		p.queueLook(first, inDifference)
	}
	if err := conn.SendBatch(ctx, first).Close(); err != nil {
		return fmt.Errorf("%w: %w", errCarried, err)
	}
	known[patience] = true
	p.c.alone = mutant.BelieveAlone || !othersEnded(p.c.last.base, p.now, uint64(p.xid), p.c.carried, p.c.telling.Load())
	if looks || p.c.alone {
		return nil
	}
	second := &pgx.Batch{}
	p.queueLook(second, inDifference)
	if err := conn.SendBatch(ctx, second).Close(); err != nil {
		return fmt.Errorf("%w: %w", errCarried, err)
	}
	return nil
}
