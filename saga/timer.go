package saga

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// timers is the deadlines of live instances in memory, soonest first. It is told of
// changes when they have been committed, in any order; the stored instance decides
// whether a deadline stands.
type timers struct {
	mu      sync.Mutex
	heap    timerHeap
	known   map[timerKey]*timer
	changed chan struct{} // has room for one signal
	fenced  chan struct{} // likewise: another instance was faster
}

type timerKey struct {
	id, name string
	at       int64 // microseconds
}

type timer struct {
	timerKey
	due   int64 // at, or later if its handler failed
	tries int
	sets  int // how often it was set and not dropped
	place int // in the heap
}

// change sets or drops a deadline.
type change struct {
	timerKey
	set bool
}

func (t *timers) init() {
	t.known, t.changed, t.fenced = map[timerKey]*timer{}, make(chan struct{}, 1), make(chan struct{}, 1)
}

// apply takes note of committed changes.
func (t *timers) apply(changes []change) {
	if len(changes) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range changes {
		old := t.known[c.timerKey]
		switch {
		case c.set && old != nil:
			old.sets++
		case c.set:
			t.push(&timer{timerKey: c.timerKey, due: c.at, sets: 1})
		case old != nil:
			if old.sets--; old.sets == 0 {
				heap.Remove(&t.heap, old.place)
				delete(t.known, c.timerKey)
			}
		}
	}
}

// push is called with mu held.
func (t *timers) push(one *timer) {
	t.known[one.timerKey] = one
	heap.Push(&t.heap, one)
	if t.heap[0] == one {
		signal(t.changed)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// load adds a deadline that is stored, and reports whether it was not known.
func (t *timers) load(key timerKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[key] != nil {
		return false
	}
	t.push(&timer{timerKey: key, due: key.at, sets: 1})
	return true
}

func (t *timers) knows(key timerKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[key] != nil
}

// again puts back a deadline whose handler failed.
func (t *timers) again(one *timer, due int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[one.timerKey] == nil {
		one.due, one.sets = due, 1
		one.tries++
		t.push(one)
	}
}

// take removes and returns what is due, up to a limit, and says when the next one
// is; never is 0.
func (t *timers) take(now int64, limit int) (due []*timer, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) > 0 && t.heap[0].due <= now && len(due) < limit {
		one := heap.Pop(&t.heap).(*timer)
		delete(t.known, one.timerKey)
		due = append(due, one)
	}
	if len(t.heap) > 0 {
		next = t.heap[0].due
	}
	return due, next
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *timerHeap) Push(x any) {
	one := x.(*timer)
	one.place = len(*h)
	*h = append(*h, one)
}

func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

// committing is a database that tells the timers what the steps in a transaction
// did to deadlines once it has been committed. Told before, a deadline that is
// already due would be looked for before it is there, and be forgotten.
type committing[T freehold.Tx] struct {
	DB[T]
	timers *timers
}

type changesKey struct{}

func (db committing[T]) Update(ctx context.Context, fn func(ctx context.Context, tx T) error) (tok freehold.Token, err error) {
	err = db.noting(fn, func(fn func(ctx context.Context, tx T) error) error {
		tok, err = db.DB.Update(ctx, fn)
		return err
	})
	return tok, err
}

// Do is Update without a token; see follow.Do.
func (db committing[T]) Do(ctx context.Context, fn func(ctx context.Context, tx T) error) error {
	return db.noting(fn, func(fn func(ctx context.Context, tx T) error) error { return follow.Do(ctx, db.DB, fn) })
}

// noting runs fn by update and takes note of the deadlines that it has changed.
func (db committing[T]) noting(fn func(ctx context.Context, tx T) error, update func(fn func(ctx context.Context, tx T) error) error) error {
	var changes []change
	err := update(func(ctx context.Context, tx T) error {
		changes = nil // fn may run again
		return fn(context.WithValue(ctx, changesKey{}, &changes), tx)
	})
	// If the outcome is unknown, a deadline too many is found out when it is due.
	if err == nil || errors.Is(err, freehold.ErrUnknown) {
		db.timers.apply(changes)
	}
	if errors.Is(err, freehold.ErrFenced) {
		signal(db.timers.fenced)
	}
	return err
}

// told hands changes of deadlines to the transaction's Update.
func told(ctx context.Context, changes []change) {
	if all, ok := ctx.Value(changesKey{}).(*[]change); ok {
		*all = append(*all, changes...)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}
