package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/freehold-go/freehold"
)

// Options tune a cache; the zero value is good.
type Options struct {
	// Size is how many entries are kept. 0 is 10,000.
	Size int
	// Remember is how many keys' last invalidations are remembered, to judge fills
	// that began before them. 0 is 65,536.
	Remember int
}

// Cache holds values of V by key. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	load     func(context.Context, K) (V, []freehold.Mark, error)
	keys     func(freehold.Recorded) []K
	remember int
	second   *shared[K, V] // nil if there is none

	entries *otter.Cache[K, *entry[V]]
	mu      sync.RWMutex // of sources and flights, and for every change of entries
	sources map[freehold.Source]*source[K]
	flights map[K]*flight[V]

	stats struct {
		hits, misses, shared, kept, refused, invalidated, flushed atomic.Int64
		stale                                                     atomic.Int64 // nanoseconds
	}
}

// entry is a value and the places at which it was read. It is never changed.
type entry[V any] struct {
	value  V
	labels []freehold.Mark
}

// flight is a load under way, which all who want its key share.
type flight[V any] struct {
	done   chan struct{}
	entry  *entry[V]
	shared bool // entry is of the second level
	err    error
}

// New returns a cache of what load reads, with the mark of the snapshot that it was
// read in: a transaction's Mark. keys names what an event has changed; it is not
// asked about placeholders. Let a follower feed it, in memory:
//
//	h.Go("product-cache", follow.Observe("product-cache", []follow.Source{db.Journal()}, c.Apply))
func New[K comparable, V any](load func(ctx context.Context, key K) (V, freehold.Mark, error), keys func(freehold.Recorded) []K, o *Options) *Cache[K, V] {
	return NewJoined(func(ctx context.Context, key K) (V, []freehold.Mark, error) {
		v, at, err := load(ctx, key)
		return v, []freehold.Mark{at}, err
	}, keys, o)
}

// NewJoined is New for values that are made of several sources, with a mark of
// each. Apply must be fed the events of all.
func NewJoined[K comparable, V any](load func(ctx context.Context, key K) (V, []freehold.Mark, error), keys func(freehold.Recorded) []K, o *Options) *Cache[K, V] {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Size <= 0 {
		opts.Size = 10_000
	}
	if opts.Remember <= 0 {
		opts.Remember = 1 << 16
	}
	return &Cache[K, V]{
		load: load, keys: keys, remember: opts.Remember,
		entries: otter.Must(&otter.Options[K, *entry[V]]{MaximumSize: opts.Size}),
		sources: map[freehold.Source]*source[K]{}, flights: map[K]*flight[V]{},
	}
}

// Get returns the value of a key: the entry if there is one that reflects the token
// (as far as the token names sources that the entry is made of), and what load
// reads otherwise. freehold.ErrBehind means that even load did not reach the token,
// freehold.ErrHistoryLost that the token is of another epoch. The value is shared:
// do not change what it points to.
func (c *Cache[K, V]) Get(ctx context.Context, key K, tok freehold.Token) (V, error) {
	if e, ok := c.fresh(key, tok); ok {
		c.stats.hits.Add(1)
		return e.value, nil
	}
	c.stats.misses.Add(1)
	for {
		f, mine := c.join(key)
		if mine {
			c.fly(ctx, key, f, tok)
		} else {
			select {
			case <-f.done:
			case <-ctx.Done():
				var none V
				return none, ctx.Err()
			}
		}
		if f.err == nil {
			if err := reflects(f.entry.labels, tok); err == nil || mine {
				return f.entry.value, err
			}
		} else if mine || !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			var none V
			return none, f.err
		}
		// It began before the token, or its reader has gone: read again.
	}
}

// fresh returns an entry that reflects the token. What a journal has not
// invalidated is as fresh as what the journal has been seen up to.
func (c *Cache[K, V]) fresh(key K, tok freehold.Token) (*entry[V], bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries.GetIfPresent(key)
	if !ok {
		return nil, false
	}
	for _, label := range e.labels {
		for _, want := range tok.Of(label.Source) {
			s := c.sources[label.Source]
			if want.Epoch != label.Epoch || want.Position > max(label.Position, s.seen.Position) {
				return nil, false
			}
		}
	}
	return e, true
}

// reflects compares what was read with what was asked for.
func reflects(labels []freehold.Mark, tok freehold.Token) error {
	for _, label := range labels {
		for _, want := range tok.Of(label.Source) {
			switch {
			case want.Epoch != label.Epoch:
				return fmt.Errorf("cache: %s is read at epoch %s, the token is of %s: %w", label.Source, label.Epoch, want.Epoch, freehold.ErrHistoryLost)
			case want.Position > label.Position:
				return fmt.Errorf("cache: %s is read at %d, the token asks for %d: %w", label.Source, label.Position, want.Position, freehold.ErrBehind)
			}
		}
	}
	return nil
}

// join returns the load of a key that is under way, or a new one to be made.
func (c *Cache[K, V]) join(key K) (f *flight[V], mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil {
		return f, false
	}
	f = &flight[V]{done: make(chan struct{})}
	c.flights[key] = f
	return f, true
}

// fly loads, and keeps the outcome if that is safe.
func (c *Cache[K, V]) fly(ctx context.Context, key K, f *flight[V], tok freehold.Token) {
	c.land(ctx, key, f, tok)
	if f.err == nil && !f.shared {
		c.offer(ctx, key, f.entry)
	}
}

func (c *Cache[K, V]) land(ctx context.Context, key K, f *flight[V], tok freehold.Token) {
	f.err = fmt.Errorf("cache: the load of %v did not return", key)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.flights[key] == f {
			delete(c.flights, key)
		}
		close(f.done)
		if f.err == nil {
			c.keep(key, f.entry)
		}
	}()
	if f.entry, f.shared = c.lookup(ctx, key, tok); f.shared {
		f.err = nil
		return
	}
	value, labels, err := c.load(ctx, key)
	f.entry, f.err = &entry[V]{value, labels}, err
}

// keep stores an entry unless something newer is known of its key, or might be. The
// caller holds c.mu.
func (c *Cache[K, V]) keep(key K, e *entry[V]) {
	if len(e.labels) == 0 { // no invalidation could be compared with it
		c.stats.refused.Add(1)
		return
	}
	old, _ := c.entries.GetIfPresent(key)
	for _, label := range e.labels {
		if s := c.sources[label.Source]; s == nil || !s.allows(key, label) || old != nil && older(label, old.labels) {
			c.stats.refused.Add(1)
			return
		}
	}
	c.entries.Set(key, e)
	c.stats.kept.Add(1)
}

// older reports whether a label stands before the one of its source among others.
func older(label freehold.Mark, others []freehold.Mark) bool {
	for _, o := range others {
		if o.Source == label.Source && o.Epoch == label.Epoch && o.Position > label.Position {
			return true
		}
	}
	return false
}

// Apply takes events of a source, in order, and drops the entries that they have
// changed. It never fails.
func (c *Cache[K, V]) Apply(ctx context.Context, events []freehold.Recorded) error {
	if len(events) > 0 {
		c.apply(events)
		c.pass(ctx, events)
	}
	return nil
}

func (c *Cache[K, V]) apply(events []freehold.Recorded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		r := &events[i]
		s := c.sources[r.At.Source]
		switch {
		case s == nil || begins(r) || s.seen.Epoch != r.At.Epoch || r.At.Position > s.seen.Position+1:
			// The beginning, also where it is the next place: an event may have been
			// there. Or another history, or something was missed.
			c.flush(r.At.Source)
			s = newSource[K](r.At)
			c.sources[r.At.Source] = s
		case r.At.Position <= s.seen.Position:
			continue
		}
		s.seen = r.At
		if r.Placeholder() {
			continue
		}
		for _, key := range c.keys(*r) {
			delete(c.flights, key) // who asks from now on must not share what was read before
			s.invalidated(key, r.At.Position, c.remember)
			if e, ok := c.entries.GetIfPresent(key); ok && older(freehold.Mark{Source: r.At.Source, Epoch: r.At.Epoch, Position: r.At.Position - 1}, e.labels) {
				continue // it was read behind the event
			} else if ok {
				c.entries.Invalidate(key)
				c.stats.invalidated.Add(1)
			}
		}
	}
	if last := events[len(events)-1].Time; !last.IsZero() {
		c.stats.stale.Store(int64(max(0, time.Since(last))))
	}
}

// flush drops all entries made of a source. The caller holds c.mu.
func (c *Cache[K, V]) flush(s freehold.Source) {
	clear(c.flights) // who asks from now on reads anew
	if c.sources[s] == nil {
		return // nothing made of it was kept
	}
	for key, e := range c.entries.All() {
		for _, label := range e.labels {
			if label.Source == s {
				c.entries.Invalidate(key)
				c.stats.flushed.Add(1)
				break
			}
		}
	}
}

// Stats is what a cache has done since it was made.
type Stats struct {
	Hits        int64 // reads answered by an entry
	Misses      int64 // reads that had to wait for a load
	Shared      int64 // those of them that the second level answered
	Kept        int64 // loads that became entries
	Refused     int64 // loads that were used and not kept, because something newer is or may be known
	Invalidated int64 // entries dropped by an event
	Flushed     int64 // entries dropped because a source began again
	Entries     int   // now, about
	// Staleness is how old the newest event was when it was applied: for how long an
	// entry that it changed could still be read without a token.
	Staleness time.Duration
}

// Stats counts.
func (c *Cache[K, V]) Stats() Stats {
	return Stats{
		Hits: c.stats.hits.Load(), Misses: c.stats.misses.Load(), Shared: c.stats.shared.Load(), Kept: c.stats.kept.Load(), Refused: c.stats.refused.Load(),
		Invalidated: c.stats.invalidated.Load(), Flushed: c.stats.flushed.Load(), Entries: c.entries.EstimatedSize(),
		Staleness: time.Duration(c.stats.stale.Load()),
	}
}
