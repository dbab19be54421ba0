package pebble_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

type Taken struct{ Pieces int64 }

func (Taken) EventType() freehold.Type { return freehold.T("example.taken", 1) }

// Stock that many take from at the same time: Add refuses to go below the bound, and
// the closure's error takes everything back.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	types, err := freehold.NewCatalog(freehold.JSON[Taken]())
	if err != nil {
		panic(err)
	}
	db, err := pebble.Open(ctx, filepath.Join(dir, "stock"), "inventory", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()
	move := func(pieces int64) (left int64, err error) {
		_, err = db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
			if left, err = tx.Add(ctx, "nail", pieces, 0); err != nil {
				return err
			}
			_, err = tx.Append(ctx, "product-nail", freehold.Any, Taken{-pieces})
			return err
		})
		return left, err
	}
	fmt.Println(move(10))
	fmt.Println(move(-7))
	_, err = move(-7)
	fmt.Println(errors.Is(err, kv.ErrBound))
	// Output:
	// 10 <nil>
	// 3 <nil>
	// true
}
