package journal_test

import (
	"context"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// late is a store whose durable head moves behind what the journal remembers.
type late struct {
	journal.Store
	head freehold.Mark
}

func (l *late) Source() freehold.Source { return "order" }

func (l *late) Bounds(context.Context) (first, head freehold.Mark, err error) {
	return freehold.Mark{}, l.head, nil
}

func (l *late) Read(context.Context, freehold.Position, int) ([]freehold.Recorded, error) {
	return nil, nil
}

// An engine fills the memory before it moves the head. A reader who saw an event in
// that moment and asked on behind it would be told that the histories differ.
func TestMemoryIsNotReadBeyondTheDurableHead(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	store := &late{}
	j := journal.New(store, types)
	mark := func(p freehold.Position) freehold.Mark { return freehold.Mark{Source: "order", Position: p} }
	// Transactions of two events each, three commits.
	for p := freehold.Position(1); p <= 6; p += 2 {
		j.Remember([]freehold.Recorded{{At: mark(p)}, {At: mark(p + 1), Last: true}})
	}
	for _, head := range []freehold.Position{0, 2, 4, 6} {
		store.head = mark(head)
		for after := freehold.Position(0); after <= head; after += 2 {
			for limit := 1; limit <= 7; limit++ {
				rs, err := j.Read(t.Context(), mark(after), limit)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := len(rs) > 0, after < head; got != want {
					t.Errorf("head %d: read behind %d, limit %d: %d events", head, after, limit, len(rs))
				}
				for i, r := range rs {
					if want := after + freehold.Position(i) + 1; r.At.Position != want || want > head {
						t.Errorf("head %d: read behind %d, limit %d: position %d, want %d", head, after, limit, r.At.Position, want)
					}
				}
			}
		}
	}
}
