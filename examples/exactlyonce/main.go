// Exactlyonce gives ten points for each order of another service, over a broker. The
// handler crashes after every first effect, and still no point is doubled or missing.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
)

type Placed struct{ Customer string }   // an event
func (Placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

func main() {
	ctx, stop := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "broker")
	check(err)
	broker, err := embed.Start(dir+"/nats", nil)
	check(err)
	bus, err := nats.Connect(ctx, "", &nats.Options{Server: broker})
	check(err)
	types, err := freehold.NewCatalog(freehold.JSON[Placed]())
	check(err)
	orders, err := memory.Open(ctx, "orders", types, nil) // the Orders service: a journal, its feed, and a relay
	check(err)
	service, err := host.New("orders", orders.Journal(), &host.Options{Token: "secret"})
	check(err)
	service.Go("relay", outbox.New(orders.Journal(), bus.Publisher("orders"), nil))

	points, err := memory.Open(ctx, "points", types, nil) // the Points service: an inbox and a handler
	check(err)
	placed, err := inbox.Remote("orders", service.URL()+"/feed", types, &inbox.Options{Subscriber: bus.Subscriber(), Token: "secret"})
	check(err)
	calls := 0
	giving, err := follow.New("giving", points, []follow.Source{placed}, nil,
		follow.On(func(ctx context.Context, tx kv.Tx, e Placed, _ freehold.Recorded) error {
			_, err := tx.Add(ctx, e.Customer, 10, 0)
			if calls++; calls%2 == 1 {
				return errors.New("crash between the effect and its commit")
			}
			return err
		}))
	check(err)
	service.Own(broker, bus, orders)
	ended := make(chan error)
	go func() { ended <- service.Run(ctx) }()
	go func() { ended <- placed.Run(ctx) }()
	go func() { ended <- giving.Run(ctx) }()
	for n := range 3 {
		token, err := orders.Append(ctx, freehold.Write{Stream: freehold.Stream("order", fmt.Sprint(n)), Events: []freehold.Event{Placed{"ann"}}})
		check(err)
		check(giving.WaitFor(ctx, token))
	}
	check(points.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		sum, _, err := tx.Get(ctx, "ann")
		fmt.Printf("3 orders, %d calls of the handler, %s points\n", calls, sum)
		return err
	}))
	stop()
	check(errors.Join(<-ended, <-ended, <-ended, points.Close(), os.RemoveAll(dir)))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
