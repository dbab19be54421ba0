package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
)

// drawn is an event by the number that it drew. In a database that was restored numbers
// are drawn again, ids are not.
type drawn struct {
	seq int64
	id  string
}

func scanDrawn(row pgx.CollectableRow) (e drawn, err error) {
	err = row.Scan(&e.seq, &e.id)
	return e, err
}

// tokenPatience is for how long a caller whose transaction is committed waits for its token, and
// Close for the last pass: while the database is gone, or nobody gives positions, neither
// may wait for ever. Another instance takes over sooner, from a sequencer that was killed and
// from one that stands still.
const tokenPatience = 10 * time.Second

// patience is shorter in tests.
func (db *DB) patience() time.Duration {
	if p := db.opts.hooks.patience; p > 0 {
		return p
	}
	return tokenPatience
}

// unplaced is the error of a caller whose transaction is committed and who gets no token.
func (db *DB) unplaced(cause error) error {
	if errors.Is(cause, freehold.ErrLatched) || errors.Is(cause, freehold.ErrClosed) {
		return cause // the next call would say so, too
	}
	return fmt.Errorf("postgres: %s: committed, but its position is not known yet (%v): repeat the command under the same key: %w", db.name, cause, freehold.ErrUnknown)
}

// token returns the token of the transaction whose last event this is, when it has its
// position.
func (s *sequencer) token(last drawn) (freehold.Token, error) {
	there := make(chan freehold.Mark, 1)
	s.mu.Lock()
	at, known := s.place(last)
	if !known {
		s.waiting[last] = append(s.waiting[last], there)
	}
	s.mu.Unlock()
	if known {
		return freehold.NewToken(at), nil
	}
	s.wake()
	wait := s.db.patience()
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case at, ok := <-there:
		if !ok {
			return freehold.Token{}, fmt.Errorf("postgres: %s: the server was replaced before the events had a position: %w", s.db.name, freehold.ErrUnknown)
		}
		return freehold.NewToken(at), nil
	case <-limit.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.place(last); known {
		return freehold.NewToken(at), nil
	}
	s.waiting[last] = slices.DeleteFunc(s.waiting[last], func(c chan freehold.Mark) bool { return c == there })
	if len(s.waiting[last]) == 0 {
		delete(s.waiting, last)
	}
	return freehold.Token{}, s.db.unplaced(fmt.Errorf("nobody has given it one for %v", wait))
}

// place is that of an event whose place was given a moment ago. It is called with mu
// held.
func (s *sequencer) place(e drawn) (at freehold.Mark, known bool) {
	if at, known = s.young[e]; !known {
		at, known = s.old[e]
	}
	return at, known
}

// committed wakes the sequencer for an event, unless its commit has carried a pass.
func (s *sequencer) committed(last drawn) {
	s.mu.Lock()
	_, known := s.place(last)
	s.mu.Unlock()
	if !known {
		s.wake()
	}
}

// stamped tells who waits for an event that it has its position. It is called with
// mu held.
func (s *sequencer) stamped(e drawn, at freehold.Mark) {
	for _, there := range s.waiting[e] {
		there <- at
	}
	delete(s.waiting, e)
}

// tell tells who waits for events that they have their positions.
func (s *sequencer) tell(due []dueEvent, events []freehold.Recorded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= generation || s.young == nil {
		s.young, s.old = make(map[drawn]freehold.Mark, generation), s.young
	}
	for i := range due {
		e := drawn{due[i].seq, events[i].ID}
		s.young[e] = events[i].At
		s.stamped(e, events[i].At)
	}
}

// awaited lists the numbers of events that somebody waits for.
func (s *sequencer) awaited() (all []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.waiting {
		all = append(all, e.seq)
	}
	return all
}

// unplacedQuery selects what is visible, or was in the last pass, and has no position.
var unplacedQuery = `SELECT seq, id FROM ` + between(`(SELECT pg_snapshot_xmin(base) FROM freehold.tick ORDER BY pass DESC LIMIT 1)`, newest) + ` e
	WHERE (SELECT s.seq FROM freehold.stamp s WHERE s.seq = e.seq) IS NULL
	ORDER BY e.xid, e.seq LIMIT 100000`

// tokenWithoutEvents returns a token of a transaction that has appended nothing: a
// head behind everything that it may have read.
func (db *DB) tokenWithoutEvents() (freehold.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), db.patience())
	defer cancel()
	var due []drawn
	b := &pgx.Batch{}
	b.Queue(unplacedQuery).Query(func(rows pgx.Rows) (err error) {
		due, err = pgx.CollectRows(rows, scanDrawn)
		return err
	})
	// Behind it: what has its position by then may have it from another instance, or from a
	// pass of this one that has not ended, so that the head is not known here yet.
	b.Queue(headQuery).QueryRow(db.learnHead)
	if err := db.pool.SendBatch(ctx, b).Close(); err != nil {
		return freehold.Token{}, db.unreached(context.Background(), err)
	}
	for _, e := range due {
		if _, err := db.seq.token(e); err != nil {
			return freehold.Token{}, err
		}
	}
	return freehold.NewToken(db.head.get()), nil
}
