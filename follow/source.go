package follow

import (
	"context"
	"iter"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
)

// Source is a log that a follower reads: a service's own *journal.Journal or
// another service's through inbox.Remote. It is safe for concurrent use.
type Source interface {
	// Name is the source's name, part of every mark.
	Name() freehold.Source
	// Types is the catalog with which its events decode.
	Types() *freehold.Catalog
	// Bounds returns the place before the first event that can be read, and the
	// head as far as it is known.
	Bounds(ctx context.Context) (first, head freehold.Mark, err error)
	// Read returns about limit events behind the mark, ending at a transaction
	// boundary, or none if there are none yet. freehold.ErrDiverged: the source's
	// history is not the one that led to after. freehold.ErrGone: archived.
	Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error)
	// Wait returns when Read may have something new behind the mark, or with ctx's
	// error. It may return early.
	Wait(ctx context.Context, after freehold.Mark) error
}

// Fresh is s.Bounds as the source has them at this moment, if s can ask: another instance
// of the service may have written what this process has not heard of yet.
func Fresh(ctx context.Context, s Source) (first, head freehold.Mark, err error) {
	if f, ok := s.(interface {
		Fresh(ctx context.Context) (first, head freehold.Mark, err error)
	}); ok {
		return f.Fresh(ctx)
	}
	return s.Bounds(ctx)
}

// DB is a database in which followers keep their marks beside their effects.
// Only engines implement it.
type DB[T freehold.Tx] interface {
	freehold.DB[T]
	// Keeper returns what followers keep, as part of tx.
	Keeper(tx T) Keeper
}

// Do is db.Update for those who need no token: some engines have to wait for it.
func Do[T freehold.Tx](ctx context.Context, db DB[T], fn func(ctx context.Context, tx T) error) error {
	if d, ok := db.(interface {
		Do(ctx context.Context, fn func(ctx context.Context, tx T) error) error
	}); ok {
		return d.Do(ctx, fn)
	}
	_, err := db.Update(ctx, fn)
	return err
}

// Keeper is the part of a database that belongs to followers: marks, and small
// values by space and key (parked events, saga instances, snapshots, counts of
// starts). It belongs to the transaction it was taken from.
type Keeper interface {
	// Mark returns a follower's place in a source: the zero mark (with its Source)
	// if it has none yet.
	Mark(ctx context.Context, follower string, s freehold.Source) (freehold.Mark, error)
	// Move sets a follower's place if it is still at from (position, chain and epoch), else
	// freehold.ErrFenced. from.Source and to.Source are equal.
	Move(ctx context.Context, follower string, from, to freehold.Mark) error
	// Marks lists the places of all followers, by follower and source.
	Marks(ctx context.Context) ([]Place, error)
	// Get returns the value at a key of a space.
	Get(ctx context.Context, space, key string) (value []byte, found bool, err error)
	// Put sets the value at a key of a space.
	Put(ctx context.Context, space, key string, value []byte) error
	// Delete removes a key of a space, if it is there.
	Delete(ctx context.Context, space, key string) error
	// Scan yields the items of a space whose key is not below from, by key
	// (bytewise), without the space. Do not write to the space while ranging.
	Scan(ctx context.Context, space, from string) iter.Seq2[kv.Item, error]
}

// Place is a follower's mark, or where it stands in memory.
type Place struct {
	Follower string        `json:"follower"`
	Mark     freehold.Mark `json:"mark"`
}
