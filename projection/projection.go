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

// Projection is a read model and the follower that builds it: Run follows the
// sources from where the read model stands, and WaitFor waits for a token. All
// methods are safe for concurrent use.
type Projection[T freehold.Tx] struct {
	*follow.Follower
	db   follow.DB[T]
	ns   string
	wait time.Duration
}

// New returns version v, from 1, of the read model name in db. The name is
// lower-case letters, digits and underscores and begins with a letter. build gets
// the version's namespace and returns the handlers that write under it. A new
// version begins at the first event of its sources; the follower, and its mark,
// have the name of the namespace.
func New[T freehold.Tx](name string, v int, db follow.DB[T], sources []follow.Source, o *Options, build func(ns string) []follow.Route[T]) (*Projection[T], error) {
	if err := validate(name, v); err != nil {
		return nil, err
	}
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
		return nil, fmt.Errorf("projection: %w", err)
	}
	return &Projection[T]{Follower: f, db: db, ns: ns, wait: opts.Wait}, nil
}

// longestName leaves room for a table's own name: PostgreSQL cuts off at 63 bytes.
const longestName = 30

func validate(name string, v int) error {
	if v < 1 {
		return fmt.Errorf("projection %s: version %d: versions count from 1", name, v)
	}
	for i := range len(name) {
		b := name[i]
		letter := b >= 'a' && b <= 'z'
		if !letter && (i == 0 || b != '_' && (b < '0' || b > '9')) {
			return fmt.Errorf("projection %.40q: byte %q: want lower-case letters, digits and underscores, a letter first: it becomes part of table names", name, b)
		}
	}
	if name == "" || len(name) > longestName {
		return fmt.Errorf("projection %.40q: want a name of 1 to %d bytes", name, longestName)
	}
	return nil
}

// Namespace is that of the version that View reads.
func (p *Projection[T]) Namespace() string { return p.ns }

// View waits until the read model has reached the token, at most Options.Wait, and
// runs fn on a snapshot of it. Writes in fn fail. The zero token waits for nothing.
func (p *Projection[T]) View(ctx context.Context, tok freehold.Token, fn func(ctx context.Context, tx T, ns string) error) error {
	wait, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	_, forgets := p.db.(interface{ Lost() <-chan struct{} })
	for {
		if err := p.WaitFor(wait, tok); err != nil {
			return err
		}
		holds := true
		err := p.db.View(ctx, func(ctx context.Context, tx T) (err error) {
			if forgets {
				if holds, err = p.Holds(ctx, p.db.Keeper(tx), tok); err != nil || !holds {
					return err
				}
			}
			return fn(ctx, tx, p.ns)
		})
		if err != nil || holds {
			return err
		}
		// The follower was there, and the database is not any more.
		if !p.Reread() || wait.Err() != nil {
			return fmt.Errorf("%s is being built again: %w", p.ns, freehold.ErrBehind)
		}
	}
}
