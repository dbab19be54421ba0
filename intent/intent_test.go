package intent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// Asked is the intent; Answered records its outcome; Noted is neither.
type (
	Asked    struct{ N int }
	Answered struct{ N int }
	Noted    struct{}
)

func (Asked) EventType() freehold.Type    { return freehold.T("test.asked", 1) }
func (Answered) EventType() freehold.Type { return freehold.T("test.answered", 1) }
func (Noted) EventType() freehold.Type    { return freehold.T("test.noted", 1) }

// tester is the part of testing.TB that rapid has too.
type tester interface {
	Helper()
	Fatal(...any)
	Error(...any)
}

type caller = intent.Caller[kv.Tx, Asked, int]

// service is a database, and the outside world that it calls.
type service struct {
	*world
	t  tester
	db *flaky
}

func setup(t testing.TB) *service {
	s := &service{t: t, world: &world{}}
	s.db = open(t, nil)
	t.Cleanup(func() { s.db.Close() })
	return s
}

func open(t tester, disk *memory.Disk) *flaky {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.Internal[Asked](), freehold.JSON[Answered](), freehold.JSON[Noted]())
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(context.Background(), "here", types, &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return &flaky{DB: db}
}

// flaky is a database whose commits now and then have an unknown outcome.
type flaky struct {
	*memory.DB
	updates atomic.Int64
	fate    func(n int64) (fails, unknown bool) // of the nth Update
}

func (f *flaky) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	n := f.updates.Add(1)
	if f.fate == nil {
		return f.DB.Update(ctx, fn)
	}
	fails, unknown := f.fate(n)
	tok, err := f.DB.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		if err := fn(ctx, tx); err != nil || !fails {
			return err
		}
		return errors.New("rolled back on purpose")
	})
	if unknown && (err == nil || fails) {
		err = freehold.ErrUnknown
	}
	return tok, err
}

// world is the other side: it does each key's work once.
type world struct {
	mu       sync.Mutex
	works    map[string]int // how often each key was called
	running  map[string]int // calls under way, by stream
	most     int
	attempts []int
	answer   func(e Asked, attempt int) error // nil is an answer at once
}

func (w *world) call(_ context.Context, key string, e Asked, attempt int) (int, error) {
	w.mu.Lock()
	if w.works == nil {
		w.works, w.running = map[string]int{}, map[string]int{}
	}
	w.works[key]++
	w.attempts = append(w.attempts, attempt)
	w.running[stream(e.N)]++
	w.most = max(w.most, w.running[stream(e.N)])
	answer := w.answer
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running[stream(e.N)]--
	}()
	if answer != nil {
		if err := answer(e, attempt); err != nil {
			return 0, err
		}
	}
	return e.N * 10, nil
}

func (w *world) calls() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, calls := range w.works {
		n += calls
	}
	return n
}

// stream spreads intents over five streams.
func stream(n int) string { return fmt.Sprintf("q-%d", n%5) }

func record(ctx context.Context, tx kv.Tx, e Asked, r freehold.Recorded, o int) error {
	if o != e.N*10 {
		return errors.New("another call's outcome")
	}
	if m := freehold.MetaOf(ctx); m.Causation != r.ID {
		return fmt.Errorf("caused by %q, want %q", m.Causation, r.ID)
	}
	n, err := tx.Add(ctx, "recorded/"+strconv.Itoa(e.N), 1, 0)
	if err != nil {
		return err
	}
	// Outcomes of a stream are recorded in the order of its intents.
	last := "last/" + stream(e.N)
	if raw, found, _ := tx.Get(ctx, last); found && n == 1 {
		if before, _ := strconv.Atoi(string(raw)); before >= e.N {
			return fmt.Errorf("%d is recorded behind %d", e.N, before)
		}
	}
	if err := tx.Put(ctx, last, []byte(strconv.Itoa(e.N))); err != nil {
		return err
	}
	_, err = tx.Append(ctx, freehold.Stream("a", strconv.Itoa(e.N)), freehold.NoStream, Answered(e))
	return err
}

func (s *service) ask(numbers ...int) (tok freehold.Token) {
	s.t.Helper()
	for _, n := range numbers {
		var err error
		if tok, err = s.db.Append(context.Background(), freehold.Write{Stream: freehold.StreamID(stream(n)), Expect: freehold.Any, Events: []freehold.Event{Asked{n}}}); err != nil {
			s.t.Fatal(err)
		}
	}
	return tok
}

func (s *service) note(n int) {
	s.t.Helper()
	events := make([]freehold.Event, n)
	for i := range events {
		events[i] = Noted{}
	}
	if _, err := s.db.Append(context.Background(), freehold.Write{Stream: "notes-1", Expect: freehold.Any, Events: events}); err != nil {
		s.t.Fatal(err)
	}
}

type recorder func(context.Context, kv.Tx, Asked, freehold.Recorded, int) error

// all records outcomes one after the other.
func (rec recorder) all(ctx context.Context, tx kv.Tx, done []intent.Done[Asked, int]) error {
	for _, d := range done {
		if err := rec(freehold.WithMeta(ctx, d.Recorded.Caused()), tx, d.Event, d.Recorded, d.Outcome); err != nil {
			return err
		}
	}
	return nil
}

// run starts a caller; stop ends it and returns what it returned.
func (s *service) run(o *intent.Options, rec recorder) (c *caller, stop func() error) {
	s.t.Helper()
	if o == nil {
		o = &intent.Options{}
	}
	o.Log = slog.New(slog.DiscardHandler)
	c, err := intent.New("asker", s.db, s.db.Journal(), o, s.call, rec.all)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() error {
		cancel()
		return <-done
	}
}

// recorded says how often each of the first n intents was recorded.
func (s *service) recorded(n int) []int {
	s.t.Helper()
	all := make([]int, n)
	err := s.db.View(context.Background(), func(ctx context.Context, tx kv.Tx) error {
		for i := range n {
			raw, _, err := tx.Get(ctx, "recorded/"+strconv.Itoa(i))
			if err != nil {
				return err
			}
			all[i], _ = strconv.Atoi(string(raw))
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func once(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = 1
	}
	return all
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func end(t tester, stop func() error) {
	t.Helper()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// inTime runs a test whose pauses take no time.
func inTime(t *testing.T, fn func(t *testing.T, s *service)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t)
		fn(t, s)
	})
}

// FIELD row 36: nothing waits for a timer.
func TestOutcomeIsRecordedAtOnce(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		_, stop := s.run(nil, record)
		synctest.Wait()
		before := time.Now()
		s.ask(upTo(100)...)
		synctest.Wait()
		if got := s.recorded(100); !cmp.Equal(got, once(100)) {
			t.Errorf("recorded %v times", got)
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("it took %v of waiting", took)
		}
		end(t, stop)
		if n := s.calls(); n != 100 {
			t.Errorf("%d calls of 100 intents", n)
		}
	})
}

// Whatever answers are lost, commits fail or have an unknown outcome, and wherever
// the process stops or dies, every intent is recorded once and in its stream's
// order, and of a stream one call runs at a time.
func TestEveryIntentIsRecordedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // a bubble has no test deadline
			n := rapid.IntRange(1, 40).Draw(rt, "intents")
			lose := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 20).Draw(rt, "answers")
			fates := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 20).Draw(rt, "commits")
			runs := rapid.SliceOfN(rapid.IntRange(0, 200), 0, 4).Draw(rt, "runs in ms")
			pool := rapid.IntRange(1, 8).Draw(rt, "pool")
			kill := rapid.Bool().Draw(rt, "killed")

			disk := memory.NewDisk()
			s := &service{t: rt, world: &world{}, db: open(rt, disk)}
			var calls atomic.Int64
			s.answer = func(e Asked, _ int) error {
				i := calls.Add(1)
				time.Sleep(time.Duration(lose[int(i)%len(lose)]) * time.Millisecond)
				if lose[int(i+int64(e.N))%len(lose)] == 0 && i%3 != 0 {
					return errors.New("answer lost")
				}
				return nil
			}
			fate := func(i int64) (fails, unknown bool) {
				switch fates[int(i)%len(fates)] {
				case 0:
					return i%3 != 0, false
				case 1:
					return i%3 != 0, true
				case 2:
					return false, i%3 != 0
				}
				return false, false
			}
			s.db.fate = fate
			tok := s.ask(upTo(n)...)
			o := intent.Options{Pool: pool, Open: 2 * pool, Pause: time.Millisecond}
			for _, ms := range runs {
				_, stop := s.run(&o, record)
				time.Sleep(time.Duration(ms) * time.Millisecond)
				synctest.Wait()
				if kill { // what the disk holds now is all that is left
					left := disk.Clone()
					end(rt, stop)
					s.db.Close()
					disk = left
					s.db = open(rt, disk)
					s.db.fate = fate
				} else {
					end(rt, stop)
				}
			}
			c, stop := s.run(&o, record)
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			if err := c.WaitFor(ctx, tok); err != nil {
				rt.Error(err)
			}
			end(rt, stop)
			if got := s.recorded(n); !cmp.Equal(got, once(n)) {
				rt.Errorf("recorded %v times", got)
			}
			if s.most > 1 {
				rt.Errorf("%d calls of one stream at the same time", s.most)
			}
			if len(s.works) != n {
				rt.Errorf("%d keys for %d intents", len(s.works), n)
			}
			before := s.calls()
			if _, stop = s.run(&o, record); s.calls() != before {
				rt.Error("an intent was called again behind its record")
			}
			synctest.Wait()
			end(rt, stop)
			s.db.Close()
		})
	})
}

func TestIntentFoundAtTheStartCountsAsAttempted(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.ask(0)
		_, stop := s.run(nil, record)
		synctest.Wait()
		s.ask(1)
		synctest.Wait()
		end(t, stop)
		if got, want := s.attempts, []int{1, 0}; !cmp.Equal(got, want) {
			t.Errorf("attempts %v, want %v", got, want)
		}
	})
}

// A caller behind a stuck call is not slower for it: what is recorded above is one
// small document, and a restart calls the stuck intent only.
func TestTooManyOpenIntentsStopTheReading(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(Asked, int) error { return errors.New("nobody answers") }
		s.ask(upTo(100)...)
		c, stop := s.run(&intent.Options{Pool: 2, Open: 7}, record)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := c.Open(); n != 7 {
			t.Errorf("%d open, want 7", n)
		}
		s.world.mu.Lock()
		s.answer = nil
		s.world.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		end(t, stop)
		if got := s.recorded(100); !cmp.Equal(got, once(100)) {
			t.Errorf("recorded %v times", got)
		}
	})
}

// FIELD row 29: events that are no intents move the mark now and then, and an
// idle caller writes nothing.
func TestOtherEventsCostFewWrites(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		mark := func() (m freehold.Mark) {
			err := s.db.View(t.Context(), func(ctx context.Context, tx kv.Tx) (err error) {
				m, err = s.db.Keeper(tx).Mark(ctx, "intent_asker", "here")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		_, stop := s.run(nil, record)
		for range 100 {
			s.note(100)
			synctest.Wait()
		}
		if n := s.db.updates.Load(); n != 2 || mark().Position < 8000 {
			t.Errorf("%d writes for 10,000 events, mark at %d", n, mark().Position)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := s.db.updates.Load(); n != 2 {
			t.Errorf("%d writes of an idle caller", n-2)
		}
		end(t, stop)
		if m := mark().Position; m != 10_000 {
			t.Errorf("the mark is at %d after a clean stop", m)
		}
	})
}

func TestSecondCallerIsFenced(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(Asked, int) error { time.Sleep(time.Second); return nil }
		s.ask(upTo(20)...)
		_, stop1 := s.run(nil, record)
		_, stop2 := s.run(nil, record)
		time.Sleep(time.Minute)
		synctest.Wait()
		errs := []error{stop1(), stop2()}
		if !errors.Is(errs[0], freehold.ErrFenced) == !errors.Is(errs[1], freehold.ErrFenced) {
			t.Errorf("they end with %v, want one fenced", errs)
		}
		if got := s.recorded(20); !cmp.Equal(got, once(20)) {
			t.Errorf("recorded %v times", got)
		}
	})
}

// An operator, or the host, starts a caller again that has ended.
func TestCallerRunsAgain(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		c, err := intent.New("asker", s.db, s.db.Journal(), nil, s.call, recorder(record).all)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.Run(ctx) }()
			s.ask(i)
			synctest.Wait()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := s.recorded(3); !cmp.Equal(got, once(3)) || s.calls() != 3 {
			t.Errorf("recorded %v times in %d calls", got, s.calls())
		}
	})
}

func TestWaitForWaitsForTheRecord(t *testing.T) {
	inTime(t, func(t *testing.T, s *service) {
		s.answer = func(Asked, int) error { time.Sleep(10 * time.Second); return nil }
		c, stop := s.run(nil, record)
		tok := s.ask(0)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.WaitFor(ctx, tok); !errors.Is(err, freehold.ErrBehind) {
			t.Errorf("after 5 s: %v, want ErrBehind", err)
		}
		if err := c.WaitFor(t.Context(), tok); err != nil || s.recorded(1)[0] != 1 {
			t.Errorf("%v, recorded %v times", err, s.recorded(1))
		}
		end(t, stop)
	})
}

func TestUnknownTypeIsRefused(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, err := intent.New("asker", s.db, s.db.Journal(), nil,
		func(context.Context, string, unknown, int) (int, error) { return 0, nil },
		func(context.Context, kv.Tx, []intent.Done[unknown, int]) error { return nil })
	if err == nil {
		t.Error("accepted")
	}
}

type unknown struct{}

func (unknown) EventType() freehold.Type { return freehold.T("test.unknown", 1) }
