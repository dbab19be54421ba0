// Saga gives a payment back when the goods that were paid turn out to be sold out.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

type (
	Placed      struct{ Order string }
	Paid        struct{ Order string }
	SoldOut     struct{ Order string }
	RefundAsked struct{ Order string }
	Refunded    struct{ Order string }
)

func (Placed) EventType() freehold.Type      { return freehold.T("order.placed", 1) }
func (Paid) EventType() freehold.Type        { return freehold.T("payment.paid", 1) }
func (SoldOut) EventType() freehold.Type     { return freehold.T("stock.sold-out", 1) }
func (RefundAsked) EventType() freehold.Type { return freehold.T("order.refund-asked", 1) }
func (Refunded) EventType() freehold.Type    { return freehold.T("payment.refunded", 1) }

// reply is another service (here in the same database) that answers an event with an event.
func reply[E freehold.Event](category string, answer func(E) freehold.Event) follow.Route[kv.Tx] {
	return follow.On(func(ctx context.Context, tx kv.Tx, e E, r freehold.Recorded) error {
		_, err := tx.Append(ctx, freehold.Stream(category, r.Stream.ID()), freehold.Any, answer(e))
		return err
	})
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	types, err := freehold.NewCatalog(freehold.JSON[Placed](), freehold.JSON[Paid](), freehold.JSON[SoldOut](), freehold.JSON[RefundAsked](), freehold.JSON[Refunded]())
	check(err)
	db, err := memory.Open(ctx, "shop", types, nil)
	check(err)
	services, err := follow.New("services", db, []follow.Source{db.Journal()}, nil,
		reply("payment", func(e Placed) freehold.Event { return Paid(e) }),
		reply("stock", func(e Paid) freehold.Event { return SoldOut(e) }),
		reply("payment", func(e RefundAsked) freehold.Event { return Refunded(e) }))
	check(err)
	checkout, err := saga.New("checkout", 1, db, []follow.Source{db.Journal()}, nil,
		saga.Start(func(e Paid) string { return e.Order }, func(_ context.Context, _ kv.Tx, s *saga.Step[struct{}], e Paid) error {
			s.OnUndo("payment", freehold.Write{Stream: freehold.Stream("order", s.ID), Expect: freehold.Exists, Events: []freehold.Event{RefundAsked(e)}})
			return nil
		}),
		saga.On(func(e SoldOut) string { return e.Order }, func(ctx context.Context, tx kv.Tx, s *saga.Step[struct{}], _ SoldOut) error {
			s.End()
			return s.Compensate(ctx, tx)
		}))
	check(err)
	ended := make(chan error)
	go func() { ended <- services.Run(ctx) }()
	go func() { ended <- checkout.Run(ctx) }()
	_, err = db.Append(ctx, freehold.Write{Stream: "order-1", Expect: freehold.NoStream, Events: []freehold.Event{Placed{"1"}}})
	check(err)
	check(db.Journal().Wait(ctx, freehold.Mark{Position: 4})) // until there is a fifth event
	events, err := db.Journal().Read(ctx, freehold.Mark{}, 100)
	check(err)
	for _, r := range events {
		fmt.Println(r.At.Position, r.Stream, r.Type.Name)
	}
	stop()
	check(errors.Join(<-ended, <-ended, db.Close()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
