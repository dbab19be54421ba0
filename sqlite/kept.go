package sqlite

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/freehold-go/freehold/kv"
)

// kept is what the writer knows of freehold_keep, of which it is the only writer:
// values that this group has put and that are stored once, together, before the
// commit, and values of recent groups, so that what changes with every event of an
// instance is neither read nor written each time. One goroutine at a time uses it.
type kept struct {
	pending map[keptKey]keptValue
	undo    []keptUndo
	young   map[keptKey]keptValue // committed; two generations bound the memory
	old     map[keptKey]keptValue
}

type keptKey struct{ space, key string }

type keptValue struct {
	value []byte
	found bool
	fresh bool // of what is pending: the database surely holds nothing at the key
}

type keptUndo struct {
	key     keptKey
	was     keptValue
	pending bool
}

// keptMemory is the size of a generation.
const keptMemory = 1 << 14

// maxKept is the largest value that is remembered behind its commit.
const maxKept = 4 << 10

func newKept() kept {
	return kept{pending: map[keptKey]keptValue{}, young: map[keptKey]keptValue{}}
}

// get returns what is known of a key.
func (k *kept) get(key keptKey) (v keptValue, known bool) {
	if v, known = k.pending[key]; known {
		return v, true
	}
	return k.committed(key)
}

func (k *kept) committed(key keptKey) (v keptValue, known bool) {
	if v, known = k.young[key]; !known {
		v, known = k.old[key]
	}
	return v, known
}

// put makes a value pending, or the absence of one.
func (k *kept) put(key keptKey, value []byte, found bool) {
	was, pending := k.pending[key]
	k.undo = append(k.undo, keptUndo{key, was, pending})
	fresh := was.fresh
	if !pending {
		v, known := k.committed(key)
		fresh = known && !v.found
	}
	k.pending[key] = keptValue{bytes.Clone(value), found, fresh}
}

// learn remembers what the database holds.
func (k *kept) learn(key keptKey, v keptValue) {
	if len(v.value) > maxKept {
		delete(k.young, key)
		delete(k.old, key)
		return
	}
	if len(k.young) >= keptMemory {
		k.young, k.old = make(map[keptKey]keptValue, keptMemory), k.young
	}
	k.young[key] = keptValue{value: v.value, found: v.found}
}

// save is a point for rollback.
func (k *kept) save() int { return len(k.undo) }

// rollback takes back what has been put since the save.
func (k *kept) rollback(save int) {
	for _, u := range slices.Backward(k.undo[save:]) {
		if u.pending {
			k.pending[u.key] = u.was
		} else {
			delete(k.pending, u.key)
		}
	}
	clear(k.undo[save:])
	k.undo = k.undo[:save]
}

// done remembers what was pending: it is committed.
func (k *kept) done() {
	for key, v := range k.pending {
		k.learn(key, v)
	}
	clear(k.pending)
	clear(k.undo)
	k.undo = k.undo[:0]
}

// changed returns the pending keys in the order of the table.
func (k *kept) changed() []keptKey {
	return slices.SortedFunc(maps.Keys(k.pending), func(a, b keptKey) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.key, b.key))
	})
}

// of returns what is pending in a space from a key on, in order; found says whether
// there is a value or none any more.
func (k *kept) of(space, from string) (items []kv.Item, found []bool) {
	for _, key := range k.changed() {
		if key.space == space && key.key >= from {
			v := k.pending[key]
			items = append(items, kv.Item{Key: key.key, Value: bytes.Clone(v.value)})
			found = append(found, v.found)
		}
	}
	return items, found
}

// over yields stored items with what is pending over them, both in order.
func over(pending []kv.Item, found []bool, stored iter.Seq2[kv.Item, error]) iter.Seq2[kv.Item, error] {
	return func(yield func(kv.Item, error) bool) {
		i := 0
		for item, err := range stored {
			for ; err == nil && i < len(pending) && pending[i].Key < item.Key; i++ {
				if found[i] && !yield(pending[i], nil) {
					return
				}
			}
			switch {
			case err == nil && i < len(pending) && pending[i].Key == item.Key:
				if found[i] && !yield(pending[i], nil) {
					return
				}
				i++
			case !yield(item, err) || err != nil:
				return
			}
		}
		for ; i < len(pending); i++ {
			if found[i] && !yield(pending[i], nil) {
				return
			}
		}
	}
}

const (
	putKept    = `INSERT INTO freehold_keep (space, key, value) VALUES (?, ?, ?) ON CONFLICT (space, key) DO UPDATE SET value = excluded.value`
	deleteKept = `DELETE FROM freehold_keep WHERE space = ? AND key = ?`
)

// storeKept writes what is pending, in order.
func (db *DB) storeKept() error {
	if len(db.kept.pending) == 0 {
		return nil
	}
	return db.writer.do(func(d *direct) error {
		for _, key := range db.kept.changed() {
			v := db.kept.pending[key]
			var err error
			switch {
			case v.found && v.value == nil:
				err = d.exec(putKept, key.space, key.key, []byte{})
			case v.found:
				err = d.exec(putKept, key.space, key.key, v.value)
			case !v.fresh:
				err = d.exec(deleteKept, key.space, key.key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
