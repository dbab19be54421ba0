package follow_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// TestSourcesThatWaitShareATransaction has a transaction of the first source under way
// while events of two others arrive.
func TestSourcesThatWaitShareATransaction(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]bool{"applied together": false, "a failure is nobody else's": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				db := &counting{DB: open(t)}
				sources := make([]*memory.DB, 3)
				var followed []follow.Source
				for i, name := range []freehold.Source{"a", "b", "c"} {
					var err error
					if sources[i], err = memory.Open(ctx, name, types(t), nil); err != nil {
						t.Fatal(err)
					}
					defer sources[i].Close()
					followed = append(followed, sources[i].Journal())
				}
				entered, gate := make(chan struct{}), make(chan struct{})
				options := quiet()
				options.Attempts = 2
				f, err := follow.New("f", db, followed, options, follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
					switch e.Text {
					case "wait":
						close(entered)
						<-gate
					case "poison":
						return errors.New("poison")
					}
					return notes(ctx, tx, e, r)
				}))
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- f.Run(ctx) }()
				synctest.Wait()
				begun := db.updates.Load()
				tell := func(i int, text string) freehold.Token {
					tok, err := sources[i].Append(ctx, freehold.Write{Stream: "n-" + freehold.StreamID(rune('a'+i)), Expect: freehold.Any, Events: []freehold.Event{Noted{text}}})
					if err != nil {
						t.Fatal(err)
					}
					return tok
				}
				tell(0, "wait")
				<-entered
				second := "1"
				if poison {
					second = "poison"
				}
				tell(1, second)
				tok := tell(2, "1")
				synctest.Wait()
				close(gate)
				if err := f.WaitFor(ctx, tok); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // of the bubble's clock: the pause before the second attempt
				synctest.Wait()
				if got := db.updates.Load() - begun; !poison && got != 2 {
					t.Errorf("%d transactions, want 2: one that ran, and one of all that waited", got)
				}
				if got := read(t, db.DB, "note/n-c"); got != "1;" {
					t.Errorf("n-c is %q, want it once", got)
				}
				if got, want := read(t, db.DB, "note/n-b"), map[bool]string{false: "1;"}[poison]; got != want {
					t.Errorf("n-b is %q, want %q", got, want)
				}
				parked, err := f.Parked(ctx, 10)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := len(parked), map[bool]int{true: 1}[poison]; got != want {
					t.Errorf("%d events parked, want %d", got, want)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
