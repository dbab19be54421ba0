package sqlite

import (
	"errors"
	"strings"
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

// Override makes the driver open files with another setting than it is told, as some
// do of their own accord.
func (o *Options) Override(pragma string) {
	name, _, _ := strings.Cut(pragma, "(")
	o.override = func(pragmas []string) []string {
		for i := range pragmas {
			if strings.HasPrefix(pragmas[i], name+"(") {
				pragmas[i] = pragma
			}
		}
		return pragmas
	}
}

// HoldCommits calls fn in each commit, before anything is durable.
func (db *DB) HoldCommits(fn func()) {
	hook := func() error {
		fn()
		return nil
	}
	db.commitHook.Store(&hook)
}
