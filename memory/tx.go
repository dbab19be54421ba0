package memory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

var errCommit = errors.New("memory: the commit fails on purpose")

// transaction is the kv.Tx of an Update or a View.
type transaction struct {
	db     *DB
	writer bool
	id     string
	now    time.Time
	events int
	save   journal.Save
	mark   freehold.Mark
	base   state

	mu     sync.Mutex
	over   bool
	values map[string][]byte // written; nil is deleted
	marks  map[string]freehold.Mark
}

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
	} else if write && !tx.writer {
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
		rs := ofStream(tx.base.events, s, after)
		if tx.writer {
			rs = append(rs, ofStream(tx.db.tail.Pending(tx.save), s, after)...)
		}
		end()
		tx.db.types.Bind(rs)
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func ofStream(events []freehold.Recorded, s freehold.StreamID, after freehold.Version) []freehold.Recorded {
	var rs []freehold.Recorded
	for _, r := range events {
		if r.Stream == s && r.Version > after {
			rs = append(rs, r)
		}
	}
	return rs
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
	return tx.get("d/" + key)
}

func (tx *transaction) Put(_ context.Context, key string, value []byte) error {
	return tx.put("d/"+key, value)
}

func (tx *transaction) Delete(_ context.Context, key string) error { return tx.delete("d/" + key) }

func (tx *transaction) Scan(_ context.Context, prefix, from string) iter.Seq2[kv.Item, error] {
	return tx.scan("d/", prefix, from)
}

func (tx *transaction) Add(ctx context.Context, key string, delta, min int64) (int64, error) {
	raw, _, err := tx.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	var n int64
	if len(raw) > 0 {
		n, err = strconv.ParseInt(string(raw), 10, 64)
	}
	if err != nil {
		return 0, fmt.Errorf("memory: %s is not a number", key)
	}
	if n+delta < min {
		return n, kv.ErrBound
	}
	return n + delta, tx.Put(ctx, key, strconv.AppendInt(nil, n+delta, 10))
}

func (tx *transaction) get(key string) ([]byte, bool, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, false, err
	}
	defer end()
	if v, ok := tx.values[key]; ok {
		return v, v != nil, nil
	}
	v, ok := tx.base.values[key]
	return v, ok, nil
}

func (tx *transaction) put(key string, value []byte) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.values[key] = append([]byte{}, value...)
	return nil
}

func (tx *transaction) delete(key string) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.values[key] = nil
	return nil
}

// scan yields the items of a space in key order, without the space.
func (tx *transaction) scan(space, prefix, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		end, err := tx.begin(false)
		if err != nil {
			yield(kv.Item{}, err)
			return
		}
		found := map[string][]byte{}
		for _, layer := range []map[string][]byte{tx.base.values, tx.values} {
			for key, value := range layer {
				if strings.HasPrefix(key, space+prefix) && key >= space+from {
					found[key] = value
				}
			}
		}
		end()
		for _, key := range slices.Sorted(maps.Keys(found)) {
			if found[key] != nil && !yield(kv.Item{Key: key[len(space):], Value: found[key]}, nil) {
				return
			}
		}
	}
}

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *transaction }

var _ follow.Keeper = keeper{}

func markKey(follower string, s freehold.Source) string { return follower + "\x1f" + string(s) }

func (k keeper) Mark(_ context.Context, follower string, s freehold.Source) (freehold.Mark, error) {
	end, err := k.tx.begin(false)
	if err != nil {
		return freehold.Mark{}, err
	}
	defer end()
	for _, layer := range []map[string]freehold.Mark{k.tx.marks, k.tx.base.marks} {
		if m, ok := layer[markKey(follower, s)]; ok {
			return m, nil
		}
	}
	return freehold.Mark{Source: s}, nil
}

func (k keeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	at, err := k.Mark(ctx, follower, from.Source)
	if err != nil {
		return err
	}
	if at != from && (at.Position != 0 || from.Position != 0) {
		return fmt.Errorf("%s at %s: %w", follower, at, freehold.ErrFenced)
	}
	end, err := k.tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	k.tx.marks[markKey(follower, to.Source)] = to
	return nil
}

func (k keeper) Marks(context.Context) ([]follow.Place, error) {
	end, err := k.tx.begin(false)
	if err != nil {
		return nil, err
	}
	defer end()
	marks := maps.Clone(k.tx.base.marks)
	maps.Copy(marks, k.tx.marks)
	var all []follow.Place
	for _, key := range slices.Sorted(maps.Keys(marks)) {
		follower, _, _ := strings.Cut(key, "\x1f")
		all = append(all, follow.Place{Follower: follower, Mark: marks[key]})
	}
	return all, nil
}

func (k keeper) Get(_ context.Context, space, key string) ([]byte, bool, error) {
	return k.tx.get("k/" + space + "\x1e" + key)
}

func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	return k.tx.put("k/"+space+"\x1e"+key, value)
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	return k.tx.delete("k/" + space + "\x1e" + key)
}

func (k keeper) Scan(_ context.Context, space, from string) iter.Seq2[kv.Item, error] {
	return k.tx.scan("k/"+space+"\x1e", "", from)
}
