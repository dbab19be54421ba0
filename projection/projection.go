// Package projection builds read models: query data that followers derive from
// journals, by version, with read-your-writes.
//
// # Guarantees
//
// A read model holds exactly what its handlers make of the events up to its mark,
// which is stored with it. A read that is given a token sees at least what the
// token names, or is told that it could not (G8). Each version has a namespace of
// its own, so that a new one can be built beside the old.
//
// # Ordering
//
// That of package follow.
//
// # Failure
//
// A read whose token is not reached in time returns freehold.ErrBehind and runs
// nothing. Handlers that fail are dealt with as package follow says.
package projection

import (
	"context"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Options tune a projection; the zero value is good.
type Options struct {
	follow.Options
	// Wait bounds how long a read waits for its token. 0 is 2 s.
	Wait time.Duration
}

// Projection is a read model and the follower that builds it.
type Projection[T freehold.Tx] struct {
	*follow.Follower
	db   follow.DB[T]
	ns   string
	wait time.Duration
}

// New returns version v of the read model name in db. build gets the version's
// namespace, such as "orders_v3": a prefix of keys, or of table names.
func New[T freehold.Tx](name string, v int, db follow.DB[T], sources []follow.Source, o *Options, build func(ns string) []follow.Route[T]) (*Projection[T], error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Wait <= 0 {
		opts.Wait = 2 * time.Second
	}
	ns := fmt.Sprintf("%s_v%d", name, v)
	f, err := follow.New(ns, db, sources, &opts.Options, build(ns)...)
	if err != nil {
		return nil, err
	}
	return &Projection[T]{Follower: f, db: db, ns: ns, wait: opts.Wait}, nil
}

// Namespace is that of the version that View reads.
func (p *Projection[T]) Namespace() string { return p.ns }

// View waits until the read model has reached the token, and runs fn on a snapshot
// of it.
func (p *Projection[T]) View(ctx context.Context, tok freehold.Token, fn func(ctx context.Context, tx T, ns string) error) error {
	waitCtx, cancel := context.WithTimeout(ctx, p.wait)
	err := p.WaitFor(waitCtx, tok)
	cancel()
	if err != nil {
		return err
	}
	return p.db.View(ctx, func(ctx context.Context, tx T) error { return fn(ctx, tx, p.ns) })
}
