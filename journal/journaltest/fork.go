package journaltest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// forked: a fork begins an epoch that everything carries from then on, also when the
// database is opened again, and tokens of the old one are good up to the base.
func (s suite[T]) forked(t *testing.T, _ DB[T]) {
	ctx := t.Context()
	setup := place(t)
	db := s.Open(t, setup)
	var tokens []freehold.Token
	for range 3 {
		tokens = append(tokens, s.one(t, db))
	}
	j := db.Journal()
	base, err := j.At(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	old := base.Epoch
	f, err := j.Fork(ctx, nil, base, "for a test", "another")
	if err != nil {
		t.Fatal(err)
	}
	if f.Epoch == old || f.Ended[0] != old || f.Base.Position != 2 || f.Base.Chain != base.Chain {
		t.Fatalf("fork %+v of epoch %s at %s", f, old, base)
	}
	if err := j.Settle(ctx, f); err != nil {
		t.Fatal(err)
	}
	check := func(db DB[T]) {
		t.Helper()
		j := db.Journal()
		tok := s.one(t, db)
		if at := tok.Of("test"); len(at) != 1 || at[0].Epoch != f.Epoch {
			t.Errorf("a command's token is %s, want epoch %s", tok, f.Epoch)
		}
		first, head, err := j.Bounds(ctx)
		if err != nil || first.Epoch != f.Epoch || head.Epoch != f.Epoch {
			t.Errorf("bounds %s to %s: %v: want epoch %s", first, head, err, f.Epoch)
		}
		rs, err := j.Read(ctx, first, 100)
		if err != nil || len(rs) != int(head.Position) {
			t.Fatalf("%d events, head is %d: %v", len(rs), head.Position, err)
		}
		for _, r := range rs {
			if r.At.Epoch != f.Epoch {
				t.Errorf("event %s, want epoch %s", r.At, f.Epoch)
			}
		}
		err = db.View(ctx, func(_ context.Context, tx T) error {
			if at := tx.Mark(); at.Epoch != f.Epoch {
				t.Errorf("a View stands at %s, want epoch %s", at, f.Epoch)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		err = follow.Do(ctx, db, func(_ context.Context, tx T) error {
			if at := tx.Mark(); at.Epoch != f.Epoch {
				t.Errorf("an Update stands at %s, want epoch %s", at, f.Epoch)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for i, tok := range tokens {
			now, err := j.Translate(ctx, tok)
			if i < 2 && (err != nil || now.Of("test")[0].Epoch != f.Epoch) || i == 2 && !errors.Is(err, freehold.ErrHistoryLost) {
				t.Errorf("token %s of the old epoch is %s: %v", tok, now, err)
			}
		}
		all, err := j.Forks(ctx)
		if err != nil || len(all) != 1 || all[0].Epoch != f.Epoch || all[0].Settled.IsZero() {
			t.Errorf("forks %+v: %v", all, err)
		}
	}
	check(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := s.Open(t, setup)
	check(again)
	verify(t, again)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// forkedOnce: of several that have found the same out, and of an instance that looked
// before and acts late, one records the fork. The others are told so, and whoever has
// seen it may record another.
func (s suite[T]) forkedOnce(t *testing.T, _ DB[T]) {
	ctx := t.Context()
	setup := place(t)
	instances := []DB[T]{s.Open(t, setup)}
	var lost freehold.Mark
	for range 3 {
		lost = s.one(t, instances[0]).Of("test")[0]
	}
	for s.Shared && len(instances) < 3 {
		instances = append(instances, s.Open(t, setup))
	}
	base, err := instances[0].Journal().At(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	const each = 3
	errs := make([]error, each*len(instances))
	forks := make([]journal.Fork, len(errs))
	var racing sync.WaitGroup
	begin := make(chan struct{})
	for i := range errs {
		j := instances[i/each].Journal()
		seen, err := j.Forks(ctx)
		if err != nil || len(seen) != 0 {
			t.Fatalf("forks %+v: %v", seen, err)
		}
		racing.Go(func() {
			<-begin
			forks[i], errs[i] = j.Fork(ctx, seen, base, "for a test")
		})
	}
	close(begin)
	racing.Wait()
	var won journal.Fork
	for i, err := range errs {
		switch {
		case err == nil && won.Epoch == "":
			won = forks[i]
		case err == nil:
			t.Errorf("forks %s and %s are recorded for one", won.Epoch, forks[i].Epoch)
		case !errors.Is(err, freehold.ErrFenced):
			t.Errorf("a fork that another one has recorded: %v, want ErrFenced", err)
		}
	}
	if won.Epoch == "" {
		t.Fatalf("nobody has recorded it: %v", errs)
	}
	for i, db := range instances {
		j := db.Journal()
		if f, err := j.Fork(ctx, nil, base, "late"); !errors.Is(err, freehold.ErrFenced) {
			t.Errorf("instance %d, which looked before, has recorded %+v: %v, want ErrFenced", i, f, err)
		}
		all, err := j.Forks(ctx)
		if err != nil || len(all) != 1 || all[0].Epoch != won.Epoch {
			t.Fatalf("instance %d sees forks %+v: %v, want that of epoch %s", i, all, err, won.Epoch)
		}
		if at, explained := all.Lost(lost); !explained || at.Position != 2 {
			t.Errorf("instance %d: who stands at %s goes on at %s, %v", i, lost, at, explained)
		}
		if tok := s.one(t, db); tok.Of("test")[0].Epoch != won.Epoch {
			t.Errorf("instance %d: a command's token is %s, want epoch %s", i, tok, won.Epoch)
		}
	}
	j := instances[0].Journal()
	all, err := j.Forks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again, err := j.Fork(ctx, all, base, "another time")
	if err != nil || again.Number != 2 || again.Ended[0] != won.Epoch {
		t.Errorf("the fork behind is %+v: %v", again, err)
	}
	for _, db := range instances {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// one appends an event and returns its token.
func (s suite[T]) one(t *testing.T, db DB[T]) freehold.Token {
	t.Helper()
	tok, err := db.Append(t.Context(), write("a-1", freehold.Any, happened(1)))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
