package inbox_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
)

type Ordered struct{ Item string }

func (Ordered) EventType() freehold.Type { return freehold.T("example.ordered", 1) }

// Two services without a broker: one serves its feed, the other follows it as if it
// were a journal of its own.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	types, err := freehold.NewCatalog(freehold.JSON[Ordered]())
	if err != nil {
		panic(err)
	}
	orders, err := memory.Open(ctx, "orders", types, nil)
	if err != nil {
		panic(err)
	}
	feed := httptest.NewServer(outbox.Feed(orders.Journal()))
	defer feed.Close()
	defer feed.CloseClientConnections()

	packing, err := memory.Open(ctx, "packing", types, nil)
	if err != nil {
		panic(err)
	}
	remote, err := inbox.Remote("orders", feed.URL+"/feed", types, nil)
	if err != nil {
		panic(err)
	}
	packer, err := follow.New("packer", packing, []follow.Source{remote}, nil,
		follow.On(func(_ context.Context, _ kv.Tx, e Ordered, r freehold.Recorded) error {
			fmt.Println("pack", e.Item, "for", r.Stream)
			return nil
		}))
	if err != nil {
		panic(err)
	}
	ended := make(chan error)
	go func() { ended <- packer.Run(ctx) }()
	token, err := orders.Append(ctx, freehold.Write{Stream: "order-1", Expect: freehold.NoStream, Events: []freehold.Event{Ordered{"a kettle"}}})
	if err != nil {
		panic(err)
	}
	fmt.Println(packer.WaitFor(ctx, token))
	stop()
	fmt.Println(<-ended)
	// Output:
	// pack a kettle for order-1
	// <nil>
	// <nil>
}
