// Package kv is what storage code of key-value services sees: a transaction with
// get, put, delete, scan and a bounded add, and typed tables over it.
//
// # Guarantees
//
// Everything done through a [Tx] commits with the events appended through it
// (G1), and a transaction sees its own writes.
//
// # Ordering
//
// Scan goes by key, bytewise. Transactions are serialisable on every engine.
//
// # Failure
//
// [Tx.Add] refuses to go below its bound with [ErrBound] and changes nothing; any
// error returned from the closure rolls everything back.
package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/freehold-go/freehold"
)

// ErrBound is returned by [Tx.Add] when the result would be below the bound.
var ErrBound = errors.New("kv: below the bound")

// Item is a key and its value.
type Item struct {
	Key   string
	Value []byte
}

// Tx is a transaction of a key-value engine. Keys are any non-empty strings of
// up to 1 KiB; values must not be changed after Put nor after Get.
type Tx interface {
	freehold.Tx
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	// Scan yields the items whose key starts with prefix and is not below from,
	// in key order. Do not write under the prefix while ranging.
	Scan(ctx context.Context, prefix, from string) iter.Seq2[Item, error]
	// Add adds delta to the number at key (absent is 0, stored as decimal text)
	// and returns the sum, or ErrBound if that would be below min.
	Add(ctx context.Context, key string, delta, min int64) (int64, error)
}

// Warm tells which keys will be read next, so that an engine on another machine
// fetches them in one go. It changes nothing; other engines do not ask for the keys.
func Warm(ctx context.Context, tx Tx, keys iter.Seq[string]) error {
	if w, ok := tx.(interface {
		Warm(ctx context.Context, keys iter.Seq[string]) error
	}); ok {
		return w.Warm(ctx, keys)
	}
	return nil
}

// Table is a set of values of one type under a key prefix, stored as JSON.
type Table[V any] struct{ prefix string }

// NewTable returns the table whose keys start with prefix.
func NewTable[V any](prefix string) Table[V] { return Table[V]{prefix} }

// Get returns the value at key and whether there is one.
func (t Table[V]) Get(ctx context.Context, tx Tx, key string) (v V, found bool, err error) {
	raw, found, err := tx.Get(ctx, t.prefix+key)
	if err != nil || !found {
		return v, false, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, false, fmt.Errorf("kv: %s%s: %w", t.prefix, key, err)
	}
	return v, true, nil
}

// Warm tells which keys of the table will be read next; see [Warm].
func (t Table[V]) Warm(ctx context.Context, tx Tx, keys iter.Seq[string]) error {
	return Warm(ctx, tx, func(yield func(string) bool) {
		for key := range keys {
			if !yield(t.prefix + key) {
				return
			}
		}
	})
}

// Put stores v at key.
func (t Table[V]) Put(ctx context.Context, tx Tx, key string, v V) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("kv: %s%s: %w", t.prefix, key, err)
	}
	return tx.Put(ctx, t.prefix+key, raw)
}

// Delete removes the value at key, if there is one.
func (t Table[V]) Delete(ctx context.Context, tx Tx, key string) error {
	return tx.Delete(ctx, t.prefix+key)
}

// All yields keys (without the table's prefix) and values from a key on, in key
// order. It ends at the first error.
func (t Table[V]) All(ctx context.Context, tx Tx, from string) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		for item, err := range tx.Scan(ctx, t.prefix, t.prefix+from) {
			var e Entry[V]
			if err == nil {
				e.Key = item.Key[len(t.prefix):]
				if err = json.Unmarshal(item.Value, &e.Value); err != nil {
					err = fmt.Errorf("kv: %s: %w", item.Key, err)
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Entry is a row of a [Table].
type Entry[V any] struct {
	Key   string
	Value V
}
