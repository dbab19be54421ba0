// Package journaltest is the conformance suite of engines: what a journal, its
// transactions and its keeper must do, whatever the database beneath. An engine's
// own test is a [Harness] of a few lines.
//
// # Guarantees
//
// An engine that passes holds G1, G2, G3 and G12, and the parts of G4 and G7 that
// rest on the keeper.
//
// # Ordering
//
// Subtests are independent; each opens a database of its own.
//
// # Failure
//
// Every subtest is named for the outcome that it proves.
package journaltest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// DB is an engine's database under test; every engine's *DB has these methods.
type DB[T freehold.Tx] interface {
	follow.DB[T]
	Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]
	Journal() *journal.Journal
	Close() error
}

// Harness is an engine under test.
type Harness[T freehold.Tx] struct {
	// Open opens the database named by place, which is new for each subtest; opened
	// again after Close it must hold what it held.
	Open func(t testing.TB, place string) DB[T]
	// Put and Get write and read a piece of the service's own state.
	Put func(ctx context.Context, tx T, key, value string) error
	Get func(ctx context.Context, tx T, key string) (string, error)
	// FailCommits makes the engine's next n commits fail, definitely and before
	// anything is durable. nil if the engine cannot.
	FailCommits func(db DB[T], n int)
}

// Happened is the event of the suite; Secret is an internal one.
type Happened struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

// EventType is "test.happened", version 2.
func (Happened) EventType() freehold.Type { return freehold.T("test.happened", 2) }

// Secret is an internal event.
type Secret struct {
	N int `json:"n"`
}

// EventType is "test.secret", version 1.
func (Secret) EventType() freehold.Type { return freehold.T("test.secret", 1) }

// Types is the catalog with which the harness must open databases.
func Types(t testing.TB) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[Happened](), freehold.Internal[Secret](),
		freehold.Upcast(freehold.T("test.happened", 1), upcast))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Run runs the suite.
func Run[T freehold.Tx](t *testing.T, h Harness[T]) {
	s := suite[T]{h}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, db DB[T])
	}{
		{"expectations hold or conflict with the actual version", s.expectations},
		{"an append to several streams is atomic, with conditions", s.severalStreams},
		{"an append of several events keeps all versions", s.severalEvents},
		{"one of many racing appends wins and the others get the conflict", s.racing},
		{"state and events commit together or not at all", s.atomic},
		{"a failed closure does not fail its neighbours", s.neighbours},
		{"a conflict tells a version that was committed", s.committedConflict},
		{"success is not told before the commit", s.ackAfterCommit},
		{"readers see every event once, in order, while writers write", s.dense},
		{"a transaction's events are adjacent and end with Last", s.adjacent},
		{"a transaction sees its own appends", s.ownAppends},
		{"an Update inside an Update fails at once", s.nested},
		{"a transaction is dead after its closure", s.deadHandle},
		{"a View cannot write and is a snapshot", s.view},
		{"a panic and Goexit roll back and leave the writer whole", s.panics},
		{"a cancelled caller was not executed or gets the outcome", s.cancelled},
		{"the chain verifies and survives opening again", s.reopen},
		{"Wait wakes for a commit", s.wait},
		{"a token names the position of the command's own event", s.token},
		{"marks move by compare-and-set", s.marks},
		{"the keeper's values roll back with the transaction", s.keeps},
		{"bad stream ids and unknown types are refused", s.refused},
		{"many streams and long transactions page whole", s.pages},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := h.Open(t, t.TempDir())
			test.run(t, db)
			verify(t, db)
			if err := db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

type suite[T freehold.Tx] struct{ Harness[T] }

func happened(n int) freehold.Event { return Happened{N: n} }

func verify[T freehold.Tx](t *testing.T, db DB[T]) {
	t.Helper()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		if errors.Is(err, freehold.ErrClosed) {
			return
		}
		t.Fatal(err)
	}
	got, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	if got.Position != head.Position || got.Chain != head.Chain {
		t.Errorf("verified up to %v, the head is %v", got, head)
	}
}

func readAll[T freehold.Tx](t *testing.T, db DB[T], page int) []freehold.Recorded {
	t.Helper()
	var all []freehold.Recorded
	at := freehold.Mark{Source: db.Journal().Name()}
	for {
		rs, err := db.Journal().Read(t.Context(), at, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) == 0 {
			return all
		}
		if !rs[len(rs)-1].Last {
			t.Fatalf("a page ends inside a transaction, at %d", rs[len(rs)-1].At.Position)
		}
		for i := range rs {
			if !journal.Follows(at, &rs[i]) {
				t.Fatalf("position %d does not follow %d", rs[i].At.Position, at.Position)
			}
			at = rs[i].At
		}
		all = append(all, rs...)
	}
}

func mustAppend[T freehold.Tx](t *testing.T, db DB[T], writes ...freehold.Write) freehold.Token {
	t.Helper()
	tok, err := db.Append(t.Context(), writes...)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func wantConflict(t *testing.T, err error, actual freehold.Version) {
	t.Helper()
	var c *freehold.Conflict
	if !errors.As(err, &c) {
		t.Errorf("error %v, want a *freehold.Conflict", err)
	} else if c.Actual != actual {
		t.Errorf("conflict tells version %d, want %d", c.Actual, actual)
	}
}

func (s suite[T]) expectations(t *testing.T, db DB[T]) {
	one := func(e freehold.Expect) error {
		_, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: e, Events: []freehold.Event{happened(1)}})
		return err
	}
	wantConflict(t, one(freehold.Exists), 0)
	wantConflict(t, one(freehold.At(1)), 0)
	for i, e := range []freehold.Expect{freehold.NoStream, freehold.At(1), freehold.Exists, freehold.Any} {
		if err := one(e); err != nil {
			t.Errorf("%v at version %d: %v", e, i, err)
		}
	}
	wantConflict(t, one(freehold.NoStream), 4)
	wantConflict(t, one(freehold.At(3)), 4)
	wantConflict(t, one(freehold.At(5)), 4)
	// The same within closures.
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		_, err := tx.Append(ctx, "a-1", freehold.At(2), happened(9))
		return err
	})
	wantConflict(t, err, 4)
	_, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
		v, err := tx.Append(ctx, "a-1", freehold.At(4), happened(5), happened(6))
		if v != 6 {
			t.Errorf("version %d after the append, want 6", v)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) severalStreams(t *testing.T, db DB[T]) {
	mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{happened(1)}},
		freehold.Write{Stream: "a-2", Expect: freehold.NoStream, Events: []freehold.Event{happened(2)}})
	_, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.At(1), Events: []freehold.Event{happened(3)}},
		freehold.Write{Stream: "a-2", Expect: freehold.NoStream, Events: []freehold.Event{happened(4)}})
	wantConflict(t, err, 1)
	_, err = db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.At(1), Events: []freehold.Event{happened(3)}},
		freehold.Write{Stream: "a-2", Expect: freehold.At(7)}) // a condition on a stream that is not written
	wantConflict(t, err, 1)
	mustAppend(t, db, freehold.Write{Stream: "a-2", Expect: freehold.Exists}, freehold.Write{Stream: "a-3", Expect: freehold.NoStream},
		freehold.Write{Stream: "a-1", Expect: freehold.At(1), Events: []freehold.Event{happened(5)}})
	if got := len(readAll(t, db, 10)); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
}

func (s suite[T]) severalEvents(t *testing.T, db DB[T]) {
	mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{happened(1), Secret{2}, happened(3)}})
	var versions []freehold.Version
	for r, err := range db.Events(t.Context(), "a-1", 0) {
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, r.Version)
		if e, err := r.Decode(); err != nil || r.Version != 2 && e != happened(int(r.Version)) {
			t.Errorf("version %d decodes to %v, %v", r.Version, e, err)
		}
		if r.Internal != (r.Version == 2) {
			t.Errorf("version %d: internal is %v", r.Version, r.Internal)
		}
	}
	if !slices.Equal(versions, []freehold.Version{1, 2, 3}) {
		t.Errorf("versions %v", versions)
	}
}

func (s suite[T]) racing(t *testing.T, db DB[T]) {
	const rounds, callers = 11, 64
	conflicts := 0
	for round := range rounds {
		errs := make([]error, callers)
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				_, errs[i] = db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.At(freehold.Version(round)), Events: []freehold.Event{happened(i)}})
			})
		}
		all.Wait()
		for _, err := range errs {
			if err != nil {
				conflicts++
				wantConflict(t, err, freehold.Version(round+1))
			}
		}
	}
	if want := rounds * (callers - 1); conflicts != want {
		t.Errorf("%d conflicts, want %d", conflicts, want)
	}
}

func (s suite[T]) get(t *testing.T, db DB[T], key string) (value string) {
	t.Helper()
	err := db.View(t.Context(), func(ctx context.Context, tx T) (err error) {
		value, err = s.Get(ctx, tx, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

var errNo = errors.New("journaltest: no")

func (s suite[T]) atomic(t *testing.T, db DB[T]) {
	write := func(key string, fail error) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if err := s.Put(ctx, tx, key, "there"); err != nil {
				return err
			}
			if _, err := tx.Append(ctx, freehold.Stream("a", key), freehold.NoStream, happened(1)); err != nil {
				return err
			}
			return fail
		})
		return err
	}
	if err := write("kept", nil); err != nil {
		t.Fatal(err)
	}
	if err := write("undone", errNo); !errors.Is(err, errNo) {
		t.Errorf("error %v, want the closure's own", err)
	}
	if s.get(t, db, "kept") != "there" || s.get(t, db, "undone") != "" {
		t.Error("state does not agree with the outcomes")
	}
	if rs := readAll(t, db, 10); len(rs) != 1 || rs[0].Stream != "a-kept" {
		t.Errorf("events %v, want only that of the committed closure", rs)
	}
}

func (s suite[T]) neighbours(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	const n = 200
	for i := range n {
		all.Go(func() {
			key := strconv.Itoa(i)
			_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
				if err := s.Put(ctx, tx, key, key); err != nil {
					return err
				}
				if _, err := tx.Append(ctx, freehold.Stream("a", key), freehold.NoStream, happened(i)); err != nil {
					return err
				}
				if i%3 == 0 {
					return errNo
				}
				return nil
			})
			if (err != nil) != (i%3 == 0) {
				t.Errorf("closure %d: %v", i, err)
			}
		})
	}
	all.Wait()
	for i := range n {
		if key := strconv.Itoa(i); (s.get(t, db, key) == key) == (i%3 == 0) {
			t.Errorf("state of closure %d does not agree with its outcome", i)
		}
	}
	if got, want := len(readAll(t, db, 64)), n-(n+2)/3; got != want {
		t.Errorf("%d events, want %d", got, want)
	}
}

// committedConflict fails the commit of groups in which one caller creates a
// stream and others run into it: nobody may be told of a version that does not
// exist afterwards.
func (s suite[T]) committedConflict(t *testing.T, db DB[T]) {
	if s.FailCommits == nil {
		t.Skip("the engine has no hook for failing commits")
	}
	for round := range 20 {
		stream := freehold.Stream("a", strconv.Itoa(round))
		s.FailCommits(db, 1000)
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					_, err := tx.Append(ctx, stream, freehold.NoStream, happened(round))
					return err
				})
				var c *freehold.Conflict
				if errors.As(err, &c) {
					t.Errorf("told of version %d of %s, which was never committed", c.Actual, stream)
				}
				if err == nil {
					t.Error("success although no commit succeeded")
				}
			})
		}
		all.Wait()
		s.FailCommits(db, 0)
	}
	if got := len(readAll(t, db, 10)); got != 0 {
		t.Errorf("%d events, want none", got)
	}
}

func (s suite[T]) ackAfterCommit(t *testing.T, db DB[T]) {
	if s.FailCommits == nil {
		t.Skip("the engine has no hook for failing commits")
	}
	s.FailCommits(db, 1)
	if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{happened(1)}}); err == nil {
		t.Error("success was told although the commit failed")
	}
	s.FailCommits(db, 0)
	if got := len(readAll(t, db, 10)); got != 0 {
		t.Errorf("%d events are visible whose commit failed", got)
	}
	mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{happened(1)}})
}

func (s suite[T]) dense(t *testing.T, db DB[T]) {
	const writers, each = 12, 60
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for i := range each {
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					if r.IntN(4) == 0 {
						runtime.Gosched()
					}
					for k := range 1 + r.IntN(3) {
						if _, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa(r.IntN(5))), freehold.Any, happened(w*1000+i*10+k)); err != nil {
							return err
						}
					}
					if r.IntN(12) == 0 {
						return errNo
					}
					return nil
				})
				if err != nil && !errors.Is(err, errNo) {
					t.Error(err)
				}
			}
		})
	}
	defer all.Wait()
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	at := freehold.Mark{Source: db.Journal().Name()}
	versions := map[freehold.StreamID]freehold.Version{}
	seen, stopped := 0, false
	for {
		rs, err := db.Journal().Read(t.Context(), at, 50)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rs {
			if !journal.Follows(at, &rs[i]) {
				t.Fatalf("behind %d comes %d, or the chain breaks", at.Position, rs[i].At.Position)
			}
			if rs[i].Version != versions[rs[i].Stream]+1 {
				t.Fatalf("stream %s goes from version %d to %d", rs[i].Stream, versions[rs[i].Stream], rs[i].Version)
			}
			versions[rs[i].Stream] = rs[i].Version
			at = rs[i].At
			seen++
		}
		if len(rs) == 0 {
			if stopped {
				break
			}
			select {
			case <-done:
				stopped = true
			default:
				runtime.Gosched()
			}
		}
	}
	if seen == 0 {
		t.Error("the run did nothing")
	}
	_, head, _ := db.Journal().Bounds(t.Context())
	if at.Position != head.Position {
		t.Errorf("reader ends at %d, the head is %d", at.Position, head.Position)
	}
}

func (s suite[T]) adjacent(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 20 {
				events := make([]freehold.Event, 1+(w+i)%4)
				for k := range events {
					events[k] = Happened{N: k, Text: fmt.Sprintf("%d/%d/%d", w, i, len(events))}
				}
				mustAppend(t, db, freehold.Write{Stream: freehold.Stream("a", strconv.Itoa(w)), Expect: freehold.Any, Events: events})
			}
		})
	}
	all.Wait()
	rs := readAll(t, db, 7)
	for len(rs) > 0 {
		e, err := rs[0].Decode()
		if err != nil {
			t.Fatal(err)
		}
		var w, i, n int
		fmt.Sscanf(e.(Happened).Text, "%d/%d/%d", &w, &i, &n)
		for k := range n {
			if e, _ := rs[k].Decode(); e.(Happened).N != k || rs[k].Last != (k == n-1) {
				t.Fatalf("transaction %d/%d is torn at its event %d of %d", w, i, k, n)
			}
		}
		rs = rs[n:]
	}
}

func (s suite[T]) ownAppends(t *testing.T, db DB[T]) {
	mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{happened(1)}})
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		if _, err := tx.Append(ctx, "a-1", freehold.At(1), happened(2)); err != nil {
			return err
		}
		var got []int
		for r, err := range tx.Events(ctx, "a-1", 0) {
			if err != nil {
				return err
			}
			e, err := r.Decode()
			if err != nil {
				return err
			}
			got = append(got, e.(Happened).N)
		}
		if !slices.Equal(got, []int{1, 2}) {
			t.Errorf("the transaction sees %v, want 1 and 2", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) nested(t *testing.T, db DB[T]) {
	_, err := db.Update(t.Context(), func(ctx context.Context, _ T) error {
		_, err := db.Update(ctx, func(context.Context, T) error { return nil })
		return err
	})
	if !errors.Is(err, freehold.ErrNested) {
		t.Errorf("error %v, want ErrNested", err)
	}
}

func (s suite[T]) deadHandle(t *testing.T, db DB[T]) {
	var kept T
	if _, err := db.Update(t.Context(), func(_ context.Context, tx T) error { kept = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Append(t.Context(), "a-1", freehold.Any, happened(1)); !errors.Is(err, freehold.ErrTxDone) {
		t.Errorf("append: %v, want ErrTxDone", err)
	}
	if err := s.Put(t.Context(), kept, "k", "v"); !errors.Is(err, freehold.ErrTxDone) {
		t.Errorf("put: %v, want ErrTxDone", err)
	}
	var used sync.WaitGroup
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		used.Go(func() {
			for {
				if _, err := tx.Append(ctx, "a-1", freehold.Any, happened(1)); err != nil {
					return
				}
				runtime.Gosched()
			}
		})
		return errNo
	})
	if !errors.Is(err, errNo) {
		t.Errorf("error %v", err)
	}
	used.Wait()
	if got := len(readAll(t, db, 10)); got != 0 {
		t.Errorf("%d events of a closure that was rolled back", got)
	}
}

func (s suite[T]) view(t *testing.T, db DB[T]) {
	put := func(v string) {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return s.Put(ctx, tx, "k", v) })
		if err != nil {
			t.Error(err)
		}
	}
	put("old")
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		if v, err := s.Get(ctx, tx, "k"); v != "old" || err != nil {
			t.Errorf("read %q, %v", v, err)
		}
		put("new")
		if v, err := s.Get(ctx, tx, "k"); v != "old" || err != nil {
			t.Errorf("the snapshot moved to %q, %v", v, err)
		}
		if _, err := tx.Append(ctx, "a-1", freehold.Any, happened(1)); !errors.Is(err, freehold.ErrReadOnlyTx) {
			t.Errorf("append in a View: %v, want ErrReadOnlyTx", err)
		}
		if err := s.Put(ctx, tx, "k", "x"); !errors.Is(err, freehold.ErrReadOnlyTx) {
			t.Errorf("write in a View: %v, want ErrReadOnlyTx", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := s.get(t, db, "k"); got != "new" {
		t.Errorf("k is %q, want new", got)
	}
}

func (s suite[T]) panics(t *testing.T, db DB[T]) {
	half := func(ctx context.Context, tx T) {
		_ = s.Put(ctx, tx, "k", "half")
		_, _ = tx.Append(ctx, "a-1", freehold.Any, happened(1))
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not reach its caller")
				}
			}()
			_, _ = db.Update(t.Context(), func(ctx context.Context, tx T) error { half(ctx, tx); panic("boom") })
		})
		all.Go(func() {
			_, _ = db.Update(t.Context(), func(ctx context.Context, tx T) error { half(ctx, tx); runtime.Goexit(); return nil })
		})
		all.Go(func() {
			mustAppend(t, db, freehold.Write{Stream: "b-1", Expect: freehold.Any, Events: []freehold.Event{happened(1)}})
		})
	}
	all.Wait()
	if got := s.get(t, db, "k"); got != "" {
		t.Errorf("a rolled back closure left %q", got)
	}
	if got := len(readAll(t, db, 10)); got != 20 {
		t.Errorf("%d events, want the 20 of the neighbours", got)
	}
}

func (s suite[T]) cancelled(t *testing.T, db DB[T]) {
	const n = 200
	var all sync.WaitGroup
	var mu sync.Mutex
	done := map[freehold.StreamID]bool{}
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		stream := freehold.Stream("a", strconv.Itoa(i))
		all.Go(func() {
			_, err := db.Update(ctx, func(ctx context.Context, tx T) error {
				if i%2 == 0 {
					cancel()
				}
				_, err := tx.Append(ctx, stream, freehold.NoStream, happened(i))
				return err
			})
			switch {
			case err == nil:
				mu.Lock()
				done[stream] = true
				mu.Unlock()
			case !errors.Is(err, context.Canceled):
				t.Errorf("error %v", err)
			case i%2 == 0:
				t.Error("a closure that had started was answered with the bare error of its context")
			}
		})
		if i%2 == 1 {
			cancel()
		} else {
			defer cancel()
		}
	}
	all.Wait()
	for _, r := range readAll(t, db, 10) {
		if !done[r.Stream] {
			t.Errorf("%s was executed, its caller was told that it was not", r.Stream)
		}
		delete(done, r.Stream)
	}
	if len(done) > 0 {
		t.Errorf("%d callers were told of success and have no event", len(done))
	}
}

func (s suite[T]) reopen(t *testing.T, _ DB[T]) {
	place := t.TempDir()
	var heads []freehold.Mark
	for i := range 3 {
		db := s.Open(t, place)
		mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.At(freehold.Version(2 * i)), Events: []freehold.Event{happened(i), Secret{i}}})
		verify(t, db)
		incarnations, err := db.Journal().Incarnations(t.Context())
		if err != nil || len(incarnations) != i+1 {
			t.Fatalf("%d incarnations, %v, want %d", len(incarnations), err, i+1)
		}
		if i > 0 {
			if start := incarnations[i].Start; start.Position != heads[i-1].Position || start.Chain != heads[i-1].Chain || start.Epoch != heads[i-1].Epoch {
				t.Errorf("opening %d starts at %v, want %v", i+1, start, heads[i-1])
			}
		}
		rs := readAll(t, db, 100)
		if last := rs[len(rs)-1]; last.Incarnation != incarnations[i].ID {
			t.Errorf("event carries incarnation %s, want %s", last.Incarnation, incarnations[i].ID)
		}
		_, head, _ := db.Journal().Bounds(t.Context())
		heads = append(heads, head)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{happened(1)}}); !errors.Is(err, freehold.ErrClosed) {
			t.Errorf("append after Close: %v, want ErrClosed", err)
		}
	}
}

func (s suite[T]) wait(t *testing.T, db DB[T]) {
	woken := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { woken <- db.Journal().Wait(ctx, freehold.Mark{}) }()
	mustAppend(t, db, freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{happened(1)}})
	if err := <-woken; err != nil {
		t.Error(err)
	}
	short, stop := context.WithCancel(t.Context())
	stop()
	_, head, _ := db.Journal().Bounds(t.Context())
	if err := db.Journal().Wait(short, head); !errors.Is(err, context.Canceled) {
		t.Errorf("wait at the head: %v, want the context's error", err)
	}
}

func (s suite[T]) token(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			stream := freehold.Stream("a", strconv.Itoa(i))
			tok := mustAppend(t, db, freehold.Write{Stream: stream, Expect: freehold.NoStream, Events: []freehold.Event{happened(1), happened(2)}})
			marks := tok.Of(db.Journal().Name())
			if len(marks) != 1 {
				t.Errorf("token %q", tok)
				return
			}
			rs, err := db.Journal().Read(t.Context(), freehold.Mark{Source: db.Journal().Name(), Position: marks[0].Position - 2}, 1)
			if err != nil || len(rs) != 2 || rs[1].Stream != stream {
				t.Errorf("token %q does not name the last event of %s: %v %v", tok, stream, rs, err)
			}
		})
	}
	all.Wait()
}

func (s suite[T]) marks(t *testing.T, db DB[T]) {
	a := freehold.Mark{Source: "there", Epoch: "e", Position: 1, Chain: freehold.Hash{1}}
	b := freehold.Mark{Source: "there", Epoch: "e", Position: 2, Chain: freehold.Hash{2}}
	forged := b
	forged.Chain = freehold.Hash{3}
	move := func(from, to freehold.Mark) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return db.Keeper(tx).Move(ctx, "f", from, to) })
		return err
	}
	zero := freehold.Mark{Source: "there"}
	for _, step := range []struct {
		from, to freehold.Mark
		fenced   bool
	}{{a, b, true}, {zero, a, false}, {zero, a, true}, {a, b, false}, {a, b, true}, {forged, a, true}, {b, a, false}} {
		if err := move(step.from, step.to); errors.Is(err, freehold.ErrFenced) != step.fenced || err != nil && !step.fenced {
			t.Errorf("from %v to %v: %v, want fenced %v", step.from, step.to, err, step.fenced)
		}
	}
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		k := db.Keeper(tx)
		if m, err := k.Mark(ctx, "f", "there"); m != a || err != nil {
			t.Errorf("mark %v, %v, want %v", m, err, a)
		}
		if m, err := k.Mark(ctx, "other", "there"); m != zero || err != nil {
			t.Errorf("mark of another follower %v, %v", m, err)
		}
		if all, err := k.Marks(ctx); err != nil || len(all) != 1 || all[0] != (follow.Place{Follower: "f", Mark: a}) {
			t.Errorf("marks %v, %v", all, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) keeps(t *testing.T, db DB[T]) {
	in := func(fail error, fn func(ctx context.Context, k follow.Keeper) error) {
		t.Helper()
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if err := fn(ctx, db.Keeper(tx)); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	in(nil, func(ctx context.Context, k follow.Keeper) error {
		for i := range 600 {
			if err := k.Put(ctx, "many", fmt.Sprintf("%04d", i), []byte{byte(i)}); err != nil {
				return err
			}
		}
		return errors.Join(k.Put(ctx, "s", "a\x1fb", []byte("1")), k.Put(ctx, "s", "a", nil), k.Put(ctx, "s2", "z", []byte("3")))
	})
	in(errNo, func(ctx context.Context, k follow.Keeper) error {
		return errors.Join(k.Put(ctx, "s", "b", []byte("x")), k.Delete(ctx, "s", "a"))
	})
	in(nil, func(ctx context.Context, k follow.Keeper) error {
		if v, found, err := k.Get(ctx, "s", "a\x1fb"); string(v) != "1" || !found || err != nil {
			t.Errorf("get: %q %v %v", v, found, err)
		}
		if _, found, err := k.Get(ctx, "s", "b"); found || err != nil {
			t.Errorf("a rolled back value is there: %v", err)
		}
		var keys []string
		for item, err := range k.Scan(ctx, "s", "") {
			if err != nil {
				return err
			}
			keys = append(keys, item.Key)
		}
		if !slices.Equal(keys, []string{"a", "a\x1fb"}) {
			t.Errorf("scan gives %q", keys)
		}
		n := 0
		for item, err := range k.Scan(ctx, "many", "0100") {
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("%04d", 100+n); item.Key != want {
				t.Fatalf("scan gives %s, want %s", item.Key, want)
			}
			n++
		}
		if n != 500 {
			t.Errorf("scan gives %d items, want 500", n)
		}
		return k.Delete(ctx, "s", "a")
	})
	in(nil, func(ctx context.Context, k follow.Keeper) error {
		if _, found, _ := k.Get(ctx, "s", "a"); found {
			t.Error("a deleted value is there")
		}
		return nil
	})
}

type unlisted struct{}

func (unlisted) EventType() freehold.Type { return freehold.T("test.unlisted", 1) }

func (s suite[T]) refused(t *testing.T, db DB[T]) {
	for _, id := range []freehold.StreamID{"", "-", "a b", "a-\x00", "a-ü", freehold.Stream("a", string(make([]byte, 300)))} {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: id, Expect: freehold.Any, Events: []freehold.Event{happened(1)}}); err == nil {
			t.Errorf("stream id %q was accepted", id)
		}
	}
	if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{unlisted{}}}); !errors.Is(err, freehold.ErrUnknownType) {
		t.Errorf("error %v, want ErrUnknownType", err)
	}
}

func (s suite[T]) pages(t *testing.T, db DB[T]) {
	events := make([]freehold.Event, 700)
	for i := range events {
		events[i] = happened(i)
	}
	mustAppend(t, db, freehold.Write{Stream: "a-long", Expect: freehold.NoStream, Events: events})
	mustAppend(t, db, freehold.Write{Stream: "b-1", Expect: freehold.NoStream, Events: events[:1]}, freehold.Write{Stream: "b-2", Expect: freehold.NoStream, Events: events[:1]})
	if got := len(readAll(t, db, 3)); got != 702 {
		t.Errorf("%d events, want 702", got)
	}
	n := 0
	for r, err := range db.Events(t.Context(), "a-long", 10) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; r.Version != freehold.Version(10+n) {
			t.Fatalf("version %d, want %d", r.Version, 10+n)
		}
	}
	if n != 690 {
		t.Errorf("%d events of the long stream, want 690", n)
	}
	streams, err := db.Journal().Streams(t.Context(), "a-long", 10)
	if want := []journal.StreamInfo{{Stream: "b-1", Version: 1}, {Stream: "b-2", Version: 1}}; err != nil || !slices.Equal(streams, want) {
		t.Errorf("streams %v, %v, want %v", streams, err, want)
	}
}
