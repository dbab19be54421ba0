package pebble

import (
	"encoding/binary"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
)

// Kinds of keys; see the package documentation.
const (
	kindJournal     = 'j'
	kindIncarnation = 'i'
	kindEvent       = 'e'
	kindStream      = 's'
	kindMark        = 'm'
	kindKeep        = 'k'
	kindData        = 'd'
)

func appendNumbered(b []byte, kind byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), uint64(n))
}

func numbered(kind byte, n int64) []byte { return appendNumbered(make([]byte, 0, 9), kind, n) }

// appendStream appends the key of an event's entry under its stream.
func appendStream(b []byte, s freehold.StreamID, v freehold.Version) []byte {
	b = append(append(b, kindStream), s...)
	return binary.BigEndian.AppendUint64(append(b, 0), uint64(v))
}

// streamOf takes the key of a stream's entry apart.
func streamOf(key []byte) (s freehold.StreamID, v freehold.Version, ok bool) {
	if len(key) < 11 || key[0] != kindStream || key[len(key)-9] != 0 {
		return "", 0, false
	}
	return freehold.StreamID(key[1 : len(key)-9]), freehold.Version(binary.BigEndian.Uint64(key[len(key)-8:])), true
}

// behind is the first key that does not start with prefix; it overwrites prefix.
// nil means that there is none.
func behind(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i]++; prefix[i] != 0 {
			return prefix[:i+1]
		}
	}
	return nil
}

// decodeEvent reads the stored event at a key into r, whose At.Source and At.Epoch
// are set.
func decodeEvent(key, value []byte, r *freehold.Recorded) error {
	if len(key) != 9 || key[0] != kindEvent {
		return fmt.Errorf("key %x: %w", key, record.ErrDamaged)
	}
	r.At.Position = freehold.Position(binary.BigEndian.Uint64(key[1:]))
	return record.Decode(value, r)
}
