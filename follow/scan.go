package follow

import (
	"iter"

	"github.com/freehold-go/freehold/kv"
)

// InPages yields the items from a key on that page reads: up to limit ones that are not
// below from, by key. Nothing stays open while the caller works. Engines call it.
func InPages(from string, page func(from string, limit int) ([]kv.Item, error)) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		const limit = 256
		from := from
		for first := true; ; first = false {
			items, err := page(from, limit)
			if err != nil {
				yield(kv.Item{}, err)
				return
			}
			for _, item := range items {
				if (first || item.Key != from) && !yield(item, nil) { // the last one of a page is the first of the next
					return
				}
			}
			if len(items) < limit {
				return
			}
			from = items[limit-1].Key
		}
	}
}
