package memory

import (
	"slices"

	"github.com/freehold-go/freehold"
)

// Alter changes a byte of the stored payload of the event at a position.
func (d *Disk) Alter(p freehold.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.events = slices.Clone(d.now.events)
	r := &d.now.events[p-1]
	r.Raw = slices.Clone(r.Raw)
	r.Raw[len(r.Raw)/2] ^= 1
}

// Shift moves the first byte of the stored payload to the end of the nonce.
func (d *Disk) Shift(p freehold.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.events = slices.Clone(d.now.events)
	r := &d.now.events[p-1]
	r.Nonce, r.Raw = append(slices.Clone(r.Nonce), r.Raw[0]), r.Raw[1:]
}

// Tree is the immutable sorted map, for its test.
type Tree = tree[int]

func (t tree[V]) Get(key string) (V, bool)    { return t.get(key) }
func (t tree[V]) Set(key string, v V) tree[V] { return t.set(key, v) }
func (t tree[V]) Delete(key string) tree[V]   { return t.delete(key) }
func (t tree[V]) From(key string) (all []string) {
	for k := range t.from(key) {
		all = append(all, k)
	}
	return all
}
