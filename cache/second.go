package cache

import (
	"context"
	"encoding/json"

	"github.com/freehold-go/freehold"
)

// Second is a level behind the caches of several processes. It is safe for concurrent
// use. It has no errors: what cannot be asked, or cannot be relied on, is not found,
// and what cannot be told is noticed at the next event that can be.
type Second interface {
	// Get returns the value at a key, and up to where it holds: a mark of each source
	// that it is made of, the place at which it was read or, where nothing has
	// invalidated it since, the newest one that the level was told of.
	Get(ctx context.Context, key string) (value []byte, at []freehold.Mark, found bool)
	// Fill keeps a value that was read at the marks, unless an invalidation behind one
	// of them is known or may have been forgotten, or a newer value is there.
	Fill(ctx context.Context, key string, value []byte, at []freehold.Mark)
	// Invalidate tells what all events behind from up to to have changed. Many
	// processes tell the same, in any order. If the level was not told of what is before
	// from, or if the epoch is another one, it drops everything made of the source. Equal
	// marks say that a process begins there.
	Invalidate(ctx context.Context, from, to freehold.Mark, changed []Change)
}

// Change is a key that an event at a position has invalidated.
type Change struct {
	Key string
	At  freehold.Position
}

// Codec turns values into bytes and back, whole.
type Codec[V any] struct {
	Encode func(V) ([]byte, error)
	Decode func([]byte) (V, error)
}

// JSON is the codec of values that encoding/json keeps whole: all of it is in exported
// fields.
func JSON[V any]() Codec[V] {
	return Codec[V]{
		Encode: func(v V) ([]byte, error) { return json.Marshal(v) },
		Decode: func(raw []byte) (v V, err error) { return v, json.Unmarshal(raw, &v) },
	}
}

// shared is a cache's second level.
type shared[K comparable, V any] struct {
	Second
	key   func(K) string
	codec Codec[V]
}

// Share puts a second level behind the cache. key gives each key a text of its own.
// Call it before the cache is used.
func (c *Cache[K, V]) Share(second Second, key func(K) string, codec Codec[V]) {
	c.second = &shared[K, V]{second, key, codec}
}

// lookup asks the second level for an entry that reflects the token and everything
// that this process knows of.
func (c *Cache[K, V]) lookup(ctx context.Context, key K, tok freehold.Token) (*entry[V], bool) {
	if c.second == nil {
		return nil, false
	}
	raw, labels, found := c.second.Get(ctx, c.second.key(key))
	if !found || reflects(labels, tok) != nil || !c.covers(key, labels) {
		return nil, false
	}
	value, err := c.second.codec.Decode(raw)
	if err != nil { // of another version of the program
		return nil, false
	}
	c.stats.shared.Add(1)
	return &entry[V]{value, labels}, true
}

// covers reports whether nothing is known, or was known and forgotten, that is newer
// than the labels.
func (c *Cache[K, V]) covers(key K, labels []freehold.Mark) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, label := range labels {
		if s := c.sources[label.Source]; s == nil || !s.allows(key, label) {
			return false
		}
	}
	return len(labels) > 0
}

// offer gives the second level what was loaded.
func (c *Cache[K, V]) offer(ctx context.Context, key K, e *entry[V]) {
	if c.second == nil || len(e.labels) == 0 {
		return
	}
	if raw, err := c.second.codec.Encode(e.value); err == nil {
		c.second.Fill(ctx, c.second.key(key), raw, e.labels)
	}
}

// pass tells the second level of events, run by run.
func (c *Cache[K, V]) pass(ctx context.Context, events []freehold.Recorded) {
	if c.second == nil {
		return
	}
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].At.Epoch == events[0].At.Epoch && events[n].At.Position == events[n-1].At.Position+1 {
			n++
		}
		from, to := events[0].At, events[n-1].At
		if !begins(&events[0]) {
			from.Position--
		}
		var changed []Change
		for i := range events[:n] {
			if r := &events[i]; !r.Placeholder() {
				for _, key := range c.keys(*r) {
					changed = append(changed, Change{c.second.key(key), r.At.Position})
				}
			}
		}
		c.second.Invalidate(ctx, from, to, changed)
		events = events[n:]
	}
}

// begins reports whether r only says where a follower in memory begins: a placeholder
// of an event has the event's digest.
func begins(r *freehold.Recorded) bool { return r.Placeholder() && r.Digest == freehold.Hash{} }
