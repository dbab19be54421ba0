// Command postgres keeps a table and the journal of its changes in one PostgreSQL
// database, named by DATABASE_URL, and reads the journal as other services would.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing/fstest"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// Opened is the event of a new account.
type Opened struct {
	Owner string `json:"owner"`
	Pence int64  `json:"pence"`
}

// EventType names the event on the wire.
func (Opened) EventType() freehold.Type { return freehold.T("account.opened", 1) }

var tables = fstest.MapFS{"0001_account.sql": {Data: []byte(`CREATE TABLE account (owner TEXT PRIMARY KEY, pence BIGINT NOT NULL)`)}}

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) error {
	types, err := freehold.NewCatalog(freehold.JSON[Opened]())
	if err != nil {
		return err
	}
	db, err := postgres.Open(ctx, url, "accounts", types, &postgres.Options{Migrations: tables})
	if err != nil {
		return err
	}
	defer db.Close()
	open := func(owner string, pence int64) (freehold.Token, error) {
		return db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO account (owner, pence) VALUES ($1, $2)`, owner, pence); err != nil {
				return err
			}
			_, err := tx.Append(ctx, freehold.Stream("account", owner), freehold.NoStream, Opened{owner, pence})
			return err
		})
	}
	if _, err := open("ada", 1200); err != nil {
		return err
	}
	if _, err := open("ada", 5); err != nil {
		fmt.Println("a second account of ada is refused, and leaves no event")
	}
	if _, err := open("grace", 300); err != nil {
		return err
	}
	events, err := db.Journal().Read(ctx, freehold.Mark{}, 100)
	if err != nil {
		return err
	}
	for _, r := range events {
		fmt.Printf("%d %s %s\n", r.At.Position, r.Type.Name, r.Raw)
	}
	return nil
}
