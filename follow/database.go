package follow

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/mutant"
)

// databaseSink applies events to a database, with the mark in the same
// transaction. Each source's loop uses its own part of the maps.
type databaseSink[T freehold.Tx] struct {
	follower string
	db       DB[T]
	router   *router[T]
	opts     Options
	parked   *parkedKeys
	starts   *starts
	lanes    *laneTable
	together *together
	passed   *passed
	hand     *inHand

	incarnations *incarnations
}

// handlerError is an error of a handler, as opposed to one of the database.
type handlerError struct{ error }

func (e handlerError) Unwrap() error { return e.error }

// Mark reads the stored place and which keys are parked.
func (s *databaseSink[T]) Mark(ctx context.Context, source freehold.Source) (freehold.Mark, error) {
	var mark freehold.Mark
	// If the source is away nobody whose token was satisfied is told that it is not.
	if err := s.storePassed(ctx, source); err != nil {
		s.opts.Log.Debug("passes over some events again", "follower", s.follower, "source", source, "error", err)
	}
	err := s.db.View(ctx, func(ctx context.Context, tx T) error {
		k := s.db.Keeper(tx)
		var err error
		if mark, err = s.loadLanes(ctx, k, source); err != nil {
			return err
		}
		if err := s.parked.load(ctx, k, s.follower, source); err != nil {
			return err
		}
		return s.incarnations.load(ctx, k, s.follower, source)
	})
	if err != nil {
		return mark, fmt.Errorf("read mark: %w", err)
	}
	return mark, nil
}

// Apply applies a batch, in lanes if there are some.
func (s *databaseSink[T]) Apply(ctx context.Context, from freehold.Mark, events []freehold.Recorded) error {
	s.hand.set(from.Source, events)
	defer s.hand.set(from.Source, nil)
	if l := s.lanes.get(from.Source); l != nil {
		return s.applyLanes(ctx, l, from, events)
	}
	from, over := s.passOver(from, events)
	if over {
		return nil
	}
	return s.applyAll(ctx, from, events)
}

// applyAll applies events in one transaction. If a handler fails, the events are
// applied one by one up to the failing one, which is tried again and then parked,
// and the rest is a batch again.
func (s *databaseSink[T]) applyAll(ctx context.Context, from freehold.Mark, events []freehold.Recorded) error {
	source := from.Source
	for len(events) > 0 {
		if s.starts.careful(source, from.Position) {
			n := s.unwanted(events) // no process dies of what it does nothing with
			if n == len(events) || len(s.incarnations.unknown(source, events[:n])) > 0 {
				if err := s.transact(ctx, &batch{from: from, events: events[:n]}); err != nil {
					return err
				}
				from, events = events[n-1].At, events[n:]
				continue
			}
			events = events[n:] // the next one moves the mark behind them
			if err := s.applyCounted(ctx, from, events[0]); err != nil {
				return err
			}
			from, events = events[0].At, events[1:]
			continue
		}
		err := s.transactTogether(ctx, from, events)
		if err == nil {
			return nil
		}
		if !errors.As(err, new(handlerError)) {
			return err
		}
		for alone := true; alone && len(events) > 0; from, events = events[0].At, events[1:] {
			if alone, err = s.applyAlone(ctx, from, events[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// unwanted is how many events stand before the first one that a handler wants.
func (s *databaseSink[T]) unwanted(events []freehold.Recorded) int {
	n := slices.IndexFunc(events, func(r freehold.Recorded) bool { return s.router.wants(&r) })
	if n < 0 {
		return len(events)
	}
	return n
}

// applyAlone applies one event, as often as Attempts allows, and parks it then. It
// reports whether the event was applied at once.
func (s *databaseSink[T]) applyAlone(ctx context.Context, from freehold.Mark, r freehold.Recorded) (atOnce bool, err error) {
	pause := s.opts.Pause
	for attempt := 1; ; attempt++ {
		err := s.transact(ctx, &batch{from: from, events: []freehold.Recorded{r}})
		if err == nil || !errors.As(err, new(handlerError)) {
			return attempt == 1, err
		}
		if attempt >= s.opts.Attempts {
			return false, s.park(ctx, from, r, err, attempt)
		}
		s.opts.Log.Warn("handler failed", "follower", s.follower, "event", r.At.String(), "type", r.Type.String(), "attempt", attempt, "error", err)
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		pause = min(2*pause, s.opts.MaxPause)
	}
}

// transact moves the marks and applies the events of batches, of a source each, in one
// transaction.
func (s *databaseSink[T]) transact(ctx context.Context, batches ...*batch) error {
	var failed error
	if mutant.MarkOutsideTx {
		_, err := s.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx T) error {
			for _, b := range batches {
				if err := s.db.Keeper(tx).Move(ctx, s.follower, b.from, b.to()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	openings := make([][]string, len(batches))
	var behind []map[string]string
	for i, b := range batches {
		openings[i] = s.incarnations.unknown(b.from.Source, b.events)
	}
	fault.Point("follow.apply.before")
	err := Do(context.WithoutCancel(ctx), s.db, func(ctx context.Context, tx T) error {
		failed = nil
		k := s.db.Keeper(tx)
		wanted := make([][]freehold.Recorded, len(batches))
		behind = make([]map[string]string, len(batches))
		for i, b := range batches {
			if !mutant.MarkOutsideTx {
				if err := k.Move(ctx, s.follower, b.from, b.to()); err != nil {
					return err
				}
			}
			for _, id := range openings[i] {
				if err := k.Put(ctx, incarnationSpace(s.follower, b.from.Source), id, []byte("1")); err != nil {
					return err
				}
			}
			var err error
			if wanted[i], behind[i], err = s.sort(ctx, k, b.events); err != nil {
				return err
			}
		}
		if all := slices.Concat(wanted...); s.opts.Warm != nil && len(all) > 0 {
			var err error
			if failed, err = Warm(ctx, tx, func() Hints { return s.opts.Warm(all) }); failed != nil {
				return failed
			} else if err != nil {
				return err
			}
		}
		for i := range wanted {
			if failed = s.handle(ctx, tx, wanted[i]); failed != nil {
				return failed
			}
		}
		return nil
	})
	fault.Point("follow.apply.after")
	if err != nil && (failed != nil || errors.Is(err, freehold.ErrTooLong)) && !ofDatabase(err) {
		return handlerError{err}
	}
	if err == nil {
		for i, b := range batches {
			s.incarnations.add(b.from.Source, openings[i])
			s.parked.put(b.from.Source, behind[i])
		}
	}
	return err
}

// ofDatabase reports whether an error that a handler returned is one that every
// event would get just now, so that parking this one would be wrong.
func ofDatabase(err error) bool {
	for _, target := range []error{freehold.ErrLatched, freehold.ErrClosed, freehold.ErrUnknown, freehold.ErrFenced, freehold.ErrUnavailable} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// handle calls the handlers; a panic in one becomes its error.
func (s *databaseSink[T]) handle(ctx context.Context, tx T, events []freehold.Recorded) (err error) {
	defer recovered("handler", &err)
	return s.router.apply(ctx, tx, events)
}

// keyOf is the key of an event. A function of keys that panics has none for the event,
// which is then held back with its stream: whoever parks it must get past it.
func (s *databaseSink[T]) keyOf(r freehold.Recorded) (key string) {
	defer func() {
		if p := recover(); p != nil {
			key = string(r.Stream)
			s.opts.Log.Error("Options.Key panicked: the event goes by its stream", "follower", s.follower, "event", r.At.String(), "type", r.Type.String(), "panic", p)
		}
	}()
	return s.opts.Key(r)
}

// recovered makes a panic an error. It is deferred.
func recovered(who string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s panicked: %v\n%s", who, p, debug.Stack())
	}
}

// sort returns the events that handlers want now. Events that have to wait behind a parked
// one join its queue instead; behind are the keys of those that joined another key's.
func (s *databaseSink[T]) sort(ctx context.Context, k Keeper, events []freehold.Recorded) (wanted []freehold.Recorded, behind map[string]string, err error) {
	source := events[0].At.Source
	someParked := s.parked.count(source) > 0
	wanted = make([]freehold.Recorded, 0, len(events))
	for i := range events {
		r := &events[i]
		if !s.router.wants(r) {
			continue
		}
		if someParked {
			key := storable(s.keyOf(*r))
			if queue, waits := s.parked.queue(source, key, storable(string(r.Stream)), behind); waits {
				if err := s.putParked(ctx, k, queue, key, *r, "an earlier event of this key is parked", 0); err != nil {
					return nil, nil, err
				}
				if queue != key {
					if behind == nil {
						behind = map[string]string{}
					}
					behind[key] = queue
				}
				continue
			}
		}
		wanted = append(wanted, *r)
	}
	return wanted, behind, nil
}
