package journal_test

import (
	"context"
	"slices"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// late is a store whose durable head moves behind what the journal remembers.
type late struct {
	journal.Store
	head freehold.Mark
}

func (l *late) Source() freehold.Source { return "order" }

func (l *late) Bounds(context.Context) (first, head freehold.Mark, err error) {
	return freehold.Mark{}, l.head, nil
}

func (l *late) Read(context.Context, freehold.Position, int) ([]freehold.Recorded, error) {
	return nil, nil
}

// An engine fills the memory before it moves the head. A reader who saw an event in
// that moment and asked on behind it would be told that the histories differ.
func TestMemoryIsNotReadBeyondTheDurableHead(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	store := &late{}
	j := journal.New(store, types)
	mark := func(p freehold.Position) freehold.Mark { return freehold.Mark{Source: "order", Position: p} }
	events := transactions(3, 2, "")
	for i := 0; i < len(events); i += 2 { // three commits
		j.Remember(events[i : i+2])
	}
	for _, head := range []freehold.Position{0, 2, 4, 6} {
		store.head = mark(head)
		for after := freehold.Position(0); after <= head; after += 2 {
			for limit := 1; limit <= 7; limit++ {
				rs, err := j.Read(t.Context(), mark(after), limit)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := len(rs) > 0, after < head; got != want {
					t.Errorf("head %d: read behind %d, limit %d: %d events", head, after, limit, len(rs))
				}
				for i, r := range rs {
					if want := after + freehold.Position(i) + 1; r.At.Position != want || want > head {
						t.Errorf("head %d: read behind %d, limit %d: position %d, want %d", head, after, limit, r.At.Position, want)
					}
				}
			}
		}
	}
}

// shared is a store to which other processes write. It counts what is read from it.
type shared struct {
	late
	events []freehold.Recorded
	reads  int
	during func() // of a read, when its events are known
}

func (s *shared) Refresh(context.Context) error { return nil }

func (s *shared) Read(_ context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	s.reads++
	rs := s.events[after:min(int(after)+limit, len(s.events))]
	if s.during != nil {
		s.during()
	}
	return slices.Clone(rs), nil
}

// transactions returns n transactions of some events each, of the history of an
// incarnation.
func transactions(n, events int, incarnation string) (rs []freehold.Recorded) {
	at := freehold.Mark{Source: "order"}
	for i := range n * events {
		r := freehold.Recorded{Stream: "a-1", Version: freehold.Version(i + 1), Incarnation: incarnation, Last: i%events == events-1, Nonce: make([]byte, freehold.NonceSize)}
		r.Digest = journal.Digest(&r)
		at.Position++
		at.Chain = journal.Chain(at.Chain, at.Position, r.Digest)
		r.At = at
		rs = append(rs, r)
	}
	return rs
}

// Where another instance writes, what one follower has read the others need not read
// from the database: and none of them gets anything else than it would have from there.
func TestWhatAnotherInstanceWroteIsReadOnce(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	store := &shared{events: transactions(40, 3, "")}
	store.head = store.events[len(store.events)-1].At
	j := journal.New(store, types)
	read := func(after freehold.Position, limit int) freehold.Position {
		t.Helper()
		rs, err := j.Read(t.Context(), freehold.Mark{Source: "order", Position: after}, limit)
		if err != nil {
			t.Fatalf("behind %d, limit %d: %v", after, limit, err)
		}
		for i, r := range rs {
			if want := after + freehold.Position(i) + 1; r.At.Position != want {
				t.Fatalf("behind %d, limit %d: position %d, want %d", after, limit, r.At.Position, want)
			}
		}
		if len(rs) == 0 || !rs[len(rs)-1].Last {
			t.Fatalf("behind %d, limit %d: %d events, which end within a transaction", after, limit, len(rs))
		}
		return rs[len(rs)-1].At.Position
	}
	for follower, limit := range []int{10, 10, 4, 7, 100} { // most end within a transaction
		before := store.reads
		for at := freehold.Position(0); at < store.head.Position; {
			at = read(at, limit)
		}
		if follower > 0 && store.reads != before {
			t.Errorf("follower %d read the store %d times", follower, store.reads-before)
		}
	}

	j.Forget()
	at := read(60, 10) // the newest there are in memory
	before := store.reads
	read(0, 10) // a follower that lags does not take their place
	if read(60, 9); store.reads != before+1 {
		t.Errorf("%d reads of the store, want one, of what lags", store.reads-before)
	}
	store.during = j.Forget
	read(at, 9)
	store.during = nil
	if before = store.reads; read(at, 9) == 0 || store.reads != before+1 {
		t.Error("what was read before the memory was cleared is in it")
	}
}

// What is read from a database that was restored continues at a position that is in
// memory, but not what is there: readers get the one history or the other.
func TestMemoryHoldsOneHistory(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	was, is := transactions(4, 3, "was"), transactions(8, 3, "is")
	store := &shared{events: is}
	store.head = is[len(is)-1].At
	j := journal.New(store, types)
	j.Remember(was)
	if _, err := j.Read(t.Context(), was[len(was)-1].At, 6); err != nil {
		t.Fatal(err)
	}
	at := freehold.Mark{Source: "order"}
	for at.Position < store.head.Position {
		rs, err := j.Read(t.Context(), at, 6)
		if err != nil || len(rs) == 0 {
			t.Fatalf("behind %d: %d events, error %v", at.Position, len(rs), err)
		}
		for i := range rs {
			if !journal.Follows(at, &rs[i]) {
				t.Fatalf("position %d is of another history than %d", rs[i].At.Position, at.Position)
			}
			at = rs[i].At
		}
	}
}
