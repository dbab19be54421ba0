package journaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// patience bounds what only a defect makes slow.
const patience = 60 * time.Second

// dense is the defect that event stores are best known for: a reader beside
// writers that pause, roll back, panic, exit and are cancelled.
func (s suite[T]) dense(t *testing.T, db DB[T]) {
	const writers, each = 16, 50
	var mu sync.Mutex
	acknowledged := map[int]bool{}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for i := range each {
				var ids []int
				err := s.disturbed(t, db, r, w*10_000+i*10, &ids)
				if err == nil {
					mu.Lock()
					for _, id := range ids {
						acknowledged[id] = true
					}
					mu.Unlock()
				}
			}
		})
	}
	done, cancel := context.WithCancel(t.Context())
	go func() { writing.Wait(); cancel() }()
	var reading sync.WaitGroup
	results := make([][]freehold.Recorded, 4)
	for r, page := range []int{1, 3, 50, 1000} {
		reading.Go(func() { results[r] = chase(t, db, page, done) })
	}
	reading.Wait()
	writing.Wait()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for r, rs := range results {
		if len(rs) == 0 || rs[len(rs)-1].At.Position != head.Position {
			t.Errorf("reader %d has seen %d events, the head is %d", r, len(rs), head.Position)
		}
	}
	seen := map[int]bool{}
	for _, r := range results[0] {
		n := number(t, r)
		if seen[n] {
			t.Errorf("event %d stands in the journal twice", n)
		}
		seen[n] = true
		if !acknowledged[n] {
			t.Errorf("event %d is there, its writer was told that it is not", n)
		}
	}
	missed := 0
	for id := range acknowledged {
		if !seen[id] {
			missed++
		}
	}
	if missed > 0 {
		t.Errorf("readers missed %d of %d acknowledged events", missed, len(acknowledged))
	}
	if len(acknowledged) < writers*each/2 {
		t.Errorf("only %d events: the run did not do enough", len(acknowledged))
	}
}

// disturbed appends one to three events, or does not, in one of many ways. ids are
// the numbers of its events if it ends well.
func (s suite[T]) disturbed(t *testing.T, db DB[T], r *rand.Rand, id int, ids *[]int) (err error) {
	fate := r.IntN(12)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	streams := []freehold.StreamID{freehold.Stream("a", strconv.Itoa(r.IntN(5))), freehold.Stream("b", strconv.Itoa(r.IntN(5)))}
	count := 1 + r.IntN(3)
	err = errNo // if it does not return
	alone(func() {
		defer func() { _ = recover() }()
		if fate == 0 {
			go cancel()
		}
		_, err = db.Update(ctx, func(ctx context.Context, tx T) error {
			*ids = nil // the closure may run again
			for k := range count {
				if _, err := tx.Append(ctx, streams[k%2], freehold.Any, happened(id+k)); err != nil {
					return err
				}
				*ids = append(*ids, id+k)
				for range r.IntN(3) {
					runtime.Gosched()
				}
			}
			switch fate {
			case 1:
				return errNo
			case 2:
				panic("boom")
			case 3:
				runtime.Goexit()
			case 4:
				cancel()
			}
			return nil
		})
		if err != nil && !errors.Is(err, errNo) && !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	return err
}

// chase reads behind the writers until it has reached the head after done, and
// checks every step.
func chase[T freehold.Tx](t *testing.T, db DB[T], page int, done context.Context) []freehold.Recorded {
	at := freehold.Mark{Source: db.Journal().Name()}
	versions := map[freehold.StreamID]freehold.Version{}
	var all []freehold.Recorded
	for {
		stopped := done.Err() != nil
		rs, err := db.Journal().Read(t.Context(), at, page)
		if err != nil {
			t.Error(err)
			return all
		}
		for i := range rs {
			if !journal.Follows(at, &rs[i]) {
				t.Errorf("behind %d comes %d, or the chain breaks", at.Position, rs[i].At.Position)
				return all
			}
			if rs[i].Version != versions[rs[i].Stream]+1 {
				t.Errorf("stream %s goes from version %d to %d", rs[i].Stream, versions[rs[i].Stream], rs[i].Version)
				return all
			}
			versions[rs[i].Stream] = rs[i].Version
			at = rs[i].At
		}
		all = append(all, rs...)
		if len(rs) > 0 {
			continue
		}
		if stopped {
			return all
		}
		if err := db.Journal().Wait(done, at); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
			return all
		}
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
				if w%2 == 0 {
					mustAppend(t, db, write(freehold.Stream("a", strconv.Itoa(w)), freehold.Any, events...))
					continue
				}
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					for k, e := range events {
						if _, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa((w+k)%8)), freehold.Any, e); err != nil {
							return err
						}
						runtime.Gosched()
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done, cancel := context.WithCancel(t.Context())
	go func() { all.Wait(); cancel() }()
	rs := chase(t, db, 7, done)
	all.Wait()
	if len(rs) != 8*(5*(1+2+3+4)) {
		t.Fatalf("%d events, want %d", len(rs), 8*5*10)
	}
	for len(rs) > 0 {
		e, err := rs[0].Decode()
		if err != nil {
			t.Fatal(err)
		}
		var w, i, n int
		if _, err := fmt.Sscanf(e.(Happened).Text, "%d/%d/%d", &w, &i, &n); err != nil || n > len(rs) {
			t.Fatal("the journal ends inside a transaction")
		}
		for k := range n {
			here, err := rs[k].Decode()
			if err != nil || here.(Happened) != (Happened{N: k, Text: e.(Happened).Text}) || rs[k].Last != (k == n-1) {
				t.Fatalf("transaction %d/%d is torn at its event %d of %d: %v, %v", w, i, k, n, here, err)
			}
		}
		rs = rs[n:]
	}
}

func (s suite[T]) pages(t *testing.T, db DB[T]) {
	events := make([]freehold.Event, 700)
	for i := range events {
		events[i] = happened(i)
	}
	mustAppend(t, db, write("a-long", freehold.NoStream, events...))
	mustAppend(t, db, write("b-1", freehold.NoStream, events[:1]...), write("b-2", freehold.NoStream, events[:1]...))
	for _, page := range []int{-1, 0, 1, 3, 699, 700, 701, 5000} {
		if got := len(readAll(t, db, page)); got != 702 {
			t.Errorf("%d events in pages of %d, want 702", got, page)
		}
	}
	for _, after := range []freehold.Version{0, 10, 255, 256, 699, 700, 9999} {
		n := freehold.Version(0)
		for r, err := range db.Events(t.Context(), "a-long", after) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; r.Version != after+n || number(t, r) != int(after+n)-1 {
				t.Fatalf("version %d, want %d", r.Version, after+n)
			}
		}
		if n != max(0, 700-after) {
			t.Errorf("%d events of the long stream behind %d, want %d", n, after, max(0, 700-after))
		}
	}
	want := []journal.StreamInfo{{Stream: "a-long", Version: 700}, {Stream: "b-1", Version: 1}, {Stream: "b-2", Version: 1}}
	for _, c := range []struct {
		after freehold.StreamID
		limit int
		want  []journal.StreamInfo
	}{{"", 10, want}, {"", 2, want[:2]}, {"a-long", 10, want[1:]}, {"a-longer", 1, want[1:2]}, {"b-1", 3, want[2:]}, {"b-2", 3, nil}, {"a", 1, want[:1]}} {
		if got, err := db.Journal().Streams(t.Context(), c.after, c.limit); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("streams behind %q: %v, %v, want %v", c.after, got, err, c.want)
		}
	}
}

func (s suite[T]) resume(t *testing.T, db DB[T]) {
	for i := range 10 {
		events := make([]freehold.Event, 1+i%4)
		for k := range events {
			events[k] = happened(k)
		}
		mustAppend(t, db, write(freehold.Stream("a", strconv.Itoa(i%3)), freehold.Any, events...))
	}
	all := readAll(t, db, 100)
	for i := range all {
		if !all[i].Last {
			continue
		}
		for _, page := range []int{1, 2, 100} {
			if got := len(readOn(t, db, all[i].At, page)); got != len(all)-i-1 {
				t.Errorf("%d events behind position %d, want %d", got, i+1, len(all)-i-1)
			}
		}
		if at, err := db.Journal().At(t.Context(), all[i].At.Position); err != nil || at != all[i].At {
			t.Errorf("place %d is %v, %v, want %v", i+1, at, err, all[i].At)
		}
		if got, err := db.Journal().Verify(t.Context(), all[i].At, nil); err != nil || got.Position != freehold.Position(len(all)) {
			t.Errorf("verify from %d: %v, %v", i+1, got, err)
		}
	}
	beyond := all[len(all)-1].At
	beyond.Position += 5
	if rs, err := db.Journal().Read(t.Context(), beyond, 10); err != nil || len(rs) != 0 {
		t.Errorf("behind a place beyond the head: %v, %v", rs, err)
	}
	if _, err := db.Journal().At(t.Context(), beyond.Position); !errors.Is(err, freehold.ErrDiverged) {
		t.Errorf("a place beyond the head: %v, want ErrDiverged", err)
	}
	if at, err := db.Journal().At(t.Context(), 0); err != nil || at.Position != 0 || at.Chain != (freehold.Hash{}) {
		t.Errorf("place 0 is %v, %v", at, err)
	}
}

func (s suite[T]) wait(t *testing.T, db DB[T]) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const waiters, rounds = 8, 20
	var all sync.WaitGroup
	for range waiters {
		all.Go(func() {
			at := freehold.Mark{Source: db.Journal().Name()}
			for at.Position < rounds {
				if err := db.Journal().Wait(ctx, at); err != nil {
					t.Errorf("wait behind %d: %v", at.Position, err)
					return
				}
				rs, err := db.Journal().Read(ctx, at, 1)
				if err != nil || len(rs) == 0 {
					t.Errorf("Wait returned and there is nothing behind %d, %v", at.Position, err)
					return
				}
				at = rs[len(rs)-1].At
			}
		})
	}
	for i := range rounds {
		if i%2 == 0 {
			mustAppend(t, db, write("a-1", freehold.Any, happened(i)))
		} else if _, err := db.Update(t.Context(), s.put("k"+strconv.Itoa(i), nil)); err != nil {
			t.Error(err)
		}
		for range i % 5 {
			runtime.Gosched()
		}
	}
	all.Wait()
}

func (s suite[T]) waitEnds(t *testing.T, _ DB[T]) {
	db := s.Open(t, place(t))
	mustAppend(t, db, write("a-1", freehold.Any, happened(1)))
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 2)
	go func() { waiting <- db.Journal().Wait(ended, head) }()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("wait at the head: %v, want the context's error", err)
	}
	go func() { waiting <- db.Journal().Wait(t.Context(), head) }()
	// A write that appends nothing wakes nobody for good.
	if _, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return s.Put(ctx, tx, "k", "v") }); err != nil {
		t.Error(err)
	}
	runtime.Gosched()
	select {
	case err := <-waiting:
		t.Errorf("Wait returned %v without an event", err)
	default:
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("wait in a database that closes: %v, want ErrClosed", err)
	}
}

// remembered: followers that keep up read events that the journal remembers. They
// get the same, to the byte and to the page, as those that read the store later.
func (s suite[T]) remembered(t *testing.T, db DB[T]) {
	ctx := freehold.WithMeta(t.Context(), freehold.Meta{Correlation: "c", Causation: "d", Tenant: "e", Actor: "f", TraceParent: "00-1"})
	for i := range 40 {
		_, err := db.Update(ctx, func(ctx context.Context, tx T) error {
			if i%7 == 3 {
				if _, err := tx.Append(ctx, freehold.Stream("lost", strconv.Itoa(i)), freehold.NoStream, happened(i)); err != nil {
					return err
				}
				return errNo
			}
			for k := range i%5 + 1 {
				if _, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa(k)), freehold.Any, happened(i), happened(k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errNo) {
			t.Fatal(err)
		}
		mustAppend(t, db, write(freehold.Stream("b", strconv.Itoa(i)), freehold.NoStream, happened(i)))
	}
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type page struct{ after, limit int }
	read := func(stored bool) map[page][]freehold.Recorded {
		all := map[page][]freehold.Recorded{}
		for after := range int(head.Position) + 2 {
			for _, limit := range []int{1, 2, 3, 50, 1000} {
				if stored {
					db.Journal().Forget() // what was read may be remembered too
				}
				rs, err := db.Journal().Read(t.Context(), freehold.Mark{Source: "test", Position: freehold.Position(after)}, limit)
				if err != nil {
					t.Fatal(err)
				}
				all[page{after, limit}] = rs
			}
		}
		return all
	}
	live := read(false)
	for p, stored := range read(true) {
		if len(live[p]) != len(stored) {
			t.Fatalf("%d events behind %d with limit %d, %d when stored", len(live[p]), p.after, p.limit, len(stored))
		}
		for i := range stored {
			if !reflect.DeepEqual(live[p][i], stored[i]) {
				t.Fatalf("position %d: %+v, stored as %+v", stored[i].At.Position, live[p][i], stored[i])
			}
		}
	}
}
