package pebble

import (
	"errors"
	"sync/atomic"

	lib "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
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

// Syncs counts the syncs of files so far.
func (db *DB) Syncs() int64 { return db.disk.syncs.Load() }
