package pebble

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
)

// An event is stored as a format byte, a byte of flags (1 internal, 2 last, 4 has
// meta), three varints (version, schema, microseconds), digest and chain (32 bytes
// each), and then text and bytes, each behind its length as a varint: id,
// incarnation, stream, type, meta (JSON), nonce, payload.
const recordFormat = 1

func encode(b []byte, r *freehold.Recorded) []byte {
	var flags byte
	var meta []byte
	if r.Internal {
		flags |= 1
	}
	if r.Last {
		flags |= 2
	}
	if r.Meta != (freehold.Meta{}) {
		flags |= 4
		meta, _ = json.Marshal(r.Meta) // a struct of strings
	}
	b = append(b, recordFormat, flags)
	b = binary.AppendVarint(b, int64(r.Version))
	b = binary.AppendVarint(b, int64(r.Type.Version))
	b = binary.AppendVarint(b, r.Time.UnixMicro())
	b = append(b, r.Digest[:]...)
	b = append(b, r.At.Chain[:]...)
	for _, s := range [...]string{r.ID, r.Incarnation, string(r.Stream), r.Type.Name} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	for _, s := range [...][]byte{meta, r.Nonce, r.Raw} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

var errRecord = errors.New("event is damaged: run freehold verify")

// decode reads an event at its key. It keeps nothing of value.
func (db *DB) decode(key, value []byte) (freehold.Recorded, error) {
	r := freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.epoch}}
	if len(key) != 9 || len(value) < 2 {
		return r, errRecord
	}
	r.At.Position = freehold.Position(binary.BigEndian.Uint64(key[1:]))
	if value[0] != recordFormat {
		return r, fmt.Errorf("position %d: format %d: %w", r.At.Position, value[0], errRecord)
	}
	flags := value[1]
	r.Internal, r.Last = flags&1 != 0, flags&2 != 0
	b := append([]byte(nil), value[2:]...)
	bad := false
	number := func() int64 {
		n, size := binary.Varint(b)
		if size <= 0 {
			bad = true
			return 0
		}
		b = b[size:]
		return n
	}
	r.Version, r.Type.Version, r.Time = freehold.Version(number()), int(number()), time.UnixMicro(number()).UTC()
	if bad || len(b) < 64 {
		return r, fmt.Errorf("position %d: %w", r.At.Position, errRecord)
	}
	copy(r.Digest[:], b)
	copy(r.At.Chain[:], b[32:])
	b = b[64:]
	text := func() []byte {
		n, size := binary.Uvarint(b)
		if size <= 0 || uint64(len(b)-size) < n {
			bad = true
			return nil
		}
		s := b[size : size+int(n) : size+int(n)]
		b = b[size+int(n):]
		return s
	}
	r.ID, r.Incarnation, r.Stream, r.Type.Name = string(text()), string(text()), freehold.StreamID(text()), string(text())
	meta := text()
	r.Nonce, r.Raw = text(), text()
	if bad || flags&4 != 0 && json.Unmarshal(meta, &r.Meta) != nil {
		return r, fmt.Errorf("position %d: %w", r.At.Position, errRecord)
	}
	return r, nil
}
