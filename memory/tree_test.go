package memory_test

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/memory"
)

func TestTreeIsAnImmutableSortedMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SampledFrom([]string{"", "a", "a\x00", "a\x00\x00", "aa", "b", "c", "\xff", "\xff\xff"})
		type version struct {
			tree memory.Tree
			want map[string]int
		}
		versions := []version{{want: map[string]int{}}}
		for n := range rapid.IntRange(0, 40).Draw(t, "changes") {
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "version")]
			next := version{want: maps.Clone(from.want)}
			if key := keys.Draw(t, "key"); rapid.Bool().Draw(t, "set") {
				next.tree, next.want[key] = from.tree.Set(key, n), n
			} else {
				next.tree = from.tree.Delete(key)
				delete(next.want, key)
			}
			versions = append(versions, next)
		}
		for _, v := range versions { // the old ones too
			sorted := slices.Sorted(maps.Keys(v.want))
			from := keys.Draw(t, "from")
			first, _ := slices.BinarySearch(sorted, from)
			if got := v.tree.From(from); !slices.Equal(got, sorted[first:]) {
				t.Errorf("from %q: %q, want %q", from, got, sorted[first:])
			}
			for _, key := range []string{"", "a", "a\x00", "b", "\xff", "nothing"} {
				got, found := v.tree.Get(key)
				if want, there := v.want[key]; got != want || found != there {
					t.Errorf("%q is %d, %v, want %d, %v", key, got, found, want, there)
				}
			}
		}
	})
}
