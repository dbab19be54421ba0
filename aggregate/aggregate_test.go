package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// Added is something put on a shelf, Taken something taken from it.
type (
	Added struct{ N int }
	Taken struct{ By string }
)

func (Added) EventType() freehold.Type { return freehold.T("shelf.added", 1) }
func (Taken) EventType() freehold.Type { return freehold.T("shelf.taken", 1) }

// Shelf is an aggregate.
type Shelf struct {
	Left  int
	Taken []string
}

func (s Shelf) Evolve(e freehold.Event) Shelf {
	switch e := e.(type) {
	case Added:
		s.Left += e.N
	case Taken:
		s.Left--
		s.Taken = append(append([]string(nil), s.Taken...), e.By)
	}
	return s
}

var errEmpty = errors.New("the shelf is empty")

func take(by string) func(Shelf) ([]freehold.Event, error) {
	return func(s Shelf) ([]freehold.Event, error) {
		if s.Left == 0 {
			return nil, errEmpty
		}
		return []freehold.Event{Taken{by}}, nil
	}
}

func add(n int) func(Shelf) ([]freehold.Event, error) {
	return func(Shelf) ([]freehold.Event, error) { return []freehold.Event{Added{n}}, nil }
}

func nothing(Shelf) ([]freehold.Event, error) { return nil, nil }

// counting is a store that counts what it is asked for, and interferes.
type counting struct {
	*memory.DB
	appends, streams, events atomic.Int64
	unplaced                 bool                                                        // events have no positions yet when they are read
	before                   func()                                                      // before each append
	after                    func(tok freehold.Token, err error) (freehold.Token, error) // of each append
}

func (c *counting) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	c.appends.Add(1)
	if c.before != nil {
		c.before()
	}
	tok, err := c.DB.Append(ctx, writes...)
	if c.after != nil {
		return c.after(tok, err)
	}
	return tok, err
}

func (c *counting) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	c.streams.Add(1)
	return func(yield func(freehold.Recorded, error) bool) {
		for r, err := range c.DB.Events(ctx, s, after) {
			c.events.Add(1)
			if c.unplaced {
				r.At = freehold.Mark{}
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func open(t testing.TB, disk *memory.Disk) *counting {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.JSON[Added](), freehold.JSON[Taken]())
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(context.Background(), "shelves", types, &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return &counting{DB: db}
}

func setup(t testing.TB) *counting {
	db := open(t, nil)
	t.Cleanup(func() { db.Close() })
	return db
}

type repo interface {
	Do(ctx context.Context, id string, decide func(Shelf) ([]freehold.Event, error), modes ...aggregate.Mode) (Shelf, freehold.Token, error)
}

func do(t testing.TB, r repo, id string, decide func(Shelf) ([]freehold.Event, error), modes ...aggregate.Mode) (Shelf, freehold.Token) {
	t.Helper()
	s, tok, err := r.Do(context.Background(), id, decide, modes...)
	if err != nil {
		t.Fatal(err)
	}
	return s, tok
}

func TestCommandSeesWhatEarlierOnesDid(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	do(t, r, "1", add(2))
	got, tok := do(t, r, "1", take("ann"))
	if want := (Shelf{1, []string{"ann"}}); !cmp.Equal(got, want) {
		t.Errorf("Do returns %+v, want %+v", got, want)
	}
	_, head, _ := db.Journal().Bounds(t.Context())
	if want := freehold.NewToken(head); tok.String() != want.String() {
		t.Errorf("token %s, want %s", tok, want)
	}
	loaded, version, err := aggregate.New[Shelf]("shelf", db, nil).Load(t.Context(), "1")
	if err != nil || version != 2 || !cmp.Equal(loaded, got) {
		t.Errorf("loaded %+v at %d, %v, want %+v at 2", loaded, version, err, got)
	}
	if none, version, err := r.Load(t.Context(), "2"); err != nil || version != 0 || !cmp.Equal(none, Shelf{}) {
		t.Errorf("an aggregate without events is %+v at %d, %v", none, version, err)
	}
}

func TestRefusedCommandWritesNothing(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	if _, _, err := r.Do(t.Context(), "1", take("ann")); !errors.Is(err, errEmpty) {
		t.Errorf("%v, want the decision's error", err)
	}
	if n := db.appends.Load(); n != 0 {
		t.Errorf("%d appends", n)
	}
}

func TestCommandWithoutEventsWritesNothingAndItsTokenCoversWhatItSaw(t *testing.T) {
	t.Parallel()
	db := setup(t)
	_, done := do(t, aggregate.New[Shelf]("shelf", db, nil), "1", add(1))
	do(t, aggregate.New[Shelf]("shelf", db, nil), "2", add(1))
	before := db.appends.Load()
	for name, r := range map[string]repo{"cached": aggregate.New[Shelf]("shelf", db, nil), "not cached": aggregate.New[Shelf]("shelf", db, &aggregate.Options{Cached: -1})} {
		for range 2 {
			if _, tok := do(t, r, "1", nothing); tok.String() != done.String() {
				t.Errorf("%s: token %s, want that of the command before, %s", name, tok, done)
			}
		}
	}
	if n := db.appends.Load() - before; n != 0 {
		t.Errorf("%d appends", n)
	}
}

// TestTokenCoversAnEventThatHasNoPositionYet reads what was committed a moment ago, as on
// PostgreSQL: a token of position 0 would be satisfied by readers that have not seen it.
func TestTokenCoversAnEventThatHasNoPositionYet(t *testing.T) {
	t.Parallel()
	db := setup(t)
	_, done := do(t, aggregate.New[Shelf]("shelf", db, nil), "1", add(1))
	r := aggregate.New[Shelf]("shelf", db, nil)
	for range 2 {
		db.unplaced = true
		_, tok := do(t, r, "1", nothing)
		db.unplaced = false
		if tok.String() != done.String() {
			t.Errorf("token %q, want one that covers the event, %s", tok, done)
		}
	}
}

func TestConflictDecidesAnewOnTheNewestState(t *testing.T) {
	t.Parallel()
	db := setup(t)
	other := aggregate.New[Shelf]("shelf", db.DB, nil)
	do(t, other, "1", add(2))
	r := aggregate.New[Shelf]("shelf", db, nil)
	once := sync.OnceFunc(func() { do(t, other, "1", take("ann")) })
	db.before = once
	var seen []int
	got, _ := do(t, r, "1", func(s Shelf) ([]freehold.Event, error) {
		seen = append(seen, s.Left)
		return take("bob")(s)
	})
	if want := []int{2, 1}; !cmp.Equal(seen, want) {
		t.Errorf("decided on %v left, want %v", seen, want)
	}
	if want := (Shelf{0, []string{"ann", "bob"}}); !cmp.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestConflictsEndAfterSomeAttemptsWithTheActualVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the pauses between attempts take no time
		db := open(t, nil)
		defer db.Close()
		other := aggregate.New[Shelf]("shelf", db.DB, nil)
		do(t, other, "1", add(100))
		db.before = func() { do(t, other, "1", take("ann")) }
		decided := 0
		_, _, err := aggregate.New[Shelf]("shelf", db, &aggregate.Options{Attempts: 4}).Do(t.Context(), "1", func(s Shelf) ([]freehold.Event, error) {
			decided++
			return take("bob")(s)
		})
		var conflict *freehold.Conflict
		if !errors.As(err, &conflict) || conflict.Actual != 5 || decided != 4 {
			t.Errorf("%v after %d decisions, want a conflict with version 5 after 4", err, decided)
		}
	})
}

// FIELD row 15: stock that is checked is stock that is taken.
func TestSixtyFourBuyersOneItem(t *testing.T) {
	t.Parallel()
	for _, repos := range []int{1, 4} { // of one process, and of several
		t.Run(fmt.Sprintf("%d repositories", repos), func(t *testing.T) {
			t.Parallel()
			db := setup(t)
			var all []*aggregate.Repo[Shelf]
			for range repos {
				all = append(all, aggregate.New[Shelf]("shelf", db, &aggregate.Options{Attempts: 1000}))
			}
			do(t, all[0], "1", add(1))
			var sold, refused atomic.Int64
			var buyers sync.WaitGroup
			for i := range 64 {
				buyers.Go(func() {
					switch _, _, err := all[i%repos].Do(t.Context(), "1", take(strconv.Itoa(i))); {
					case err == nil:
						sold.Add(1)
					case errors.Is(err, errEmpty):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			buyers.Wait()
			if sold.Load() != 1 || refused.Load() != 63 {
				t.Errorf("%d sold and %d refused, want 1 and 63", sold.Load(), refused.Load())
			}
		})
	}
}

func TestCommandsOfOneProcessDoNotConflict(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, &aggregate.Options{Attempts: 1})
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			if _, _, err := r.Do(t.Context(), "1", add(1)); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if got, version, err := r.Load(t.Context(), "1"); err != nil || got.Left != 64 || version != 64 {
		t.Errorf("%+v at %d, %v, want 64 left at 64", got, version, err)
	}
}

func TestCallerThatGoesAwayWhileItWaitsHasDoneNothing(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	ctx, cancel := context.WithCancel(t.Context())
	do(t, r, "1", func(Shelf) ([]freehold.Event, error) {
		waiting := make(chan error, 1)
		go func() {
			_, _, err := r.Do(ctx, "1", add(1))
			waiting <- err
		}()
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's error", err)
		}
		return []freehold.Event{Added{1}}, nil
	})
	if got, _, _ := r.Load(t.Context(), "1"); got.Left != 1 {
		t.Errorf("%d left, want 1", got.Left)
	}
}

func TestCreateDoesNotRead(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, &aggregate.Options{Attempts: 1})
	do(t, r, "1", add(1), aggregate.Create)
	if n := db.streams.Load(); n != 0 {
		t.Errorf("%d reads", n)
	}
}

func TestCreateOfWhatIsThereDecidesOnIt(t *testing.T) {
	t.Parallel()
	db := setup(t)
	do(t, aggregate.New[Shelf]("shelf", db, nil), "1", add(3))
	for name, decide := range map[string]func(Shelf) ([]freehold.Event, error){
		"with events": func(s Shelf) ([]freehold.Event, error) {
			if s.Left > 0 {
				return nil, nil // the same command again
			}
			return []freehold.Event{Added{3}}, nil
		},
		"without events": nothing,
		"with an error": func(s Shelf) ([]freehold.Event, error) {
			if s.Left == 0 {
				return nil, errEmpty
			}
			return nil, nil
		},
	} {
		r := aggregate.New[Shelf]("shelf", db, &aggregate.Options{Attempts: 1})
		if got, tok := do(t, r, "1", decide, aggregate.Create); got.Left != 3 || tok.String() == "" {
			t.Errorf("%s: %+v, token %q", name, got, tok)
		}
	}
}

// A cached state is where reading starts, never what a decision is made on.
func TestTailIsReadAlthoughTheStateIsCached(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	for range 10 {
		do(t, r, "1", add(1))
	}
	do(t, aggregate.New[Shelf]("shelf", db.DB, nil), "1", add(5)) // another process
	db.events.Store(0)
	if got, _, err := r.Load(t.Context(), "1"); err != nil || got.Left != 15 {
		t.Errorf("%+v, %v, want 15 left", got, err)
	}
	if n := db.events.Load(); n != 1 {
		t.Errorf("%d events read, want the one of the tail", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cached, least int }{{3, 7}, {-1, 10}} {
		db := setup(t)
		r := aggregate.New[Shelf]("shelf", db, &aggregate.Options{Cached: c.cached})
		for i := range 10 {
			do(t, r, strconv.Itoa(i), add(1), aggregate.Create)
		}
		db.events.Store(0)
		for i := range 10 {
			if got, _, err := r.Load(t.Context(), strconv.Itoa(i)); err != nil || got.Left != 1 {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if n := int(db.events.Load()); n < c.least {
			t.Errorf("with %d states cached %d events were read, want at least %d", c.cached, n, c.least)
		}
	}
}

func TestTransactionThatRollsBackLeavesNothing(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	do(t, r, "1", add(1))
	errLater := errors.New("later")
	for _, later := range []error{errLater, nil} {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			got, err := r.DoTx(ctx, tx, "1", take("ann"))
			if err != nil {
				return err
			}
			if got.Left != 0 {
				t.Errorf("%+v, want 0 left", got)
			}
			if _, err := r.DoTx(ctx, tx, "1", take("bob")); !errors.Is(err, errEmpty) {
				t.Errorf("the second command of the transaction: %v", err)
			}
			return later
		})
		if !errors.Is(err, later) {
			t.Errorf("%v, want %v", err, later)
		}
	}
	if got, version, _ := r.Load(t.Context(), "1"); version != 2 || !cmp.Equal(got, Shelf{0, []string{"ann"}}) {
		t.Errorf("%+v at %d, want one taken at 2", got, version)
	}
}

func TestDoInsideATransactionFailsAtOnce(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	_, err := db.Update(t.Context(), func(ctx context.Context, _ kv.Tx) error {
		_, _, err := r.Do(ctx, "1", add(1))
		return err
	})
	if !errors.Is(err, freehold.ErrNested) {
		t.Errorf("%v, want ErrNested", err)
	}
}

// G3: an unknown outcome is an error of its own, and the same command again has
// no second effect.
func TestUnknownOutcomeNeverLeadsToASecondEffect(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, nil)
	once := func(s Shelf) ([]freehold.Event, error) {
		if s.Left > 0 {
			return nil, nil
		}
		return []freehold.Event{Added{1}}, nil
	}
	db.after = func(freehold.Token, error) (freehold.Token, error) { return freehold.Token{}, freehold.ErrUnknown }
	if _, _, err := r.Do(t.Context(), "1", once); !errors.Is(err, freehold.ErrUnknown) || db.appends.Load() != 1 {
		t.Fatalf("%v after %d appends, want ErrUnknown after 1", err, db.appends.Load())
	}
	db.after = nil
	if got, _ := do(t, r, "1", once); got.Left != 1 {
		t.Errorf("%d left, want 1", got.Left)
	}
}

// Whatever two processes do, by whichever way, the state is the fold of the
// stream.
func TestStateIsTheFoldOfTheStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		types, err := freehold.NewCatalog(freehold.JSON[Added](), freehold.JSON[Taken]())
		if err != nil {
			t.Fatal(err)
		}
		db, err := memory.Open(context.Background(), "shelves", types, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		ctx := context.Background()
		var repos []*aggregate.Repo[Shelf]
		for range 2 {
			repos = append(repos, aggregate.New[Shelf]("shelf", db, &aggregate.Options{
				Cached: rapid.IntRange(-1, 2).Draw(t, "cached"), SnapshotEvery: rapid.IntRange(1, 3).Draw(t, "every"), Snapshots: aggregate.Keep(db, 1)}))
		}
		model := map[string]int{}
		for range rapid.IntRange(1, 20).Draw(t, "commands") {
			r := repos[rapid.IntRange(0, 1).Draw(t, "repository")]
			id := strconv.Itoa(rapid.IntRange(0, 2).Draw(t, "id"))
			switch rapid.IntRange(0, 4).Draw(t, "command") {
			case 0:
				n := rapid.IntRange(1, 3).Draw(t, "n")
				if _, _, err := r.Do(ctx, id, add(n)); err != nil {
					t.Fatal(err)
				}
				model[id] += n
			case 1:
				if _, _, err := r.Do(ctx, id, add(1), aggregate.Create); err != nil {
					t.Fatal(err)
				}
				model[id]++
			case 2:
				_, _, err := r.Do(ctx, id, take("x"))
				if empty := model[id] == 0; empty != errors.Is(err, errEmpty) || !empty && err != nil {
					t.Fatalf("take with %d left: %v", model[id], err)
				} else if !empty {
					model[id]--
				}
			case 3:
				rolledBack := rapid.Bool().Draw(t, "rolled back")
				_, _ = db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
					if _, err := r.DoTx(ctx, tx, id, add(2)); err != nil {
						t.Fatal(err)
					}
					if rolledBack {
						return errEmpty
					}
					return nil
				})
				if !rolledBack {
					model[id] += 2
				}
			}
			if got, _, err := r.Load(ctx, id); err != nil || got.Left != model[id] {
				t.Fatalf("%d left, %v, want %d", got.Left, err, model[id])
			}
		}
	})
}
