package etcd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
)

// Kinds of keys; see the package documentation.
const (
	kindJournal     = "j"
	kindHead        = "h"
	kindIncarnation = "i"
	kindWriter      = "w"
	kindEvents      = "e"
	kindStream      = "s"
)

// numbered is the key of a kind and a number.
func numbered(kind string, n int64) string {
	return string(binary.BigEndian.AppendUint64([]byte(kind), uint64(n)))
}

// streamKey is the key of a stream's entry that ends with a version.
func streamKey(s freehold.StreamID, v freehold.Version) string {
	return string(binary.BigEndian.AppendUint64([]byte(kindStream+string(s)+"\x00"), uint64(v)))
}

// streamOf takes the key of a stream's entry apart.
func streamOf(key string) (s freehold.StreamID, v freehold.Version, ok bool) {
	n := len(key)
	if n < 11 || key[:1] != kindStream || key[n-9] != 0 {
		return "", 0, false
	}
	return freehold.StreamID(key[1 : n-9]), freehold.Version(number(key[n-8:])), true
}

func number(b string) int64 { return int64(binary.BigEndian.Uint64([]byte(b))) }

// appendEvents appends events as they are stored under one key.
func appendEvents(b []byte, events []freehold.Recorded) []byte {
	var one []byte
	for i := range events {
		one = record.Append(one[:0], &events[i])
		b = binary.AppendUvarint(b, uint64(len(one)))
		b = append(b, one...)
	}
	return b
}

// decodeEvents appends the events under a key, which is that of the last one, to rs.
func (db *DB) decodeEvents(rs []freehold.Recorded, last freehold.Position, value []byte) ([]freehold.Recorded, error) {
	begin := len(rs)
	for len(value) > 0 {
		size, n := binary.Uvarint(value)
		if n <= 0 || size > uint64(len(value)-n) {
			return nil, fmt.Errorf("events up to position %d: %w", last, record.ErrDamaged)
		}
		rs = append(rs, freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.epoch}})
		if err := record.Decode(value[n:n+int(size)], &rs[len(rs)-1]); err != nil {
			return nil, fmt.Errorf("events up to position %d: %w", last, err)
		}
		value = value[n+int(size):]
	}
	for i := range rs[begin:] {
		rs[begin+i].At.Position = last - freehold.Position(len(rs)-begin-1-i)
	}
	return rs, nil
}

// meta is what the journal's own key says.
type meta struct {
	Format int             `json:"format"`
	Source freehold.Source `json:"source"`
	Epoch  freehold.Epoch  `json:"epoch"`
}

// suits says why this program cannot work on a journal, or nil.
func (m meta) suits(name freehold.Source) error {
	switch {
	case m.Format > format:
		return tooNew(m.Format)
	case m.Source != name:
		return fmt.Errorf("the prefix holds the journal of %q, not of %q: give another one", m.Source, name)
	}
	return nil
}

// A journal begins with the plain format, which programs from before forks and cuts
// write too, so that an update can be taken back. Such a program would leave out of the
// head what it does not know, and so undo a fork or a cut. The first of these raises the
// format in the same commit: the journal's key says so to whoever opens it, and the head
// begins with its format then, which a program that runs already cannot read.
const (
	plain  = 1
	format = 2 // the newest that this program knows
)

func tooNew(f int) error {
	return fmt.Errorf("the journal has format %d, this program knows %d: update the program", f, format)
}

// formatOf is the format in which a head is to be written: the one that it was read in,
// or a later one if it says what that one cannot.
func (db *DB) formatOf(h head) int {
	if h.first.Position > 0 || h.mark.Epoch != db.epoch {
		return format
	}
	return max(h.format, plain)
}

// head is the end of the journal at a revision of the cluster.
type head struct {
	format      int
	first       freehold.Mark // the place before the first event that is still there
	mark        freehold.Mark
	incarnation string
	modified    int64 // revision of the head's key
	at          int64 // a revision at which it is the head, to read at
}

type headValue struct {
	Position    freehold.Position `json:"position"`
	Chain       freehold.Hash     `json:"chain"`
	Incarnation string            `json:"incarnation"`
	Epoch       freehold.Epoch    `json:"epoch,omitempty"` // empty: the journal's first
	First       *placeValue       `json:"first,omitempty"` // of a journal that was cut
}

type placeValue struct {
	Position freehold.Position `json:"position"`
	Chain    freehold.Hash     `json:"chain"`
}

func encodeHead(h head) string {
	v := headValue{Position: h.mark.Position, Chain: h.mark.Chain, Incarnation: h.incarnation, Epoch: h.mark.Epoch}
	if h.first.Position > 0 {
		v.First = &placeValue{h.first.Position, h.first.Chain}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers
	}
	if h.format > plain {
		return strconv.Itoa(h.format) + string(raw)
	}
	return string(raw)
}

func (db *DB) decodeHead(raw []byte) (h head, err error) {
	h.format = plain
	if i := bytes.IndexByte(raw, '{'); i > 0 {
		if n, err := strconv.Atoi(string(raw[:i])); err == nil {
			h.format, raw = n, raw[i:]
		}
	}
	if h.format > format {
		return h, tooNew(h.format)
	}
	var v headValue
	if err := json.Unmarshal(raw, &v); err != nil {
		return h, fmt.Errorf("etcd: %s: head: %w", db.name, record.ErrDamaged)
	}
	if v.Epoch == "" {
		v.Epoch = db.epoch
	}
	h.mark = freehold.Mark{Source: db.name, Epoch: v.Epoch, Position: v.Position, Chain: v.Chain}
	h.first = freehold.Mark{Source: db.name, Epoch: v.Epoch}
	if v.First != nil {
		h.first.Position, h.first.Chain = v.First.Position, v.First.Chain
	}
	h.incarnation = v.Incarnation
	return h, nil
}
