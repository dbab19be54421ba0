package pebble_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, journaltest.Harness[kv.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[kv.Tx] {
			t.Helper()
			db, err := pebble.Open(t.Context(), s.Place, "test", s.Types, &pebble.Options{Cancel: s.Limit, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		Put: func(ctx context.Context, tx kv.Tx, key, value string) error { return tx.Put(ctx, key, []byte(value)) },
		Get: func(ctx context.Context, tx kv.Tx, key string) (string, error) {
			value, _, err := tx.Get(ctx, key)
			return string(value), err
		},
		FailCommits: func(db journaltest.DB[kv.Tx], n int) { db.(*pebble.DB).FailCommits(n) },
	})
}

func TestSecondOpenerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := pebble.Open(t.Context(), dir, "test", journaltest.Types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := pebble.Open(t.Context(), dir, "test", journaltest.Types(t), nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second opening: %v", err)
	}
}

func TestAnotherJournalsDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := pebble.Open(t.Context(), dir, "test", journaltest.Types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pebble.Open(t.Context(), dir, "other", journaltest.Types(t), nil); err == nil || !strings.Contains(err.Error(), `of "test"`) {
		t.Errorf("opening as another journal: %v", err)
	}
}
