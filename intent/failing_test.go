package intent_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/kv"
)

func TestFailingCallHoldsUpItsOwnStreamOnly(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(e Asked, _ int) error {
			if e.N == 0 {
				return errors.New("nobody answers")
			}
			return nil
		}
		s.ask(upTo(100)...)
		c, stop := s.run(&intent.Options{Pool: 1, Open: 100}, record) // it has the pool during calls only
		time.Sleep(time.Minute)
		synctest.Wait()
		want := once(100)
		for n := 0; n < 100; n += 5 {
			want[n] = 0
		}
		if got := s.recorded(100); !cmp.Equal(got, want) {
			t.Errorf("recorded %v times, want %v", got, want)
		}
		if n := c.Open(); n != 20 {
			t.Errorf("%d open, want the stream's 20", n)
		}
		st := c.Status(t.Context())[0]
		if st.Mark.Position != 0 || st.Lag != 180 {
			t.Errorf("status %+v, want mark 0 and lag 180", st)
		}
		s.world.mu.Lock()
		s.answer = nil
		s.world.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.recorded(100); !cmp.Equal(got, once(100)) {
			t.Errorf("recorded %v times", got)
		}
		if st := c.Status(t.Context())[0]; st.Lag != 0 || st.Mark.Position != 200 {
			t.Errorf("status %+v, want no lag", st)
		}
		end(t, stop)
	})
}

func TestFailingRecordHoldsUpItsOwnStreamOnly(t *testing.T) {
	for name, fail := range map[string]func() error{
		"with an error": func() error { return errors.New("no") },
		"with a panic":  func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, s *service) {
				var healed atomic.Bool
				s.ask(upTo(20)...)
				_, stop := s.run(nil, func(ctx context.Context, tx kv.Tx, e Asked, r freehold.Recorded, o int) error {
					if e.N == 0 && !healed.Load() {
						return fail()
					}
					return record(ctx, tx, e, r, o)
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				want := once(20)
				want[0], want[5], want[10], want[15] = 0, 0, 0, 0
				if got := s.recorded(20); !cmp.Equal(got, want) {
					t.Errorf("recorded %v times, want %v", got, want)
				}
				healed.Store(true)
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := s.recorded(20); !cmp.Equal(got, once(20)) {
					t.Errorf("recorded %v times", got)
				}
				end(t, stop)
				if n := s.calls(); n != 20 {
					t.Errorf("%d calls of 20 intents: a record that fails needs no second call", n)
				}
			})
		})
	}
}

func TestCallThatPanicsIsRepeated(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(_ Asked, attempt int) error {
			if attempt < 2 {
				panic("no")
			}
			return nil
		}
		_, stop := s.run(nil, record)
		synctest.Wait()
		s.ask(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		end(t, stop)
		if got, want := s.attempts, []int{0, 1, 2}; !cmp.Equal(got, want) {
			t.Errorf("attempts %v, want %v", got, want)
		}
		if got := s.recorded(1); got[0] != 1 {
			t.Errorf("recorded %d times", got[0])
		}
	})
}

func TestStuckCallLeavesOneSmallDocument(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(e Asked, _ int) error {
			if e.N == 3 {
				return errors.New("nobody answers")
			}
			return nil
		}
		numbers := []int{3}
		for n := range 1000 {
			if n%5 != 3 {
				numbers = append(numbers, n)
			}
		}
		s.ask(numbers...)
		_, stop := s.run(nil, record)
		time.Sleep(time.Minute)
		synctest.Wait()
		end(t, stop)
		err := s.db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			n := 0
			for item, err := range s.db.Keeper(tx).Scan(ctx, "intent", "") {
				if n++; err != nil || len(item.Value) > 100 {
					t.Errorf("%s: %s, %v", item.Key, item.Value, err)
				}
			}
			if n != 1 {
				t.Errorf("%d documents", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		before := s.calls()
		s.answer = nil
		_, stop = s.run(nil, record)
		time.Sleep(time.Minute)
		synctest.Wait()
		end(t, stop)
		if n := s.calls() - before; n != 1 {
			t.Errorf("%d calls after the restart, want 1", n)
		}
		if got := s.recorded(4); got[3] != 1 {
			t.Errorf("the stuck intent is recorded %d times", got[3])
		}
	})
}

func TestUnreadableIntentHoldsUpItsOwnStreamOnly(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.ask(0)
		// A program whose Asked has another form.
		types, err := freehold.NewCatalog(freehold.JSON[otherForm]())
		if err != nil {
			t.Fatal(err)
		}
		var source follow.Source = otherTypes{s.db.Journal(), types}
		c, err := intent.New("asker", s.db, source, &intent.Options{Log: slog.New(slog.DiscardHandler)},
			func(context.Context, string, otherForm, int) (int, error) { return 1, nil },
			func(context.Context, kv.Tx, []intent.Done[otherForm, int]) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		if _, err := s.db.Append(t.Context(), freehold.Write{Stream: "q-9", Expect: freehold.Any, Events: []freehold.Event{Noted{}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := c.Open(); n != 1 {
			t.Errorf("%d open, want the unreadable one", n)
		}
		if st := c.Follower.Status(t.Context())[0]; st.Mark.Position != 2 {
			t.Errorf("it has read up to %d, want 2", st.Mark.Position)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// otherForm cannot be read from what Asked was stored as.
type otherForm struct{ N []string }

func (otherForm) EventType() freehold.Type { return freehold.T("test.asked", 1) }

type otherTypes struct {
	follow.Source
	types *freehold.Catalog
}

func (o otherTypes) Types() *freehold.Catalog { return o.types }

func (o otherTypes) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	rs, err := o.Source.Read(ctx, after, limit)
	o.types.Bind(rs)
	return rs, err
}

// TestAKeyThatPanicsHoldsUpItsOwnStreamOnly has no key for one intent until somebody mends
// the function of keys: no call may be made under another one.
func TestAKeyThatPanicsHoldsUpItsOwnStreamOnly(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		var healed atomic.Bool
		s.ask(upTo(20)...)
		c, stop := s.run(&intent.Options{Key: func(r freehold.Recorded) string {
			if e, err := r.Decode(); err == nil && e.(Asked).N == 0 && !healed.Load() {
				panic("no lines")
			}
			return r.ID
		}}, record)
		time.Sleep(time.Minute)
		synctest.Wait()
		want := once(20)
		want[0], want[5], want[10], want[15] = 0, 0, 0, 0
		if got := s.recorded(20); !cmp.Equal(got, want) {
			t.Errorf("recorded %v times, want %v", got, want)
		}
		if n := c.Open(); n != 4 {
			t.Errorf("%d open, want the stream's 4", n)
		}
		healed.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.recorded(20); !cmp.Equal(got, once(20)) {
			t.Errorf("recorded %v times", got)
		}
		end(t, stop)
		if n := s.calls(); n != 20 {
			t.Errorf("%d calls of 20 intents", n)
		}
	})
}

// warmed is a database whose transactions have a use for hints.
type warmed struct{ *flaky }

type warmTx struct{ kv.Tx }

func (warmTx) Warm(context.Context, follow.Hints) error { return nil }

func (db warmed) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	return db.flaky.Update(ctx, func(ctx context.Context, tx kv.Tx) error { return fn(ctx, warmTx{tx}) })
}

func (db warmed) Keeper(tx kv.Tx) follow.Keeper {
	if w, ok := tx.(warmTx); ok {
		tx = w.Tx
	}
	return db.flaky.Keeper(tx)
}

func TestHintsThatPanicHoldUpTheirOwnStreamOnly(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.ask(upTo(20)...)
		o := &intent.Options{Log: slog.New(slog.DiscardHandler), Warm: func(rs []freehold.Recorded) (h follow.Hints) {
			for _, r := range rs {
				if e, err := r.Decode(); err == nil && e.(Asked).N == 0 {
					panic("no lines")
				}
			}
			return h
		}}
		c, err := intent.New("asker", warmed{s.db}, s.db.Journal(), o, s.call, recorder(record).all)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		want := once(20)
		want[0], want[5], want[10], want[15] = 0, 0, 0, 0
		if got := s.recorded(20); !cmp.Equal(got, want) {
			t.Errorf("recorded %v times, want %v", got, want)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// late is a journal whose process has not heard of the last commits of another instance.
type late struct {
	follow.Source
	heard freehold.Mark
	fresh error // the first answer of the database, if it fails
	asked int
}

func (l *late) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	first, _, err = l.Source.Bounds(ctx)
	return first, l.heard, err
}

func (l *late) Fresh(ctx context.Context) (first, head freehold.Mark, err error) {
	if l.asked++; l.asked == 1 && l.fresh != nil {
		return first, head, l.fresh
	}
	return l.Source.Bounds(ctx)
}

// TestAnIntentThatAnotherInstanceMayHaveCalledIsAskedAbout lets an instance write an
// intent, make its call and die. The next one takes over before it has heard of it.
func TestAnIntentThatAnotherInstanceMayHaveCalledIsAskedAbout(t *testing.T) {
	for name, fresh := range map[string]error{"at once": nil, "when the database answers": freehold.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, s *service) {
				s.ask(0)
				_, heard, err := s.db.Journal().Bounds(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s.ask(1)
				var source follow.Source = &late{Source: s.db.Journal(), heard: heard, fresh: fresh}
				c, err := intent.New("asker", s.db, source, &intent.Options{Log: slog.New(slog.DiscardHandler)}, s.call, recorder(record).all)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				time.Sleep(time.Minute) // of the test's own time
				synctest.Wait()
				s.ask(2)
				synctest.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				slices.Sort(s.attempts)
				if want := []int{0, 1, 1}; !cmp.Equal(s.attempts, want) {
					t.Errorf("attempts %v, want %v: a new operation only for what was asked since", s.attempts, want)
				}
				if got := s.recorded(3); !cmp.Equal(got, once(3)) {
					t.Errorf("recorded %v times", got)
				}
			})
		})
	}
}
