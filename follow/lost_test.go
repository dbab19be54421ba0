package follow_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// TestAnEventIsNotParkedBecauseTheDatabaseIsAway: every event would fail just now.
func TestAnEventIsNotParkedBecauseTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for _, away := range []error{freehold.ErrUnavailable, freehold.ErrUnknown} {
		source := script(t, given(2, 3))
		db := open(t)
		var tries atomic.Int64
		f := start(t, db, source, quiet(), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
			if tries.Add(1) < 20 {
				return fmt.Errorf("read: %w", away)
			}
			return notes(ctx, tx, e, r)
		}))
		if err := f.WaitFor(patient(t), source.Token()); err != nil {
			t.Errorf("%v: %v", away, err)
		}
		if parked := mustParked(t, f); len(parked) > 0 {
			t.Errorf("%v: parked: %+v", away, parked)
		}
	}
}

// forgetful is a database that can be exchanged for another one while it is open.
type forgetful struct {
	now  atomic.Pointer[memory.DB]
	lost atomic.Pointer[chan struct{}]
}

func (f *forgetful) become(db *memory.DB) {
	f.now.Store(db)
	next := make(chan struct{})
	if was := f.lost.Swap(&next); was != nil {
		close(*was)
	}
}

func (f *forgetful) Lost() <-chan struct{} { return *f.lost.Load() }

func (f *forgetful) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	return f.now.Load().Update(ctx, fn)
}

func (f *forgetful) View(ctx context.Context, fn func(context.Context, kv.Tx) error) error {
	return f.now.Load().View(ctx, fn)
}

func (f *forgetful) Append(ctx context.Context, ws ...freehold.Write) (freehold.Token, error) {
	return f.now.Load().Append(ctx, ws...)
}

func (f *forgetful) Keeper(tx kv.Tx) follow.Keeper { return f.now.Load().Keeper(tx) }

// TestAFollowerGoesOnFromWhatItsDatabaseStillHas: there is nothing new to read, and
// nobody asks.
func TestAFollowerGoesOnFromWhatItsDatabaseStillHas(t *testing.T) {
	t.Parallel()
	source := script(t, given(2, 5))
	db := &forgetful{}
	disk := memory.NewDisk()
	half := reopen(t, disk)
	g := start(t, half, source, &follow.Options{Batch: 1}, follow.On(notes))
	if err := g.WaitFor(patient(t), freehold.NewToken(source.Events()[4].At)); err != nil {
		t.Fatal(err)
	}
	backup := disk.Clone()
	whole := open(t)
	db.become(whole)
	f, err := follow.New("f", db, []follow.Source{source}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	for _, older := range []*memory.DB{open(t), reopen(t, backup)} { // emptied, and restored
		ctx := patient(t)
		if err := f.WaitFor(ctx, source.Token()); err != nil {
			t.Fatal(err)
		}
		db.become(older)
		for read(t, older, "count") != read(t, whole, "count") {
			if ctx.Err() != nil {
				t.Fatalf("it stands at %+v", f.Status(t.Context()))
			}
		}
		for _, key := range []string{"note/n-0", "note/n-1"} {
			if got, want := read(t, older, key), read(t, whole, key); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
	}
}

// TestErrorsAreNotTakenForDeaths starts behind a process that was killed, where each
// attempt at an event is counted: one that fails because of the database, or because
// another instance was faster, has not killed anybody.
func TestErrorsAreNotTakenForDeaths(t *testing.T) {
	t.Parallel()
	for _, err := range []error{freehold.ErrUnavailable, freehold.ErrFenced} {
		source := script(t, given(1, 2))
		disk := memory.NewDisk()
		var tried atomic.Int64
		start(t, reopen(t, disk), source, quiet(), follow.On(func(context.Context, kv.Tx, Noted, freehold.Recorded) error {
			tried.Add(1)
			return fmt.Errorf("not now: %w", err)
		}))
		eventually(t, func() bool { return tried.Load() > 0 })
		killed := reopen(t, disk.Clone())
		tried.Store(0)
		f := start(t, killed, source, quiet(), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
			if tried.Add(1) < 20 {
				return fmt.Errorf("not now: %w", err)
			}
			return notes(ctx, tx, e, r)
		}))
		if waited := f.WaitFor(patient(t), source.Token()); waited != nil {
			t.Errorf("%v: %v", err, waited)
		}
		if parked := mustParked(t, f); len(parked) > 0 {
			t.Errorf("%v: parked: %+v", err, parked)
		}
	}
}

// TestWhatNobodyWantsIsNotCountedBehindAKill starts behind a process that was killed:
// only events that a handler wants take a transaction to count the start, and one to
// apply it.
func TestWhatNobodyWantsIsNotCountedBehindAKill(t *testing.T) {
	t.Parallel()
	source, err := memory.Open(t.Context(), "a", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	var last freehold.Token
	want := ""
	for i := range 60 {
		w := other("n-a")
		if i%10 == 9 {
			w = note("n-a", fmt.Sprint(i))
			want += fmt.Sprint(i) + ";"
		}
		if last, err = source.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	disk := memory.NewDisk()
	var tried atomic.Int64
	start(t, reopen(t, disk), source.Journal(), quiet(), follow.On(func(context.Context, kv.Tx, Noted, freehold.Recorded) error {
		tried.Add(1)
		return fmt.Errorf("not now: %w", freehold.ErrUnavailable)
	}))
	eventually(t, func() bool { return tried.Load() > 0 })
	db := &counting{DB: reopen(t, disk.Clone())}
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	if err := f.WaitFor(patient(t), last); err != nil {
		t.Fatal(err)
	}
	if got := read(t, db.DB, "note/n-a"); got != want {
		t.Errorf("n-a is %q, want %q", got, want)
	}
	// The record of the start, that of the opening, and two for each of six events.
	if got := db.updates.Load(); got < 12 || got > 14 {
		t.Errorf("%d transactions, want 12 to 14", got)
	}
}

// TestAnEventThatKillsIsParkedBehindManyThatNobodyWants: the process dies of it each time,
// some thousand events behind the stored mark, of which it had passed over most.
func TestAnEventThatKillsIsParkedBehindManyThatNobodyWants(t *testing.T) {
	t.Parallel()
	source, err := memory.Open(t.Context(), "a", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	for range 100 {
		w := other("n-a")
		for len(w.Events) < 50 {
			w.Events = append(w.Events, Other{})
		}
		if _, err := source.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := source.Append(t.Context(), note("n-a", "1")); err != nil {
		t.Fatal(err)
	}
	const most = 8 // two until it is careful, three counted, and the same again for what was in hand
	disk := memory.NewDisk()
	for deaths := 0; ; deaths++ {
		disk = disk.Clone()
		var tried atomic.Int64
		f := start(t, reopen(t, disk), source.Journal(), quiet(), follow.On(func(context.Context, kv.Tx, Noted, freehold.Recorded) error {
			tried.Add(1)
			return fmt.Errorf("not now: %w", freehold.ErrUnavailable)
		}))
		eventually(t, func() bool { return tried.Load() > 0 || len(mustParked(t, f)) > 0 })
		if len(mustParked(t, f)) > 0 {
			t.Logf("parked behind %d deaths", deaths)
			return
		}
		if deaths == most {
			t.Fatalf("the process has died %d times of an event, which is not parked", most)
		}
	}
}
