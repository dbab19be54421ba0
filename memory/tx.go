package memory

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// transaction is the kv.Tx of an Update or a View. It has a state of its own, in
// which its writes are; the state's journal has none of its events, which the
// tail holds until the commit.
type transaction struct {
	db     *DB
	writer bool
	id     string
	now    time.Time
	mark   freehold.Mark
	save   journal.Save

	mu     sync.Mutex
	over   bool
	events int // appended
	state  state
}

var _ kv.Tx = (*transaction)(nil)

// end kills the handle; no use of it goes on afterwards.
func (tx *transaction) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
}

// read runs fn on what the transaction sees.
func (tx *transaction) read(fn func(s *state) error) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.over {
		return freehold.ErrTxDone
	}
	return fn(&tx.state)
}

// write runs fn, which may change what the transaction sees.
func (tx *transaction) write(fn func(s *state) error) error {
	return tx.read(func(s *state) error {
		if !tx.writer {
			return freehold.ErrReadOnlyTx
		}
		return fn(s)
	})
}

func (tx *transaction) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (v freehold.Version, err error) {
	err = tx.write(func(*state) error {
		drafts, err := journal.Draft(ctx, tx.db.types, tx.id, tx.events, tx.now, events)
		if err != nil {
			return err
		}
		if v, err = tx.db.tail.Append(ctx, s, expect, drafts); err == nil {
			tx.events += len(drafts)
		}
		return err
	})
	return v, err
}

func (tx *transaction) Events(_ context.Context, id freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		var rs []freehold.Recorded
		err := tx.read(func(s *state) error {
			rs = s.stream(id, after, -1)
			if tx.writer {
				for _, r := range tx.db.tail.Pending(tx.save) {
					if r.Stream == id && r.Version > after {
						rs = append(rs, r)
					}
				}
			}
			return nil
		})
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
	return tx.read(func(*state) error { return nil })
}

func (tx *transaction) Mark() freehold.Mark { return tx.mark }
func (tx *transaction) Now() time.Time      { return tx.now }

// maxKey bounds keys, see kv.Tx.
const maxKey = 1 << 10

func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("memory: key %.40q of %d bytes: want 1 to %d", key, len(key), maxKey)
	}
	return nil
}

func (tx *transaction) Get(_ context.Context, key string) (value []byte, found bool, err error) {
	err = tx.read(func(s *state) error {
		value, found = s.values.get(key)
		return nil
	})
	return value, found, err
}

func (tx *transaction) Put(_ context.Context, key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	value = append([]byte{}, value...)
	return tx.write(func(s *state) error {
		s.values = s.values.set(key, value)
		return nil
	})
}

func (tx *transaction) Delete(_ context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return tx.write(func(s *state) error {
		s.values = s.values.delete(key)
		return nil
	})
}

func (tx *transaction) Scan(_ context.Context, prefix, from string) iter.Seq2[kv.Item, error] {
	return tx.scan(func(s *state) tree[[]byte] { return s.values }, "", prefix, from)
}

// scan yields the items of a tree whose key starts with space and prefix and is
// not below from in the space, without the space.
func (tx *transaction) scan(of func(*state) tree[[]byte], space, prefix, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		var snapshot tree[[]byte]
		err := tx.read(func(s *state) error {
			snapshot = of(s)
			return nil
		})
		if err != nil {
			yield(kv.Item{}, err)
			return
		}
		for key, value := range snapshot.from(space + max(prefix, from)) {
			if !strings.HasPrefix(key, space+prefix) || !yield(kv.Item{Key: key[len(space):], Value: value}, nil) {
				return
			}
		}
	}
}

func (tx *transaction) Add(_ context.Context, key string, delta, min int64) (sum int64, err error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	err = tx.write(func(s *state) error {
		if raw, found := s.values.get(key); found {
			if sum, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
				return fmt.Errorf("memory: value of %.60q is not a number", key)
			}
		}
		if delta > 0 && sum > math.MaxInt64-delta || delta < 0 && sum < math.MinInt64-delta {
			return fmt.Errorf("memory: value of %.60q would not fit in 64 bits", key)
		}
		if sum+delta < min {
			return kv.ErrBound
		}
		sum += delta
		s.values = s.values.set(key, strconv.AppendInt(nil, sum, 10))
		return nil
	})
	return sum, err
}
