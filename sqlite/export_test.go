package sqlite

import (
	"errors"
	"sync/atomic"
)

// FailCommits makes the next n commits fail before anything is durable.
func (db *DB) FailCommits(n int) {
	var left atomic.Int64
	left.Store(int64(n))
	hook := func() error {
		if left.Add(-1) >= 0 {
			return errors.New("commit fails on purpose")
		}
		return nil
	}
	db.commitHook.Store(&hook)
}

// Collect makes the directory insert names into its table after so many streams.
// Call it before the database is used.
func (db *DB) Collect(streams int) { db.streams.generation = streams }

// Generations is how many times the names in memory have gone to the table.
func (db *DB) Generations() uint64 { return db.streams.generations() }
