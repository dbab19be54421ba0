package cache_test

import (
	"context"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
)

// TestAReadThatBeginsBehindAnInvalidationDoesNotShareAnOlderLoad: whoever asks when
// the cache has already seen the change must see it, though a load from before is
// still under way.
func TestAReadThatBeginsBehindAnInvalidationDoesNotShareAnOlderLoad(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*shelf) freehold.Recorded{
		"change": func(s *shelf) freehold.Recorded { return s.change("a") },
		"missed": func(s *shelf) freehold.Recorded { s.change("a"); return s.change("b") },
		"epoch": func(s *shelf) freehold.Recorded {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.head, s.value["a"] = at("f", 11), 11
			return begins(s.head)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf()
			hold := make(chan struct{})
			s.hold = hold
			c := open(s, nil)
			apply(t, c, begins(s.head))
			slow := make(chan freehold.Position, 1)
			go func() {
				v, err := c.Get(context.Background(), "a", freehold.Token{})
				if err != nil {
					t.Error(err)
				}
				slow <- v
			}()
			<-hold // it has read, and is not back yet
			s.mu.Lock()
			s.hold = nil
			s.mu.Unlock()
			apply(t, c, end(s))
			late := make(chan freehold.Position, 1)
			waits := &asked{Context: t.Context(), waits: make(chan struct{}, 1)}
			go func() {
				v, err := c.Get(waits, "a", freehold.Token{})
				if err != nil {
					t.Error(err)
				}
				late <- v
			}()
			select {
			case v := <-late:
				if v != 11 {
					t.Errorf("the late read gives %d, want 11", v)
				}
				hold <- struct{}{}
			case <-waits.waits: // it shares the older load
				hold <- struct{}{}
				if v := <-late; v != 11 {
					t.Errorf("the late read shares the older load and gives %d, want 11", v)
				}
			}
			if v := <-slow; v != 0 {
				t.Errorf("the slow read gives %d, want what it has read", v)
			}
			if v := get(t, c, "a", freehold.Token{}); v != 11 {
				t.Errorf("afterwards a is %d, want 11", v)
			}
		})
	}
}

// asked is one reader's context, which says when it begins to wait for another's
// load.
type asked struct {
	context.Context
	waits chan struct{} // buffered
	once  sync.Once
}

func (a *asked) Done() <-chan struct{} {
	a.once.Do(func() { a.waits <- struct{}{} })
	return a.Context.Done()
}

// alone is a context of a reader that must not wait for another's load: it ends
// when it would.
type alone struct{ context.Context }

func (alone) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

func (alone) Err() error { return context.Canceled }

// TestATokenIsNotSatisfiedByAnOlderLoadThatIsShared: the cache has not seen the
// change yet, so the reader waits for the load under way, and then reads anew.
func TestATokenIsNotSatisfiedByAnOlderLoadThatIsShared(t *testing.T) {
	t.Parallel()
	s := newShelf()
	hold := make(chan struct{})
	s.hold = hold
	c := open(s, nil)
	apply(t, c, begins(s.head))
	slow := make(chan error, 1)
	go func() {
		_, err := c.Get(context.Background(), "a", freehold.Token{})
		slow <- err
	}()
	<-hold
	s.mu.Lock()
	s.hold = nil
	s.mu.Unlock()
	s.change("a") // the follower lags
	waits := &asked{Context: t.Context(), waits: make(chan struct{}, 1)}
	late := make(chan freehold.Position, 1)
	go func() {
		v, err := c.Get(waits, "a", freehold.NewToken(s.head))
		if err != nil {
			t.Error(err)
		}
		late <- v
	}()
	select {
	case <-waits.waits:
		hold <- struct{}{}
		if v := <-late; v != 11 {
			t.Errorf("with the token a is %d, want 11", v)
		}
	case <-late:
		t.Error("the read does not wait for the load under way")
		hold <- struct{}{}
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

// TestAnOlderLoadThatEndsDoesNotUnshareANewerOne: of two loads of a key under way
// the newer is the one to share, whichever ends first.
func TestAnOlderLoadThatEndsDoesNotUnshareANewerOne(t *testing.T) {
	t.Parallel()
	s := newShelf()
	first, second := make(chan struct{}), make(chan struct{})
	s.hold = first
	c := open(s, nil)
	apply(t, c, begins(s.head))
	read := func(ctx context.Context) chan freehold.Position {
		got := make(chan freehold.Position, 1)
		go func() {
			v, err := c.Get(ctx, "a", freehold.Token{})
			if err != nil {
				t.Error(err)
			}
			got <- v
		}()
		return got
	}
	older := read(context.Background())
	<-first
	s.mu.Lock()
	s.hold = second
	s.mu.Unlock()
	apply(t, c, s.change("a"))
	newer := read(context.Background())
	<-second
	s.mu.Lock()
	s.hold = nil
	s.mu.Unlock()
	first <- struct{}{}
	if v := <-older; v != 0 {
		t.Errorf("the older read gives %d", v)
	}
	waits := &asked{Context: t.Context(), waits: make(chan struct{}, 1)}
	third := read(waits)
	select {
	case <-waits.waits:
	case <-third:
		t.Error("the third read does not share the newer load")
		third <- 11
	}
	second <- struct{}{}
	if v, w := <-newer, <-third; v != 11 || w != 11 {
		t.Errorf("read %d and %d, want 11", v, w)
	}
}

// TestAFillWithoutLabelsIsNotKept: what cannot be compared with any invalidation
// must not hide one.
func TestAFillWithoutLabelsIsNotKept(t *testing.T) {
	t.Parallel()
	reads := 0
	c := cache.NewJoined(func(context.Context, string) (int, []freehold.Mark, error) {
		reads++
		return reads, nil, nil
	}, keys, nil)
	if err := c.Apply(t.Context(), []freehold.Recorded{begins(at("e", 1))}); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		if v, err := c.Get(t.Context(), "a", freehold.Token{}); err != nil || v != want {
			t.Errorf("read %d gives %d, %v", want, v, err)
		}
	}
	if st := c.Stats(); st.Kept != 0 || st.Refused != 2 {
		t.Errorf("%+v", st)
	}
}
