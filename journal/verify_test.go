package journal_test

import (
	"errors"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// TestVerifyComparesTheEndWithTheHead: the last events, written again with digests and
// chain values that agree, are those of another history. The head is kept elsewhere.
func TestVerifyComparesTheEndWithTheHead(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	written, again := transactions(3, 2, "one"), transactions(3, 2, "two")
	mixed := append([]freehold.Recorded{}, written[:4]...)
	for _, r := range again[4:] {
		end := mixed[len(mixed)-1].At
		r.At.Chain = journal.Chain(end.Chain, r.At.Position, r.Digest)
		mixed = append(mixed, r)
	}
	damaged := written[5].At
	damaged.Chain[7] ^= 1
	for name, c := range map[string]struct {
		events  []freehold.Recorded
		head    freehold.Mark
		after   freehold.Mark
		reached freehold.Position
		altered bool
	}{
		"as written":                            {events: written, head: written[5].At, reached: 6},
		"the head moves meanwhile":              {events: written, head: written[3].At, reached: 6},
		"the last events were written again":    {events: mixed, head: written[5].At, reached: 5, altered: true},
		"and the head moves meanwhile":          {events: again, head: written[3].At, reached: 3, altered: true},
		"the head was damaged":                  {events: written, head: damaged, reached: 5, altered: true},
		"from the middle":                       {events: mixed, head: written[5].At, after: written[1].At, reached: 5, altered: true},
		"nothing behind the mark, which is it":  {events: written, head: written[5].At, after: written[5].At, reached: 6},
		"nothing behind the mark, another one":  {events: written, head: written[5].At, after: mixed[5].At, reached: 6, altered: true},
		"an empty journal":                      {head: freehold.Mark{Source: "order"}},
		"an empty journal whose head says more": {head: written[5].At, altered: true},
	} {
		store := &shared{events: c.events}
		store.head = c.head
		at, err := journal.New(store, types).Verify(t.Context(), c.after, nil)
		if errors.Is(err, journal.ErrAltered) != c.altered || (err != nil) != c.altered || at.Position != c.reached {
			t.Errorf("%s: up to %d, %v, want %d, altered %v", name, at.Position, err, c.reached, c.altered)
		}
	}
}
