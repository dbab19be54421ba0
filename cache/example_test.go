package cache_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

type Priced struct{ Price string }

func (Priced) EventType() freehold.Type { return freehold.T("product.priced", 1) }

// A follower in memory drops what a price change has made old; the change's token
// makes the next read show it, whether or not the follower has come to it.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	types, err := freehold.NewCatalog(freehold.JSON[Priced]())
	check(err)
	db, err := memory.Open(ctx, "inventory", types, nil)
	check(err)
	prices := cache.New(func(ctx context.Context, sku string) (price string, at freehold.Mark, err error) {
		err = db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
			at = tx.Mark() // of the snapshot that the price is read in
			raw, _, err := tx.Get(ctx, sku)
			price = string(raw)
			return err
		})
		return price, at, err
	}, func(r freehold.Recorded) []string { return []string{r.Stream.ID()} }, nil)
	changes := follow.Observe("price-cache", []follow.Source{db.Journal()}, prices.Apply)
	ended := make(chan error)
	go func() { ended <- changes.Run(ctx) }()

	for _, price := range []string{"2.50", "2.75"} {
		tok, err := db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
			if err := tx.Put(ctx, "mug", []byte(price)); err != nil {
				return err
			}
			_, err := tx.Append(ctx, freehold.Stream("product", "mug"), freehold.Any, Priced{price})
			return err
		})
		check(err)
		shown, err := prices.Get(ctx, "mug", tok)
		check(err)
		fmt.Println("mug:", shown)
	}
	stop()
	check(<-ended)
	check(db.Close())
	// Output:
	// mug: 2.50
	// mug: 2.75
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
