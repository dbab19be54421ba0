package journal_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/memory"
)

type said struct{ Text string }

func (said) EventType() freehold.Type { return freehold.T("example.said", 1) }

// A journal is read from any place on, in pages, and every page can be checked
// against the place where the reader stands.
func Example() {
	ctx := context.Background()
	types, err := freehold.NewCatalog(freehold.JSON[said]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "talk", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()
	_, err = db.Append(ctx, freehold.Write{Stream: "person-ann", Expect: freehold.NoStream, Events: []freehold.Event{said{"hello"}, said{"goodbye"}}})
	if err != nil {
		panic(err)
	}
	place := freehold.Mark{Source: "talk"}
	events, err := db.Journal().Read(ctx, place, 100)
	if err != nil {
		panic(err)
	}
	for _, r := range events {
		e, err := r.Decode()
		fmt.Println(r.At.Position, r.Stream, r.Version, e, err, journal.Follows(place, &r))
		place = r.At
	}
	_, err = db.Journal().Verify(ctx, freehold.Mark{}, nil)
	fmt.Println("altered:", err)
	// Output:
	// 1 person-ann 1 {hello} <nil> true
	// 2 person-ann 2 {goodbye} <nil> true
	// altered: <nil>
}
