package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
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

// Options tune a process; the zero value is good. The key by which events are
// parked is the instance's id unless Options.Key says otherwise.
type Options struct {
	follow.Options
	// Migrate turns the stored state of an instance that began under an older
	// definition, for which there is no [Old], into the present one's.
	Migrate func(version int, state json.RawMessage) (json.RawMessage, error)
	// Stream is the stream that the steps of an instance read and append to, so that an
	// engine on another machine fetches those of a batch together. nil is none.
	Stream func(id string) freehold.StreamID
	// Stash is how long an event for an instance that has not begun is kept. 0 is 24 h.
	Stash time.Duration
	// Now is the clock by which deadlines are due. nil is time.Now.
	Now func() time.Time
}

// CatchUp bounds how long deadlines that have passed wait at a start for the
// process to see what its sources hold.
const CatchUp = 10 * time.Second

// Process is a saga's definition, running. Its methods are safe for concurrent use.
type Process[T freehold.Tx, S any] struct {
	*follow.Follower
	name        string
	db          DB[T]
	sources     []follow.Source
	opts        Options
	log         *slog.Logger
	definitions []definition[T] // the present one first
	timers      timers
}

// New returns the process name, whose definition has the given version (from 1),
// following sources. Raise the version when handlers or the state change so that
// instances under way would go wrong, and say with [Old] or Options.Migrate what
// becomes of them.
func New[T freehold.Tx, S any](name string, version int, db DB[T], sources []follow.Source, o *Options, routes ...Route[T, S]) (*Process[T, S], error) {
	p := &Process[T, S]{name: name, db: db, sources: sources, log: slog.Default()}
	if o != nil {
		p.opts = *o
	}
	if p.opts.Stash <= 0 {
		p.opts.Stash = 24 * time.Hour
	}
	if p.opts.Now == nil {
		p.opts.Now = time.Now
	}
	if p.opts.Log != nil {
		p.log = p.opts.Log
	}
	if p.opts.Key == nil {
		p.opts.Key = p.key
	}
	more := p.opts.Warm
	p.opts.Warm = func(rs []freehold.Recorded) follow.Hints {
		h := p.hints(rs)
		if more != nil {
			h.Add(more(rs))
		}
		return h
	}
	var err error
	if p.definitions, err = define(version, routes); err != nil {
		return nil, fmt.Errorf("saga %s: %w", name, err)
	}
	if !slices.ContainsFunc(routes, func(r Route[T, S]) bool { return r.handler.start }) {
		return nil, fmt.Errorf("saga %s: no Start route: it can never begin", name)
	}
	var handlers []follow.Route[T]
	seen := map[string]bool{}
	for _, d := range p.definitions {
		for _, h := range d.handlers {
			if !seen[h.typ.Name] {
				seen[h.typ.Name] = true
				handlers = append(handlers, follow.OnType(h.typ, p.handle))
			}
		}
	}
	p.timers.init()
	p.Follower, err = follow.New("saga_"+name, committing[T]{db, &p.timers}, sources, &p.opts.Options, handlers...)
	return p, err
}

// Run follows the sources and fires deadlines until ctx ends. It refuses to start
// while there are instances of a definition that it knows nothing of.
func (p *Process[T, S]) Run(ctx context.Context) error {
	if err := p.loadTimers(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("saga %s: %w", p.name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		p.catchUp(ctx)
		running.Go(func() { p.lookForMissed(ctx) })
		p.fireTimers(ctx)
	})
	err := p.Follower.Run(ctx)
	cancel()
	running.Wait()
	return err
}

// catchUp waits until the process has seen what its sources hold now, or CatchUp
// has passed.
func (p *Process[T, S]) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, CatchUp)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range p.sources { // one that does not answer, or has parked events, holds up no other
		all.Go(func() {
			for ctx.Err() == nil {
				_, head, err := follow.Fresh(ctx, s) // who ran the process before may have heard of more
				if err != nil {
					sleep(ctx, 100*time.Millisecond)
					continue
				}
				if err := p.WaitFor(ctx, freehold.NewToken(head)); err != nil && ctx.Err() == nil {
					p.log.Warn("deadlines go on", "saga", p.name, "source", head.Source, "error", err)
				}
				return
			}
		})
	}
	all.Wait()
}

// hints are the instances that events concern, and the streams that their steps read
// and write.
func (p *Process[T, S]) hints(rs []freehold.Recorded) follow.Hints {
	h := follow.Hints{Kept: map[string][]string{}}
	seen := map[string]bool{}
	for i := range rs {
		id := p.key(rs[i])
		if seen[id] {
			continue
		}
		seen[id] = true
		h.Locks = append(h.Locks, p.lock(id))
		h.Kept[p.liveSpace()] = append(h.Kept[p.liveSpace()], id)
		if p.definitions[0].handlers[rs[i].Type.Name].start { // is it the first, or did one end?
			h.Kept[p.endedSpace()] = append(h.Kept[p.endedSpace()], id)
		}
		if p.opts.Stream != nil {
			s := p.opts.Stream(id)
			h.Reads, h.Locks = append(h.Reads, s), append(h.Locks, string(s))
		}
	}
	return h
}

// key is the id of the instance that an event concerns; the events of one instance
// are parked together. Where nobody can tell it is the stream, and what follows in a stream
// that has parked events waits behind them, whichever instance it is of.
func (p *Process[T, S]) key(r freehold.Recorded) string {
	if e, err := r.Decode(); err == nil {
		for _, d := range p.definitions {
			if h, ok := d.handlers[r.Type.Name]; ok {
				if id, err := h.id(e); err == nil && id != "" {
					return id
				}
			}
		}
	}
	return string(r.Stream)
}

// handle takes an event of any source to its instance.
func (p *Process[T, S]) handle(ctx context.Context, tx T, r freehold.Recorded) error {
	e, err := r.Decode()
	if err != nil {
		return err
	}
	k := p.db.Keeper(tx)
	var inst *instance
	var id string // of inst, the last one looked for
	for i := range p.definitions {
		d := &p.definitions[i]
		h, ok := d.handlers[r.Type.Name]
		if !ok {
			continue
		}
		wanted, err := h.id(e)
		if err != nil {
			return fmt.Errorf("saga %s: %w", p.name, err)
		}
		if wanted == "" {
			continue
		}
		if wanted != id {
			id = wanted
			if inst, err = p.take(ctx, tx, k, id); err != nil {
				return err
			}
		}
		if inst != nil && inst.begun() && inst.Version == d.version {
			if h.start {
				return nil // it has begun
			}
			c := p.core(tx, d, id, inst)
			if err := c.run(func() error { return h.step(ctx, tx, c, e) }); err != nil {
				return err
			}
			return p.save(ctx, k, c)
		}
	}
	d := &p.definitions[0]
	h, ok := d.handlers[r.Type.Name]
	if !ok || id == "" {
		return nil
	}
	if wanted, err := h.id(e); err != nil || wanted == "" {
		return err
	} else if wanted != id { // an older definition had another id for it
		id = wanted
		if inst, err = p.take(ctx, tx, k, id); err != nil {
			return err
		}
	}
	switch {
	case inst != nil && inst.begun():
		return nil // its definition does not want it
	case inst == nil:
		if ended, err := p.late(ctx, k, id, r, h.start); err != nil || ended {
			return err
		}
	}
	if !h.start {
		return p.stash(ctx, tx, k, id, inst, r)
	}
	return p.begin(ctx, tx, k, id, inst, func(c *core) error { return h.step(ctx, tx, c, e) })
}

// begin runs the first step of an instance, and then what waits in its stash.
func (p *Process[T, S]) begin(ctx context.Context, tx T, k follow.Keeper, id string, waiting *instance, first func(*core) error) error {
	d := &p.definitions[0]
	m := freehold.MetaOf(ctx)
	inst := &instance{Version: d.version, Correlation: m.Correlation, Tenant: m.Tenant}
	c := p.core(tx, d, id, inst)
	var stashed []freehold.Recorded
	if waiting != nil {
		stashed, inst.stored = waiting.Stash, true
		c.drop("", waiting.Deadlines[""])
	}
	if err := c.run(func() error { return first(c) }); err != nil {
		return err
	}
	p.Bind(stashed)
	for _, r := range stashed {
		if c.inst.ended {
			c.inst.late(r)
			continue
		}
		h, ok := d.handlers[r.Type.Name]
		if !ok {
			continue // this definition has no use for it
		}
		e, err := r.Decode()
		if err != nil {
			return err
		}
		ctx := freehold.WithMeta(ctx, r.Caused())
		if err := c.run(func() error { return h.step(ctx, tx, c, e) }); err != nil {
			return fmt.Errorf("%s at %s, which waited for the beginning: %w", r.Type, r.At, err)
		}
	}
	return p.save(ctx, k, c)
}

func (p *Process[T, S]) core(tx T, d *definition[T], id string, inst *instance) *core {
	return &core{id: id, inst: inst, types: p.db.Journal().Types(), now: tx.Now(), timed: d.timeout != nil}
}
