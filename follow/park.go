package follow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
)

// Parked is an event set aside, or one that waits behind it.
type Parked struct {
	Follower string            `json:"follower"`
	Source   freehold.Source   `json:"source"`
	Key      string            `json:"key"`
	Error    string            `json:"error"`    // of the last attempt
	Attempts int               `json:"attempts"` // 0 for an event that waits behind a parked one
	Since    time.Time         `json:"since"`
	Event    freehold.Recorded `json:"event"` // as stored
	// End is the position of the last event of its transaction, which is what the token of
	// a command names. 0 is the event's own position.
	End freehold.Position `json:"end,omitempty"`
	// Own is the event's own key, if it waits in the queue of another one, Key.
	Own *string `json:"own,omitempty"`
}

var (
	// ErrNotParked is returned for a key that has no parked events.
	ErrNotParked = errors.New("follow: nothing is parked under this key")
	// ErrParked is returned by [Follower.WaitFor] when the event that the token
	// names, or one before it in its transaction, is parked: its effect is not there,
	// and waiting will not help.
	ErrParked = errors.New("follow: the event is parked: see freehold parked")
	// ErrNotRunning is returned for a request to a follower that is not running in this
	// process, or keeps no marks in a database.
	ErrNotRunning = errors.New("follow: the follower is not running here")

	errNoDatabase = fmt.Errorf("%w with a database to park in", ErrNotRunning)
)

func parkedSpace(follower string, s freehold.Source) string {
	return "parked/" + follower + "/" + string(s)
}

// releasedSpace keeps the events that an operator gave up.
func releasedSpace(follower string, s freehold.Source) string {
	return "released/" + follower + "/" + string(s)
}

// parkedKey orders a space by key and then by position.
func parkedKey(key string, p freehold.Position) string {
	return fmt.Sprintf("%s\x1f%020d", key, p)
}

// queueOf is the key of what parkedKey gave. A key may be empty, and hold any character.
func queueOf(parked string) string { return parked[:max(0, len(parked)-len("\x1f")-20)] }

// maxParkedKey is how much of a key every engine can keep beside a position.
const maxParkedKey = 512

// storable gives a key that some engine cannot keep another name: one with bytes that
// are no text, or that is too long. It changes no name that it has given.
func storable(key string) string {
	if len(key) <= maxParkedKey && utf8.ValidString(key) && strings.IndexByte(key, 0) < 0 {
		return key
	}
	digest := sha256.Sum256([]byte(key))
	begin := strings.ReplaceAll(strings.ToValidUTF8(key[:min(len(key), 128)], "?"), "\x00", "?")
	return begin + "#" + hex.EncodeToString(digest[:])
}

// putParked stores an event in the queue of a key, which may be another one than its own.
func (s *databaseSink[T]) putParked(ctx context.Context, k Keeper, key, own string, r freehold.Recorded, reason string, attempts int) error {
	const longest = 4096
	if len(reason) > longest {
		reason = strings.ToValidUTF8(reason[:longest], "")
	}
	p := Parked{Follower: s.follower, Source: r.At.Source, Key: key, Error: reason, Attempts: attempts, Since: time.Now().UTC(), Event: r}
	if end := s.hand.end(r.At); end != r.At.Position {
		p.End = end
	}
	if own != key {
		p.Own = &own
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return k.Put(ctx, parkedSpace(s.follower, r.At.Source), parkedKey(key, r.At.Position), raw)
}

// readParked returns up to limit parked events of a key, in the order of release, or of
// all keys if it is nil.
func readParked(ctx context.Context, k Keeper, types *freehold.Catalog, follower string, s freehold.Source, key *string, limit int) ([]Parked, error) {
	from := ""
	if key != nil {
		from = *key + "\x1f"
	}
	var all []Parked
	for item, err := range k.Scan(ctx, parkedSpace(follower, s), from) {
		if err != nil {
			return nil, err
		}
		if key != nil && !strings.HasPrefix(item.Key, from) || len(all) == limit {
			break
		}
		if key != nil && queueOf(item.Key) != *key {
			continue // the key and this character are how another key begins
		}
		var p Parked
		if err := json.Unmarshal(item.Value, &p); err != nil {
			return nil, fmt.Errorf("parked event %q of %s: %w", item.Key, follower, err)
		}
		one := []freehold.Recorded{p.Event}
		if types != nil {
			types.Bind(one)
		}
		p.Event = one[0]
		all = append(all, p)
	}
	return all, nil
}

// park sets an event aside and moves the mark past it, in one transaction. The
// failed attempt has been rolled back before.
func (s *databaseSink[T]) park(ctx context.Context, from freehold.Mark, r freehold.Recorded, cause error, attempts int) error {
	key := storable(s.keyOf(r))
	_, err := s.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx T) error {
		k := s.db.Keeper(tx)
		if err := k.Move(ctx, s.follower, from, r.At); err != nil {
			return err
		}
		return s.putParked(ctx, k, key, key, r, cause.Error(), attempts)
	})
	if err != nil {
		return fmt.Errorf("park %s: %w", r.At, err)
	}
	s.parked.add(r.At.Source, key)
	s.opts.Log.Error("event parked", "follower", s.follower, "event", r.At.String(), "type", r.Type.String(), "key", key, "error", cause)
	return nil
}

// release applies a key's parked events in order, each in a transaction of its
// own, until none is left: the key is free in the transaction that finds its
// queue empty. It runs in the source's loop, so no event of the key can arrive in
// between. With giveUp the first event is put on record as released and not
// applied.
func (s *databaseSink[T]) release(ctx context.Context, source Source, key string, giveUp bool) error {
	name := source.Name()
	if !s.parked.has(name, key) {
		return fmt.Errorf("%w: follower %s, source %s, key %s", ErrNotParked, s.follower, name, key)
	}
	for {
		left := 0
		var failed error // the handler's own
		_, err := s.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx T) error {
			k := s.db.Keeper(tx)
			queue, err := readParked(ctx, k, source.Types(), s.follower, name, &key, 2)
			if left = len(queue); err != nil || left == 0 {
				return err
			}
			first := queue[0]
			at := parkedKey(key, first.Event.At.Position)
			if giveUp {
				raw, err := json.Marshal(first)
				if err != nil {
					return err
				}
				if err := k.Put(ctx, releasedSpace(s.follower, name), at, raw); err != nil {
					return err
				}
			} else if err := s.firstOfStream(ctx, k, source, first); err != nil {
				return err
			} else if failed = s.handle(ctx, tx, []freehold.Recorded{first.Event}); failed != nil {
				return failed
			}
			left--
			return k.Delete(ctx, parkedSpace(s.follower, name), at)
		})
		if failed == nil && errors.Is(err, freehold.ErrUnknown) {
			return fmt.Errorf("release %s of %s: perhaps done, see freehold parked: %w", key, s.follower, err)
		}
		if err != nil {
			return fmt.Errorf("release %s of %s: still parked: %w", key, s.follower, err)
		}
		if giveUp = false; left == 0 {
			s.parked.remove(name, key)
			return nil
		}
	}
}

// firstOfStream refuses to apply a parked event before an earlier one of its stream, which
// is parked under the stream because its own key could not be told.
func (s *databaseSink[T]) firstOfStream(ctx context.Context, k Keeper, source Source, p Parked) error {
	stream := storable(string(p.Event.Stream))
	if stream == p.Key || !s.parked.has(source.Name(), stream) {
		return nil
	}
	before, err := readParked(ctx, k, source.Types(), s.follower, source.Name(), &stream, 1)
	if err == nil && len(before) > 0 && before[0].Event.At.Position < p.Event.At.Position {
		err = fmt.Errorf("%s of the same stream stands before %s, under key %s: retry or release that one first", before[0].Event.At, p.Event.At, stream)
	}
	return err
}

// list returns up to limit parked events of a source.
func (s *databaseSink[T]) list(ctx context.Context, source Source, limit int) (all []Parked, err error) {
	err = s.db.View(ctx, func(ctx context.Context, tx T) error {
		all, err = readParked(ctx, s.db.Keeper(tx), source.Types(), s.follower, source.Name(), nil, limit)
		return err
	})
	return all, err
}

// isParked reports whether the event at a position is parked, or one of its transaction
// that stands before it.
func (s *databaseSink[T]) isParked(ctx context.Context, source Source, want freehold.Position) (found bool, err error) {
	if s.parked.count(source.Name()) == 0 {
		return false, nil
	}
	err = s.db.View(ctx, func(ctx context.Context, tx T) error {
		for item, err := range s.db.Keeper(tx).Scan(ctx, parkedSpace(s.follower, source.Name()), "") {
			if err != nil {
				return err
			}
			at, end, err := spanOf(item)
			if err != nil {
				return err
			}
			if found = at <= want && want <= end; found {
				return nil
			}
		}
		return nil
	})
	return found, err
}

// spanOf is from where to where the transaction of a parked event reaches, as far as
// tokens ask for it.
func spanOf(item kv.Item) (at, end freehold.Position, err error) {
	n, err := strconv.ParseInt(item.Key[len(queueOf(item.Key))+len("\x1f"):], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("parked event %q: %w", item.Key, err)
	}
	at = freehold.Position(n)
	if !bytes.Contains(item.Value, []byte(`"end":`)) { // most have none, and a queue may be long
		return at, at, nil
	}
	var p struct{ End freehold.Position }
	if err := json.Unmarshal(item.Value, &p); err != nil {
		return 0, 0, fmt.Errorf("parked event %q: %w", item.Key, err)
	}
	return at, max(at, p.End), nil
}
