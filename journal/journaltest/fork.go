package journaltest

import (
	"context"
	"errors"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
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
	f, err := j.Fork(ctx, base, "for a test", "another")
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

// one appends an event and returns its token.
func (s suite[T]) one(t *testing.T, db DB[T]) freehold.Token {
	t.Helper()
	tok, err := db.Append(t.Context(), write("a-1", freehold.Any, happened(1)))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
