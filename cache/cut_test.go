package cache_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// bounded is a journal that is cut, whose reader can be held up.
type bounded struct {
	*journal.Journal
	mu    sync.Mutex
	first freehold.Mark
	goOn  chan struct{} // nil: nobody is held up
}

func (b *bounded) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	_, head, err = b.Journal.Bounds(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first, head, err
}

func (b *bounded) Fresh(ctx context.Context) (first, head freehold.Mark, err error) {
	return b.Bounds(ctx)
}

func (b *bounded) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	b.mu.Lock()
	first, goOn := b.first, b.goOn
	b.mu.Unlock()
	switch {
	case goOn != nil:
		return nil, nil
	case after.Position < first.Position:
		return nil, freehold.ErrGone
	}
	return b.Journal.Read(ctx, after, limit)
}

func (b *bounded) Wait(ctx context.Context, after freehold.Mark) error {
	b.mu.Lock()
	goOn := b.goOn
	b.mu.Unlock()
	if goOn == nil {
		return b.Journal.Wait(ctx, after)
	}
	select {
	case <-goOn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hold holds the reader up, until goesOn, when everything up to a mark has been cut.
func (b *bounded) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.goOn = make(chan struct{})
}

func (b *bounded) goesOn(cut freehold.Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = cut
	close(b.goOn)
	b.goOn = nil
}

// A process is stopped for so long that its journal is cut beyond where its cache has
// come to: nobody will ever tell the cache what it has missed, so it keeps nothing of
// what it has, and goes on from the head.
func TestACacheThatLagsBehindACutBeginsAgain(t *testing.T) {
	t.Parallel()
	for name, missed := range map[string]struct{ cut, left int }{
		"of one event": {1, 0}, "of several": {3, 0}, "before the end": {2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			types, err := freehold.NewCatalog(freehold.JSON[Priced]())
			if err != nil {
				t.Fatal(err)
			}
			db, err := memory.Open(t.Context(), "inventory", types, nil)
			if err != nil {
				t.Fatal(err)
			}
			set := func(sku, price string) freehold.Mark {
				tok, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
					_, err := tx.Append(ctx, freehold.Stream("product", sku), freehold.Any, Priced{price})
					return errors.Join(err, tx.Put(ctx, sku, []byte(price)))
				})
				if err != nil {
					t.Fatal(err)
				}
				return tok.Of("inventory")[0]
			}
			prices := cache.New(func(ctx context.Context, sku string) (price string, at freehold.Mark, err error) {
				err = db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
					at = tx.Mark()
					raw, _, err := tx.Get(ctx, sku)
					price = string(raw)
					return err
				})
				return price, at, err
			}, keys, nil)
			source := &bounded{Journal: db.Journal()}
			f := follow.Observe("price-cache", []follow.Source{source}, prices.Apply)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			wait := func(m freehold.Mark) {
				t.Helper()
				if err := f.WaitFor(ctx, freehold.NewToken(m)); err != nil {
					t.Errorf("%v; %+v", err, f.Status(t.Context()))
				}
			}
			shows := func(want string) {
				t.Helper()
				if got, err := prices.Get(t.Context(), "mug", freehold.Token{}); err != nil || got != want {
					t.Errorf("a mug is %s, want %s; %v", got, want, err)
				}
			}
			wait(set("mug", "1"))
			shows("1")
			source.hold()
			cut := set("mug", "2")
			for range missed.cut - 1 {
				cut = set("cup", "2")
			}
			head := cut
			for range missed.left {
				head = set("cup", "3")
			}
			shows("1") // it has not heard of anything yet
			source.goesOn(cut)
			wait(head)
			shows("2")
			wait(set("mug", "3"))
			shows("3")
			shows("3")
			if st := prices.Stats(); st.Hits < 2 {
				t.Errorf("it keeps nothing: %+v", st)
			}
		})
	}
}
