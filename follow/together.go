package follow

import (
	"context"
	"errors"
	"sync"

	"github.com/freehold-go/freehold"
)

// The sources of a follower share transactions: while one transaction runs, batches of
// other sources wait, and the next one takes all that wait. Their handlers would often
// use the same keys, so that side by side they would wait for each other's locks; one
// after the other each would pay for a commit of its own.

// together is the batches of a follower that wait for the next transaction.
type together struct {
	mu      sync.Mutex
	busy    bool // a transaction runs
	waiting []*batch
}

// batch is events of one source that stand directly behind a mark, to be applied in
// one transaction.
type batch struct {
	from   freehold.Mark
	events []freehold.Recorded
	turn   chan bool // true: run what waits; false: it was run, with err
	err    error
}

// to is the mark behind the batch.
func (b *batch) to() freehold.Mark { return b.events[len(b.events)-1].At }

// transactTogether is transact, in one transaction with the batches of other sources that
// wait meanwhile. If that fails, but for a database that is away, each runs alone: nobody's
// failure is another source's.
func (s *databaseSink[T]) transactTogether(ctx context.Context, from freehold.Mark, events []freehold.Recorded) error {
	b := &batch{from: from, events: events, turn: make(chan bool, 1)}
	t := s.together
	t.mu.Lock()
	t.waiting = append(t.waiting, b)
	first := !t.busy
	t.busy = true
	t.mu.Unlock()
	if !first && !<-b.turn {
		return s.orAlone(ctx, b)
	}
	t.mu.Lock()
	group := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	s.transactGroup(ctx, group, b)
	return s.orAlone(ctx, b)
}

// transactGroup applies batches in one transaction, lets the next ones go and tells each
// what became of it, also if a handler ends the goroutine.
func (s *databaseSink[T]) transactGroup(ctx context.Context, group []*batch, own *batch) {
	err := errExited
	defer func() {
		t := s.together
		t.mu.Lock()
		if t.busy = len(t.waiting) > 0; t.busy {
			t.waiting[0].turn <- true
		}
		t.mu.Unlock()
		for _, one := range group {
			if one.err = err; one != own {
				one.turn <- false
			}
		}
	}()
	err = s.transact(ctx, group...)
	if err != nil && len(group) > 1 && (!ofDatabase(err) || errors.Is(err, freehold.ErrFenced)) {
		err = errAlone
	}
}

// errAlone says that a batch is to be run by itself.
var errAlone = errors.New("follow: run it alone")

// errExited is what became of a batch whose handler did not come back: Run ends with it.
var errExited = errors.New("follow: a handler ended its goroutine, by runtime.Goexit or a test's FailNow: it has to return an error")

func (s *databaseSink[T]) orAlone(ctx context.Context, b *batch) error {
	if b.err == errAlone {
		return s.transact(ctx, b)
	}
	return b.err
}
