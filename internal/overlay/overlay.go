// Package overlay is a kv.Tx whose writes stay in memory above what is stored, for
// engines that send a transaction's writes at its end: etcd and Redis.
package overlay

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
)

// Kinds of keys: the first byte of what an engine stores.
const (
	Mark = "m" // of a follower
	Keep = "k" // what followers keep
	Data = "d" // the service's own values
)

const maxKey = 1 << 10 // of a key, see kv.Tx

// Write is a value that is to be put, or a key to be deleted.
type Write struct {
	Value   []byte
	Deleted bool
}

// Base is what a transaction stands on: a state that does not change while it runs.
// Its methods are called by one goroutine at a time.
type Base interface {
	// Value returns a value, which the caller may change.
	Value(key string) (value []byte, found bool, err error)
	// Scan returns up to limit items from lower up to upper, in order, and whether
	// there are more.
	Scan(lower, upper string, limit int) (items []kv.Item, more bool, err error)
	// Append appends to a stream, see freehold.Tx.
	Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events []freehold.Event) (freehold.Version, error)
	// Stream reads a stream, with what was appended.
	Stream(s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error)
	// Mark is freehold.Tx's.
	Mark() freehold.Mark
}

// Tx is the kv.Tx of an Update or a View. It is dead after End.
type Tx struct {
	engine string
	base   Base
	writer bool
	now    time.Time
	before map[string]Write // of the transactions before it in its group

	mu   sync.Mutex
	over bool
	own  map[string]Write
}

var _ kv.Tx = (*Tx)(nil)

// New returns a transaction that sees base, and before above it. The engine's name
// stands in errors.
func New(engine string, base Base, now time.Time, writer bool, before map[string]Write) *Tx {
	return &Tx{engine: engine, base: base, writer: writer, now: now, before: before, own: map[string]Write{}}
}

// Warm reads keys in one go where the base can; see kv.Warm.
func (tx *Tx) Warm(_ context.Context, keys iter.Seq[string]) error {
	return tx.warm(func(yield func(string) bool) {
		for key := range keys {
			if !yield(Data + key) {
				return
			}
		}
	})
}

func (tx *Tx) warm(keys iter.Seq[string]) error {
	base, ok := tx.base.(interface {
		Warm(keys iter.Seq[string]) error
	})
	if !ok {
		return nil
	}
	end, err := tx.begin(false)
	if err != nil {
		return err
	}
	defer end()
	return base.Warm(keys)
}

// Writes is what the transaction has written. Call it behind End.
func (tx *Tx) Writes() map[string]Write { return tx.own }

// End kills the handle; no use of it goes on afterwards.
func (tx *Tx) End() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
}

// begin guards a use of the handle; the returned function ends the use.
func (tx *Tx) begin(write bool) (end func(), err error) {
	tx.mu.Lock()
	switch {
	case tx.over:
		err = freehold.ErrTxDone
	case write && !tx.writer:
		err = freehold.ErrReadOnlyTx
	default:
		return tx.mu.Unlock, nil
	}
	tx.mu.Unlock()
	return nil, err
}

func (tx *Tx) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (freehold.Version, error) {
	end, err := tx.begin(true)
	if err != nil {
		return 0, err
	}
	defer end()
	return tx.base.Append(ctx, s, expect, events)
}

func (tx *Tx) Events(_ context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		rs, err := tx.stream(s, after)
		if err != nil {
			yield(freehold.Recorded{}, err)
			return
		}
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (tx *Tx) stream(s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, err
	}
	defer end()
	return tx.base.Stream(s, after)
}

// Lock does nothing but check the handle: commits are serialised.
func (tx *Tx) Lock(context.Context, ...string) error {
	end, err := tx.begin(false)
	if err == nil {
		end()
	}
	return err
}

func (tx *Tx) Mark() freehold.Mark { return tx.base.Mark() }
func (tx *Tx) Now() time.Time      { return tx.now }

func (tx *Tx) Get(_ context.Context, key string) ([]byte, bool, error) {
	return tx.get(Data + key)
}

func (tx *Tx) Put(_ context.Context, key string, value []byte) error {
	if err := tx.checkKey(key); err != nil {
		return err
	}
	return tx.put(Data+key, value)
}

func (tx *Tx) Delete(_ context.Context, key string) error {
	if err := tx.checkKey(key); err != nil {
		return err
	}
	return tx.delete(Data + key)
}

func (tx *Tx) Scan(_ context.Context, prefix, from string) iter.Seq2[kv.Item, error] {
	return tx.scan(Data, prefix, from)
}

func (tx *Tx) Add(ctx context.Context, key string, delta, min int64) (int64, error) {
	raw, found, err := tx.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	var n int64
	if found {
		if n, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
			return 0, fmt.Errorf("%s: value of %.60q is not a number", tx.engine, key)
		}
	}
	if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta {
		return n, fmt.Errorf("%s: value of %.60q would not fit in 64 bits", tx.engine, key)
	}
	if n+delta < min {
		return n, kv.ErrBound
	}
	n += delta
	return n, tx.Put(ctx, key, strconv.AppendInt(make([]byte, 0, 20), n, 10))
}

func (tx *Tx) checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("%s: key %.40q of %d bytes: want 1 to %d", tx.engine, key, len(key), maxKey)
	}
	return nil
}

// pending returns what this transaction or its group has written under a key.
func (tx *Tx) pending(key string) (w Write, found bool) {
	if w, found = tx.own[key]; !found {
		w, found = tx.before[key]
	}
	return w, found
}

func (tx *Tx) get(key string) ([]byte, bool, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, false, err
	}
	defer end()
	if w, found := tx.pending(key); found {
		return slices.Clone(w.Value), !w.Deleted, nil
	}
	return tx.base.Value(key)
}

func (tx *Tx) put(key string, value []byte) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.own[key] = Write{Value: append([]byte{}, value...)}
	return nil
}

func (tx *Tx) delete(key string) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.own[key] = Write{Deleted: true}
	return nil
}

// scan yields the items behind a space whose key starts with prefix and is not
// below from, with the key behind the space. It reads in growing pages, so that
// nothing is held while the caller works.
func (tx *Tx) scan(space, prefix, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		lower, upper := space+max(prefix, from), Behind(space+prefix)
		for size := 16; lower != ""; size = min(2*size, 512) {
			page, next, err := tx.page(lower, upper, size)
			for _, item := range page {
				item.Key = item.Key[len(space):]
				if !yield(item, nil) {
					return
				}
			}
			if err != nil {
				yield(kv.Item{}, err)
				return
			}
			lower = next
		}
	}
}

// page reads about size items from lower up to upper, and where to go on: nowhere
// if it is empty.
func (tx *Tx) page(lower, upper string, size int) (page []kv.Item, next string, err error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, "", err
	}
	defer end()
	stored, more, err := tx.base.Scan(lower, upper, size)
	if err != nil {
		return nil, "", err
	}
	limit := upper // of what is pending
	if more {
		next = stored[len(stored)-1].Key + "\x00"
		limit = next
	}
	for _, item := range stored {
		if _, changed := tx.pending(item.Key); !changed {
			page = append(page, item)
		}
	}
	add := func(key string, w Write) {
		if key >= lower && key < limit && !w.Deleted {
			page = append(page, kv.Item{Key: key, Value: slices.Clone(w.Value)})
		}
	}
	for key, w := range tx.before {
		if _, over := tx.own[key]; !over {
			add(key, w)
		}
	}
	for key, w := range tx.own {
		add(key, w)
	}
	slices.SortFunc(page, func(a, b kv.Item) int { return strings.Compare(a.Key, b.Key) })
	return page, next, nil
}

// Behind is the first key that does not start with prefix, which is not empty.
func Behind(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b[:i+1])
		}
	}
	return "\x00" // all keys to the end
}
