package follow_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// viewing counts the reads of a database.
type viewing struct {
	*memory.DB
	views atomic.Int64
}

func (db *viewing) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	db.views.Add(1)
	return db.DB.View(ctx, fn)
}

// TestWhoStandsByLooksWhenSomebodyWaits has one instance follow and another one stand by:
// while nobody waits it looks each second, and a token is waited for 10 ms at most
// once it is applied.
func TestWhoStandsByLooksWhenSomebodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		db := &viewing{DB: open(t)}
		source, err := memory.Open(ctx, "a", types(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		instance := func(db follow.DB[kv.Tx]) *follow.Follower {
			f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(notes))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		leads, stands := instance(db.DB), instance(db)
		done := make(chan error, 2)
		go func() { done <- leads.Run(ctx) }()
		go func() { done <- stands.Stand(ctx) }()
		for range 3 {
			was := db.views.Load()
			nobodyWaits, end := context.WithTimeout(ctx, 10*time.Second+500*time.Millisecond) // by the bubble's clock
			<-nobodyWaits.Done()
			end()
			if n := db.views.Load() - was; n > 12 {
				t.Errorf("%d looks in 10 s in which nobody waited", n)
			}
			tok, err := source.Append(ctx, freehold.Write{Stream: "n-a", Expect: freehold.Any, Events: []freehold.Event{Noted{"1"}}})
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now() // of the bubble's clock
			if err := stands.WaitFor(ctx, tok); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 20*time.Millisecond {
				t.Errorf("the token was waited for %s", took)
			}
		}
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
