package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// instance is the stored form of a process.
type instance struct {
	Version   int              `json:"v"`
	State     json.RawMessage  `json:"state,omitempty"`
	Deadlines map[string]int64 `json:"deadlines,omitempty"` // microseconds, by name
	Undo      []undo           `json:"undo,omitempty"`
	ended     bool
}

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

// done is what remains of a process that has ended.
type done struct {
	At   time.Time `json:"at"`
	Late int       `json:"late,omitempty"` // events that came afterwards
}

// Step is one handler's view of a process. What it changes is stored when the
// handler returns nil.
type Step[S any] struct {
	ID    string
	State S

	inst  *instance
	types *freehold.Catalog
	now   time.Time
	set   []string // deadlines set in this step
	err   error
}

// Deadline sets or replaces the named deadline, d from the transaction's time.
func (s *Step[S]) Deadline(name string, d time.Duration) { s.DeadlineAt(name, s.now.Add(d)) }

// DeadlineAt sets or replaces the named deadline.
func (s *Step[S]) DeadlineAt(name string, at time.Time) {
	if s.inst.Deadlines == nil {
		s.inst.Deadlines = map[string]int64{}
	}
	s.inst.Deadlines[name] = at.UnixMicro()
	s.set = append(s.set, name)
}

// Clear removes the named deadline, if it is set.
func (s *Step[S]) Clear(name string) { delete(s.inst.Deadlines, name) }

// OnUndo registers a compensation: a write that [Step.Compensate] appends. A second
// registration of a name replaces the first.
func (s *Step[S]) OnUndo(name string, w freehold.Write) {
	u := undo{Name: name, Stream: w.Stream, Expect: w.Expect}
	for _, e := range w.Events {
		raw, _, err := s.types.Encode(e)
		if err != nil && s.err == nil {
			s.err = err
		}
		t := e.EventType()
		u.Events = append(u.Events, stored{t.Name, t.Version, raw})
	}
	s.inst.Undo = append(slices.DeleteFunc(s.inst.Undo, func(o undo) bool { return o.Name == name }), u)
}

// Compensate appends the registered compensations, the last one first, and forgets
// them.
func (s *Step[S]) Compensate(ctx context.Context, tx freehold.Tx) error {
	for _, u := range slices.Backward(s.inst.Undo) {
		var events []freehold.Event
		for _, st := range u.Events {
			e, err := s.types.Decode(freehold.T(st.Type, st.V), st.Raw)
			if err != nil {
				return fmt.Errorf("compensate %s: %w", u.Name, err)
			}
			events = append(events, e)
		}
		if _, err := tx.Append(ctx, u.Stream, u.Expect, events...); err != nil {
			return fmt.Errorf("compensate %s: %w", u.Name, err)
		}
	}
	s.inst.Undo = nil
	return nil
}

// End ends the process. Its deadlines are gone, and later events are counted only.
func (s *Step[S]) End() { s.inst.ended = true }

func (p *Process[T, S]) live() string    { return "saga/" + p.name }
func (p *Process[T, S]) ended() string   { return "saga/" + p.name + "/ended" }
func (p *Process[T, S]) stashed() string { return "saga/" + p.name + "/stash" }

func (p *Process[T, S]) load(ctx context.Context, k follow.Keeper, id string) (*instance, bool, error) {
	raw, found, err := k.Get(ctx, p.live(), id)
	if err != nil || !found {
		return nil, false, err
	}
	inst := &instance{}
	if err := json.Unmarshal(raw, inst); err != nil {
		return nil, false, fmt.Errorf("saga %s %s: %w", p.name, id, err)
	}
	switch {
	case inst.Version > p.version:
		return nil, false, fmt.Errorf("saga %s %s: has definition %d, this program has %d: update it", p.name, id, inst.Version, p.version)
	case inst.Version < p.version && p.opts.Migrate != nil:
		if inst.State, err = p.opts.Migrate(inst.Version, inst.State); err != nil {
			return nil, false, fmt.Errorf("saga %s %s: migrate from %d: %w", p.name, id, inst.Version, err)
		}
	}
	inst.Version = p.version
	return inst, true, nil
}

// countLate reports whether the process has ended, and counts the event if it is
// not just a second beginning.
func (p *Process[T, S]) countLate(ctx context.Context, k follow.Keeper, id string, start bool) (bool, error) {
	raw, found, err := k.Get(ctx, p.ended(), id)
	if err != nil || !found || start {
		return found, err
	}
	var d done
	if err := json.Unmarshal(raw, &d); err != nil {
		return true, fmt.Errorf("saga %s %s: %w", p.name, id, err)
	}
	d.Late++
	return true, p.putDone(ctx, k, id, d)
}

func (p *Process[T, S]) putDone(ctx context.Context, k follow.Keeper, id string, d done) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return k.Put(ctx, p.ended(), id, raw)
}

// waiting is a stashed event.
type waiting struct {
	Until time.Time         `json:"until"`
	Event freehold.Recorded `json:"event"`
}

// stash keeps an event for a process that has not begun.
func (p *Process[T, S]) stash(ctx context.Context, k follow.Keeper, id string, r freehold.Recorded, now time.Time) error {
	raw, err := json.Marshal(waiting{now.Add(p.opts.Stash), r})
	if err != nil {
		return err
	}
	return k.Put(ctx, p.stashed(), fmt.Sprintf("%s\x1f%s\x1f%020d", id, r.At.Source, r.At.Position), raw)
}

// unstash handles what waited for the beginning, by source and position.
func (p *Process[T, S]) unstash(ctx context.Context, tx T, k follow.Keeper, id string) error {
	var keys []string
	var events []freehold.Recorded
	for item, err := range k.Scan(ctx, p.stashed(), id+"\x1f") {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(item.Key, id+"\x1f") {
			break
		}
		var w waiting
		if err := json.Unmarshal(item.Value, &w); err != nil {
			return fmt.Errorf("saga %s: stash %s: %w", p.name, item.Key, err)
		}
		keys, events = append(keys, item.Key), append(events, w.Event)
	}
	for i, r := range events {
		if err := k.Delete(ctx, p.stashed(), keys[i]); err != nil {
			return err
		}
		one := []freehold.Recorded{r}
		p.Follower.Bind(one)
		if err := p.handle(ctx, tx, one[0]); err != nil {
			return err
		}
	}
	return nil
}
