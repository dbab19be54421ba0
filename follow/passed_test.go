package follow_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

func other(s freehold.StreamID) freehold.Write {
	return freehold.Write{Stream: s, Expect: freehold.Any, Events: []freehold.Event{Other{}}}
}

// storedMark is the mark of follower f in source a.
func storedMark(t *testing.T, db *memory.DB) (m freehold.Mark) {
	t.Helper()
	err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) (err error) {
		m, err = db.Keeper(tx).Mark(ctx, "f", "a")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEventsThatNobodyWantsShareATransaction has events that no handler wants arrive one
// by one: they are satisfied tokens at once, and the mark moves behind them with the next
// event that is wanted, or when nothing came for a while, or at the end.
func TestEventsThatNobodyWantsShareATransaction(t *testing.T) {
	t.Parallel()
	for name, route := range map[string]follow.Route[kv.Tx]{
		"by type": follow.On(notes),
		"in sets": follow.Batch(func(ctx context.Context, tx kv.Tx, rs []freehold.Recorded) error {
			for _, r := range rs {
				e, err := r.Decode()
				if err != nil {
					return err
				}
				if err := notes(ctx, tx, e.(Noted), r); err != nil {
					return err
				}
			}
			return nil
		}, Noted{}.EventType()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				db := &counting{DB: open(t)}
				source, err := memory.Open(ctx, "a", types(t), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer source.Close()
				f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), route)
				if err != nil {
					t.Fatal(err)
				}
				stop := run(t, f)
				synctest.Wait()
				tell := func(w freehold.Write) {
					t.Helper()
					tok, err := source.Append(ctx, w)
					if err == nil {
						err = f.WaitFor(ctx, tok)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				want := func(updates int64, mark freehold.Position) {
					t.Helper()
					synctest.Wait()
					if got := db.updates.Swap(0); got != updates {
						t.Errorf("%d transactions, want %d", got, updates)
					}
					if got := storedMark(t, db.DB).Position; got != mark {
						t.Errorf("the mark is stored at %d, want %d", got, mark)
					}
				}
				tell(note("n-a", "1"))
				want(db.updates.Load(), 1) // and the start
				for range 10 {
					tell(other("n-a"))
				}
				want(0, 1)
				tell(note("n-a", "2"))
				want(1, 12)
				tell(other("n-a"))
				<-time.After(time.Minute)
				want(1, 13)
				tell(other("n-a"))
				<-time.After(95*time.Millisecond + 500*time.Microsecond)
				want(0, 13)
				for range 60 { // those that never cease do not keep it down
					tell(other("n-a"))
					<-time.After(time.Millisecond)
				}
				want(1, 19)
				stop()
				if got := storedMark(t, db.DB).Position; got != 74 {
					t.Errorf("the mark is stored at %d behind a clean stop, want 74", got)
				}
				if got, want := read(t, db.DB, "note/n-a"), "1;2;"; got != want {
					t.Errorf("n-a is %q, want %q", got, want)
				}
			})
		})
	}
}

// swapped is a source that may be put back to an older state, or be away, while it is
// followed.
type swapped struct {
	now  atomic.Pointer[memory.DB]
	away atomic.Bool
}

func (s *swapped) journal() follow.Source { return s.now.Load().Journal() }

func (s *swapped) Name() freehold.Source    { return "a" }
func (s *swapped) Types() *freehold.Catalog { return s.journal().Types() }
func (s *swapped) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	if s.away.Load() {
		return first, head, freehold.ErrUnavailable
	}
	return s.journal().Bounds(ctx)
}
func (s *swapped) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	if s.away.Load() {
		return nil, freehold.ErrUnavailable
	}
	return s.journal().Read(ctx, after, limit)
}
func (s *swapped) Wait(ctx context.Context, after freehold.Mark) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := s.journal().Wait(ctx, after); ctx.Err() == nil {
		return err
	}
	return nil
}

func sourceOn(t *testing.T, d *memory.Disk) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), "a", types(t), &memory.Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestWhatWasPassedOverMayBeOfAnotherHistory has the source lose events that the follower
// has passed over in memory. It has no effect of them, so it goes on by itself, and
// says that the source's history has parted.
func TestWhatWasPassedOverMayBeOfAnotherHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		disk := memory.NewDisk()
		var source swapped
		source.now.Store(sourceOn(t, disk))
		db := open(t)
		f, err := follow.New("f", db, []follow.Source{&source}, quiet(), follow.On(notes))
		if err != nil {
			t.Fatal(err)
		}
		var reported atomic.Int64
		f.OnDiverged(func(freehold.Source) { reported.Add(1) })
		stop := run(t, f)
		tell := func(w freehold.Write) {
			t.Helper()
			tok, err := source.now.Load().Append(ctx, w)
			if err == nil {
				err = f.WaitFor(ctx, tok)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		tell(note("n-a", "1"))
		backup := disk.Clone()
		tell(other("n-a"))
		if got := storedMark(t, db).Position; got != 1 {
			t.Fatalf("the mark is stored at %d, want 1", got)
		}
		source.now.Store(sourceOn(t, backup))
		tell(note("n-a", "2"))
		tell(note("n-a", "3"))
		if got, want := read(t, db, "note/n-a"), "1;2;3;"; got != want {
			t.Errorf("n-a is %q, want %q", got, want)
		}
		if got := reported.Load(); got != 1 {
			t.Errorf("that its history parted was reported %d times, want once", got)
		}
		stop()
	})
}

// TestWhatWasPassedOverStaysSoWhileTheSourceIsAway: a token that was satisfied is satisfied
// again, although the source cannot be asked.
func TestWhatWasPassedOverStaysSoWhileTheSourceIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		home, err := memory.Open(ctx, "a", types(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		var source swapped
		source.now.Store(home)
		db := open(t)
		f, err := follow.New("f", db, []follow.Source{&source}, quiet(), follow.On(notes))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, f)
		var tok freehold.Token
		for _, w := range []freehold.Write{note("n-a", "1"), other("n-a")} {
			if tok, err = home.Append(ctx, w); err == nil {
				err = f.WaitFor(ctx, tok)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		source.away.Store(true)
		<-time.After(20 * time.Millisecond) // of the bubble: it meets the error, long before it would store its mark
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := f.WaitFor(soon, tok); err != nil {
			t.Error(err)
		}
		if got := storedMark(t, db).Position; got != 2 {
			t.Errorf("the mark is stored at %d, want 2", got)
		}
		stop()
	})
}

// TestAnOpeningIsNotPassedOver: where histories part is told by the openings of the source
// that the follower has seen, also if it wanted none of their events.
func TestAnOpeningIsNotPassedOver(t *testing.T) {
	t.Parallel()
	disk, db := memory.NewDisk(), open(t)
	for n, w := range []freehold.Write{note("n-a", "1"), other("n-a")} {
		source := sourceOn(t, disk)
		f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, f)
		tok, err := source.Append(t.Context(), w)
		if err == nil {
			err = f.WaitFor(patient(t), tok)
		}
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if seen, err := f.Seen(t.Context(), "a"); err != nil || len(seen.Incarnations) != n+1 {
			t.Errorf("it has seen %+v, %v, want %d openings", seen, err, n+1)
		}
	}
}

// attentive is a source that wants to know what is applied for good.
type attentive struct {
	*journal.Journal
	told atomic.Int64
}

func (s *attentive) Applied(_ string, at freehold.Mark) { s.told.Store(int64(at.Position)) }

// TestASourceHearsOfWhatIsStoredAtRest: a journal that is cut would keep events that were
// passed over, if nobody told it that the mark has moved behind them.
func TestASourceHearsOfWhatIsStoredAtRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		home, err := memory.Open(t.Context(), "a", types(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		source := &attentive{Journal: home.Journal()}
		f, err := follow.New("f", open(t), []follow.Source{source}, quiet(), follow.On(notes))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, f)
		for _, w := range []freehold.Write{note("n-a", "1"), other("n-a")} {
			tok, err := home.Append(t.Context(), w)
			if err == nil {
				err = f.WaitFor(t.Context(), tok)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := source.told.Load(); got != 1 {
			t.Errorf("it was told %d, want 1: the mark stands there", got)
		}
		<-time.After(time.Minute) // of the bubble
		if got := source.told.Load(); got != 2 {
			t.Errorf("it was told %d, want 2", got)
		}
		stop()
	})
}

// TestADatabaseThatForgetsHoldsWhatWasPassedOver: reads ask it whether it holds the place
// of a token, also of an event that nobody wants.
func TestADatabaseThatForgetsHoldsWhatWasPassedOver(t *testing.T) {
	t.Parallel()
	source, err := memory.Open(t.Context(), "a", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	db, models := &forgetful{}, open(t)
	db.become(models)
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	for _, w := range []freehold.Write{note("n-a", "1"), other("n-a"), other("n-a")} {
		tok, err := source.Append(t.Context(), w)
		if err == nil {
			err = f.WaitFor(patient(t), tok)
		}
		if err != nil {
			t.Fatal(err)
		}
		err = models.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			holds, err := f.Holds(ctx, models.Keeper(tx), tok)
			if err == nil && !holds {
				t.Errorf("it does not hold %s, at which the follower is", tok)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
