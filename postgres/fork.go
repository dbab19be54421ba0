package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	err := follow.PutFork(ctx, s.db, f, func(ctx context.Context, tx sqldb.Tx) error {
		// Of two instances one waits here for the other, and finds the epoch gone.
		result, err := tx.ExecContext(ctx, beginEpoch, string(f.Epoch), string(f.Ended[0]))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(freehold.ErrFenced, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.Refresh(ctx) // the epoch that is present now, whoever began it
}

const beginEpoch = `UPDATE freehold.journal SET epoch = $1 WHERE epoch = $2`

// present is the epoch of the journal as far as it is known.
func (h *head) present() freehold.Epoch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// turn makes an epoch the present one, unless it has ended: whoever says so has read
// the database before.
func (h *head) turn(e freehold.Epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch != e && !h.ended[e] {
		if h.ended == nil {
			h.ended = map[freehold.Epoch]bool{}
		}
		h.ended[h.epoch], h.epoch = true, e
		close(h.news)
		h.news = make(chan struct{})
	}
}

// seen is the newest place that was read, with the epoch that it was read in: behind a
// fork of another instance that is not the present one.
func (h *head) seen() freehold.Mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mark
}

// back moves the head to where the database says that it is.
func (h *head) back(m freehold.Mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mark, h.epoch, h.ended = m, m.Epoch, nil
	close(h.news)
	h.news = make(chan struct{})
}

// fail ends the waiting for news.
func (h *head) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = err
	close(h.news)
	h.news = make(chan struct{})
}

// latch refuses every call from now on: what this process has in memory may not be
// what the database holds. Calls under way are finished.
func (db *DB) latch(cause string) {
	err := fmt.Errorf("%w: postgres: %s: %s", freehold.ErrLatched, db.name, cause)
	if db.latched.CompareAndSwap(nil, &err) {
		db.head.fail(err)
		db.opts.Log.Error("database latched", "journal", db.name, "error", err)
	}
}

// compare holds what this process knows of the journal against a new connection,
// before anything is written on it. If the journal ends before what was known of it,
// or has another history there, a fork is recorded; and then, and also behind a
// fail-over that seems to have lost nothing, the process has to start anew, so that
// others are asked what they have seen before anything more is written.
func (c *session) compare(ctx context.Context) error {
	s := c.s
	if reconnected := s.db.opts.hooks.reconnected; reconnected != nil {
		reconnected()
	}
	var cluster string
	if err := c.conn.QueryRow(ctx, `SELECT `+thisCluster).Scan(&cluster); err != nil {
		return err
	}
	// What readers have seen since the last connection was lost may already be of another
	// history than what that one knew.
	knew := []freehold.Mark{s.knew, s.db.head.seen()}
	if err := c.read(ctx); err != nil {
		return err
	}
	same := true
	for _, known := range knew {
		has, err := c.has(ctx, known)
		if err != nil {
			return err
		}
		if !has && same {
			same = false
			if err := c.wentBack(ctx, known); err != nil {
				return err
			}
		}
	}
	if s.cluster != "" && (cluster != s.cluster || !same) {
		s.giveUp()
		s.db.latch("the server is another one, or the database was restored: start the process anew, so that others are asked whether it has gone back in time")
	}
	openings, err := c.incarnations(ctx)
	if err != nil {
		return err
	}
	s.cluster, s.openings = cluster, map[string]bool{}
	for _, o := range openings {
		s.openings[o.ID] = true
	}
	return nil
}

// giveUp tells who waits for a place that nobody knows whether his events are still
// there, and forgets the places of others: numbers may be drawn again.
func (s *sequencer) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.young, s.old = nil, nil
	for seq, all := range s.waiting {
		for _, there := range all {
			close(there)
		}
		delete(s.waiting, seq)
	}
}

// has reports whether the journal has a mark.
func (c *session) has(ctx context.Context, m freehold.Mark) (bool, error) {
	if m.Position == 0 {
		return true, nil
	}
	var chain []byte
	err := c.conn.QueryRow(ctx, `SELECT chain FROM freehold.stamp WHERE position = $1`, int64(m.Position)).Scan(&chain)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return string(chain) == string(m.Chain[:]), err
}

func (c *session) incarnations(ctx context.Context) ([]journal.Incarnation, error) {
	rows, err := c.conn.Query(ctx, `SELECT id, position, chain FROM freehold.incarnation ORDER BY number`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (in journal.Incarnation, err error) {
		var chain []byte
		err = row.Scan(&in.ID, (*int64)(&in.Start.Position), &chain)
		copy(in.Start.Chain[:], chain)
		return in, err
	})
}

func (c *session) forks(ctx context.Context) (journal.Forks, error) {
	rows, err := c.conn.Query(ctx, `SELECT value FROM freehold.keep WHERE space = $1 ORDER BY key`, follow.ForkSpace)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (f journal.Fork, err error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return f, err
		}
		return f, json.Unmarshal(raw, &f)
	})
}

// wentBack records the fork, unless another instance has, and forgets what is not in
// the journal any more.
func (c *session) wentBack(ctx context.Context, known freehold.Mark) error {
	db, head := c.s.db, c.last.head
	openings, err := c.incarnations(ctx)
	if err != nil {
		return err
	}
	base, ok := journal.Parting(func(id string) bool { return c.s.openings[id] }, openings)
	if !ok {
		base = head
	}
	forks, err := c.forks(ctx)
	if err != nil {
		return err
	}
	_, recorded := forks.Lost(known)
	before := len(forks)
	f := journal.Fork{
		Number: before + 1, Epoch: journal.ForkEpoch(before + 1), Ended: []freehold.Epoch{known.Epoch}, Base: base, Time: journal.Now(),
		Reason: fmt.Sprintf("an instance of the service knew %s (%s), the database ends at %d", known, known.Chain, head.Position),
	}
	f.Base.Source, f.Base.Epoch = db.name, f.Epoch
	err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		if recorded {
			return nil // an instance that was faster has seen the same
		}
		tag, err := tx.Exec(ctx, beginEpoch, string(f.Epoch), string(known.Epoch))
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO freehold.keep (space, key, value) VALUES ($1, $2, $3)`, follow.ForkSpace, follow.ForkKey(f.Number), raw)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.read(ctx); err != nil {
		return err
	}
	db.journal.Forget()
	db.head.back(c.last.head)
	db.opts.Log.Error("the database went back in time", "journal", db.name, "known", known.Position, "head", head.Position, "base", base.Position)
	return nil
}
