// Package saga runs durable processes over several services: they begin with an
// event, wait for others, have deadlines, and compensate.
//
// # Guarantees
//
// A step's effects, the process's state and its deadlines commit together with the
// mark of the event that caused them (G6): duplicates, crashes and restarts
// change nothing. A deadline fires once, also if the process was down when it was
// due. Compensations run in reverse order, each once.
//
// # Ordering
//
// Events of one source reach a process in that source's order; between sources
// there is none, and handlers tolerate any. An event for a process that has not
// begun waits in a stash and is handled directly after the beginning. An event
// for one that has ended is counted and not acted on.
//
// # Failure
//
// A handler's error is dealt with as package follow says: the event is parked
// with its key and can be retried. A deadline whose handler fails is tried again
// with growing pauses.
package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// DB is a database with a journal, in which compensations are appended. Every
// engine's *DB is one.
type DB[T freehold.Tx] interface {
	follow.DB[T]
	Journal() *journal.Journal
}

// Timeout is a deadline that has passed.
type Timeout struct {
	Name string
	At   time.Time
}

// Options tune a process; the zero value is good.
type Options struct {
	follow.Options
	// Migrate turns the stored state of an older definition version into the
	// present one's. nil decodes it as it is.
	Migrate func(version int, state json.RawMessage) (json.RawMessage, error)
	// Stash is how long an event for a process that has not begun is kept. 0 is 24 h.
	Stash time.Duration
}

// Route binds a handler to a type of event; see [Start], [On] and [OnTimeout].
type Route[T freehold.Tx, S any] struct {
	typ     freehold.Type
	start   bool
	id      func(freehold.Event) (string, bool)
	step    func(ctx context.Context, tx T, s *Step[S], e freehold.Event) error
	timeout func(ctx context.Context, tx T, s *Step[S], t Timeout) error
}

// Start begins the process that id names with an event. A second beginning of the
// same process does nothing.
func Start[T freehold.Tx, S any, E freehold.Event](id func(E) string, fn func(ctx context.Context, tx T, s *Step[S], e E) error) Route[T, S] {
	r := On(id, fn)
	r.start = true
	return r
}

// On handles an event of a process that has begun. An empty id concerns no process.
func On[T freehold.Tx, S any, E freehold.Event](id func(E) string, fn func(ctx context.Context, tx T, s *Step[S], e E) error) Route[T, S] {
	var zero E
	return Route[T, S]{
		typ: zero.EventType(),
		id: func(e freehold.Event) (string, bool) {
			typed, ok := e.(E)
			if !ok {
				return "", false
			}
			return id(typed), true
		},
		step: func(ctx context.Context, tx T, s *Step[S], e freehold.Event) error { return fn(ctx, tx, s, e.(E)) },
	}
}

// OnTimeout handles deadlines. A process has at most one such route.
func OnTimeout[T freehold.Tx, S any](fn func(ctx context.Context, tx T, s *Step[S], t Timeout) error) Route[T, S] {
	return Route[T, S]{timeout: fn}
}

// Process is a saga's definition, running. Its methods are safe for concurrent use.
type Process[T freehold.Tx, S any] struct {
	*follow.Follower
	name    string
	version int
	db      DB[T]
	opts    Options
	log     *slog.Logger
	routes  map[string]Route[T, S]
	timeout func(ctx context.Context, tx T, s *Step[S], t Timeout) error
	timers  *timers
}

// New returns the process name, whose definition has the given version (from 1),
// following sources.
func New[T freehold.Tx, S any](name string, version int, db DB[T], sources []follow.Source, o *Options, routes ...Route[T, S]) (*Process[T, S], error) {
	p := &Process[T, S]{name: name, version: version, db: db, routes: map[string]Route[T, S]{}, timers: newTimers(), log: slog.Default()}
	if o != nil {
		p.opts = *o
	}
	if p.opts.Stash <= 0 {
		p.opts.Stash = 24 * time.Hour
	}
	if p.opts.Log != nil {
		p.log = p.opts.Log
	}
	starts := 0
	var handlers []follow.Route[T]
	for _, r := range routes {
		switch {
		case r.timeout != nil && p.timeout != nil:
			return nil, fmt.Errorf("saga %s: OnTimeout given twice", name)
		case r.timeout != nil:
			p.timeout = r.timeout
			continue
		case p.routes[r.typ.Name].step != nil:
			return nil, fmt.Errorf("saga %s: two routes for %s", name, r.typ)
		case r.start:
			starts++
		}
		p.routes[r.typ.Name] = r
		handlers = append(handlers, follow.OnType(r.typ, p.handle))
	}
	if starts == 0 {
		return nil, fmt.Errorf("saga %s: no Start route: it can never begin", name)
	}
	var err error
	p.Follower, err = follow.New("saga_"+name, db, sources, &p.opts.Options, handlers...)
	return p, err
}

// Run follows the sources and fires deadlines until ctx ends.
func (p *Process[T, S]) Run(ctx context.Context) error {
	if err := p.loadTimers(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("saga %s: %w", p.name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	fired := make(chan struct{})
	go func() {
		defer close(fired)
		p.fireTimers(ctx)
	}()
	err := p.Follower.Run(ctx)
	cancel()
	<-fired
	return err
}

// handle routes an event of any source.
func (p *Process[T, S]) handle(ctx context.Context, tx T, r freehold.Recorded) error {
	route := p.routes[r.Type.Name]
	e, err := r.Decode()
	if err != nil {
		return err
	}
	id, ok := route.id(e)
	if !ok {
		return fmt.Errorf("saga %s: %s decodes to %T: use one struct for one type", p.name, r.Type, e)
	}
	if id == "" {
		return nil
	}
	k := p.db.Keeper(tx)
	if err := tx.Lock(ctx, "saga/"+p.name+"/"+id); err != nil {
		return err
	}
	inst, found, err := p.load(ctx, k, id)
	switch {
	case err != nil:
		return err
	case found && route.start:
		return nil
	case found:
		return p.step(ctx, tx, k, id, inst, func(ctx context.Context, s *Step[S]) error { return route.step(ctx, tx, s, e) })
	}
	ended, err := p.countLate(ctx, k, id, route.start)
	if err != nil || ended {
		return err
	}
	if !route.start {
		return p.stash(ctx, k, id, r, tx.Now())
	}
	inst = &instance{Version: p.version}
	err = p.step(ctx, tx, k, id, inst, func(ctx context.Context, s *Step[S]) error { return route.step(ctx, tx, s, e) })
	if err != nil {
		return err
	}
	return p.unstash(ctx, tx, k, id)
}

// step runs one handler on an instance and stores what it leaves.
func (p *Process[T, S]) step(ctx context.Context, tx T, k follow.Keeper, id string, inst *instance, fn func(context.Context, *Step[S]) error) error {
	s := &Step[S]{ID: id, inst: inst, types: p.db.Journal().Types(), now: tx.Now()}
	if len(inst.State) > 0 {
		if err := json.Unmarshal(inst.State, &s.State); err != nil {
			return fmt.Errorf("saga %s %s: state: %w", p.name, id, err)
		}
	}
	if err := errors.Join(fn(ctx, s), s.err); err != nil {
		return err
	}
	if inst.ended {
		if err := k.Delete(ctx, p.live(), id); err != nil {
			return err
		}
		return p.putDone(ctx, k, id, done{At: tx.Now()})
	}
	var err error
	if inst.State, err = json.Marshal(s.State); err != nil {
		return fmt.Errorf("saga %s %s: state: %w", p.name, id, err)
	}
	raw, err := json.Marshal(inst)
	if err != nil {
		return err
	}
	for _, name := range s.set {
		// Told before the commit: that a deadline is not there after all is found out
		// when it fires.
		if at, ok := inst.Deadlines[name]; ok {
			p.timers.add(id, name, at)
		}
	}
	return k.Put(ctx, p.live(), id, raw)
}
