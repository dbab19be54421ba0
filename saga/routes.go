package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
)

// Timeout is a deadline that has passed.
type Timeout struct {
	Name string
	At   time.Time
}

// Route binds a handler to a type of event; see [Start], [On], [OnTimeout] and
// [Old].
type Route[T freehold.Tx, S any] struct {
	handler handler[T]
	timeout func(ctx context.Context, tx T, c *core, t Timeout) error
	old     *definition[T]
	err     error // why the route cannot be used; New says so
}

// handler is what becomes of a type of event, for any type of state.
type handler[T freehold.Tx] struct {
	typ   freehold.Type
	start bool
	id    func(freehold.Event) (string, error)
	step  func(ctx context.Context, tx T, c *core, e freehold.Event) error
}

// definition is one version of a process.
type definition[T freehold.Tx] struct {
	version  int
	handlers map[string]handler[T] // by the name of the type
	timeout  func(ctx context.Context, tx T, c *core, t Timeout) error
}

// Start begins the instance that id names with an event. A second beginning of the
// same instance does nothing.
func Start[T freehold.Tx, S any, E freehold.Event](id func(E) string, fn func(ctx context.Context, tx T, s *Step[S], e E) error) Route[T, S] {
	r := On(id, fn)
	r.handler.start = true
	return r
}

// On handles an event of an instance that has begun. An empty id concerns no
// instance.
func On[T freehold.Tx, S any, E freehold.Event](id func(E) string, fn func(ctx context.Context, tx T, s *Step[S], e E) error) Route[T, S] {
	var zero E
	return Route[T, S]{handler: handler[T]{
		typ: zero.EventType(),
		id: func(e freehold.Event) (string, error) {
			typed, ok := e.(E)
			if !ok {
				return "", fmt.Errorf("%s decodes to %T, the handler wants %T: use one struct for one type", zero.EventType(), e, zero)
			}
			return id(typed), nil
		},
		step: func(ctx context.Context, tx T, c *core, e freehold.Event) error {
			return withState(c, func(s *Step[S]) error { return fn(ctx, tx, s, e.(E)) })
		},
	}}
}

// OnTimeout handles deadlines. A definition has at most one such route.
func OnTimeout[T freehold.Tx, S any](fn func(ctx context.Context, tx T, s *Step[S], t Timeout) error) Route[T, S] {
	return Route[T, S]{timeout: func(ctx context.Context, tx T, c *core, t Timeout) error {
		return withState(c, func(s *Step[S]) error { return fn(ctx, tx, s, t) })
	}}
}

// Old keeps the routes of an earlier definition, with its own type of state, for
// the instances that began under it. New instances never begin under it.
func Old[S any, T freehold.Tx, O any](version int, routes ...Route[T, O]) Route[T, S] {
	defs, err := define(version, routes)
	if err != nil {
		return Route[T, S]{err: fmt.Errorf("definition %d: %w", version, err)}
	}
	return Route[T, S]{old: &defs[0]}
}

// define sorts routes into the present definition and older ones, the newest first.
func define[T freehold.Tx, S any](version int, routes []Route[T, S]) ([]definition[T], error) {
	if version < 1 {
		return nil, fmt.Errorf("version %d: definitions count from 1", version)
	}
	d := definition[T]{version: version, handlers: map[string]handler[T]{}}
	all := []definition[T]{}
	for _, r := range routes {
		switch {
		case r.err != nil:
			return nil, r.err
		case r.old != nil && r.old.version >= version:
			return nil, fmt.Errorf("definition %d is given as an older one than %d", r.old.version, version)
		case r.old != nil:
			all = append(all, *r.old)
		case r.timeout != nil && d.timeout != nil:
			return nil, fmt.Errorf("OnTimeout given twice")
		case r.timeout != nil:
			d.timeout = r.timeout
		case d.handlers[r.handler.typ.Name].step != nil:
			return nil, fmt.Errorf("two routes for %s", r.handler.typ)
		default:
			d.handlers[r.handler.typ.Name] = r.handler
		}
	}
	slices.SortFunc(all, func(a, b definition[T]) int { return b.version - a.version })
	all = append([]definition[T]{d}, all...)
	for i := 1; i < len(all); i++ {
		if all[i].version == all[i-1].version {
			return nil, fmt.Errorf("definition %d given twice", all[i].version)
		}
	}
	return all, nil
}

// withState runs fn on a typed view of the instance.
func withState[S any](c *core, fn func(*Step[S]) error) error {
	s := &Step[S]{ID: c.id, core: c}
	if len(c.inst.State) > 0 {
		if err := json.Unmarshal(c.inst.State, &s.State); err != nil {
			return fmt.Errorf("state of %s: %w", c.id, err)
		}
	}
	if err := fn(s); err != nil || c.inst.ended {
		return err
	}
	raw, err := json.Marshal(s.State)
	if err != nil {
		return fmt.Errorf("state of %s: %w", c.id, err)
	}
	c.inst.State = raw
	return nil
}
