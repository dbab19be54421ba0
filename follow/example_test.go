package follow_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

type Sold struct{ Pieces int64 }

func (Sold) EventType() freehold.Type { return freehold.T("example.sold", 1) }

// A follower's effects and its place commit together, so that each event takes
// effect once, whatever happens to the process.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	types, err := freehold.NewCatalog(freehold.JSON[Sold]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "shop", types, nil)
	if err != nil {
		panic(err)
	}
	counting, err := follow.New("counting", db, []follow.Source{db.Journal()}, nil,
		follow.On(func(ctx context.Context, tx kv.Tx, e Sold, _ freehold.Recorded) error {
			_, err := tx.Add(ctx, "pieces", e.Pieces, 0)
			return err
		}))
	if err != nil {
		panic(err)
	}
	ended := make(chan error)
	go func() { ended <- counting.Run(ctx) }()

	token, err := db.Append(ctx, freehold.Write{Stream: "sale-1", Expect: freehold.NoStream, Events: []freehold.Event{Sold{3}, Sold{4}}})
	if err != nil {
		panic(err)
	}
	if err := counting.WaitFor(ctx, token); err != nil { // until it has seen them
		panic(err)
	}
	err = db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		pieces, _, err := tx.Get(ctx, "pieces")
		fmt.Printf("%s pieces\n", pieces)
		return err
	})
	stop()
	fmt.Println(err, <-ended)
	// Output:
	// 7 pieces
	// <nil> <nil>
}
