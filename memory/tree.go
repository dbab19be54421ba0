package memory

import (
	"hash/maphash"
	"iter"
)

// tree is an immutable sorted map: every change makes a new tree that shares what
// did not change with the old one, so that keeping one is a snapshot. It is a
// treap whose priorities are hashes of the keys. The zero tree is empty.
type tree[V any] struct{ root *node[V] }

type node[V any] struct {
	key         string
	value       V
	priority    uint64
	left, right *node[V]
}

var seed = maphash.MakeSeed()

func (t tree[V]) get(key string) (value V, found bool) {
	for n := t.root; n != nil; {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	return value, false
}

func (t tree[V]) set(key string, value V) tree[V] {
	below, above := split(t.root, key)
	_, above = split(above, key+"\x00") // what was at key is left out
	n := &node[V]{key: key, value: value, priority: maphash.String(seed, key)}
	return tree[V]{join(join(below, n), above)}
}

func (t tree[V]) delete(key string) tree[V] {
	below, above := split(t.root, key)
	_, above = split(above, key+"\x00")
	return tree[V]{join(below, above)}
}

// from yields what is not below key, in order.
func (t tree[V]) from(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.walk(key, yield) }
}

func (n *node[V]) walk(from string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key < from {
		return n.right.walk(from, yield)
	}
	return n.left.walk(from, yield) && yield(n.key, n.value) && n.right.walk(from, yield)
}

// split returns what is below key and the rest.
func split[V any](n *node[V], key string) (below, rest *node[V]) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if n.key < key {
		c.right, rest = split(n.right, key)
		return &c, rest
	}
	below, c.left = split(n.left, key)
	return below, &c
}

// join puts two trees together; all keys of a are below those of b.
func join[V any](a, b *node[V]) *node[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		c := *a
		c.right = join(a.right, b)
		return &c
	default:
		c := *b
		c.left = join(a, b.left)
		return &c
	}
}
