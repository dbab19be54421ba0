package projection_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/projection"
)

// View is a row of the read model.
type View struct {
	Customer string `json:"customer"`
	Orders   int    `json:"orders"`
}

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	types, err := freehold.NewCatalog(freehold.JSON[Placed]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "order", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()

	customers, err := projection.New("customers", 1, db, []follow.Source{db.Journal()}, nil, func(ns string) []follow.Route[kv.Tx] {
		table := kv.NewTable[View](ns + "/")
		return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e Placed, _ freehold.Recorded) error {
			v, _, err := table.Get(ctx, tx, e.Customer)
			if err != nil {
				return err
			}
			v.Customer, v.Orders = e.Customer, v.Orders+1
			return table.Put(ctx, tx, e.Customer, v)
		})}
	})
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- customers.Run(ctx) }()

	token, err := db.Append(ctx, freehold.Write{Stream: "order-1", Expect: freehold.NoStream, Events: []freehold.Event{Placed{"ann"}}})
	if err != nil {
		panic(err)
	}
	// The read waits for what the token's command did.
	err = customers.View(ctx, token, func(ctx context.Context, tx kv.Tx, ns string) error {
		v, _, err := kv.NewTable[View](ns+"/").Get(ctx, tx, "ann")
		fmt.Printf("%+v in %s\n", v, ns)
		return err
	})
	fmt.Println("read:", err)
	cancel()
	fmt.Println("ended:", <-done)

	// Output:
	// {Customer:ann Orders:1} in customers_v1
	// read: <nil>
	// ended: <nil>
}
