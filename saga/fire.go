package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
)

const (
	fireLimit   = 1024        // deadlines looked at together
	fireGroup   = 64          // deadlines in one transaction
	longestWait = time.Second // between looks at the clock: it may be set while we wait
)

// loadTimers reads the deadlines of all live instances.
func (p *Process[T, S]) loadTimers(ctx context.Context) error {
	return p.db.View(ctx, func(ctx context.Context, tx T) error {
		for item, err := range p.db.Keeper(tx).Scan(ctx, p.liveSpace(), "") {
			if err != nil {
				return err
			}
			var inst instance
			if err := json.Unmarshal(item.Value, &inst); err != nil {
				return fmt.Errorf("%s: %w", item.Key, err)
			}
			if inst.begun() && p.definition(inst.Version) == nil {
				if _, err := p.decode(item.Key, item.Value); err != nil {
					return err // there is no way on for this one
				}
			}
			for name, at := range inst.Deadlines {
				p.timers.load(timerKey{item.Key, name, at})
			}
		}
		return nil
	})
}

// fireTimers calls the handler of deadlines that pass.
func (p *Process[T, S]) fireTimers(ctx context.Context) {
	for ctx.Err() == nil {
		now := p.opts.Now().UnixMicro()
		due, next := p.timers.take(now, fireLimit)
		if len(due) > 0 {
			p.fireAll(ctx, due)
			continue
		}
		var wait <-chan time.Time
		if next > 0 {
			wait = time.After(time.Duration(min(next-now, longestWait.Microseconds())) * time.Microsecond)
		}
		select {
		case <-wait:
		case <-p.timers.changed:
		case <-ctx.Done():
		}
	}
}

// fireAll fires what still stands of the deadlines, some in one transaction, and
// puts back those that failed.
func (p *Process[T, S]) fireAll(ctx context.Context, due []*timer) {
	standing, err := p.standing(ctx, due)
	if err != nil {
		p.failed(ctx, due, err)
		return
	}
	for len(standing) > 0 {
		group := standing[:min(fireGroup, len(standing))]
		standing = standing[len(group):]
		err := p.fire(ctx, group)
		if err == nil {
			continue
		}
		if len(group) == 1 {
			p.failed(ctx, group, err)
			continue
		}
		for i := range group {
			if err := p.fire(ctx, group[i:i+1]); err != nil {
				p.failed(ctx, group[i:i+1], err)
			}
		}
	}
}

// failed has deadlines tried again, after a pause that grows.
func (p *Process[T, S]) failed(ctx context.Context, all []*timer, err error) {
	if ctx.Err() != nil {
		return // the next start reads them
	}
	for _, t := range all {
		pause := min(10*time.Millisecond<<min(t.tries, 12), time.Minute)
		p.log.Warn("deadline failed, tried again", "saga", p.name, "id", t.id, "deadline", t.name, "in", pause, "error", err)
		p.timers.again(t, p.opts.Now().Add(pause).UnixMicro())
	}
}

// standing returns those of the deadlines that their instances still have.
func (p *Process[T, S]) standing(ctx context.Context, due []*timer) (standing []*timer, err error) {
	err = p.db.View(ctx, func(ctx context.Context, tx T) error {
		standing = nil
		k := p.db.Keeper(tx)
		for _, t := range due {
			raw, found, err := k.Get(ctx, p.liveSpace(), t.id)
			if err != nil {
				return err
			}
			if !found {
				continue
			}
			var inst instance
			if json.Unmarshal(raw, &inst) != nil || inst.Deadlines[t.name] == t.at {
				standing = append(standing, t) // what cannot be read fails alone, when it is fired
			}
		}
		return nil
	})
	return standing, err
}

// fire handles deadlines in one transaction.
func (p *Process[T, S]) fire(ctx context.Context, group []*timer) error {
	fault.Point("saga.fire.before")
	_, err := committing[T]{p.db, &p.timers}.Update(ctx, func(ctx context.Context, tx T) error {
		for _, t := range group {
			if err := p.fireOne(ctx, tx, t); err != nil {
				return fmt.Errorf("%s: %w", t.id, err)
			}
		}
		return nil
	})
	fault.Point("saga.fire.after")
	return err
}

// fireOne handles a deadline if the instance still has it. What the handler panics
// with is its error.
func (p *Process[T, S]) fireOne(ctx context.Context, tx T, t *timer) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", x, debug.Stack())
		}
	}()
	k := p.db.Keeper(tx)
	inst, err := p.take(ctx, tx, k, t.id)
	if err != nil || inst == nil {
		return err
	}
	if at, set := inst.Deadlines[t.name]; !set || at != t.at {
		return nil
	}
	delete(inst.Deadlines, t.name)
	if !inst.begun() {
		p.log.Warn("stashed events dropped: the instance never began", "saga", p.name, "id", t.id, "events", len(inst.Stash), "last", inst.Stash[len(inst.Stash)-1].At.String())
		return k.Delete(ctx, p.liveSpace(), t.id)
	}
	d := p.definition(inst.Version)
	c := p.core(tx, d, t.id, inst)
	ctx = freehold.WithMeta(ctx, freehold.Meta{Correlation: inst.Correlation, Tenant: inst.Tenant})
	err = c.run(func() error {
		if d.timeout == nil {
			return nil
		}
		return d.timeout(ctx, tx, c, Timeout{t.name, time.UnixMicro(t.at).UTC()})
	})
	if err != nil {
		return err
	}
	return p.save(ctx, k, c)
}
