package freehold

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Tx is one transaction of one service's database: its state, its journal and
// the marks of its followers. Storage code sees it as a sqldb.Tx or a kv.Tx.
// A Tx belongs to the closure it was handed to: one goroutine, dead afterwards
// ([ErrTxDone]).
type Tx interface {
	// Append adds events to a stream if it is as expected, and returns the
	// stream's new version. Without events it is a condition. A *Conflict means
	// that nothing of this call was written; the closure should return it.
	Append(ctx context.Context, s StreamID, expect Expect, events ...Event) (Version, error)
	// Events reads a stream behind a version, oldest first, with what this
	// transaction has appended itself. The sequence ends at the first error.
	Events(ctx context.Context, s StreamID, after Version) iter.Seq2[Recorded, error]
	// Lock makes other transactions that lock one of the keys wait for this one.
	// Call it before a read that decides a write. It does nothing where a
	// database has one writer.
	Lock(ctx context.Context, keys ...string) error
	// Mark is a place in this journal that the transaction surely sees.
	Mark() Mark
	// Now is the transaction's time, the same at each call, in microseconds UTC.
	Now() time.Time
}

// DB is a service's database. It is safe for concurrent use.
type DB[T Tx] interface {
	// Update runs fn in a transaction and returns a token for what it wrote. fn may
	// run more than once, so it must do nothing outside tx. An error or a panic of
	// fn rolls back. The context given to fn carries the mark that makes an Update
	// within an Update fail with [ErrNested]. If ctx ends before fn was started
	// nothing happened and its error is returned; afterwards the caller gets the
	// outcome.
	Update(ctx context.Context, fn func(ctx context.Context, tx T) error) (Token, error)
	// View runs fn on a consistent snapshot; Append and other writes fail in it.
	View(ctx context.Context, fn func(ctx context.Context, tx T) error) error
	// Append writes to one or more streams atomically: all expectations hold, or
	// none of the writes is done. Concurrent calls share one sync.
	Append(ctx context.Context, writes ...Write) (Token, error)
}

var (
	// ErrBehind is returned by a read that was given a token and could not reach it
	// in the time allowed. Try again, or read without the token and accept older data.
	ErrBehind = errors.New("freehold: not there yet: retry, or read without the token")
	// ErrHistoryLost is returned for a token of an epoch that ended before the
	// token's position: what it refers to no longer exists.
	ErrHistoryLost = errors.New("freehold: history lost: the journal went back in time below this token")
	// ErrNested is returned by Update called from within an Update's closure.
	ErrNested = errors.New("freehold: Update inside an Update: use the tx that the closure was given")
	// ErrTxDone is returned by a Tx used after its closure has returned.
	ErrTxDone = errors.New("freehold: transaction is over: do not keep tx beyond its closure")
	// ErrReadOnlyTx is returned by a write on the Tx of a View.
	ErrReadOnlyTx = errors.New("freehold: write in a View: use Update")
	// ErrUnknown is returned when a commit was under way and its outcome is not
	// known. Repeat the command under the same business key.
	ErrUnknown = errors.New("freehold: outcome of the commit is unknown: repeat under the same key")
	// ErrLatched is returned by every write after a disk error, or when the database is
	// found to be another than it was: what is in memory can no longer be trusted. The
	// text behind it says why. Restart the process.
	ErrLatched = errors.New("freehold: this process writes to its database no longer and has to be started anew")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("freehold: database is closed")
	// ErrUnavailable is returned when a database on another machine cannot be reached, or
	// refuses to work just now; nothing was done. Try again later.
	ErrUnavailable = errors.New("freehold: database is not available: try again later")
	// ErrTooLong is the cause with which a closure that holds the writer for too long is cancelled.
	ErrTooLong = errors.New("freehold: transaction took too long and was rolled back: move slow work out of the closure")
	// ErrDiverged is returned when a source's history is not the one that a reader
	// has seen: a database was restored to an older state. See freehold adopt.
	ErrDiverged = errors.New("freehold: history diverged: the source was restored to an older state; see freehold adopt")
	// ErrGone is returned when events asked for have been archived.
	ErrGone = errors.New("freehold: events have been archived")
	// ErrFenced is returned when another instance has moved a follower's mark.
	ErrFenced = errors.New("freehold: fenced: another instance moved this follower's mark")
	// ErrUnknownType is returned for an event type that a catalog does not define.
	ErrUnknownType = errors.New("freehold: unknown event type")
	// ErrPlaceholder is returned by Decode for an internal event of another service.
	ErrPlaceholder = errors.New("freehold: internal event of another service has no payload here")
)
