package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// instance is the stored form of a live instance, or of a stash for one that has
// not begun (version 0).
type instance struct {
	Version     int                 `json:"v,omitempty"`
	State       json.RawMessage     `json:"state,omitempty"`
	Deadlines   map[string]int64    `json:"deadlines,omitempty"` // microseconds, by name; "" is the stash's
	Undo        []undo              `json:"undo,omitempty"`
	Correlation string              `json:"correlation,omitempty"` // of the beginning, for what deadlines cause
	Tenant      string              `json:"tenant,omitempty"`
	Stash       []freehold.Recorded `json:"stash,omitempty"`

	stored bool // it is in the database already
	ended  bool
	after  done // events that came after the end, within the step that ended it
}

func (i *instance) begun() bool { return i.Version > 0 }

func (i *instance) late(r freehold.Recorded) { i.after.count(r) }

// undo is a registered compensation.
type undo struct {
	Name   string            `json:"name"`
	Stream freehold.StreamID `json:"stream"`
	Expect freehold.Expect   `json:"expect"`
	Events []stored          `json:"events"`
}

type stored struct {
	Type string          `json:"type"`
	V    int             `json:"v"`
	Raw  json.RawMessage `json:"raw"`
}

// done is what remains of an instance that has ended.
type done struct {
	At   int64  `json:"at"`             // microseconds
	Late int    `json:"late,omitempty"` // events that came afterwards
	Last string `json:"last,omitempty"` // the last of them
}

func (d *done) count(r freehold.Recorded) {
	d.Late++
	d.Last = r.Type.Name + " " + r.At.String()
}

// maxStash is how many events wait for one instance.
const maxStash = 256

var errStashFull = errors.New("saga: too many events wait for the beginning")

// Live instances have a space of their own, so that a start reads only them.
func (p *Process[T, S]) liveSpace() string  { return "saga/" + p.name }
func (p *Process[T, S]) endedSpace() string { return "saga/" + p.name + "/ended" }

// lock is the key under which an instance is locked.
func (p *Process[T, S]) lock(id string) string { return "saga/" + p.name + "/" + id }

// take locks an instance and loads it, nil if it is not live.
func (p *Process[T, S]) take(ctx context.Context, tx T, k follow.Keeper, id string) (*instance, error) {
	if err := tx.Lock(ctx, p.lock(id)); err != nil {
		return nil, err
	}
	return p.load(ctx, k, id)
}

func (p *Process[T, S]) load(ctx context.Context, k follow.Keeper, id string) (*instance, error) {
	raw, found, err := k.Get(ctx, p.liveSpace(), id)
	if err != nil || !found {
		return nil, err
	}
	return p.decode(id, raw)
}

// decode reads an instance, migrated if it must be.
func (p *Process[T, S]) decode(id string, raw []byte) (*instance, error) {
	inst := &instance{stored: true}
	if err := json.Unmarshal(raw, inst); err != nil {
		return nil, fmt.Errorf("saga %s %s: %w", p.name, id, err)
	}
	if !inst.begun() || p.definition(inst.Version) != nil {
		return inst, nil
	}
	now := p.definitions[0].version
	if inst.Version > now || p.opts.Migrate == nil {
		return nil, fmt.Errorf("saga %s %s: began under definition %d, this program has %d: give Options.Migrate or saga.Old, or start the newer program",
			p.name, id, inst.Version, now)
	}
	state, err := p.opts.Migrate(inst.Version, inst.State)
	if err != nil {
		return nil, fmt.Errorf("saga %s %s: migrate from definition %d: %w", p.name, id, inst.Version, err)
	}
	inst.Version, inst.State = now, state
	return inst, nil
}

func (p *Process[T, S]) definition(version int) *definition[T] {
	for i := range p.definitions {
		if p.definitions[i].version == version {
			return &p.definitions[i]
		}
	}
	return nil
}

// save stores what a step has left of an instance.
func (p *Process[T, S]) save(ctx context.Context, k follow.Keeper, c *core) error {
	inst := c.inst
	if inst.ended {
		for name, at := range inst.Deadlines {
			c.drop(name, at)
		}
		told(ctx, c.changes)
		if inst.stored {
			if err := k.Delete(ctx, p.liveSpace(), c.id); err != nil {
				return err
			}
		}
		inst.after.At = c.now.UnixMicro()
		return p.putDone(ctx, k, c.id, inst.after)
	}
	told(ctx, c.changes)
	raw, err := json.Marshal(inst)
	if err != nil {
		return fmt.Errorf("saga %s %s: %w", p.name, c.id, err)
	}
	return k.Put(ctx, p.liveSpace(), c.id, raw)
}

// late reports whether the instance has ended, and counts the event if it is not
// just a second beginning.
func (p *Process[T, S]) late(ctx context.Context, k follow.Keeper, id string, r freehold.Recorded, start bool) (bool, error) {
	d, found, err := p.done(ctx, k, id)
	if err != nil || !found || start {
		return found, err
	}
	d.count(r)
	return true, p.putDone(ctx, k, id, d)
}

func (p *Process[T, S]) done(ctx context.Context, k follow.Keeper, id string) (d done, found bool, err error) {
	raw, found, err := k.Get(ctx, p.endedSpace(), id)
	if err != nil || !found {
		return d, false, err
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, true, fmt.Errorf("saga %s %s: %w", p.name, id, err)
	}
	return d, true, nil
}

func (p *Process[T, S]) putDone(ctx context.Context, k follow.Keeper, id string, d done) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return k.Put(ctx, p.endedSpace(), id, raw)
}

// stash keeps an event for an instance that has not begun.
func (p *Process[T, S]) stash(ctx context.Context, tx T, k follow.Keeper, id string, waiting *instance, r freehold.Recorded) error {
	if waiting == nil {
		waiting = &instance{}
	}
	if len(waiting.Stash) >= maxStash {
		return fmt.Errorf("saga %s %s: %d events: %w", p.name, id, len(waiting.Stash), errStashFull)
	}
	c := p.core(tx, &p.definitions[0], id, waiting)
	if len(waiting.Stash) == 0 {
		c.set("", tx.Now().Add(p.opts.Stash).UnixMicro())
	}
	waiting.Stash = append(waiting.Stash, r)
	return p.save(ctx, k, c)
}

// Instance is what an operator, or a test, sees of a process's instance.
type Instance struct {
	ID        string               `json:"id"`
	Version   int                  `json:"version,omitempty"` // of its definition; 0 before the beginning and after the end
	State     json.RawMessage      `json:"state,omitempty"`
	Deadlines map[string]time.Time `json:"deadlines,omitempty"`
	Undo      []string             `json:"undo,omitempty"`    // compensations registered, in order
	Stashed   int                  `json:"stashed,omitempty"` // events that wait for its beginning
	Ended     time.Time            `json:"ended,omitzero"`
	Late      int                  `json:"late,omitempty"` // events that came after its end
	LastLate  string               `json:"last_late,omitempty"`
}

// Instance returns what is stored of an instance, and whether anything is.
func (p *Process[T, S]) Instance(ctx context.Context, id string) (i Instance, found bool, err error) {
	i.ID = id
	err = p.db.View(ctx, func(ctx context.Context, tx T) error {
		k := p.db.Keeper(tx)
		inst, err := p.load(ctx, k, id)
		if err != nil {
			return err
		}
		if inst == nil {
			d, ended, err := p.done(ctx, k, id)
			if found = ended; ended {
				i.Ended, i.Late, i.LastLate = time.UnixMicro(d.At).UTC(), d.Late, d.Last
			}
			return err
		}
		found = true
		i.Version, i.State, i.Stashed = inst.Version, inst.State, len(inst.Stash)
		for name, at := range inst.Deadlines {
			if i.Deadlines == nil {
				i.Deadlines = map[string]time.Time{}
			}
			if name == "" {
				name = "(stash)"
			}
			i.Deadlines[name] = time.UnixMicro(at).UTC()
		}
		for _, u := range inst.Undo {
			i.Undo = append(i.Undo, u.Name)
		}
		return nil
	})
	return i, found, err
}
