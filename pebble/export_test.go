package pebble

import (
	"errors"
	"sync/atomic"

	lib "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
)

// FailCommits makes the next n commits fail before anything is durable.
func (db *DB) FailCommits(n int) {
	var left atomic.Int64
	left.Store(int64(n))
	hook := func() error {
		if left.Add(-1) >= 0 {
			return errors.New("pebble: the commit fails on purpose")
		}
		return nil
	}
	db.commitHook.Store(&hook)
}

// On returns options for a database on another file system.
func (o Options) On(fs vfs.FS) *Options {
	o.fs = fs
	return &o
}

// Flush writes Pebble's memtable to a table.
func (db *DB) Flush() error { return db.kv.Flush() }

// RawScan reads up to limit events' keys and values, as the library gives them.
func (db *DB) RawScan(limit int) (n int, err error) {
	it, err := db.kv.NewIter(&lib.IterOptions{LowerBound: []byte{kindEvent}, UpperBound: []byte{kindEvent + 1}})
	if err != nil {
		return 0, err
	}
	sum := 0
	for ok := it.First(); ok && n < limit; ok = it.Next() {
		sum += len(it.Key()) + len(it.Value())
		n++
	}
	if sum == 0 {
		return n, errors.New("pebble: no events")
	}
	return n, errors.Join(it.Error(), it.Close())
}

// Shift moves the first byte of the stored payload of an event to the end of its nonce.
func (db *DB) Shift(p freehold.Position) error {
	r := freehold.Recorded{At: freehold.Mark{Position: p}}
	key := numbered(kindEvent, int64(p))
	value, done, err := db.kv.Get(key)
	if err != nil {
		return err
	}
	if err := errors.Join(record.Decode(value, &r), done.Close()); err != nil {
		return err
	}
	r.Nonce, r.Raw = append(r.Nonce, r.Raw[0]), r.Raw[1:]
	return db.kv.Set(key, record.Append(nil, &r), lib.Sync)
}

// Syncs counts the syncs of files so far.
func (db *DB) Syncs() int64 { return db.disk.syncs.Load() }
