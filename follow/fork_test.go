package follow_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// forked is a source that was put back from position 5 to 2, recorded the fork, and
// wrote on, and a consumer that stood at a position when that happened.
func forked(t *testing.T, at freehold.Position) (restored *memory.DB, consumer *memory.DB, tokens []freehold.Token) {
	t.Helper()
	disk := memory.NewDisk()
	source := reopen(t, disk)
	var backup *memory.Disk
	consumer = open(t)
	f, err := follow.New("f", consumer, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f)
	for i := range 5 {
		if freehold.Position(i) == at {
			stop()
		}
		tok, err := source.Append(t.Context(), note("n-a", strconv.Itoa(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		if tokens = append(tokens, tok); freehold.Position(i) < at {
			if err := f.WaitFor(patient(t), tok); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			backup = disk.Clone()
		}
	}
	stop()
	restored = reopen(t, backup)
	_, head, err := restored.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restored.Journal().Fork(t.Context(), nil, head, "for a test"); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		tok, err := restored.Append(t.Context(), note("n-a", "new"+strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, tok)
	}
	return restored, consumer, tokens
}

// A consumer that has seen no more than the base goes on by itself, whichever epoch its
// mark is of, and answers tokens of both: of the old one up to the base.
func TestConsumerBehindAForkGoesOnByItself(t *testing.T) {
	t.Parallel()
	for _, at := range []freehold.Position{0, 1, 2} {
		restored, db, tokens := forked(t, at)
		f := start(t, db, restored.Journal(), quiet(), follow.On(notes))
		if err := f.WaitFor(patient(t), tokens[len(tokens)-1]); err != nil {
			t.Fatalf("from %d: %v", at, err)
		}
		if got, want := read(t, db, "note/n-a"), "1;2;new0;new1;new2;new3;"; got != want {
			t.Errorf("from %d: n-a is %q, want %q", at, got, want)
		}
		for i, tok := range tokens[:5] {
			err := f.WaitFor(patient(t), tok)
			if i < 2 && err != nil || i >= 2 && !errors.Is(err, freehold.ErrHistoryLost) {
				t.Errorf("from %d: token %s of the old epoch: %v", at, tok, err)
			}
		}
	}
}

// A consumer at the base has nothing of the new epoch yet and satisfies its tokens up
// to there, and those of the old one, also while nothing new has been written.
func TestTokenOfTheOldEpochIsGoodUpToTheBase(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	source := reopen(t, disk)
	tok, err := source.Append(t.Context(), note("n-a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	db := open(t)
	f := start(t, db, source.Journal(), quiet(), follow.On(notes))
	if err := f.WaitFor(patient(t), tok); err != nil {
		t.Fatal(err)
	}
	_, base, err := source.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fork, err := source.Journal().Fork(t.Context(), nil, base, "for a test")
	if err != nil {
		t.Fatal(err)
	}
	base.Epoch = fork.Epoch
	for _, tok := range []freehold.Token{tok, freehold.NewToken(base), tok.Merge(freehold.NewToken(base))} {
		if err := f.WaitFor(patient(t), tok); err != nil {
			t.Errorf("token %s: %v", tok, err)
		}
	}
	base.Epoch = "never heard of"
	if err := f.WaitFor(patient(t), freehold.NewToken(base)); !errors.Is(err, freehold.ErrHistoryLost) {
		t.Errorf("token of an epoch that never was: %v", err)
	}
}

// A consumer that has applied what was lost stops, applies nothing, and goes on when an
// operator has decided; both decisions are on record.
func TestConsumerAheadOfAForkStopsUntilAnOperatorDecides(t *testing.T) {
	t.Parallel()
	for _, choice := range []string{follow.Adopted, follow.Kept} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			restored, db, tokens := forked(t, 4)
			f := start(t, db, restored.Journal(), quiet(), follow.On(notes))
			ctx := patient(t)
			eventually(t, func() bool { return f.Status(ctx)[0].State == follow.Diverged })
			if text := f.Status(ctx)[0].Error; !strings.Contains(text, "freehold forks") {
				t.Errorf("the error %q does not name freehold forks", text)
			}
			lost, ahead, err := f.Lost(ctx, "here")
			if err != nil || !ahead || lost.Base.Position != 2 || lost.Mark.Position != 4 {
				t.Errorf("lost %+v, %v, %v: want 2 to 4", lost, ahead, err)
			}
			if got, want := read(t, db, "note/n-a"), "1;2;3;4;"; got != want {
				t.Fatalf("n-a is %q, want %q: another history was applied", got, want)
			}
			decide := f.Adopt
			if choice == follow.Kept {
				decide = f.Keep
			}
			mark, err := decide(ctx, "here")
			if err != nil || mark.Position != 2 {
				t.Fatalf("goes on behind %s: %v", mark, err)
			}
			if err := f.WaitFor(ctx, tokens[len(tokens)-1]); err != nil {
				t.Fatal(err)
			}
			if got, want := read(t, db, "note/n-a"), "1;2;3;4;new0;new1;new2;new3;"; got != want {
				t.Errorf("n-a is %q, want %q", got, want)
			}
			all, err := f.Decisions(ctx, "here")
			if err != nil || len(all) != 1 || all[0].Choice != choice || all[0].Mark.Position != 4 || all[0].Base.Position != 2 {
				t.Errorf("on record is %+v, %v", all, err)
			}
			if _, err := decide(ctx, "here"); err == nil {
				t.Error("decided twice")
			}
			seen, err := f.Seen(ctx, "here")
			if err != nil || seen.Mark.Epoch == tokens[0].Of("here")[0].Epoch || len(seen.Incarnations) != 2 {
				t.Errorf("seen %+v, %v", seen, err)
			}
		})
	}
}

// Nobody can say whether a parked event that was lost has happened: keep refuses, and
// adopt gives it up.
func TestParkedOrphansAreDecidedToo(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	source := reopen(t, disk)
	appendNotes(t, source, "n-a", "1")
	backup := disk.Clone()
	appendNotes(t, source, "n-a", "poison", "3")
	db := open(t)
	opts := quiet()
	opts.Attempts, opts.Pause = 1, time.Millisecond
	first, err := follow.New("f", db, []follow.Source{source.Journal()}, opts, poisoned(new(atomic.Bool)))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, first)
	eventually(t, func() bool { return first.Status(t.Context())[0].Mark.Position == 3 })
	stop()
	restored := reopen(t, backup)
	appendNotes(t, restored, "n-a", "new")
	f := start(t, db, restored.Journal(), opts, poisoned(new(atomic.Bool)))
	ctx := patient(t)
	eventually(t, func() bool { return f.Status(ctx)[0].State == follow.Diverged })
	if _, err := f.Keep(ctx, "here"); err == nil {
		t.Error("kept with parked orphans")
	}
	if got := len(mustParked(t, f)); got != 2 {
		t.Errorf("%d parked, want 2", got)
	}
	if _, err := f.Adopt(ctx, "here"); err != nil {
		t.Fatal(err)
	}
	_, head, err := restored.Journal().Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, db, "note/n-a"), "1;new;"; got != want {
		t.Errorf("n-a is %q, want %q", got, want)
	}
}

// TestDecisionsAreToldOldestFirst has some on record whose times have few digits.
func TestDecisionsAreToldOldestFirst(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	want := []time.Time{noon, noon.Add(time.Second / 2), noon.Add(time.Second/2 + 1), noon.Add(time.Second)}
	_, err = db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		for _, at := range want {
			raw, err := json.Marshal(follow.Decision{Choice: follow.Kept, Time: at})
			if err != nil {
				return err
			}
			if err := db.Keeper(tx).Put(ctx, "decision/f/here", at.Format(time.RFC3339Nano)+" epoch", raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := f.Decisions(t.Context(), "here")
	if err != nil {
		t.Fatal(err)
	}
	var got []time.Time
	for _, d := range all {
		got = append(got, d.Time)
	}
	if !slices.Equal(got, want) {
		t.Errorf("told in the order %v", got)
	}
}
