package pebble

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"sync"
	"time"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Bounds of what a transaction takes.
const (
	maxKey   = 1 << 10   // of a key, see kv.Tx
	maxBatch = 256 << 20 // of all that a transaction writes
)

// transaction is the kv.Tx of an Update (over an indexed batch) or a View (over
// the durable snapshot).
type transaction struct {
	db     *DB
	id     string
	now    time.Time
	events int
	save   journal.Save
	mark   freehold.Mark
	batch  *lib.Batch // nil in a View
	from   lib.Reader

	mu   sync.Mutex
	over bool
	key  []byte // scratch
}

var _ kv.Tx = (*transaction)(nil)

// end kills the handle; no use of it goes on afterwards.
func (tx *transaction) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
}

// begin guards a use of the handle; the returned function ends the use.
func (tx *transaction) begin(write bool) (end func(), err error) {
	tx.mu.Lock()
	switch {
	case tx.over:
		err = freehold.ErrTxDone
	case write && tx.batch == nil:
		err = freehold.ErrReadOnlyTx
	case write && tx.batch.Len() > maxBatch:
		err = fmt.Errorf("pebble: transaction writes more than %d MiB: split it", maxBatch>>20)
	default:
		return tx.mu.Unlock, nil
	}
	tx.mu.Unlock()
	return nil, err
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
	tx.db.appends.Add(1)
	return tx.db.tail.Append(ctx, s, expect, drafts)
}

func (tx *transaction) Events(_ context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		rs, err := tx.stream(s, after)
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

// stream reads what the transaction sees of a stream.
func (tx *transaction) stream(s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, err
	}
	defer end()
	rs, err := tx.db.readStream(tx.from, s, after, -1)
	if err == nil && tx.batch != nil {
		for _, r := range tx.db.tail.Pending(tx.save) {
			if r.Stream == s && r.Version > after {
				rs = append(rs, r)
			}
		}
	}
	return rs, err
}

// Lock does nothing but check the handle: there is one writer.
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
	return tx.get(kindData, "", key)
}

func (tx *transaction) Put(_ context.Context, key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return tx.put(kindData, "", key, value)
}

func (tx *transaction) Delete(_ context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return tx.delete(kindData, "", key)
}

func (tx *transaction) Scan(_ context.Context, prefix, from string) iter.Seq2[kv.Item, error] {
	return tx.scan(kindData, "", prefix, from)
}

func (tx *transaction) Add(ctx context.Context, key string, delta, min int64) (int64, error) {
	raw, found, err := tx.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	var n int64
	if found {
		if n, err = strconv.ParseInt(string(raw), 10, 64); err != nil {
			return 0, fmt.Errorf("pebble: value of %.60q is not a number", key)
		}
	}
	if delta > 0 && n > math.MaxInt64-delta || delta < 0 && n < math.MinInt64-delta {
		return n, fmt.Errorf("pebble: value of %.60q would not fit in 64 bits", key)
	}
	if n+delta < min {
		return n, kv.ErrBound
	}
	n += delta
	return n, tx.Put(ctx, key, strconv.AppendInt(make([]byte, 0, 20), n, 10))
}

func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("pebble: key %.40q of %d bytes: want 1 to %d", key, len(key), maxKey)
	}
	return nil
}

// appendKey appends a key of a kind; space is empty or ends with a zero byte.
func appendKey(b []byte, kind byte, space, key string) []byte {
	return append(append(append(b, kind), space...), key...)
}

func (tx *transaction) get(kind byte, space, key string) ([]byte, bool, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, false, err
	}
	defer end()
	tx.key = appendKey(tx.key[:0], kind, space, key)
	value, found, err := getFrom(tx.from, tx.key)
	if err != nil {
		return nil, false, tx.db.wrap(err)
	}
	return value, found, nil
}

func (tx *transaction) put(kind byte, space, key string, value []byte) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.key = appendKey(tx.key[:0], kind, space, key)
	return tx.batch.Set(tx.key, value, nil)
}

func (tx *transaction) delete(kind byte, space, key string) error {
	end, err := tx.begin(true)
	if err != nil {
		return err
	}
	defer end()
	tx.key = appendKey(tx.key[:0], kind, space, key)
	return tx.batch.Delete(tx.key, nil)
}

// scan yields the items of a kind and space whose key starts with prefix and is
// not below from, with the key behind the space. It reads in growing pages, so that
// nothing is held while the caller works.
func (tx *transaction) scan(kind byte, space, prefix, from string) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		skip := 1 + len(space)
		lower := appendKey(nil, kind, space, max(prefix, from))
		upper := behind(appendKey(nil, kind, space, prefix))
		for size := 16; ; size = min(2*size, 512) {
			page, err := tx.page(lower, upper, skip, size)
			for _, item := range page {
				if !yield(item, nil) {
					return
				}
			}
			if err != nil {
				yield(kv.Item{}, err)
			}
			if err != nil || len(page) < size {
				return
			}
			lower = append(append(lower[:skip], page[size-1].Key...), 0)
		}
	}
}

// page reads up to size items from lower up to upper.
func (tx *transaction) page(lower, upper []byte, skip, size int) ([]kv.Item, error) {
	end, err := tx.begin(false)
	if err != nil {
		return nil, err
	}
	defer end()
	it, err := tx.from.NewIter(&lib.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, tx.db.wrap(err)
	}
	var page []kv.Item
	for ok := it.First(); ok && len(page) < size && err == nil; ok = it.Next() {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			page = append(page, kv.Item{Key: string(it.Key()[skip:]), Value: append(make([]byte, 0, len(value)), value...)})
		}
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, tx.db.wrap(err)
	}
	return page, nil
}
