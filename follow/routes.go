package follow

import (
	"context"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
)

// Route binds a handler to the events it wants; see [On], [Each] and [Batch].
type Route[T freehold.Tx] struct {
	typ   freehold.Type   // zero for all types
	only  []freehold.Type // those that batch wants, all if it names none
	one   func(ctx context.Context, tx T, r freehold.Recorded) error
	batch func(ctx context.Context, tx T, rs []freehold.Recorded) error
}

// On handles the events of type E. Events of types without a route are passed
// over and never decoded. Older versions arrive upcast.
func On[T freehold.Tx, E freehold.Event](fn func(ctx context.Context, tx T, e E, r freehold.Recorded) error) Route[T] {
	var zero E
	return Route[T]{typ: zero.EventType(), one: func(ctx context.Context, tx T, r freehold.Recorded) error {
		decoded, err := r.Decode()
		if err != nil {
			return err
		}
		e, ok := decoded.(E)
		if !ok {
			return fmt.Errorf("follow: %s decodes to %T, handler wants %T: use one struct for one type", r.Type, decoded, zero)
		}
		return fn(ctx, tx, e, r)
	}}
}

// OnType handles the events of a type, undecoded, for packages that build their own
// handlers on this one.
func OnType[T freehold.Tx](typ freehold.Type, fn func(ctx context.Context, tx T, r freehold.Recorded) error) Route[T] {
	return Route[T]{typ: typ, one: fn}
}

// Each handles events of every type, undecoded. Placeholders are left out.
func Each[T freehold.Tx](fn func(ctx context.Context, tx T, r freehold.Recorded) error) Route[T] {
	return Route[T]{one: fn}
}

// Batch handles events in sets of any length from 1, for handlers that save work by
// seeing many at once: those of the given types, or of every type if none is given.
// Placeholders are left out. It must be a follower's only route.
func Batch[T freehold.Tx](fn func(ctx context.Context, tx T, rs []freehold.Recorded) error, only ...freehold.Type) Route[T] {
	return Route[T]{batch: fn, only: only}
}

// router finds the handlers of an event.
type router[T freehold.Tx] struct {
	byName map[string][]func(context.Context, T, freehold.Recorded) error
	each   []func(context.Context, T, freehold.Recorded) error
	batch  func(context.Context, T, []freehold.Recorded) error
	only   map[string]bool // names of the types that batch wants, nil for all
}

func newRouter[T freehold.Tx](sources []Source, routes []Route[T]) (*router[T], error) {
	if len(routes) == 0 {
		return nil, errors.New("follow: no routes: a follower without a handler has no effect")
	}
	rt := &router[T]{byName: map[string][]func(context.Context, T, freehold.Recorded) error{}}
	for _, r := range routes {
		switch {
		case r.batch != nil && len(routes) > 1:
			return nil, errors.New("follow: a Batch route must be the only route")
		case r.batch != nil:
			rt.batch = r.batch
			for _, t := range r.only {
				if !knownTo(sources, t) {
					return nil, unknownType(t)
				}
				if rt.only == nil {
					rt.only = map[string]bool{}
				}
				rt.only[t.Name] = true
			}
		case r.typ == freehold.Type{}:
			rt.each = append(rt.each, r.one)
		default:
			if !knownTo(sources, r.typ) {
				return nil, unknownType(r.typ)
			}
			rt.byName[r.typ.Name] = append(rt.byName[r.typ.Name], r.one)
		}
	}
	return rt, nil
}

func unknownType(t freehold.Type) error {
	return fmt.Errorf("follow: no source's catalog has %s as its newest version", t)
}

func knownTo(sources []Source, t freehold.Type) bool {
	for _, s := range sources {
		if s.Types() != nil && s.Types().Knows(t) {
			return true
		}
	}
	return false
}

// wants reports whether any handler takes the event.
func (rt *router[T]) wants(r *freehold.Recorded) bool {
	if r.Placeholder() {
		return false
	}
	if rt.batch != nil {
		return rt.only == nil || rt.only[r.Type.Name]
	}
	return len(rt.each) > 0 || len(rt.byName[r.Type.Name]) > 0
}

// apply hands the events to their handlers, in order. The context that a handler
// gets carries the event's conversation on.
func (rt *router[T]) apply(ctx context.Context, tx T, rs []freehold.Recorded) error {
	if rt.batch != nil {
		if len(rs) == 0 {
			return nil
		}
		return rt.batch(ctx, tx, rs)
	}
	for i := range rs {
		r := &rs[i]
		ctx := freehold.WithMeta(ctx, r.Caused())
		for _, fn := range rt.byName[r.Type.Name] {
			if err := fn(ctx, tx, *r); err != nil {
				return fmt.Errorf("%s at %s: %w", r.Type, r.At, err)
			}
		}
		for _, fn := range rt.each {
			if err := fn(ctx, tx, *r); err != nil {
				return fmt.Errorf("%s at %s: %w", r.Type, r.At, err)
			}
		}
	}
	return nil
}
