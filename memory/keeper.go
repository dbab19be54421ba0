package memory

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
)

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *transaction }

var _ follow.Keeper = keeper{}

// spaced returns a name as the first part of a key.
func spaced(name string) (string, error) {
	if name == "" || len(name) > maxKey || strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("memory: name %.40q: want 1 to %d bytes, none of them zero", name, maxKey)
	}
	return name + "\x00", nil
}

func (k keeper) Mark(_ context.Context, follower string, source freehold.Source) (m freehold.Mark, err error) {
	m = freehold.Mark{Source: source}
	space, err := spaced(follower)
	if err != nil {
		return m, err
	}
	err = k.tx.read(func(s *state) error {
		if at, found := s.marks.get(space + string(source)); found {
			m = at
		}
		return nil
	})
	return m, err
}

func (k keeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	at, err := k.Mark(ctx, follower, from.Source)
	if err != nil {
		return err
	}
	return k.tx.write(func(s *state) error {
		if at != from {
			return fmt.Errorf("%s at %s, not at %s: %w", follower, at, from, freehold.ErrFenced)
		}
		s.marks = s.marks.set(follower+"\x00"+string(to.Source), to)
		return nil
	})
}

func (k keeper) Marks(context.Context) (all []follow.Place, err error) {
	err = k.tx.read(func(s *state) error {
		for key, m := range s.marks.from("") {
			follower, _, _ := strings.Cut(key, "\x00")
			all = append(all, follow.Place{Follower: follower, Mark: m})
		}
		return nil
	})
	return all, err
}

func (k keeper) Get(_ context.Context, space, key string) (value []byte, found bool, err error) {
	if space, err = spaced(space); err != nil {
		return nil, false, err
	}
	err = k.tx.read(func(s *state) error {
		value, found = s.kept.get(space + key)
		return nil
	})
	return value, found, err
}

func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	space, err := spaced(space)
	if err != nil {
		return err
	}
	value = append([]byte{}, value...)
	return k.tx.write(func(s *state) error {
		s.kept = s.kept.set(space+key, value)
		return nil
	})
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	space, err := spaced(space)
	if err != nil {
		return err
	}
	return k.tx.write(func(s *state) error {
		s.kept = s.kept.delete(space + key)
		return nil
	})
}

func (k keeper) Scan(_ context.Context, space, from string) iter.Seq2[kv.Item, error] {
	space, err := spaced(space)
	if err != nil {
		return func(yield func(kv.Item, error) bool) { yield(kv.Item{}, err) }
	}
	return k.tx.scan(func(s *state) tree[[]byte] { return s.kept }, space, "", from)
}
