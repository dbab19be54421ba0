package journaltest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/freehold-go/freehold"
)

func (s suite[T]) stepGet(key string) step[T] {
	return step[T]{"get " + key, func(ctx context.Context, _ DB[T], tx T, m *model) (string, error) {
		got, err := s.Get(ctx, tx, key)
		return differ(got, m.state[key], err), nil
	}}
}

func (s suite[T]) stepPut(key, value string) step[T] {
	return step[T]{"put " + key + "=" + value, func(ctx context.Context, _ DB[T], tx T, m *model) (string, error) {
		m.state[key] = value
		return differ("", "", s.Put(ctx, tx, key, value)), nil
	}}
}

func (s suite[T]) stepEvents(stream freehold.StreamID, after freehold.Version) step[T] {
	return step[T]{fmt.Sprintf("events of %s behind %d", stream, after), func(ctx context.Context, _ DB[T], tx T, m *model) (string, error) {
		var got []freehold.Event
		for r, err := range tx.Events(ctx, stream, after) {
			if err != nil {
				return err.Error(), nil
			}
			e, err := r.Decode()
			if err != nil || r.Stream != stream || r.Version != after+freehold.Version(len(got))+1 {
				return fmt.Sprintf("%s version %d, %v", r.Stream, r.Version, err), nil
			}
			got = append(got, e)
		}
		if want := m.stream(stream, after); !slices.Equal(got, want) {
			return fmt.Sprintf("got %v, want %v", got, want), nil
		}
		return "", nil
	}}
}

// stepAppend appends. A conflict ends the closure unless it goes on.
func (s suite[T]) stepAppend(stream freehold.StreamID, expect freehold.Expect, events []freehold.Event, goesOn bool) step[T] {
	return step[T]{fmt.Sprintf("append %d to %s, %v", len(events), stream, expect), func(ctx context.Context, _ DB[T], tx T, m *model) (string, error) {
		want := m.append(stream, expect, events)
		v, err := tx.Append(ctx, stream, expect, events...)
		if want == nil {
			return differ(v, m.version(stream), err), nil
		}
		var got *freehold.Conflict
		if !errors.As(err, &got) || *got != *want {
			return fmt.Sprintf("got %v, want %v", err, want), nil
		}
		if goesOn {
			err = nil
		}
		return "", err
	}}
}

// stepCondition states a condition; in a View even that is refused.
func (s suite[T]) stepCondition(view bool, stream freehold.StreamID, expect freehold.Expect) step[T] {
	if !view {
		return s.stepAppend(stream, expect, nil, true)
	}
	return step[T]{"condition", func(ctx context.Context, _ DB[T], tx T, _ *model) (string, error) {
		if _, err := tx.Append(ctx, stream, expect, happened(1)); !errors.Is(err, freehold.ErrReadOnlyTx) {
			return fmt.Sprintf("append in a View: %v", err), nil
		}
		return "", nil
	}}
}

func (s suite[T]) stepKeeperGet(space, key string) step[T] {
	return step[T]{"keeper get " + space + " " + key, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		got, found, err := db.Keeper(tx).Get(ctx, space, key)
		want, there := m.kept[[2]string{space, key}]
		if found != there {
			return fmt.Sprintf("found is %v, want %v", found, there), nil
		}
		return differ(string(got), want, err), nil
	}}
}

func (s suite[T]) stepKeeperPut(space, key, value string) step[T] {
	return step[T]{"keeper put " + space + " " + key, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		m.kept[[2]string{space, key}] = value
		return differ("", "", db.Keeper(tx).Put(ctx, space, key, []byte(value))), nil
	}}
}

func (s suite[T]) stepKeeperDelete(space, key string) step[T] {
	return step[T]{"keeper delete " + space + " " + key, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		delete(m.kept, [2]string{space, key})
		return differ("", "", db.Keeper(tx).Delete(ctx, space, key)), nil
	}}
}

func (s suite[T]) stepKeeperScan(space, from string) step[T] {
	return step[T]{"keeper scan " + space + " from " + from, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		var got []string
		for item, err := range db.Keeper(tx).Scan(ctx, space, from) {
			if err != nil {
				return err.Error(), nil
			}
			if want := m.kept[[2]string{space, item.Key}]; string(item.Value) != want {
				return fmt.Sprintf("%s is %q, want %q", item.Key, item.Value, want), nil
			}
			got = append(got, item.Key)
		}
		if want := m.scan(space, from); !slices.Equal(got, want) {
			return fmt.Sprintf("got %q, want %q", got, want), nil
		}
		return "", nil
	}}
}

func (m *model) mark(follower string) freehold.Mark {
	if at, there := m.marks[follower]; there {
		return at
	}
	return freehold.Mark{Source: "there"}
}

func (s suite[T]) stepMark(follower string) step[T] {
	return step[T]{"mark of " + follower, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		got, err := db.Keeper(tx).Mark(ctx, follower, "there")
		return differ(got, m.mark(follower), err), nil
	}}
}

// stepMove moves a mark one on, from where it is or from a guess.
func (s suite[T]) stepMove(follower string, from int, guess bool) step[T] {
	return step[T]{"move " + follower, func(ctx context.Context, db DB[T], tx T, m *model) (string, error) {
		at := m.mark(follower)
		if guess {
			at = there(from)
		}
		to := there(int(at.Position) + 1)
		err := db.Keeper(tx).Move(ctx, follower, at, to)
		if at != m.mark(follower) {
			if !errors.Is(err, freehold.ErrFenced) {
				return fmt.Sprintf("from %v, the mark is %v: %v, want ErrFenced", at, m.mark(follower), err), nil
			}
			return "", nil
		}
		m.marks[follower] = to
		return differ("", "", err), nil
	}}
}

// differ says how an answer differs from the expected one.
func differ[V comparable](got, want V, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case got != want:
		return fmt.Sprintf("got %v, want %v", got, want)
	}
	return ""
}
