package journaltest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
)

func (s suite[T]) expectations(t *testing.T, db DB[T]) {
	append1 := func(e freehold.Expect) error {
		_, err := db.Append(t.Context(), write("a-1", e, happened(1)))
		return err
	}
	conflict := func(err error, e freehold.Expect, actual freehold.Version) {
		t.Helper()
		wantConflict(t, err, freehold.Conflict{Stream: "a-1", Expected: e, Actual: actual})
	}
	conflict(append1(freehold.Exists), freehold.Exists, 0)
	conflict(append1(freehold.At(1)), freehold.At(1), 0)
	for i, e := range []freehold.Expect{freehold.NoStream, freehold.At(1), freehold.Exists, freehold.Any} {
		if err := append1(e); err != nil {
			t.Errorf("%v at version %d: %v", e, i, err)
		}
	}
	conflict(append1(freehold.NoStream), freehold.NoStream, 4)
	conflict(append1(freehold.At(3)), freehold.At(3), 4)
	conflict(append1(freehold.At(5)), freehold.At(5), 4)
	if err := func() error { _, err := db.Append(t.Context(), write("b-1", freehold.Any, happened(1))); return err }(); err != nil {
		t.Errorf("any on a new stream: %v", err)
	}
	// The same within closures.
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		_, err := tx.Append(ctx, "a-1", freehold.At(2), happened(9))
		return err
	})
	conflict(err, freehold.At(2), 4)
	_, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
		for _, step := range []struct {
			expect freehold.Expect
			events []freehold.Event
			want   freehold.Version
		}{
			{freehold.At(4), []freehold.Event{happened(5), happened(6)}, 6},
			{freehold.At(6), nil, 6},
			{freehold.Exists, nil, 6},
			{freehold.Any, []freehold.Event{happened(7)}, 7},
		} {
			if v, err := tx.Append(ctx, "a-1", step.expect, step.events...); err != nil || v != step.want {
				t.Errorf("%v: version %d, %v, want %d", step.expect, v, err, step.want)
			}
		}
		_, err := tx.Append(ctx, "a-1", freehold.At(4), happened(8)) // its own appends count
		return err
	})
	conflict(err, freehold.At(4), 7)
	if got := len(readAll(t, db, 10)); got != 5 {
		t.Errorf("%d events, want 5", got)
	}
}

func (s suite[T]) severalStreams(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)), write("a-2", freehold.NoStream, happened(2)))
	_, err := db.Append(t.Context(), write("a-1", freehold.At(1), happened(3)), write("a-2", freehold.NoStream, happened(4)))
	wantConflict(t, err, freehold.Conflict{Stream: "a-2", Expected: freehold.NoStream, Actual: 1})
	_, err = db.Append(t.Context(), write("a-1", freehold.At(1), happened(3)), write("a-2", freehold.At(7)))
	wantConflict(t, err, freehold.Conflict{Stream: "a-2", Expected: freehold.At(7), Actual: 1})
	_, err = db.Append(t.Context(), write("a-3", freehold.Exists), write("a-1", freehold.At(1), happened(3)))
	wantConflict(t, err, freehold.Conflict{Stream: "a-3", Expected: freehold.Exists, Actual: 0})
	mustAppend(t, db, write("a-2", freehold.Exists), write("a-3", freehold.NoStream), write("a-1", freehold.At(1), happened(5)))
	if got := len(readAll(t, db, 10)); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
	// A stream that was only a condition, or whose append failed, does not exist.
	if streams, err := db.Journal().Streams(t.Context(), "", 10); err != nil || len(streams) != 2 {
		t.Errorf("streams %v, %v, want a-1 and a-2", streams, err)
	}
	// Only conditions: nothing is written, and the token names the head.
	tok := mustAppend(t, db, write("a-1", freehold.At(2)), write("a-3", freehold.NoStream))
	if marks := tok.Of(db.Journal().Name()); len(marks) != 1 || marks[0].Position != 3 {
		t.Errorf("token %q of a condition, want position 3", tok)
	}
}

func (s suite[T]) sameStreamTwice(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)), write("b-1", freehold.NoStream, happened(2)), write("a-1", freehold.At(1), happened(3)))
	_, err := db.Append(t.Context(), write("a-1", freehold.At(2), happened(4)), write("a-1", freehold.At(2), happened(5)))
	wantConflict(t, err, freehold.Conflict{Stream: "a-1", Expected: freehold.At(2), Actual: 3})
	var got []int
	for _, r := range readAll(t, db, 10) {
		got = append(got, number(t, r))
	}
	if !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("events %v, want 1 2 3", got)
	}
	mustAppend(t, db, write("a-1", freehold.At(2), happened(6))) // nothing was left of the conflict
}

func (s suite[T]) severalEvents(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1), Secret{2}, happened(3)))
	var versions []freehold.Version
	for r, err := range db.Events(t.Context(), "a-1", 0) {
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, r.Version)
		if number(t, r) != int(r.Version) {
			t.Errorf("version %d is event %d", r.Version, number(t, r))
		}
		if r.Internal != (r.Version == 2) || r.Placeholder() {
			t.Errorf("version %d: internal is %v, placeholder %v", r.Version, r.Internal, r.Placeholder())
		}
		if r.Last != (r.Version == 3) {
			t.Errorf("version %d: last is %v", r.Version, r.Last)
		}
	}
	if !slices.Equal(versions, []freehold.Version{1, 2, 3}) {
		t.Errorf("versions %v", versions)
	}
}

// racing is 700 conflicts of 700: in 11 rounds of 64 callers, and 7 more in
// closures, each loser gets the typed conflict with the version that won.
func (s suite[T]) racing(t *testing.T, db DB[T]) {
	const rounds, callers = 11, 64
	conflicts := 0
	race := func(round, callers int, call func(i int, expect freehold.Expect) error) {
		errs := make([]error, callers)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				<-start
				errs[i] = call(i, freehold.At(freehold.Version(round)))
			})
		}
		close(start)
		all.Wait()
		for _, err := range errs {
			if err != nil {
				conflicts++
				wantConflict(t, err, freehold.Conflict{Stream: "a-1", Expected: freehold.At(freehold.Version(round)), Actual: freehold.Version(round + 1)})
			}
		}
	}
	for round := range rounds {
		race(round, callers, func(i int, expect freehold.Expect) error {
			_, err := db.Append(t.Context(), write("a-1", expect, happened(i)))
			return err
		})
	}
	race(rounds, 8, func(i int, expect freehold.Expect) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			_, err := tx.Append(ctx, "a-1", expect, happened(i))
			return err
		})
		return err
	})
	if conflicts != 700 {
		t.Errorf("%d conflicts, want 700", conflicts)
	}
	if got := len(readAll(t, db, 100)); got != rounds+1 {
		t.Errorf("%d events, want %d", got, rounds+1)
	}
}

func (s suite[T]) refused(t *testing.T, db DB[T]) {
	longest := freehold.Stream("a", strings.Repeat("x", freehold.MaxStreamLen-2))
	for _, id := range []freehold.StreamID{"", "-", "-a", "a b", "a-\x00", "a-\n", "a-ü", longest + "x", freehold.Stream("a", strings.Repeat("y", 100_000))} {
		if _, err := db.Append(t.Context(), write(id, freehold.Any, happened(1))); err == nil {
			t.Errorf("stream id %.20q of %d bytes was accepted", id, len(id))
		}
		if _, err := db.Append(t.Context(), write(id, freehold.NoStream)); err == nil {
			t.Errorf("stream id %.20q of %d bytes was accepted as a condition", id, len(id))
		}
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if err := s.Put(ctx, tx, "k", "refused"); err != nil {
				return err
			}
			_, err := tx.Append(ctx, id, freehold.Any, happened(1))
			return err
		})
		if err == nil {
			t.Errorf("stream id %.20q of %d bytes was accepted in a closure", id, len(id))
		}
	}
	for name, events := range map[string][]freehold.Event{"alone": {unlisted{}}, "behind another": {happened(1), unlisted{}}} {
		if _, err := db.Append(t.Context(), write("a-1", freehold.Any, events...)); !errors.Is(err, freehold.ErrUnknownType) {
			t.Errorf("%s: error %v, want ErrUnknownType", name, err)
		}
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			_, err := tx.Append(ctx, "a-1", freehold.Any, events...)
			return err
		})
		if !errors.Is(err, freehold.ErrUnknownType) {
			t.Errorf("%s, in a closure: error %v, want ErrUnknownType", name, err)
		}
	}
	if got := readAll(t, db, 10); len(got) != 0 || s.get(t, db, "k") != "" {
		t.Errorf("%d events and state %q are left of what was refused", len(got), s.get(t, db, "k"))
	}
	for i, id := range []freehold.StreamID{longest, "a", "a--", "a-!~/\\%'\"", "a-';--"} {
		if _, err := db.Append(t.Context(), write(id, freehold.NoStream, happened(i))); err != nil {
			t.Errorf("stream id %.40q: %v", id, err)
		}
		for r, err := range db.Events(t.Context(), id, 0) {
			if err != nil || r.Stream != id || number(t, r) != i {
				t.Errorf("stream %.40q reads %v, %v", id, r, err)
			}
		}
	}
}

// sizes stores payloads below, at and far above the page sizes of databases.
func (s suite[T]) sizes(t *testing.T, db DB[T]) {
	largest := 2 << 20
	if s.MaxEvent > 0 {
		largest = s.MaxEvent
	}
	var texts []string
	for _, n := range []int{0, 1, 100, 4000, 4096, 8191, 32 << 10, 70_000, 1 << 20, largest - 1000} {
		if n <= largest-1000 {
			texts = append(texts, "é\\\"\n\u2028\x00<"+strings.Repeat("x", n))
		}
	}
	for i, text := range texts {
		mustAppend(t, db, write("a-1", freehold.At(freehold.Version(i)), Happened{N: i, Text: text}))
	}
	var several []freehold.Event
	for i := range 20 {
		several = append(several, Happened{N: i, Text: texts[5]})
	}
	mustAppend(t, db, write("b-1", freehold.NoStream, several...))
	rs := readAll(t, db, 3)
	if len(rs) != len(texts)+20 {
		t.Fatalf("%d events, want %d", len(rs), len(texts)+20)
	}
	for i, text := range texts {
		if e, err := rs[i].Decode(); err != nil || e != (Happened{N: i, Text: text}) {
			t.Errorf("an event of %d bytes came back as another, %v", len(text), err)
		}
	}
}

func (s suite[T]) metadata(t *testing.T, db DB[T]) {
	meta := freehold.Meta{Correlation: "c-1", Causation: "x", Tenant: "ü", Actor: "a'\"b", TraceParent: "00-1-2-01"}
	before := time.Now().Add(-time.Millisecond)
	var at time.Time
	_, err := db.Update(freehold.WithMeta(t.Context(), meta), func(ctx context.Context, tx T) error {
		at = tx.Now()
		if at != at.Truncate(time.Microsecond) || at.Location() != time.UTC {
			t.Errorf("now is %v, want microseconds in UTC", at)
		}
		for i := range 3 {
			if _, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa(i)), freehold.NoStream, happened(i), happened(i)); err != nil {
				return err
			}
			if tx.Now() != at {
				t.Error("now moves within a transaction")
			}
		}
		// A context of the closure's own names other metadata.
		_, err := tx.Append(freehold.WithMeta(ctx, freehold.Meta{Actor: "z"}), "b-1", freehold.NoStream, happened(9))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Append(freehold.WithMeta(t.Context(), meta), write("c-1", freehold.NoStream, happened(1), happened(2)), write("c-2", freehold.NoStream, Secret{3})); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, db, write("d-1", freehold.NoStream, happened(1)))
	ids := map[string]int{}
	for i, r := range readAll(t, db, 100) {
		want := meta
		switch r.Stream {
		case "b-1":
			want = freehold.Meta{Actor: "z"}
		case "d-1":
			want = freehold.Meta{}
		}
		if r.Meta != want {
			t.Errorf("%s: metadata %+v, want %+v", r.Stream, r.Meta, want)
		}
		if i < 7 && !r.Time.Equal(at) {
			t.Errorf("%s: time %v, want the transaction's %v", r.Stream, r.Time, at)
		}
		if r.Time.Before(before) || r.Time.After(time.Now().Add(time.Millisecond)) || r.Time.Location() != time.UTC {
			t.Errorf("%s: time %v", r.Stream, r.Time)
		}
		tx, n, found := strings.Cut(r.ID, "-")
		if !found || n != strconv.Itoa(ids[tx]) {
			t.Errorf("event %d of its transaction has the id %s", ids[tx], r.ID)
		}
		ids[tx]++
		if r.Incarnation == "" || len(r.Nonce) == 0 || r.At.Source != "test" || r.At.Epoch == "" || !json.Valid(r.Raw) {
			t.Errorf("incomplete: %+v", r)
		}
	}
	if len(ids) != 3 {
		t.Errorf("ids of %d transactions, want 3", len(ids))
	}
}

func (s suite[T]) token(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			stream := freehold.Stream("a", strconv.Itoa(i))
			var tok freehold.Token
			if i%2 == 0 {
				tok = mustAppend(t, db, write(stream, freehold.NoStream, happened(1), happened(2)))
			} else {
				var err error
				tok, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
					_, err := tx.Append(ctx, stream, freehold.NoStream, happened(1), happened(2))
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
			marks := tok.Of(db.Journal().Name())
			if len(marks) != 1 {
				t.Errorf("token %q", tok)
				return
			}
			rs, err := db.Journal().Read(t.Context(), freehold.Mark{Source: db.Journal().Name(), Position: marks[0].Position - 2}, 1)
			if err != nil || len(rs) != 2 || rs[1].Stream != stream || rs[1].At.Epoch != marks[0].Epoch {
				t.Errorf("token %q does not name the last event of %s: %v %v", tok, stream, rs, err)
			}
		})
	}
	all.Wait()
	// Of a command without events: a head that was there when it ended.
	_, before, _ := db.Journal().Bounds(t.Context())
	tok, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return s.Put(ctx, tx, "k", "v") })
	if marks := tok.Of(db.Journal().Name()); err != nil || len(marks) != 1 || marks[0].Position < before.Position {
		t.Errorf("token %q, %v, want the head %v or a later one", tok, err, before)
	}
}
