package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
)

// job is a queued closure's handle.
type job struct{ tx *overlay.Tx }

// races is how often a closure runs again because another process was faster.
const races = 20

// errRaced says that another process has committed since the snapshot was taken.
var errRaced = errors.New("redis: another process has committed in between")

// write is the writer: within a process closures run one after the other.
func (s *Store) write() {
	defer s.queue.Exited()
	for {
		group := s.queue.Next(1)
		if group == nil {
			return
		}
		j := group[0]
		j.Answer(freehold.Token{}, s.do(j))
	}
}

// do runs a closure and commits what it did, again if it has lost a race.
func (s *Store) do(j *writer.Job[*job]) error {
	for race := 1; ; race++ {
		b := s.begin(context.WithoutCancel(j.Context()))
		tx := overlay.New("redis", b, journal.Now(), true, nil)
		j.Work.tx = tx
		err := j.Run(tx.End)
		switch failed := b.failed; {
		case errors.Is(err, writer.ErrAborted), errors.Is(err, freehold.ErrTooLong):
			return err
		case errors.Is(failed, errGone):
			err = errRaced
		case failed != nil:
			return failed
		case err != nil:
			return err
		default:
			err = s.commit(b, tx.Writes())
		}
		if !errors.Is(err, errRaced) {
			return err
		}
		if race == races {
			return fmt.Errorf("%w, %d times: %w", err, races, freehold.ErrUnavailable)
		}
		time.Sleep(rand.N(time.Duration(race) * time.Millisecond))
	}
}

// Bounds of what a transaction may write: the server does nothing else meanwhile.
const (
	maxWrites = 100_000   // fields
	maxBytes  = 128 << 20 // of fields and values
)

// commit sends what a transaction has written, as one script.
func (s *Store) commit(b *base, writes map[string]overlay.Write) error {
	if len(writes) == 0 {
		return nil
	}
	read := "*"
	if b.at != (snapshot{}) {
		read = b.at.id
	}
	id := journal.NewID()
	var marks, puts []string
	bytes := 0
	for _, field := range slices.Sorted(maps.Keys(writes)) {
		w := writes[field]
		bytes += len(field) + len(w.Value)
		if was, known := b.got[field]; known && strings.HasPrefix(field, overlay.Mark) {
			if was.found {
				marks = append(marks, "=", field, was.text)
			} else {
				marks = append(marks, "?", field, "")
			}
		}
		if w.Deleted {
			puts = append(puts, "-", field, "")
		} else {
			puts = append(puts, "+", field, string(w.Value))
		}
	}
	if len(writes) > maxWrites || bytes > maxBytes {
		return fmt.Errorf("redis: a transaction writes %d fields of %d MiB, at most %d of %d are possible: split it", len(writes), bytes>>20, maxWrites, maxBytes>>20)
	}
	args := slices.Concat([]string{read, id, strconv.FormatInt(s.client.opts.Keep.Milliseconds(), 10)}, marks, puts)
	said, err := s.send(b, read, args)
	if err != nil {
		return err
	}
	if b.at != (snapshot{}) {
		s.note(s.known(), snapshot{said, id}, true)
	}
	return nil
}

// send runs the script of a commit and returns its number. If the connection is lost
// the commit is sent again: the server knows its newest one, and refuses one that
// does not stand on it.
func (s *Store) send(b *base, read string, args []string) (number string, err error) {
	var answer []rueidis.RedisMessage
	sure := true
	if read == "*" { // it would stand on anything
		answer, err = s.client.run(b.ctx, commitScript, s.keys, args)
		sure = err == nil || errors.As(err, new(*refusal))
	} else {
		answer, sure, err = s.client.runAgain(b.ctx, commitScript, s.keys, args)
	}
	if sure && errors.As(err, new(*refusal)) || errors.Is(err, freehold.ErrClosed) {
		return "", err
	}
	var said []string
	if err == nil {
		said, err = texts(answer, 2)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", freehold.ErrUnknown, err)
	case said[0] == "ok":
		return said[1], nil
	case !sure: // another commit may stand on this one
		return "", fmt.Errorf("redis: store %s: the answer to a commit was lost: %w", s.name, freehold.ErrUnknown)
	case said[0] == "raced":
		return "", errRaced
	}
	return "", fmt.Errorf("redis: store %s: %w", s.name, freehold.ErrFenced)
}
