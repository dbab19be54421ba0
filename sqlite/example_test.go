package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

type Paid struct{ Mils int64 }

func (Paid) EventType() freehold.Type { return freehold.T("example.paid", 1) }

// State, written as SQL, and the event that tells others commit together. If the
// stream is not as expected neither is written.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	types, err := freehold.NewCatalog(freehold.JSON[Paid]())
	if err != nil {
		panic(err)
	}
	tables := fstest.MapFS{"001_payment.sql": {Data: []byte(`CREATE TABLE payment (id TEXT PRIMARY KEY, mils INTEGER NOT NULL)`)}}
	db, err := sqlite.Open(ctx, filepath.Join(dir, "billing.db"), "billing", types, &sqlite.Options{Migrations: tables})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	pay := func(id string, mils int64) error {
		_, err := db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO payment (id, mils) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET mils = mils + excluded.mils`, id, mils); err != nil {
				return err
			}
			_, err := tx.Append(ctx, freehold.Stream("payment", id), freehold.NoStream, Paid{mils})
			return err
		})
		return err
	}
	fmt.Println(pay("a", 12_500))
	fmt.Println(pay("a", 12_500))
	err = db.View(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		var mils int64
		err := tx.QueryRowContext(ctx, `SELECT mils FROM payment WHERE id = $1`, "a").Scan(&mils)
		fmt.Println("paid", mils)
		return err
	})
	fmt.Println(err)
	// Output:
	// <nil>
	// freehold: stream payment-a: expected no stream, is at version 1: read it again and decide anew
	// paid 12500
	// <nil>
}
