package overlay

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/record"
	"github.com/freehold-go/freehold/kv"
)

// Keeper returns what followers keep, as part of tx.
func Keeper(tx *Tx) follow.Keeper { return keeper{tx} }

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *Tx }

var _ follow.Keeper = keeper{}

// spaced returns a name as the first part of a key.
func spaced(name string) (string, error) {
	if name == "" || len(name) > maxKey || strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("name %.40q: want 1 to %d bytes, none of them zero", name, maxKey)
	}
	return name + "\x00", nil
}

func (k keeper) Mark(_ context.Context, follower string, s freehold.Source) (freehold.Mark, error) {
	m := freehold.Mark{Source: s}
	space, err := spaced(follower)
	if err != nil {
		return m, err
	}
	raw, found, err := k.tx.get(Mark + space + string(s))
	if err == nil && found {
		err = record.DecodeMark(raw, &m)
	}
	return m, err
}

func (k keeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	at, err := k.Mark(ctx, follower, from.Source)
	if err != nil {
		return err
	}
	if at != from && (at.Position != 0 || from.Position != 0) {
		return fmt.Errorf("%s at %s: %w", follower, at, freehold.ErrFenced)
	}
	return k.tx.put(Mark+follower+"\x00"+string(to.Source), record.AppendMark(nil, to))
}

func (k keeper) Marks(context.Context) ([]follow.Place, error) {
	var all []follow.Place
	for item, err := range k.tx.scan(Mark, "", "") {
		if err != nil {
			return nil, err
		}
		follower, source, _ := strings.Cut(item.Key, "\x00")
		p := follow.Place{Follower: follower, Mark: freehold.Mark{Source: freehold.Source(source)}}
		if err := record.DecodeMark(item.Value, &p.Mark); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func (k keeper) Get(_ context.Context, space, key string) ([]byte, bool, error) {
	space, err := spaced(space)
	if err != nil {
		return nil, false, err
	}
	return k.tx.get(Keep + space + key)
}

// Warm reads what is kept under keys in one go where the base can; see follow.Warm.
func (k keeper) Warm(_ context.Context, h follow.Hints) error {
	return k.tx.warm(func(yield func(string) bool) {
		for space, keys := range h.Kept {
			for _, key := range keys {
				if !yield(Keep + space + "\x00" + key) {
					return
				}
			}
		}
	})
}

func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	space, err := spaced(space)
	if err != nil {
		return err
	}
	return k.tx.put(Keep+space+key, value)
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	space, err := spaced(space)
	if err != nil {
		return err
	}
	return k.tx.delete(Keep + space + key)
}

func (k keeper) Scan(_ context.Context, space, from string) iter.Seq2[kv.Item, error] {
	space, err := spaced(space)
	if err != nil {
		return func(yield func(kv.Item, error) bool) { yield(kv.Item{}, err) }
	}
	return k.tx.scan(Keep+space, "", from)
}

// DropMark forgets the place of a follower that is gone for good.
func DropMark(tx *Tx, follower string, s freehold.Source) error {
	space, err := spaced(follower)
	if err != nil {
		return err
	}
	return tx.delete(Mark + space + string(s))
}
