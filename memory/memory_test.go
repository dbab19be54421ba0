package memory_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	disks := map[string]*memory.Disk{}
	journaltest.Run(t, journaltest.Harness[kv.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[kv.Tx] {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if disks[s.Place] == nil {
				disks[s.Place] = memory.NewDisk()
			}
			db, err := memory.Open(t.Context(), "test", s.Types, &memory.Options{Disk: disks[s.Place], Cancel: s.Limit, Log: slog.New(slog.DiscardHandler)})
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
		FailCommits: func(db journaltest.DB[kv.Tx], n int) { db.(*memory.DB).FailCommits(n) },
	})
}
