package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/kv"
)

// maxFetch bounds how many fields are asked for at once.
const maxFetch = 4096

// errGone says that a snapshot cannot be read any more.
var errGone = fmt.Errorf("redis: the snapshot is gone, because reading took too long or the store was emptied or restored: %w", freehold.ErrBehind)

// stored is what a field holds, if it is there.
type stored struct {
	text  string
	found bool
}

// base is what a transaction stands on: one commit of the store, the newest one at the
// first read.
type base struct {
	store  *Store
	ctx    context.Context
	at     snapshot // zero before the first read
	got    map[string]stored
	failed error // of a read, which the closure may have passed over
}

var _ overlay.Base = (*base)(nil)

// ask runs a script at the snapshot, which the first one fixes, and returns what
// stands behind the snapshot in the answer.
func (b *base) ask(s *rueidis.Lua, args ...string) ([]rueidis.RedisMessage, error) {
	if b.failed != nil {
		return nil, b.failed
	}
	mode, compare := "at", b.at
	if b.at == (snapshot{}) {
		mode, compare = "new", b.store.known()
	}
	asked := compare
	if compare == (snapshot{}) {
		compare.n = firstStamp
	}
	answer, _, err := b.store.client.runAgain(b.ctx, s, b.store.keys, append([]string{mode, compare.n, compare.id}, args...))
	if err == nil && len(answer) == 1 {
		err = fmt.Errorf("store %s: %w", b.store.name, errGone)
	}
	var head []string
	if err == nil {
		head, err = texts(answer, 3)
	}
	if err != nil {
		b.failed = err
		return nil, err
	}
	if mode == "new" {
		b.at = snapshot{head[1], head[2]}
		b.store.note(asked, b.at, head[0] == "ok")
	}
	return answer[3:], nil
}

// texts are the first n items of an answer.
func texts(answer []rueidis.RedisMessage, n int) ([]string, error) {
	if len(answer) < n {
		return nil, errors.New("redis: an answer that no script of ours gives")
	}
	all := make([]string, n)
	for i := range all {
		var err error
		if all[i], err = answer[i].ToString(); err != nil {
			return nil, fmt.Errorf("redis: an answer that no script of ours gives: %w", err)
		}
	}
	return all, nil
}

// fetch reads fields into got; without fields it only takes the snapshot.
func (b *base) fetch(fields ...string) error {
	for first := true; first || len(fields) > 0; first = false {
		some := fields[:min(len(fields), maxFetch)]
		fields = fields[len(some):]
		values, err := b.ask(getScript, some...)
		if err != nil {
			return err
		}
		for i, field := range some {
			text, err := values[i].ToString()
			b.got[field] = stored{text, err == nil}
		}
	}
	return nil
}

func (b *base) Value(field string) ([]byte, bool, error) {
	if _, known := b.got[field]; !known {
		if err := b.fetch(field); err != nil {
			return nil, false, err
		}
	}
	v := b.got[field]
	if !v.found {
		return nil, false, nil
	}
	return []byte(v.text), true, nil
}

// Warm reads fields in one go; see kv.Warm.
func (b *base) Warm(fields iter.Seq[string]) error {
	var unknown []string
	for field := range fields {
		if _, known := b.got[field]; !known {
			unknown = append(unknown, field)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return b.fetch(unknown...)
}

// Scan asks again while all that a page holds was deleted, or is younger than the
// snapshot.
func (b *base) Scan(lower, upper string, limit int) (items []kv.Item, more bool, err error) {
	from := "[" + lower
	for {
		answer, err := b.ask(scanScript, from, "("+upper, strconv.Itoa(limit))
		if err != nil {
			return nil, false, err
		}
		said, err := texts(answer, len(answer))
		if err != nil {
			return nil, false, err
		}
		for i := 1; i+1 < len(said); i += 2 {
			items = append(items, kv.Item{Key: said[i], Value: []byte(said[i+1])})
		}
		if said[0] == "" || len(items) > 0 {
			return items, said[0] != "", nil
		}
		from = "(" + said[0]
	}
}

func (b *base) Append(context.Context, freehold.StreamID, freehold.Expect, []freehold.Event) (freehold.Version, error) {
	return 0, ErrNoJournal
}

func (b *base) Stream(freehold.StreamID, freehold.Version) ([]freehold.Recorded, error) {
	return nil, ErrNoJournal
}

// Mark is of no journal.
func (b *base) Mark() freehold.Mark { return freehold.Mark{} }
