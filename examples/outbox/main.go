// Outbox keeps payments in a table and tells others through its journal: row and
// event commit together. A second service pulls the journal's feed, exactly once.
package main

import (
	"context"
	"embed"
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
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

type Paid struct{ Pence int64 }       // an event
func (Paid) EventType() freehold.Type { return freehold.T("payment.paid", 1) }

//go:embed payment.sql
var tables embed.FS

// book is the other service's handler: its effect and its place in the feed commit together.
func book(ctx context.Context, tx kv.Tx, e Paid, _ freehold.Recorded) error {
	_, err := tx.Add(ctx, "turnover", e.Pence, 0)
	return err
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "payments")
	check(err)
	types, err := freehold.NewCatalog(freehold.JSON[Paid]())
	check(err)
	payments, err := sqlite.Open(ctx, dir+"/payments.db", "payments", types, &sqlite.Options{Migrations: tables})
	check(err)
	service, err := host.New("payments", payments.Journal(), &host.Options{Token: "secret"}) // serves /feed
	check(err)
	feed, err := inbox.Remote("payments", service.URL()+"/feed", types, &inbox.Options{Token: "secret"})
	check(err)
	ledger, err := memory.Open(ctx, "ledger", types, nil)
	check(err)
	booking, err := follow.New("booking", ledger, []follow.Source{feed}, nil, follow.On(book))
	check(err)
	ended := make(chan error)
	go func() { ended <- service.Run(ctx) }()
	go func() { ended <- booking.Run(ctx) }()
	for i, pence := range []int64{1250, -1, 800} {
		token, err := payments.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
			order := fmt.Sprint("order", i)
			if _, err := tx.Append(ctx, freehold.Stream("payment", order), freehold.NoStream, Paid{pence}); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO payment (order_id, pence) VALUES ($1, $2)`, order, pence)
			return err // then there is no event either
		})
		fmt.Printf("payment of %d: %v\n", pence, err)
		check(booking.WaitFor(ctx, token)) // until the ledger has seen what was written
	}
	check(ledger.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		sum, _, err := tx.Get(ctx, "turnover")
		fmt.Printf("turnover in the ledger: %s\n", sum)
		return err
	}))
	stop()
	check(errors.Join(<-ended, <-ended, payments.Close(), ledger.Close(), os.RemoveAll(dir)))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
