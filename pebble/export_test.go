package pebble

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
