package follow

import (
	"context"
	"sync"

	"github.com/freehold-go/freehold"
)

// A follower remembers which openings of a source's journal it has applied events
// of, in the transaction that applies the first one. When the source's history
// turns out to be another one, the first opening behind the last remembered one
// tells where the histories part.

func incarnationSpace(follower string, s freehold.Source) string {
	return "incarnation/" + follower + "/" + string(s)
}

// incarnations is the openings a follower knows, by source. Each source's loop is
// the only one that uses its part.
type incarnations struct {
	mu    sync.Mutex
	known map[freehold.Source]map[string]bool
}

func (in *incarnations) load(ctx context.Context, k Keeper, follower string, s freehold.Source) error {
	known := map[string]bool{}
	for item, err := range k.Scan(ctx, incarnationSpace(follower, s), "") {
		if err != nil {
			return err
		}
		known[item.Key] = true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.known == nil {
		in.known = map[freehold.Source]map[string]bool{}
	}
	in.known[s] = known
	return nil
}

// unknown lists the openings among the events that are new to the follower.
func (in *incarnations) unknown(s freehold.Source, events []freehold.Recorded) []string {
	var ids []string
	last := ""
	for i := range events {
		if id := events[i].Incarnation; id != last {
			last = id
			in.mu.Lock()
			if !in.known[s][id] {
				ids = append(ids, id)
			}
			in.mu.Unlock()
		}
	}
	return ids
}

func (in *incarnations) add(s freehold.Source, ids []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, id := range ids {
		in.known[s][id] = true
	}
}
