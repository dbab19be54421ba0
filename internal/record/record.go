// Package record is how key-value engines store an event and a mark as bytes. The
// layout is in the documentation of package pebble and never changes.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
)

// Format is the first byte of every stored event; another layout gets another byte.
const Format = 1

const (
	flagInternal = 1 << iota
	flagLast
	flagMeta
)

// ErrDamaged is returned for bytes that are no record.
var ErrDamaged = errors.New("record is damaged: restore the database from a backup")

// Append appends the stored form of an event.
func Append(b []byte, r *freehold.Recorded) []byte {
	var flags byte
	if r.Internal {
		flags |= flagInternal
	}
	if r.Last {
		flags |= flagLast
	}
	if r.Meta != (freehold.Meta{}) {
		flags |= flagMeta
	}
	b = append(b, Format, flags)
	b = binary.AppendUvarint(b, uint64(r.Version))
	b = binary.AppendUvarint(b, uint64(r.Type.Version))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMicro()))
	b = append(b, r.Digest[:]...)
	b = append(b, r.At.Chain[:]...)
	b = appendText(b, r.ID)
	b = appendText(b, r.Incarnation)
	b = appendText(b, string(r.Stream))
	b = appendText(b, r.Type.Name)
	if flags&flagMeta != 0 {
		b = appendText(b, r.Meta.Correlation)
		b = appendText(b, r.Meta.Causation)
		b = appendText(b, r.Meta.Tenant)
		b = appendText(b, r.Meta.Actor)
		b = appendText(b, r.Meta.TraceParent)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Nonce)))
	b = append(b, r.Nonce...)
	return append(b, r.Raw...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode reads the stored form of an event into r, whose At.Source, At.Epoch and
// At.Position are set. It keeps nothing of value.
func Decode(value []byte, r *freehold.Recorded) error {
	if len(value) < 2 {
		return fmt.Errorf("position %d: %w", r.At.Position, ErrDamaged)
	}
	if value[0] != Format {
		return fmt.Errorf("position %d has format %d, this program knows %d: update the program", r.At.Position, value[0], Format)
	}
	flags := value[1]
	r.Internal, r.Last = flags&flagInternal != 0, flags&flagLast != 0
	rest := value[2:]
	version, n := binary.Uvarint(rest)
	if n <= 0 {
		return fmt.Errorf("position %d: %w", r.At.Position, ErrDamaged)
	}
	schema, m := binary.Uvarint(rest[n:])
	if m <= 0 || len(rest) < n+m+8+64 {
		return fmt.Errorf("position %d: %w", r.At.Position, ErrDamaged)
	}
	rest = rest[n+m:]
	r.Version, r.Type.Version = freehold.Version(version), int(schema)
	r.Time = time.UnixMicro(int64(binary.BigEndian.Uint64(rest))).UTC()
	copy(r.Digest[:], rest[8:])
	copy(r.At.Chain[:], rest[40:])
	rest = rest[72:]

	// Texts first find their places, then share one string.
	texts := [9]*string{&r.ID, &r.Incarnation, (*string)(&r.Stream), &r.Type.Name,
		&r.Meta.Correlation, &r.Meta.Causation, &r.Meta.Tenant, &r.Meta.Actor, &r.Meta.TraceParent}
	count := 4
	if flags&flagMeta != 0 {
		count = 9
	}
	var ends [9][2]int
	at := 0
	for i := range count {
		size, n := binary.Uvarint(rest[at:])
		if n <= 0 || size > uint64(len(rest)-at-n) {
			return fmt.Errorf("position %d: %w", r.At.Position, ErrDamaged)
		}
		ends[i] = [2]int{at + n, at + n + int(size)}
		at = ends[i][1]
	}
	all := string(rest[:at])
	for i := range count {
		*texts[i] = all[ends[i][0]:ends[i][1]]
	}
	rest = rest[at:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return fmt.Errorf("position %d: %w", r.At.Position, ErrDamaged)
	}
	bytes := append(make([]byte, 0, len(rest)-n), rest[n:]...)
	r.Nonce, r.Raw = bytes[:size:size], bytes[size:]
	return nil
}

// markFormat is the first byte of every stored mark.
const markFormat = 1

// AppendMark appends the stored form of a mark, which is found under its source.
func AppendMark(b []byte, m freehold.Mark) []byte {
	b = binary.BigEndian.AppendUint64(append(b, markFormat), uint64(m.Position))
	return append(append(b, m.Chain[:]...), m.Epoch...)
}

// DecodeMark reads a stored mark into m, whose Source is set.
func DecodeMark(value []byte, m *freehold.Mark) error {
	if len(value) < 41 || value[0] != markFormat {
		return fmt.Errorf("mark in %s: %w", m.Source, ErrDamaged)
	}
	m.Position = freehold.Position(binary.BigEndian.Uint64(value[1:]))
	copy(m.Chain[:], value[9:])
	m.Epoch = freehold.Epoch(value[41:])
	return nil
}
