package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
)

// Step is one handler's view of an instance. What it changes is stored when the
// handler returns nil.
type Step[S any] struct {
	// ID is the instance's id.
	ID string
	// State is the instance's, stored as JSON.
	State S

	*core
}

// core is what a step does to an instance, whatever the type of its state.
type core struct {
	id      string
	inst    *instance
	types   *freehold.Catalog
	now     time.Time
	timed   bool     // there is a handler for deadlines
	changes []change // of deadlines
	err     error
}

// run calls a handler, and returns its error or the step's own.
func (c *core) run(fn func() error) error { return errors.Join(fn(), c.err) }

// Deadline sets or replaces the named deadline, d from the transaction's time.
func (c *core) Deadline(name string, d time.Duration) { c.DeadlineAt(name, c.now.Add(d)) }

// DeadlineAt sets or replaces the named deadline. One that has passed fires at
// once.
func (c *core) DeadlineAt(name string, at time.Time) {
	switch {
	case name == "":
		c.fail(errors.New("saga: a deadline needs a name"))
		return
	case !c.timed:
		c.fail(fmt.Errorf("saga: deadline %s: the process has no OnTimeout route", name))
		return
	}
	c.Clear(name)
	c.set(name, at.UnixMicro())
}

// Clear removes the named deadline, if it is set.
func (c *core) Clear(name string) {
	if at, ok := c.inst.Deadlines[name]; ok {
		delete(c.inst.Deadlines, name)
		c.drop(name, at)
	}
}

func (c *core) set(name string, at int64) {
	if c.inst.Deadlines == nil {
		c.inst.Deadlines = map[string]int64{}
	}
	c.inst.Deadlines[name] = at
	c.changes = append(c.changes, change{timerKey{c.id, name, at}, true})
}

func (c *core) drop(name string, at int64) {
	c.changes = append(c.changes, change{timerKey{c.id, name, at}, false})
}

func (c *core) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// OnUndo registers a compensation: a write that [Step.Compensate] appends. A second
// registration of a name replaces the first, and counts as the later one.
func (c *core) OnUndo(name string, w freehold.Write) {
	u := undo{Name: name, Stream: w.Stream, Expect: w.Expect}
	for _, e := range w.Events {
		raw, _, err := c.types.Encode(e)
		if err != nil {
			c.fail(fmt.Errorf("saga: undo %s: %w", name, err))
			return
		}
		t := e.EventType()
		u.Events = append(u.Events, stored{t.Name, t.Version, raw})
	}
	c.inst.Undo = append(slices.DeleteFunc(c.inst.Undo, func(o undo) bool { return o.Name == name }), u)
}

// Compensate appends the registered compensations, the last one first, and forgets
// them: a second call does nothing.
func (c *core) Compensate(ctx context.Context, tx freehold.Tx) error {
	for _, u := range slices.Backward(c.inst.Undo) {
		var events []freehold.Event
		for _, st := range u.Events {
			e, err := c.types.Decode(freehold.T(st.Type, st.V), st.Raw)
			if err != nil {
				return fmt.Errorf("saga: compensate %s: %w", u.Name, err)
			}
			events = append(events, e)
		}
		if _, err := tx.Append(ctx, u.Stream, u.Expect, events...); err != nil {
			return fmt.Errorf("saga: compensate %s: %w", u.Name, err)
		}
	}
	c.inst.Undo = nil
	return nil
}

// End ends the instance. Its deadlines are gone, and later events are counted only.
func (c *core) End() { c.inst.ended = true }
