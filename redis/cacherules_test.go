package redis_test

import (
	"context"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/redis"
)

// shelfLife is a cache on a server, which is told of changes position by position.
type shelfLife struct {
	*testing.T
	srv    *testredis.Server
	second *redis.Cache
}

func newShelfLife(t *testing.T, remember int) *shelfLife {
	t.Helper()
	srv := testredis.NewServer(t)
	return &shelfLife{t, srv, openCache(t, srv.URL(), &redis.CacheOptions{Remember: remember})}
}

// tell says that an event at a position has changed a key; "" is none of ours.
func (s *shelfLife) tell(epoch freehold.Epoch, p freehold.Position, key string) {
	var changed []cache.Change
	if key != "" {
		changed = []cache.Change{{Key: key, At: p}}
	}
	s.second.Invalidate(s.Context(), at(epoch, p-1), at(epoch, p), changed)
}

func (s *shelfLife) begin(epoch freehold.Epoch, p freehold.Position) {
	s.second.Invalidate(s.Context(), at(epoch, p), at(epoch, p), nil)
}

// fill offers a value of a, and wants it kept or not.
func (s *shelfLife) fill(text string, label freehold.Mark, kept bool) {
	s.Helper()
	before := s.second.Stats().Kept
	s.second.Fill(s.Context(), "a", []byte(text), []freehold.Mark{label})
	if got := s.second.Stats().Kept > before; got != kept {
		s.Errorf("a fill of %s at %s is kept: %v, want %v", text, label, got, kept)
	}
}

// holds wants a to be found, with a label, or not to be found ("").
func (s *shelfLife) holds(text string, label freehold.Mark) {
	s.Helper()
	raw, marks, found := s.second.Get(s.Context(), "a")
	if found != (text != "") || string(raw) != text || found && (len(marks) != 1 || marks[0] != label) {
		s.Errorf("a is %q at %v, want %q at %s", raw, marks, text, label)
	}
}

func TestALateFillIsRefused(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]func(s *shelfLife){
		"behind an invalidation": func(s *shelfLife) { s.tell("e", 11, "a") },
		"behind one that is forgotten": func(s *shelfLife) {
			s.tell("e", 11, "a")
			s.tell("e", 12, "b")
			s.tell("e", 13, "c")
		},
		"behind one that was evicted": func(s *shelfLife) {
			s.tell("e", 11, "a")
			s.srv.Do("DEL", "{products}:last:inventory")
		},
		"behind one that was evicted, and others": func(s *shelfLife) {
			s.tell("e", 11, "a")
			s.srv.Do("DEL", "{products}:last:inventory")
			s.tell("e", 12, "b")
		},
		"behind one that was missed": func(s *shelfLife) { s.tell("e", 13, "b") },
		"behind one of another history": func(s *shelfLife) {
			for p := freehold.Position(11); p < 15; p++ {
				s.tell("e", p, "")
			}
			s.begin("f", 10)
			s.tell("f", 11, "a")
		},
		"before anybody has begun": func(s *shelfLife) { s.srv.Do("FLUSHALL") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelfLife(t, 2)
			s.begin("e", 10)
			late(s)
			s.fill("old", at("e", 10), false)
			s.holds("", freehold.Mark{})
		})
	}
}

// TestAnotherHistoryIsNotTakenForTheOldOne: its events have the positions of those that
// are gone, and some have been told.
func TestAnotherHistoryIsNotTakenForTheOldOne(t *testing.T) {
	t.Parallel()
	s := newShelfLife(t, 100)
	s.begin("e", 10)
	for p := freehold.Position(11); p < 15; p++ {
		s.tell("e", p, "")
	}
	s.fill("of e", at("e", 14), true)
	s.tell("f", 11, "b") // it has parted at 10
	s.holds("", freehold.Mark{})
	s.tell("f", 12, "a")
	s.fill("of f, old", at("f", 11), false)
	s.fill("of f", at("f", 12), true)
	s.tell("f", 13, "")
	s.holds("of f", at("f", 13))
	s.fill("of e", at("e", 14), false)
}

func TestAnEntryHoldsUpToWhatWasTold(t *testing.T) {
	t.Parallel()
	s := newShelfLife(t, 100)
	s.begin("e", 10)
	s.fill("ten", at("e", 10), true)
	s.tell("e", 11, "b")
	s.holds("ten", at("e", 11))
	s.fill("twelve", at("e", 12), true)
	s.fill("ten", at("e", 10), false)
	s.tell("e", 12, "a") // which the entry was read behind
	s.holds("twelve", at("e", 12))
	s.tell("e", 12, "a") // another process says the same
	s.tell("e", 11, "b")
	s.holds("twelve", at("e", 12))
	s.begin("e", 13) // a process begins ahead of what was told
	s.holds("twelve", at("e", 12))
	s.tell("e", 15, "") // 13 and 14 are missing
	s.holds("", freehold.Mark{})
}

// TestAProcessIsNotShownWhatItKnowsToBeOld: the shared cache was restored to an older
// state, or has not been told.
func TestAProcessIsNotShownWhatItKnowsToBeOld(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	raw := direct(t, srv)
	second := openCache(t, srv.URL(), nil)
	s := newShelf()
	s.change("a")
	p := newProcess(s, second, 100)
	read := func() {
		t.Helper()
		if v, err := p.cache.Get(context.Background(), "a", freehold.Token{}); err != nil || v != s.was("a", s.head) {
			t.Errorf("a is %d, %v; it is %d", v, err, s.was("a", s.head))
		}
	}
	read()
	backup := save(t, raw)
	s.change("a")
	p.tell(s.log["e"][1:]...)
	restore(t, raw, backup)
	read()
	if n := p.cache.Stats().Shared; n != 0 {
		t.Errorf("%d reads were answered by the shared cache", n)
	}
}
