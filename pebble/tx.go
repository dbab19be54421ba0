package pebble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// transaction is the kv.Tx of an Update (over an indexed batch) or a View (over a
// snapshot).
type transaction struct {
	db     *DB
	id     string
	now    time.Time
	events int
	save   journal.Save
	mark   freehold.Mark
	batch  *pebble.Batch // nil in a View
	from   pebble.Reader

	mu   sync.Mutex
	over bool
}

var _ kv.Tx = (*transaction)(nil)

func (tx *transaction) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
}

// begin guards a use of the handle; the returned function ends the use.
func (tx *transaction) begin(write bool) (end func(), err error) {
	tx.mu.Lock()
	if tx.over {
		err = freehold.ErrTxDone
	} else if write && tx.batch == nil {
		err = freehold.ErrReadOnlyTx
	}
	if err != nil {
		tx.mu.Unlock()
		return nil, err
	}
	return tx.mu.Unlock, nil
}

func (tx *transaction) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (freehold.Version, error) {
	end, err := tx.begin(true)
	if err != nil {
		return 0, err
	}
	defer end()
	drafts, err := journal.Draft(ctx, tx.db.types, tx.id, tx.events, tx.now, events)
	if err != nil {
		return 0, err
	}
	tx.events += len(drafts)
	return tx.db.tail.Append(ctx, s, expect, drafts)
}

func (tx *transaction) Events(_ context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		end, err := tx.begin(false)
		if err != nil {
			yield(freehold.Recorded{}, err)
			return
		}
		rs, err := tx.db.readStream(tx.from, s, after, math.MaxInt64, -1)
		if err == nil && tx.batch != nil {
			for _, r := range tx.db.tail.Pending(tx.save) {
				if r.Stream == s && r.Version > after {
					rs = append(rs, r)
				}
			}
		}
		end()
		if err != nil {
			yield(freehold.Recorded{}, err)
			return
		}
		tx.db.types.Bind(rs)
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (tx *transaction) Lock(context.Context, ...string) error {
	end, err := tx.begin(false)
	if err == nil {
		end()
	}
	return err
}

func (tx *transaction) Mark() freehold.Mark { return tx.mark }
func (tx *transaction) Now() time.Time      { return tx.now }

func (tx *transaction) Get(_ context.Context, key string) ([]byte, bool, error) {
	return tx.get(keyData, key)
}

func (tx *transaction) Put(_ context.Context, key string, value []byte) error {
	return tx.put(keyData, key, value)
}

func (tx *transaction) Delete(_ context.Context, key string) error { return tx.delete(keyData, key) }

func (tx *transaction) Scan(_ context.Context, prefix, from string) iter.Seq2[kv.Item, error] {
	return tx.scan(keyData, prefix, from)
}

func (tx *transaction) Add(ctx context.Context, key string, delta, min int64) (int64, error) {
	raw, found, err := tx.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	var n int64
	if found {
		if n, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
			return 0, fmt.Errorf("pebble: %s is not a number", key)
		}
	}
	if n+delta < min {
		return n, kv.ErrBound
	}
	return n + delta, tx.Put(ctx, key, strconv.AppendInt(nil, n+delta, 10))
}

func prefixed(space byte, key string) []byte { return append([]byte{space}, key...) }

func (tx *transaction) get(space byte, key string) ([]byte, bool, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, false, err
	}
	defer end()
	return get(tx.from, prefixed(space, key))
}

func (tx *transaction) put(space byte, key string, value []byte) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	return tx.batch.Set(prefixed(space, key), value, nil)
}

func (tx *transaction) delete(space byte, key string) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	return tx.batch.Delete(prefixed(space, key), nil)
}

// scan yields the items of a space whose key starts with prefix and is not below
// from, without the space's byte.
func (tx *transaction) scan(space byte, prefix, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		end, err := tx.begin(false)
		if err != nil {
			yield(kv.Item{}, err)
			return
		}
		it, err := tx.from.NewIter(&pebble.IterOptions{LowerBound: prefixed(space, max(prefix, from)), UpperBound: behind(prefixed(space, prefix))})
		end()
		if err != nil {
			yield(kv.Item{}, err)
			return
		}
		for ok := it.First(); ok; ok = it.Next() {
			if !yield(kv.Item{Key: string(it.Key()[1:]), Value: append([]byte{}, it.Value()...)}, nil) {
				_ = it.Close() // the caller has what it wanted
				return
			}
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			yield(kv.Item{}, err)
		}
	}
}

// behind is the first key that does not start with prefix.
func behind(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *transaction }

var _ follow.Keeper = keeper{}

func (k keeper) Mark(_ context.Context, follower string, s freehold.Source) (freehold.Mark, error) {
	m := freehold.Mark{Source: s}
	raw, found, err := k.tx.get(keyMark, follower+"\x1f"+string(s))
	if err != nil || !found {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("mark of %s: %w", follower, err)
	}
	return m, nil
}

func (k keeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	at, err := k.Mark(ctx, follower, from.Source)
	if err != nil {
		return err
	}
	if at != from && (at.Position != 0 || from.Position != 0) {
		return fmt.Errorf("%s at %s: %w", follower, at, freehold.ErrFenced)
	}
	raw, err := json.Marshal(to)
	if err != nil {
		return err
	}
	return k.tx.put(keyMark, follower+"\x1f"+string(to.Source), raw)
}

func (k keeper) Marks(context.Context) ([]follow.Place, error) {
	var all []follow.Place
	for item, err := range k.tx.scan(keyMark, "", "") {
		if err != nil {
			return nil, err
		}
		var p follow.Place
		p.Follower, _, _ = strings.Cut(item.Key, "\x1f")
		if err := json.Unmarshal(item.Value, &p.Mark); err != nil {
			return nil, fmt.Errorf("mark of %s: %w", p.Follower, err)
		}
		all = append(all, p)
	}
	return all, nil
}

func (k keeper) Get(_ context.Context, space, key string) ([]byte, bool, error) {
	return k.tx.get(keyKeep, space+"\x1e"+key)
}

func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	return k.tx.put(keyKeep, space+"\x1e"+key, value)
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	return k.tx.delete(keyKeep, space+"\x1e"+key)
}

func (k keeper) Scan(_ context.Context, space, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		prefix := space + "\x1e"
		for item, err := range k.tx.scan(keyKeep, prefix, prefix+from) {
			item.Key = strings.TrimPrefix(item.Key, prefix)
			if !yield(item, err) {
				return
			}
		}
	}
}
