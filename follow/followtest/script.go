package followtest

import (
	"context"
	"errors"
	"sync"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// Script is a source that holds a fixed history and misbehaves on demand, as a
// broker or a network would. It implements follow.Source and is safe for
// concurrent use.
type Script struct {
	name   freehold.Source
	types  *freehold.Catalog
	events []freehold.Recorded

	mu     sync.Mutex
	reads  int
	mangle func(read int, after freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error)
}

// NewScript seals the writes, each one a transaction, into a history.
func NewScript(name freehold.Source, types *freehold.Catalog, writes []freehold.Write) (*Script, error) {
	none := func(context.Context, freehold.StreamID) (freehold.Version, error) { return 0, nil }
	tail := journal.NewTail(freehold.Mark{Source: name, Epoch: "0123456789abcdef"}, "fedcba9876543210", none)
	ctx := context.Background()
	for _, w := range writes {
		drafts, err := journal.Draft(ctx, types, journal.NewID(), 0, journal.Now(), w.Events)
		if err != nil {
			return nil, err
		}
		if _, err := tail.Append(ctx, w.Stream, w.Expect, drafts); err != nil {
			return nil, err
		}
		tail.Seal()
	}
	s := &Script{name: name, types: types, events: tail.Pending(journal.Save{})}
	types.Bind(s.events)
	return s, nil
}

// Mangle sets what is done to each page read. read counts from 1.
func (s *Script) Mangle(fn func(read int, after freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mangle, s.reads = fn, 0
}

// Events returns the history.
func (s *Script) Events() []freehold.Recorded { return s.events }

// Token is satisfied by a follower that has applied the whole history.
func (s *Script) Token() freehold.Token {
	_, head, _ := s.Bounds(context.Background())
	return freehold.NewToken(head)
}

// Name is the source's name.
func (s *Script) Name() freehold.Source { return s.name }

// Types is the catalog of the history's events.
func (s *Script) Types() *freehold.Catalog { return s.types }

// Bounds gives the place before the first event and that of the last.
func (s *Script) Bounds(context.Context) (first, head freehold.Mark, err error) {
	first = freehold.Mark{Source: s.name, Epoch: "0123456789abcdef"}
	if len(s.events) == 0 {
		return first, first, nil
	}
	return first, s.events[len(s.events)-1].At, nil
}

// Read returns a page, mangled.
func (s *Script) Read(_ context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	page := s.events[min(int(after.Position), len(s.events)):]
	end := min(limit, len(page))
	for end > 0 && end < len(page) && !page[end-1].Last {
		end++
	}
	page = page[:end:end]
	s.mu.Lock()
	s.reads++
	mangle, read := s.mangle, s.reads
	s.mu.Unlock()
	if mangle != nil {
		return mangle(read, after, page)
	}
	return page, nil
}

// Wait returns at once if there is more, else when ctx ends.
func (s *Script) Wait(ctx context.Context, after freehold.Mark) error {
	if int(after.Position) < len(s.events) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

var errScript = errors.New("followtest: the source fails on purpose")
