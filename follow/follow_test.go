package follow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// Noted is the event of these tests: a note on an entity.
type Noted struct {
	Text string `json:"text"`
}

func (Noted) EventType() freehold.Type { return freehold.T("test.noted", 1) }

// Other has no route.
type Other struct{}

func (Other) EventType() freehold.Type { return freehold.T("test.other", 1) }

func types(t testing.TB) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[Noted](), freehold.JSON[Other]())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), "here", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func quiet() *follow.Options {
	return &follow.Options{Pause: time.Microsecond, MaxPause: time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

// notes appends each stream's texts to the value under its name, so that any
// loss, double or reordering shows.
func notes(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
	was, _, err := tx.Get(ctx, "note/"+string(r.Stream))
	if err != nil {
		return err
	}
	_, err = tx.Add(ctx, "count", 1, 0)
	if err != nil {
		return err
	}
	return tx.Put(ctx, "note/"+string(r.Stream), []byte(string(was)+e.Text+";"))
}

func digest(ctx context.Context, tx kv.Tx) (string, error) {
	var b strings.Builder
	for item, err := range tx.Scan(ctx, "note/", "") {
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s=%s\n", item.Key, item.Value)
	}
	count, _, err := tx.Get(ctx, "count")
	return b.String() + string(count), err
}

func given(streams, each int) []freehold.Write {
	var ws []freehold.Write
	for i := range each {
		for s := range streams {
			w := freehold.Write{Stream: freehold.Stream("n", strconv.Itoa(s)), Expect: freehold.Any, Events: []freehold.Event{Noted{strconv.Itoa(i)}}}
			if (i+s)%3 == 0 {
				w.Events = append(w.Events, Other{}, Noted{"more"})
			}
			ws = append(ws, w)
		}
	}
	return ws
}

func TestEverySchedule(t *testing.T) {
	t.Parallel()
	followtest.Run(t, followtest.Case[kv.Tx]{
		Open:   func(t testing.TB) follow.DB[kv.Tx] { return open(t) },
		Types:  types(t),
		Routes: func() []follow.Route[kv.Tx] { return []follow.Route[kv.Tx]{follow.On(notes)} },
		Given:  given(3, 7),
		Digest: digest, Commutes: true,
	})
}

// start follows a script into db until the test ends.
func start(t *testing.T, db *memory.DB, s follow.Source, opts *follow.Options, routes ...follow.Route[kv.Tx]) *follow.Follower {
	t.Helper()
	f, err := follow.New("f", db, []follow.Source{s}, opts, routes...)
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	return f
}

func run(t *testing.T, f *follow.Follower) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follower: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func script(t *testing.T, ws []freehold.Write) *followtest.Script {
	t.Helper()
	s, err := followtest.NewScript("there", types(t), ws)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func note(stream, text string) freehold.Write {
	return freehold.Write{Stream: freehold.StreamID(stream), Expect: freehold.Any, Events: []freehold.Event{Noted{text}}}
}

func read(t *testing.T, db *memory.DB, key string) string {
	t.Helper()
	var v []byte
	err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) (err error) {
		v, _, err = tx.Get(ctx, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(v)
}

// poisoned fails on the text "poison" until healed.
func poisoned(healed *atomic.Bool) follow.Route[kv.Tx] {
	return follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if err := notes(ctx, tx, e, r); err != nil {
			return err
		}
		if e.Text == "poison" && !healed.Load() {
			return errors.New("cannot take this")
		}
		return nil
	})
}

func TestPoisonHoldsItsKeyOnlyAndReleasesInOrder(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, []freehold.Write{note("n-a", "1"), note("n-b", "1"), note("n-a", "poison"), note("n-b", "2"), note("n-a", "3"), note("n-b", "3"), note("n-a", "4")})
	var healed atomic.Bool
	f := start(t, db, s, quiet(), poisoned(&healed))
	ctx := patient(t)
	if err := f.WaitFor(ctx, freehold.NewToken(s.Events()[5].At)); err != nil {
		t.Fatalf("another key waits for the poisoned one: %v", err)
	}
	if err := f.WaitFor(ctx, s.Token()); !errors.Is(err, follow.ErrParked) {
		t.Errorf("token of an event behind the poison: error %v, want ErrParked", err)
	}
	if got, want := read(t, db, "note/n-b"), "1;2;3;"; got != want {
		t.Errorf("n-b is %q, want %q", got, want)
	}
	if got, want := read(t, db, "note/n-a"), "1;"; got != want {
		t.Errorf("n-a is %q, want %q: an attempt left something behind", got, want)
	}
	parked, err := f.Parked(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	var positions []freehold.Position
	for _, p := range parked {
		positions = append(positions, p.Event.At.Position)
	}
	if want := []freehold.Position{3, 5, 7}; !slices.Equal(positions, want) {
		t.Fatalf("parked positions %v, want %v", positions, want)
	}
	if err := f.Retry(ctx, "there", "n-a"); err == nil {
		t.Error("retry of a handler that still fails succeeded")
	}
	healed.Store(true)
	if err := f.Retry(ctx, "there", "n-a"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, db, "note/n-a"), "1;poison;3;4;"; got != want {
		t.Errorf("n-a is %q after release, want %q", got, want)
	}
	if err := f.WaitFor(ctx, s.Token()); err != nil {
		t.Errorf("token after release: %v", err)
	}
	if err := f.Retry(ctx, "there", "n-a"); !errors.Is(err, follow.ErrNotParked) {
		t.Errorf("second retry: %v, want ErrNotParked", err)
	}
}

func TestReleaseGivesUpTheFirstEventOnly(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, []freehold.Write{note("n-a", "1"), note("n-a", "poison"), note("n-a", "3")})
	f := start(t, db, s, quiet(), poisoned(new(atomic.Bool)))
	ctx := patient(t)
	if err := f.WaitFor(ctx, s.Token()); !errors.Is(err, follow.ErrParked) {
		t.Fatalf("error %v, want ErrParked", err)
	}
	if err := f.Release(ctx, "there", "n-a"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, db, "note/n-a"), "1;3;"; got != want {
		t.Errorf("n-a is %q, want %q", got, want)
	}
}

func TestParkedKeysSurviveARestart(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, []freehold.Write{note("n-a", "poison"), note("n-b", "1"), note("n-a", "2")})
	var healed atomic.Bool
	first, err := follow.New("f", db, []follow.Source{s}, quiet(), poisoned(&healed))
	if err != nil {
		t.Fatal(err)
	}
	ctx := patient(t)
	stop := run(t, first)
	if err := first.WaitFor(ctx, freehold.NewToken(s.Events()[1].At)); err != nil {
		t.Fatal(err)
	}
	stop()
	healed.Store(true)
	f := start(t, db, s, quiet(), poisoned(&healed))
	if err := f.WaitFor(ctx, s.Token()); !errors.Is(err, follow.ErrParked) {
		t.Fatalf("an event of the parked key was applied ahead of it: %v", err)
	}
	if err := f.Retry(ctx, "there", "n-a"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, db, "note/n-a"), "poison;2;"; got != want {
		t.Errorf("n-a is %q, want %q", got, want)
	}
}

func TestReleaseRacingArrivalsKeepsOrder(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	var healed atomic.Bool
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), poisoned(&healed))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	ctx := patient(t)
	want := ""
	for round := range 200 {
		healed.Store(false)
		tok, err := source.Append(ctx, note("n-a", "poison"))
		if err != nil {
			t.Fatal(err)
		}
		want += "poison;"
		for len(mustParked(t, f)) == 0 {
			_ = f.WaitFor(ctx, tok)
		}
		healed.Store(true)
		var racing sync.WaitGroup
		racing.Go(func() {
			for i := range 50 {
				if _, err := source.Append(ctx, note("n-a", strconv.Itoa(i))); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range 50 {
			want += strconv.Itoa(i) + ";"
		}
		for {
			err := f.Retry(ctx, "here", "n-a")
			if errors.Is(err, follow.ErrNotParked) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		racing.Wait()
		_, head, _ := source.Journal().Bounds(ctx)
		for errors.Is(f.WaitFor(ctx, freehold.NewToken(head)), follow.ErrParked) {
			if err := f.Retry(ctx, "here", "n-a"); err != nil && !errors.Is(err, follow.ErrNotParked) {
				t.Fatal(err)
			}
		}
		if got := read(t, db, "note/n-a"); got != want {
			t.Fatalf("round %d: order lost:\n got %s\nwant %s", round, got, want)
		}
	}
}

func mustParked(t *testing.T, f *follow.Follower) []follow.Parked {
	t.Helper()
	parked, err := f.Parked(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	return parked
}

func TestHandlerThatRecoversIsAppliedOnce(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, given(2, 3))
	var calls atomic.Int64
	f := start(t, db, s, quiet(), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if err := notes(ctx, tx, e, r); err != nil {
			return err
		}
		if calls.Add(1)%3 == 0 {
			panic("now and then")
		}
		return nil
	}))
	if err := f.WaitFor(patient(t), s.Token()); err != nil {
		t.Fatal(err)
	}
	clean := open(t)
	g := start(t, clean, s, quiet(), follow.On(notes))
	if err := g.WaitFor(patient(t), s.Token()); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"note/n-0", "note/n-1", "count"} {
		if got, want := read(t, db, key), read(t, clean, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// counting counts the transactions of a database.
type counting struct {
	*memory.DB
	updates atomic.Int64
}

func (c *counting) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	c.updates.Add(1)
	return c.DB.Update(ctx, fn)
}

func TestIdleFollowerWritesNothing(t *testing.T) {
	t.Parallel()
	db := &counting{DB: open(t)}
	s := script(t, given(2, 2))
	f, err := follow.New("f", db, []follow.Source{s}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	if err := f.WaitFor(patient(t), s.Token()); err != nil {
		t.Fatal(err)
	}
	was := db.updates.Load()
	for range 1000 { // wakes it without news
		_ = f.Retry(patient(t), "there", "nothing")
	}
	if got := db.updates.Load(); got != was {
		t.Errorf("%d transactions while idle", got-was)
	}
}

func TestSourceThatWentBackIsStoppedAndAdopted(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"shorter": 1, "as long": 3, "longer": 6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			source := reopen(t, disk)
			ctx := patient(t)
			appendNotes(t, source, "n-a", "1", "2")
			backup := disk.Clone()
			appendNotes(t, source, "n-a", "3", "4", "5")

			db := open(t)
			first, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
			if err != nil {
				t.Fatal(err)
			}
			stop := run(t, first)
			_, head, _ := source.Journal().Bounds(ctx)
			if err := first.WaitFor(ctx, freehold.NewToken(head)); err != nil {
				t.Fatal(err)
			}
			stop()

			restored := reopen(t, backup)
			for i := range more {
				appendNotes(t, restored, "n-a", "new"+strconv.Itoa(i))
			}
			f := start(t, db, restored.Journal(), quiet(), follow.On(notes))
			eventually(t, func() bool { return f.Status(ctx)[0].State == follow.Diverged })
			if got, want := read(t, db, "note/n-a"), "1;2;3;4;5;"; got != want {
				t.Fatalf("n-a is %q, want %q: another history was applied", got, want)
			}
			mark, err := f.Adopt(ctx, "here")
			if err != nil {
				t.Fatal(err)
			}
			if mark.Position != 2 {
				t.Errorf("adopted at %d, want 2", mark.Position)
			}
			_, head, _ = restored.Journal().Bounds(ctx)
			if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
				t.Fatal(err)
			}
			want := "1;2;3;4;5;"
			for i := range more {
				want += "new" + strconv.Itoa(i) + ";"
			}
			if got := read(t, db, "note/n-a"); got != want {
				t.Errorf("n-a is %q after adopt, want %q", got, want)
			}
		})
	}
}

func reopen(t *testing.T, disk *memory.Disk) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), "here", types(t), &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func appendNotes(t *testing.T, db *memory.DB, stream string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := db.Append(t.Context(), note(stream, text)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWaitForSaysBehindWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, given(1, 1))
	f := start(t, db, s, quiet(), follow.On(notes))
	head := s.Events()[len(s.Events())-1].At
	head.Position++
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.WaitFor(ctx, freehold.NewToken(head)); !errors.Is(err, freehold.ErrBehind) {
		t.Errorf("error %v, want ErrBehind", err)
	}
	other := s.Events()[0].At
	other.Epoch = "another"
	if err := f.WaitFor(patient(t), s.Token()); err != nil {
		t.Fatal(err)
	}
	if err := f.WaitFor(patient(t), freehold.NewToken(other)); !errors.Is(err, freehold.ErrHistoryLost) {
		t.Errorf("error %v, want ErrHistoryLost", err)
	}
}

func TestObserveStartsAtTheHead(t *testing.T) {
	t.Parallel()
	source := open(t)
	appendNotes(t, source, "n-a", "before")
	seen := make(chan string, 10)
	f := follow.Observe("o", []follow.Source{source.Journal()}, func(_ context.Context, rs []freehold.Recorded) error {
		for _, r := range rs {
			seen <- string(r.Raw)
		}
		return nil
	})
	run(t, f)
	eventually(t, func() bool { return f.Status(t.Context())[0].State == follow.Running })
	appendNotes(t, source, "n-a", "after")
	if got := <-seen; got != "" {
		t.Errorf("first seen is %s, want a placeholder at the head", got)
	}
	if got, want := <-seen, `{"text":"after"}`; got != want {
		t.Errorf("next seen is %s, want %s", got, want)
	}
}

func TestConstructionRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	db := open(t)
	s := script(t, nil)
	unknown := follow.On(func(context.Context, kv.Tx, unlisted, freehold.Recorded) error { return nil })
	for name, routes := range map[string][]follow.Route[kv.Tx]{
		"no routes":          nil,
		"type not in source": {unknown},
		"batch and another":  {follow.On(notes), follow.Batch(func(context.Context, kv.Tx, []freehold.Recorded) error { return nil })},
	} {
		if _, err := follow.New("f", db, []follow.Source{s}, nil, routes...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := follow.New("f", db, []follow.Source{s, s}, nil, follow.On(notes)); err == nil {
		t.Error("one source given twice: accepted")
	}
}

type unlisted struct{}

func (unlisted) EventType() freehold.Type { return freehold.T("test.unlisted", 1) }
