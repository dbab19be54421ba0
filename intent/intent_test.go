package intent_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// Asked is the intent; Answered records its outcome.
type Asked struct {
	N int `json:"n"`
}

func (Asked) EventType() freehold.Type { return freehold.T("test.asked", 1) }

type Answered struct {
	N int `json:"n"`
}

func (Answered) EventType() freehold.Type { return freehold.T("test.answered", 1) }

func open(t *testing.T) *memory.DB {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.Internal[Asked](), freehold.JSON[Answered]())
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(t.Context(), "here", types, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// world is the other side: it does each key's work once, and now and then loses
// its answer.
type world struct {
	mu      sync.Mutex
	done    map[string]int // key to how often it was asked
	running map[string]bool
	t       *testing.T
}

func (w *world) call(_ context.Context, key string, e Asked, attempt int) (int, error) {
	stream := strconv.Itoa(e.N % 5)
	w.mu.Lock()
	if w.running[stream] {
		w.t.Errorf("two calls of stream %s at the same time", stream)
	}
	w.running[stream] = true
	w.done[key]++
	asked := w.done[key]
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running[stream] = false
		w.mu.Unlock()
	}()
	if asked == 1 && e.N%7 == 0 {
		return 0, errors.New("answer lost")
	}
	return e.N * 10, nil
}

func record(ctx context.Context, tx kv.Tx, e Asked, _ freehold.Recorded, o int) error {
	if _, err := tx.Add(ctx, "recorded/"+strconv.Itoa(e.N), 1, 0); err != nil {
		return err
	}
	if o != e.N*10 {
		return errors.New("another call's outcome")
	}
	_, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa(e.N)), freehold.NoStream, Answered(e))
	return err
}

func TestEveryIntentIsRecordedOnceAcrossRestarts(t *testing.T) {
	t.Parallel()
	db := open(t)
	w := &world{done: map[string]int{}, running: map[string]bool{}, t: t}
	const n = 200
	for i := range n {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: freehold.Stream("q", strconv.Itoa(i%5)), Expect: freehold.Any, Events: []freehold.Event{Asked{i}}}); err != nil {
			t.Fatal(err)
		}
	}
	answered := 0
	for round := 0; answered < n; round++ {
		if round > 200 {
			t.Fatalf("%d of %d answered", answered, n)
		}
		c, err := intent.New("asker", db, db.Journal(), &intent.Options{Pool: 8, Pause: time.Millisecond, Log: slog.New(slog.DiscardHandler)}, w.call, record)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		// Stop it behind some more outcomes, wherever it is.
		target := min(n, answered+30)
		for answered < target {
			_, head, _ := db.Journal().Bounds(t.Context())
			if answered = int(head.Position) - n; answered < target {
				if err := db.Journal().Wait(t.Context(), head); err != nil {
					t.Fatal(err)
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		_, head, _ := db.Journal().Bounds(t.Context())
		answered = int(head.Position) - n
	}
	err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		for i := range n {
			if got, _, _ := tx.Get(ctx, "recorded/"+strconv.Itoa(i)); string(got) != "1" {
				t.Errorf("intent %d was recorded %q times", i, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
