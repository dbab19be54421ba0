// Command join adds a journal to a program that has a pool, tables and transactions of
// its own already, in the PostgreSQL database named by DATABASE_URL: events commit with
// its rows.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/postgres"
)

// Shipped is the event of a parcel that has left.
type Shipped struct {
	Parcel string `json:"parcel"`
}

// EventType names the event on the wire.
func (Shipped) EventType() freehold.Type { return freehold.T("parcel.shipped", 1) }

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE parcel (id TEXT PRIMARY KEY, state TEXT NOT NULL)`); err != nil {
		return err
	}
	types, err := freehold.NewCatalog(freehold.JSON[Shipped]())
	if err != nil {
		return err
	}
	// Once, as the owner: the tables of schema freehold.
	if err := postgres.Migrate(ctx, url, "shipping", nil, postgres.Roles{}); err != nil {
		return err
	}
	db, err := postgres.Attach(ctx, pool, "shipping", types, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	ship := func(parcel string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO parcel (id, state) VALUES ($1, 'shipped') ON CONFLICT (id) DO UPDATE SET state = 'shipped twice'`, parcel)
			if err != nil {
				return err
			}
			return db.Join(ctx, tx, func(ctx context.Context, tx freehold.Tx) error {
				_, err := tx.Append(ctx, freehold.Stream("parcel", parcel), freehold.NoStream, Shipped{parcel})
				return err
			})
		})
	}
	if err := ship("a"); err != nil {
		return err
	}
	if err := ship("a"); err != nil {
		fmt.Println("the second time:", err)
	}
	if _, err := db.Append(ctx); err != nil { // waits until what was committed has its place
		return err
	}
	events, err := db.Journal().Read(ctx, freehold.Mark{}, 100)
	if err != nil {
		return err
	}
	for _, r := range events {
		fmt.Printf("%d %s %s\n", r.At.Position, r.Type.Name, r.Raw)
	}
	var state string
	if err := pool.QueryRow(ctx, `SELECT state FROM parcel`).Scan(&state); err != nil {
		return err
	}
	fmt.Println("parcel a is", state)
	return nil
}
