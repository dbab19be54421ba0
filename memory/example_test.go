package memory_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

type Noted struct{ Text string }

func (Noted) EventType() freehold.Type { return freehold.T("example.noted", 1) }

// A Disk outlives the database that has it open, so that a test can restart a
// service, or restore it from a backup.
func Example() {
	ctx := context.Background()
	types, err := freehold.NewCatalog(freehold.JSON[Noted]())
	if err != nil {
		panic(err)
	}
	disk := memory.NewDisk()
	for run := range 2 {
		db, err := memory.Open(ctx, "notes", types, &memory.Options{Disk: disk}) // as if the one before had been killed
		if err != nil {
			panic(err)
		}
		_, err = db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
			v, err := tx.Append(ctx, "note-1", freehold.Any, Noted{"again"})
			fmt.Println("run", run+1, "version", v)
			return err
		})
		if err != nil {
			panic(err)
		}
	}
	// Output:
	// run 1 version 1
	// run 2 version 2
}
