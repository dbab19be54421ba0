package journaltest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// step is one use of a transaction. It returns what differs from the model, which
// is the copy that belongs to the transaction, and the error with which the
// closure ends there.
type step[T freehold.Tx] struct {
	text string
	run  func(ctx context.Context, db DB[T], tx T, m *model) (differs string, err error)
}

// ending is how a closure ends.
type ending int

const (
	returns ending = iota
	fails
	panicks
	exits
)

func (e ending) String() string { return [...]string{"returns", "fails", "panics", "exits"}[e] }

var (
	someStreams = rapid.SampledFrom([]freehold.StreamID{"a-1", "a-2", "a-10", "b", "b-1"})
	someKeys    = rapid.SampledFrom([]string{"k", "k1", "k/1", "l", "m"})
	someSpaces  = rapid.SampledFrom([]string{"s", "s/1", "t"})
	someTexts   = rapid.SampledFrom([]string{"v", "", "w'\"", "longer\n value", "ü"})
	someExpects = rapid.SampledFrom([]freehold.Expect{freehold.Any, freehold.Any, freehold.Any, freehold.Exists, freehold.NoStream, 1, 2, 3, 4})
	someEvents  = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) freehold.Event {
		if n := rapid.IntRange(0, 99).Draw(t, "n"); n%5 == 0 {
			return Secret{n}
		} else {
			return Happened{N: n, Text: someTexts.Draw(t, "text")}
		}
	}), 0, 3)
)

// steps draws what a closure does; in a View nothing of it writes.
func (s suite[T]) steps(t *rapid.T, view bool) []step[T] {
	draw := rapid.Custom(func(t *rapid.T) step[T] {
		kinds := 6
		if !view {
			kinds = 12
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return s.stepGet(someKeys.Draw(t, "key"))
		case 1:
			return s.stepEvents(someStreams.Draw(t, "stream"), freehold.Version(rapid.IntRange(0, 5).Draw(t, "after")))
		case 2:
			return s.stepKeeperGet(someSpaces.Draw(t, "space"), someKeys.Draw(t, "key"))
		case 3:
			return s.stepKeeperScan(someSpaces.Draw(t, "space"), rapid.SampledFrom([]string{"", "k", "k/", "k1", "z"}).Draw(t, "from"))
		case 4:
			return s.stepMark(rapid.SampledFrom([]string{"f", "g"}).Draw(t, "follower"))
		case 5:
			return s.stepCondition(view, someStreams.Draw(t, "stream"), someExpects.Draw(t, "expect"))
		case 6:
			return s.stepPut(someKeys.Draw(t, "key"), someTexts.Draw(t, "value"))
		case 7, 8:
			return s.stepAppend(someStreams.Draw(t, "stream"), someExpects.Draw(t, "expect"), someEvents.Draw(t, "events"), rapid.Bool().Draw(t, "goes on"))
		case 9:
			return s.stepKeeperPut(someSpaces.Draw(t, "space"), someKeys.Draw(t, "key"), someTexts.Draw(t, "value"))
		case 10:
			return s.stepKeeperDelete(someSpaces.Draw(t, "space"), someKeys.Draw(t, "key"))
		default:
			return s.stepMove(rapid.SampledFrom([]string{"f", "g"}).Draw(t, "follower"), rapid.IntRange(0, 3).Draw(t, "from"), rapid.Bool().Draw(t, "guess"))
		}
	})
	return rapid.SliceOfN(draw, 0, 6).Draw(t, "steps")
}

// run does the steps on a transaction and a copy of the model.
func (s suite[T]) run(ctx context.Context, db DB[T], tx T, m *model, steps []step[T]) (differs string, err error) {
	for i, step := range steps {
		differs, err := step.run(ctx, db, tx, m)
		if differs != "" {
			return fmt.Sprintf("step %d, %s: %s", i, step.text, differs), err
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

func (s suite[T]) random(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		setup := place(t)
		db := s.Open(t, setup)
		openings := 1
		m := newModel()
		actions := map[string]func(*rapid.T){
			"": func(rt *rapid.T) { s.compare(t, rt, db, m) },
			"append": func(rt *rapid.T) {
				var writes []freehold.Write
				for range rapid.IntRange(1, 3).Draw(rt, "writes") {
					writes = append(writes, write(someStreams.Draw(rt, "stream"), someExpects.Draw(rt, "expect"), someEvents.Draw(rt, "events")...))
				}
				next := m.begin()
				var want *freehold.Conflict
				for _, w := range writes {
					if want = next.append(w.Stream, w.Expect, w.Events); want != nil {
						break
					}
				}
				tok, err := db.Append(t.Context(), writes...)
				m = judge(rt, m, next, tok, err, want)
			},
			"update": func(rt *rapid.T) {
				steps := s.steps(rt, false)
				end := ending(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(rt, "ending"))
				m = s.update(t, rt, db, m, steps, end)
			},
			"view": func(rt *rapid.T) {
				steps := s.steps(rt, true)
				err := db.View(t.Context(), func(ctx context.Context, tx T) error {
					differs, err := s.run(ctx, db, tx, m, steps)
					if differs != "" {
						rt.Errorf("view: %s", differs)
					}
					if got := tx.Mark().Position; got != freehold.Position(len(m.events)) {
						rt.Errorf("view at %d, want %d", got, len(m.events))
					}
					return err
				})
				if err != nil {
					rt.Errorf("view: %v", err)
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := db.Close(); err != nil {
					rt.Fatalf("close: %v", err)
				}
				db = s.Open(t, setup)
				openings++
				if got, err := db.Journal().Incarnations(t.Context()); err != nil || len(got) != openings {
					rt.Errorf("%d incarnations, %v, want %d", len(got), err, openings)
				}
			},
			"cancelled": func(rt *rapid.T) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := db.Append(ctx, write("a-1", freehold.Any, happened(1))); !errors.Is(err, context.Canceled) {
					rt.Errorf("append of a cancelled caller: %v", err)
				}
			},
		}
		if s.FailCommits != nil {
			actions["failing commit"] = func(rt *rapid.T) {
				w := write(someStreams.Draw(rt, "stream"), freehold.Any, someEvents.Draw(rt, "events")...)
				if len(w.Events) == 0 {
					rt.SkipNow()
				}
				s.FailCommits(db, 1)
				if _, err := db.Append(t.Context(), w); err == nil {
					rt.Errorf("success although the commit failed")
				}
				s.FailCommits(db, 0)
			}
		}
		rt.Repeat(actions)
		if err := db.Close(); err != nil {
			rt.Errorf("close: %v", err)
		}
	})
}

// judge compares an outcome with the expected conflict and returns the model
// after it.
func judge(rt *rapid.T, was, next *model, tok freehold.Token, err error, want *freehold.Conflict) *model {
	if want != nil {
		var got *freehold.Conflict
		if !errors.As(err, &got) || *got != *want {
			rt.Errorf("error %v, want %v", err, want)
		}
		return was
	}
	if err != nil {
		rt.Errorf("error %v", err)
		return was
	}
	next.commit(was)
	if marks := tok.Of("test"); len(marks) != 1 || marks[0].Position != freehold.Position(len(next.events)) {
		rt.Errorf("token %q, want position %d", tok, len(next.events))
	}
	return next
}

// update runs steps in an Update of the engine and on the model.
func (s suite[T]) update(t *testing.T, rt *rapid.T, db DB[T], m *model, steps []step[T], end ending) *model {
	var next *model
	var differs string
	var tok freehold.Token
	var ended, err error
	unwound := false
	alone(func() {
		defer func() { unwound = unwound || recover() != nil }()
		unwound = end == exits
		tok, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
			next = m.begin() // the closure may run again
			if differs, ended = s.run(ctx, db, tx, next, steps); ended != nil || differs != "" {
				return errors.Join(ended)
			}
			switch end {
			case fails:
				ended = errNo
			case panicks:
				panic("boom")
			case exits:
				runtime.Goexit()
			}
			return ended
		})
		unwound = false
	})
	if differs != "" {
		rt.Errorf("update: %s", differs)
		return m
	}
	var c *freehold.Conflict
	switch {
	case errors.As(ended, &c):
		return judge(rt, m, next, tok, err, c)
	case ended != nil:
		if !errors.Is(err, ended) {
			rt.Errorf("error %v, want %v", err, ended)
		}
		return m
	case end == panicks || end == exits:
		if !unwound {
			rt.Errorf("a closure that %s was answered %v", end, err)
		}
		return m
	}
	return judge(rt, m, next, tok, err, nil)
}

// compare checks all of the journal and the state.
func (s suite[T]) compare(t *testing.T, rt *rapid.T, db DB[T], m *model) {
	at := freehold.Mark{Source: "test"}
	versions := map[freehold.StreamID]freehold.Version{}
	for page := 1 + len(m.events)%7; ; {
		rs, err := db.Journal().Read(t.Context(), at, page)
		if err != nil {
			rt.Fatalf("read: %v", err)
		}
		if len(rs) == 0 {
			break
		}
		for i := range rs {
			r := rs[i]
			if !journal.Follows(at, &r) || int(r.At.Position) > len(m.events) {
				rt.Fatalf("position %d does not follow %d, or is not in the model", r.At.Position, at.Position)
			}
			at = r.At
			want := m.events[at.Position-1]
			versions[r.Stream]++
			e, err := r.Decode()
			_, internal := want.event.(Secret)
			if err != nil || e != want.event || r.Stream != want.stream || r.Last != want.last || r.Internal != internal || r.Version != versions[r.Stream] {
				rt.Errorf("position %d is %s version %d %v last %v internal %v (%v), want %+v version %d",
					at.Position, r.Stream, r.Version, e, r.Last, r.Internal, err, want, versions[r.Stream])
			}
		}
	}
	if int(at.Position) != len(m.events) {
		rt.Fatalf("the journal ends at %d, want %d", at.Position, len(m.events))
	}
	if _, head, err := db.Journal().Bounds(t.Context()); err != nil || head.Position != at.Position || head.Chain != at.Chain {
		rt.Errorf("the head is %v, %v, want %v", head, err, at)
	}
	var streams []freehold.StreamID
	infos, err := db.Journal().Streams(t.Context(), "", 100)
	for _, info := range infos {
		streams = append(streams, info.Stream)
		if info.Version != m.version(info.Stream) {
			rt.Errorf("stream %s is listed at version %d, want %d", info.Stream, info.Version, m.version(info.Stream))
		}
	}
	if err != nil || !slices.Equal(streams, m.streams()) {
		rt.Errorf("streams %v, %v, want %v", streams, err, m.streams())
	}
	for stream, want := range versions {
		n := freehold.Version(0)
		for r, err := range db.Events(t.Context(), stream, want/2) {
			if n++; err != nil || r.Version != want/2+n {
				rt.Errorf("%s behind %d gives version %d, %v", stream, want/2, r.Version, err)
			}
		}
		if n != want-want/2 {
			rt.Errorf("%s behind %d has %d events, want %d", stream, want/2, n, want-want/2)
		}
	}
}
