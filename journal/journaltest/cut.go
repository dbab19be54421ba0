package journaltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// Journals whose beginning is cut off. What stands behind the cut must be there as if
// nothing had happened, and what stands before must be refused, never be taken for
// nothing.

// grown writes transactions of one to three events in three streams, and one that is
// not written to again.
func grown[T freehold.Tx](t *testing.T, db DB[T], transactions int) {
	t.Helper()
	mustAppend(t, db, write("old-1", freehold.NoStream, happened(-1), happened(-2)))
	for n := range transactions {
		a, b := freehold.Stream("a", fmt.Sprint(n%3)), freehold.Stream("a", fmt.Sprint((n+1)%3))
		switch n % 3 {
		case 0:
			mustAppend(t, db, write(a, freehold.Any, happened(n)))
		case 1:
			mustAppend(t, db, write(a, freehold.Any, happened(n), happened(n)), write(b, freehold.Any, happened(n)))
		default:
			mustAppend(t, db, write(a, freehold.Any, happened(n)), write(b, freehold.Any, happened(n)))
		}
	}
}

// cut cuts behind every transaction in turn, and compares all that can be read with
// what was there before.
func (s suite[T]) cut(t *testing.T, _ DB[T]) {
	setup := place(t)
	db := s.Open(t, setup)
	grown(t, db, 9)
	all := readAll(t, db, 100)
	for i, r := range all {
		if !r.Last {
			continue
		}
		s.Cut(t, db, r.At)
		s.wantCut(t, db, all, i+1)
		if i%2 == 0 { // the next cut is made by another opening
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			db = s.Open(t, setup)
			s.wantCut(t, db, all, i+1)
		}
		s.Cut(t, db, r.At) // again
		verify(t, db)
	}
	stream, has := all[0].Stream, freehold.Version(0)
	for _, r := range all {
		if r.Stream == stream {
			has = r.Version
		}
	}
	_, err := db.Append(t.Context(), write(stream, freehold.NoStream, happened(1)))
	wantConflict(t, err, freehold.Conflict{Stream: stream, Expected: freehold.NoStream, Actual: has})
	mustAppend(t, db, write(stream, freehold.At(has), happened(1)), write("new-1", freehold.NoStream, happened(2)))
	rest := readOn(t, db, all[len(all)-1].At, 10)
	if len(rest) != 2 || rest[0].Version != has+1 {
		t.Errorf("behind the last cut: %+v, want 2 events, the first with version %d", rest, has+1)
	}
	for r, err := range db.Events(t.Context(), stream, has) {
		if err != nil || r.Version != has+1 {
			t.Errorf("%s behind version %d: %v, %v", stream, has, r, err)
		}
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// wantCut compares a journal that was cut before all[n] with what it was.
func (s suite[T]) wantCut(t *testing.T, db DB[T], all []freehold.Recorded, n int) {
	t.Helper()
	j, cut := db.Journal(), all[n-1].At
	first, head, err := j.Bounds(t.Context())
	if err != nil || first != cut || head != all[len(all)-1].At {
		t.Fatalf("cut at %v: bounds are %v and %v, %v", cut, first, head, err)
	}
	if at, err := j.At(t.Context(), cut.Position); err != nil || at != cut {
		t.Errorf("the mark at the cut is %v, %v, want %v", at, err, cut)
	}
	below := freehold.Mark{Source: j.Name()}
	for _, r := range all[:n] {
		if rs, err := j.Read(t.Context(), below, 3); !errors.Is(err, freehold.ErrGone) {
			t.Errorf("read behind %d, cut at %d: %d events, %v, want ErrGone", below.Position, cut.Position, len(rs), err)
		}
		if _, err := j.At(t.Context(), below.Position); !errors.Is(err, freehold.ErrGone) {
			t.Errorf("mark at %d, cut at %d: %v, want ErrGone", below.Position, cut.Position, err)
		}
		below = r.At
	}
	same := func(a, b freehold.Recorded) bool { return a.At == b.At && a.Digest == b.Digest }
	if rest := readOn(t, db, cut, 2); !slices.EqualFunc(rest, all[n:], same) {
		t.Errorf("cut at %d: %d events behind, want %d", cut.Position, len(rest), len(all)-n)
	}
	gone, whole := map[freehold.StreamID]freehold.Version{}, map[freehold.StreamID]freehold.Version{}
	for i, r := range all {
		if whole[r.Stream] = r.Version; i < n {
			gone[r.Stream] = r.Version
		}
	}
	infos, err := j.Streams(t.Context(), "", 100)
	if err != nil || len(infos) != len(whole) {
		t.Errorf("cut at %d: %d streams, %v, want %d", cut.Position, len(infos), err, len(whole))
	}
	for _, info := range infos {
		if info.Version != whole[info.Stream] {
			t.Errorf("cut at %d: %+v, want version %d", cut.Position, info, whole[info.Stream])
		}
	}
	for stream, v := range whole {
		for after := range v + 1 {
			s.wantStream(t, db, stream, after, gone[stream], v)
		}
	}
	if at, err := j.Verify(t.Context(), freehold.Mark{}, nil); err != nil || at.Position != head.Position {
		t.Errorf("cut at %d: verified up to %d, %v", cut.Position, at.Position, err)
	}
}

// wantStream reads a stream of which versions up to gone were cut, in and outside of a
// transaction.
func (s suite[T]) wantStream(t *testing.T, db DB[T], stream freehold.StreamID, after, gone, last freehold.Version) {
	t.Helper()
	count := func(seq func(func(freehold.Recorded, error) bool)) (n freehold.Version, failed error) {
		for r, err := range seq {
			if err != nil {
				return n, err
			}
			if n++; r.Version != after+n {
				t.Errorf("%s behind %d: version %d, want %d", stream, after, r.Version, after+n)
			}
		}
		return n, nil
	}
	check := func(n freehold.Version, err error) {
		t.Helper()
		switch {
		case after < gone && !errors.Is(err, freehold.ErrGone):
			t.Errorf("%s behind %d, of which %d were cut: %d events, %v, want ErrGone", stream, after, gone, n, err)
		case after >= gone && (err != nil || n != last-after):
			t.Errorf("%s behind %d, of which %d were cut: %d events, %v, want %d", stream, after, gone, n, err, last-after)
		}
	}
	check(count(db.Events(t.Context(), stream, after)))
	_ = db.View(t.Context(), func(ctx context.Context, tx T) error {
		check(count(tx.Events(ctx, stream, after)))
		return nil
	})
}

// cutFollowers lets a follower go on at the cut, and one begin below it, which stops until
// it is told to skip what it has lost.
func (s suite[T]) cutFollowers(t *testing.T, db DB[T]) {
	for n := range 6 {
		mustAppend(t, db, write("a-1", freehold.Any, happened(n)))
	}
	f := follower(t, db, db.Journal(), quietly(), s.apply)
	stop := running(t, f)
	if err := s.caughtUp(t, db, f); err != nil {
		t.Fatal(err)
	}
	stop()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Cut(t, db, head)
	s.goesOn(t, db, "its mark is the cut", 6)
	mustAppend(t, db, write("a-1", freehold.Any, happened(6)))
	s.goesOn(t, db, "behind the cut", 7)
	late, err := follow.New("late", db, []follow.Source{db.Journal()}, quietly(), follow.On(s.apply))
	if err != nil {
		t.Fatal(err)
	}
	stop = running(t, late)
	defer stop()
	ctx, name := patiently(t), db.Journal().Name()
	for st := late.Status(ctx)[0]; st.State != follow.Diverged; st = late.Status(ctx)[0] {
		if ctx.Err() != nil {
			t.Fatalf("a follower below the cut does not stop: %+v", st)
		}
		time.Sleep(time.Millisecond) // no token names a state
	}
	if st := late.Status(ctx)[0]; !strings.Contains(st.Error, freehold.ErrGone.Error()) || st.Mark.Position != 0 {
		t.Errorf("a follower below the cut stands at %d and says %q", st.Mark.Position, st.Error)
	}
	if at, err := late.Adopt(ctx, name); err == nil || !strings.Contains(err.Error(), "nothing to adopt, but to skip") {
		t.Errorf("there is no fork, and it adopts %v: %v", at, err)
	}
	if at, err := late.Skip(ctx, name); err != nil || at != head {
		t.Fatalf("it skips to %v, %v, want %v", at, err, head)
	}
	if err := late.WaitFor(ctx, freehold.NewToken(readOn(t, db, head, 10)[0].At)); err != nil {
		t.Fatal(err)
	}
	if got := s.applied(t, db, "a-1"); got != "0;1;2;3;4;5;6;6;" {
		t.Errorf("applied %q, by the one that skipped only what is behind the cut", got)
	}
	decided, err := late.Decisions(ctx, name)
	if err != nil || len(decided) != 1 || decided[0].Choice != follow.Skipped || decided[0].Mark.Position != 0 || decided[0].Base != head || !decided[0].Cut() {
		t.Errorf("on record %+v, %v", decided, err)
	}
	if at, err := late.Skip(ctx, name); err == nil {
		t.Errorf("it skips to %v, although nothing was cut of what it needs", at)
	}
}

// cutNeeded asks for a cut above a follower's mark, and above a consumer's.
func (s suite[T]) cutNeeded(t *testing.T, db DB[T]) {
	for n := range 6 {
		mustAppend(t, db, write("a-1", freehold.Any, happened(n)))
	}
	all := readAll(t, db, 10)
	own, foreign := all[3].At, all[1].At
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		return db.Keeper(tx).Move(ctx, "f", freehold.Mark{Source: own.Source}, own)
	})
	if err == nil {
		err = db.Journal().Register(t.Context(), "other/g", foreign)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Cut(t, db, all[5].At)
	want := func(what string, at freehold.Mark) {
		t.Helper()
		if first, _, err := db.Journal().Bounds(t.Context()); err != nil || first != at {
			t.Errorf("%s: begins at %v, %v, want %v", what, first, err, at)
		}
	}
	want("a consumer is below", foreign)
	consumers, err := db.Journal().Consumers(t.Context())
	if !slices.Contains(consumers, journal.Consumer{Name: "other/g", Mark: foreign}) || !slices.Contains(consumers, journal.Consumer{Name: "f", Mark: own, Own: true}) {
		t.Errorf("consumers: %+v, %v", consumers, err)
	}
	if err := db.Journal().Register(t.Context(), "other/h", all[0].At); !errors.Is(err, freehold.ErrGone) {
		t.Errorf("a consumer that needs what was cut: %v, want ErrGone", err)
	}
	if err := db.Journal().Unregister(t.Context(), "other/g"); err != nil {
		t.Error(err)
	}
	s.Cut(t, db, all[5].At)
	want("an own follower is below", own)
}
