// Eventsourcing sells the seats of a show. An aggregate decides, its events are
// the record, and a read model answers in SQL: all of it in one SQLite file.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

type Sold struct{ Customer string }   // an event: what happened
func (Sold) EventType() freehold.Type { return freehold.T("seat.sold", 1) }

type Show struct{ Sold int }              // an aggregate: what its events amount to
func (s Show) Evolve(freehold.Event) Show { return Show{s.Sold + 1} }

type Sell struct{ Customer string } // a command: it decides what happens
func (c Sell) Decide(s Show) ([]freehold.Event, error) {
	if s.Sold == 3 {
		return nil, errors.New("sold out")
	}
	return []freehold.Event{Sold(c)}, nil
}

//go:embed seats.sql
var tables embed.FS

// seats returns the handlers of the read model, which is the table ns.
func seats(ns string) []follow.Route[sqldb.Tx] {
	return []follow.Route[sqldb.Tx]{follow.On(func(ctx context.Context, tx sqldb.Tx, e Sold, _ freehold.Recorded) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO `+ns+` AS s (customer, seats) VALUES ($1, 1)
			ON CONFLICT (customer) DO UPDATE SET seats = s.seats + 1`, e.Customer)
		return err
	})}
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "shows")
	check(err)
	types, err := freehold.NewCatalog(freehold.JSON[Sold]())
	check(err)
	db, err := sqlite.Open(ctx, dir+"/shows.db", "shows", types, &sqlite.Options{Migrations: tables})
	check(err)
	shows := aggregate.New[Show]("show", db, nil)
	model, err := projection.New("seats", 1, db, []follow.Source{db.Journal()}, nil, seats)
	check(err)
	ended := make(chan error)
	go func() { ended <- model.Run(ctx) }() // follows the journal
	for _, customer := range []string{"ann", "bob", "ann", "cat"} {
		_, token, err := shows.Do(ctx, "hamlet", Sell{customer}.Decide)
		if err != nil {
			fmt.Println(customer, "gets no seat:", err)
		}
		var n int // the read waits for what the token's command did
		check(model.View(ctx, token, func(ctx context.Context, tx sqldb.Tx, ns string) error {
			return tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(seats), 0) FROM `+ns+` WHERE customer = $1`, customer).Scan(&n)
		}))
		fmt.Println(customer, "has seats:", n)
	}
	stop()
	check(errors.Join(<-ended, db.Close(), os.RemoveAll(dir)))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
