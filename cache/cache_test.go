package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
)

func at(epoch freehold.Epoch, p freehold.Position) freehold.Mark {
	return freehold.Mark{Source: "inventory", Epoch: epoch, Position: p}
}

// changed is an event that changes a key.
func changed(key string, m freehold.Mark) freehold.Recorded {
	return freehold.Recorded{At: m, Stream: freehold.Stream("product", key), Raw: []byte("{}"), Last: true}
}

// begins is what a follower tells first.
func begins(m freehold.Mark) freehold.Recorded {
	return freehold.Recorded{At: m, Internal: true, Last: true}
}

func keys(r freehold.Recorded) []string { return []string{r.Stream.ID()} }

// shelf is a database with one version of each key, of which snapshots can be kept
// and returned late.
type shelf struct {
	mu    sync.Mutex
	head  freehold.Mark
	value map[string]freehold.Position // the event that changed a key last
	reads int
	hold  chan struct{} // if not nil, reads wait here with what they have read
}

func newShelf() *shelf { return &shelf{head: at("e", 10), value: map[string]freehold.Position{}} }

func (s *shelf) change(key string) freehold.Recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head.Position++
	s.value[key] = s.head.Position
	return changed(key, s.head)
}

func (s *shelf) read(_ context.Context, key string) (freehold.Position, freehold.Mark, error) {
	s.mu.Lock()
	v, m, hold := s.value[key], s.head, s.hold
	s.reads++
	s.mu.Unlock()
	if hold != nil {
		hold <- struct{}{}
		<-hold
	}
	return v, m, nil
}

func open(s *shelf, o *cache.Options) *cache.Cache[string, freehold.Position] {
	return cache.New(s.read, keys, o)
}

func apply(t testing.TB, c *cache.Cache[string, freehold.Position], rs ...freehold.Recorded) {
	t.Helper()
	if err := c.Apply(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, c *cache.Cache[string, freehold.Position], key string, tok freehold.Token) freehold.Position {
	t.Helper()
	v, err := c.Get(t.Context(), key, tok)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEntriesAreReadOnceUntilTheirKeyChanges(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, nil)
	apply(t, c, begins(s.head))
	apply(t, c, s.change("a"), s.change("b"))
	for range 3 {
		if a, b := get(t, c, "a", freehold.Token{}), get(t, c, "b", freehold.Token{}); a != 11 || b != 12 {
			t.Errorf("a is %d, b is %d", a, b)
		}
	}
	apply(t, c, s.change("a"))
	if a := get(t, c, "a", freehold.Token{}); a != 13 {
		t.Errorf("a is %d, want 13", a)
	}
	if get(t, c, "b", freehold.Token{}); s.reads != 3 {
		t.Errorf("%d reads, want 3", s.reads)
	}
	if st := c.Stats(); st.Hits != 5 || st.Misses != 3 || st.Kept != 3 || st.Invalidated != 1 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

func TestASlowFillDoesNotHideANewerInvalidation(t *testing.T) {
	t.Parallel()
	s := newShelf()
	s.hold = make(chan struct{})
	c := open(s, nil)
	apply(t, c, begins(s.head))
	slow := make(chan freehold.Position)
	go func() {
		v, err := c.Get(context.Background(), "a", freehold.Token{})
		if err != nil {
			t.Error(err)
		}
		slow <- v
	}()
	<-s.hold // it has read, and is not back yet
	hold := s.hold
	s.mu.Lock()
	s.hold = nil
	s.mu.Unlock()
	apply(t, c, s.change("a"))
	hold <- struct{}{}
	if v := <-slow; v != 0 {
		t.Fatalf("the slow read gives %d, want what it has read", v)
	}
	if v := get(t, c, "a", freehold.Token{}); v != 11 {
		t.Errorf("a is %d, want 11: the slow fill was kept", v)
	}
	if st := c.Stats(); st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

func TestForgottenInvalidationsRaiseAFloor(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, &cache.Options{Remember: 4})
	apply(t, c, begins(s.head))
	s.hold = make(chan struct{})
	hold := s.hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := c.Get(context.Background(), "a", freehold.Token{}); err != nil {
			t.Error(err)
		}
	}()
	<-hold
	s.mu.Lock()
	s.hold = nil
	s.mu.Unlock()
	apply(t, c, s.change("a"))
	for i := range 10 { // so that the one of a is forgotten
		apply(t, c, s.change("other"+strconv.Itoa(i)))
	}
	hold <- struct{}{}
	<-done
	if v := get(t, c, "a", freehold.Token{}); v != 11 {
		t.Errorf("a is %d, want 11", v)
	}
}

func TestNothingIsKeptBeforeTheFollowerRuns(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, nil)
	get(t, c, "a", freehold.Token{})
	s.change("a") // nobody tells
	apply(t, c, begins(s.head))
	if v := get(t, c, "a", freehold.Token{}); v != 11 {
		t.Errorf("a is %d, want 11", v)
	}
}

func TestMissedEventsAndAnotherEpochFlush(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, nil)
	apply(t, c, begins(s.head))
	get(t, c, "a", freehold.Token{})
	s.change("a") // missed
	apply(t, c, s.change("b"))
	if v := get(t, c, "a", freehold.Token{}); v != 11 {
		t.Errorf("a is %d behind a gap, want 11", v)
	}
	s.mu.Lock()
	s.head, s.value["a"] = at("f", 11), 7 // restored, and written on
	s.mu.Unlock()
	apply(t, c, begins(s.head))
	if v := get(t, c, "a", freehold.Token{}); v != 7 {
		t.Errorf("a is %d in the new epoch, want 7", v)
	}
	if _, err := c.Get(t.Context(), "a", freehold.NewToken(at("e", 11))); !errors.Is(err, freehold.ErrHistoryLost) {
		t.Errorf("a token of the old epoch: %v, want ErrHistoryLost", err)
	}
}

func TestATokenIsReachedOrSaidNotToBe(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, nil)
	apply(t, c, begins(s.head))
	get(t, c, "a", freehold.Token{})
	s.change("a") // the follower lags
	if v := get(t, c, "a", freehold.Token{}); v != 0 {
		t.Errorf("without a token a is %d, want the entry", v)
	}
	if v := get(t, c, "a", freehold.NewToken(s.head)); v != 11 {
		t.Errorf("with the token a is %d, want 11", v)
	}
	if _, err := c.Get(t.Context(), "a", freehold.NewToken(at("e", 12))); !errors.Is(err, freehold.ErrBehind) {
		t.Errorf("a token of what is not there yet: %v, want ErrBehind", err)
	}
	if v := get(t, c, "a", freehold.NewToken(freehold.Mark{Source: "elsewhere", Epoch: "x", Position: 99})); v != 11 {
		t.Errorf("with a token of another source a is %d", v)
	}
}

func TestWhatIsReadAtTheSameTimeIsReadOnce(t *testing.T) {
	t.Parallel()
	const readers = 50
	loads, release := make(chan struct{}, readers), make(chan struct{})
	c := cache.New(func(context.Context, string) (int, freehold.Mark, error) {
		loads <- struct{}{}
		<-release
		return 7, at("e", 10), nil
	}, keys, nil)
	var all sync.WaitGroup
	waits := make(chan struct{}, readers)
	for range readers {
		all.Go(func() {
			if v, err := c.Get(&asked{Context: context.Background(), waits: waits}, "a", freehold.Token{}); err != nil || v != 7 {
				t.Errorf("%d, %v", v, err)
			}
		})
	}
	n := 0
	for range readers { // each has come to a load, its own or another's
		select {
		case <-loads:
			n++
		case <-waits:
		}
	}
	close(release)
	all.Wait()
	if n != 1 {
		t.Errorf("%d loads, want 1", n)
	}
}

func TestAFailedLoadIsNotKeptAndAnImpatientReaderHarmsNobody(t *testing.T) {
	t.Parallel()
	wrong := errors.New("no database")
	begun, fail := make(chan struct{}), true
	c := cache.New(func(ctx context.Context, _ string) (int, freehold.Mark, error) {
		if fail {
			return 0, at("e", 1), wrong
		}
		select {
		case begun <- struct{}{}:
			<-ctx.Done()
			return 0, at("e", 1), ctx.Err()
		default:
			return 1, at("e", 1), nil
		}
	}, keys, nil)
	if _, err := c.Get(t.Context(), "a", freehold.Token{}); !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
	fail = false
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := c.Get(ctx, "a", freehold.Token{})
		ended <- err
	}()
	<-begun
	patient := make(chan int)
	go func() {
		v, err := c.Get(context.Background(), "a", freehold.Token{})
		if err != nil {
			t.Error(err)
		}
		patient <- v
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if v := <-patient; v != 1 {
		t.Errorf("the patient reader got %d", v)
	}
}

// TestJoinedEntriesCarryTwoLabels: an entry made of two journals is judged by each.
func TestJoinedEntriesCarryTwoLabels(t *testing.T) {
	t.Parallel()
	a, b := freehold.Mark{Source: "a", Epoch: "e", Position: 1}, freehold.Mark{Source: "b", Epoch: "e", Position: 1}
	reads := 0
	c := cache.NewJoined(func(context.Context, string) (string, []freehold.Mark, error) {
		reads++
		return fmt.Sprint(a.Position, b.Position), []freehold.Mark{a, b}, nil
	}, keys, nil)
	read := func(tok freehold.Token) string {
		t.Helper()
		v, err := c.Get(t.Context(), "k", tok)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	must := func(r freehold.Recorded) {
		if err := c.Apply(t.Context(), []freehold.Recorded{r}); err != nil {
			t.Fatal(err)
		}
	}
	must(begins(a))
	read(freehold.Token{})
	read(freehold.Token{})
	if reads != 2 {
		t.Errorf("%d reads while b is unknown, want 2: nothing may be kept", reads)
	}
	must(begins(b))
	read(freehold.Token{})
	read(freehold.Token{})
	if reads != 3 {
		t.Errorf("%d reads, want 3", reads)
	}
	b.Position = 2
	if v := read(freehold.NewToken(b)); v != "1 2" {
		t.Errorf("with a token of b: %s", v)
	}
	b.Position = 3
	must(changed("x", freehold.Mark{Source: "b", Epoch: "e", Position: 2}))
	must(changed("k", b))
	if v := read(freehold.Token{}); v != "1 3" {
		t.Errorf("behind a change in b: %s", v)
	}
}

// TestAnyInterleaving lets rapid interleave changes, their arrival at the cache,
// slow fills, epochs and losses of events. Whatever the cache returns is never older
// than an invalidation that it has applied, nor than the reader's token.
func TestAnyInterleaving(t *testing.T) {
	t.Parallel()
	type fill struct {
		key   string
		value freehold.Position
		at    freehold.Mark
		tell  chan struct{}
		got   chan freehold.Position
		left  bool // the cache has seen a change since: later readers must not share it
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := newShelf()
		var fills []*fill // under way, with what they have read
		var slow *fill    // the next load becomes this one
		var log []freehold.Recorded
		c := cache.New(func(ctx context.Context, key string) (freehold.Position, freehold.Mark, error) {
			v, m, err := s.read(ctx, key)
			if f := slow; f != nil {
				slow = nil
				f.value, f.at = v, m
				f.tell <- struct{}{}
				<-f.tell
			}
			return v, m, err
		}, keys, &cache.Options{Remember: rapid.IntRange(1, 5).Draw(rt, "remember"), Size: 100})
		apply(t, c, begins(s.head))
		told := 0                                 // events of log that the cache has had
		applied := map[string]freehold.Position{} // the newest change that it has had
		someKey := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		busy := func(key string) bool {
			for _, f := range fills {
				if f.key == key && !f.left {
					return true
				}
			}
			return false
		}
		leave := func(key string) { // "" is all
			for _, f := range fills {
				f.left = f.left || key == "" || f.key == key
			}
		}
		check := func(key string, tok freehold.Token, need freehold.Position) {
			v, err := c.Get(alone{t.Context()}, key, tok)
			switch {
			case err != nil:
				rt.Fatalf("%s: %v: does it wait for a load from before a change that the cache has seen?", key, err)
			case v < need:
				rt.Fatalf("%s is %d, the cache has seen %d or the token asks for it", key, v, need)
			case v > s.value[key]:
				rt.Fatalf("%s is %d, of a history that is gone; it is %d", key, v, s.value[key])
			}
		}
		finish := func(i int) {
			f := fills[i]
			fills = append(fills[:i], fills[i+1:]...)
			f.tell <- struct{}{}
			<-f.got
			if !busy(f.key) { // what it has kept, if anything, must do
				check(f.key, freehold.Token{}, applied[f.key])
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(rt *rapid.T) { log = append(log, s.change(someKey.Draw(rt, "key"))) },
			"tell": func(rt *rapid.T) {
				if told == len(log) {
					rt.Skip()
				}
				n := rapid.IntRange(1, len(log)-told).Draw(rt, "n")
				apply(t, c, log[told:told+n]...)
				for _, r := range log[told : told+n] {
					applied[r.Stream.ID()] = r.At.Position
					leave(r.Stream.ID())
				}
				told += n
			},
			"another epoch": func(rt *rapid.T) {
				s.mu.Lock()
				base := freehold.Position(rapid.IntRange(0, int(s.head.Position)).Draw(rt, "base"))
				s.head = at(s.head.Epoch+"'", base)
				for key, v := range s.value { // restored: what was changed behind the base is gone
					if v > base {
						s.value[key] = 0
					}
				}
				m := s.head
				for _, key := range []string{"a", "b", "c", "d"} {
					applied[key] = s.value[key]
				}
				s.mu.Unlock()
				log, told = nil, 0
				apply(t, c, begins(m))
				leave("")
			},
			"repeat": func(rt *rapid.T) {
				if told > 0 {
					apply(t, c, log[rapid.IntRange(0, told-1).Draw(rt, "from"):told]...)
				}
			},
			"lose": func(rt *rapid.T) {
				if told+1 < len(log) {
					told++ // a gap: the cache must notice at the next event
					for _, r := range log[:told] {
						applied[r.Stream.ID()] = max(applied[r.Stream.ID()], 0)
					}
					apply(t, c, log[told])
					leave("")
					for _, r := range log[:told+1] {
						applied[r.Stream.ID()] = max(applied[r.Stream.ID()], r.At.Position)
					}
					told++
				}
			},
			"begin a slow read": func(rt *rapid.T) {
				key := someKey.Draw(rt, "key")
				if busy(key) {
					rt.Skip()
				}
				f := &fill{key: key, tell: make(chan struct{}), got: make(chan freehold.Position, 1)}
				slow = f
				go func() {
					v, _ := c.Get(context.Background(), key, freehold.Token{})
					f.got <- v
				}()
				select {
				case <-f.tell:
					fills = append(fills, f)
				case <-f.got: // there was an entry
					slow = nil
				}
			},
			"end a slow read": func(rt *rapid.T) {
				if len(fills) == 0 {
					rt.Skip()
				}
				finish(rapid.IntRange(0, len(fills)-1).Draw(rt, "fill"))
			},
			"read": func(rt *rapid.T) {
				if key := someKey.Draw(rt, "key"); !busy(key) {
					check(key, freehold.Token{}, applied[key])
				}
			},
			"read with a token": func(rt *rapid.T) {
				if key := someKey.Draw(rt, "key"); !busy(key) {
					check(key, freehold.NewToken(s.head), s.value[key])
				}
			},
		})
		for len(fills) > 0 {
			finish(0)
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			check(key, freehold.Token{}, applied[key])
		}
	})
}

func TestRacingReadersAndChanges(t *testing.T) {
	t.Parallel()
	s := newShelf()
	c := open(s, &cache.Options{Remember: 8, Size: 16})
	apply(t, c, begins(s.head))
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := strconv.Itoa(i % 20)
				s.mu.Lock()
				head, want := s.head, s.value[key]
				s.mu.Unlock()
				v, err := c.Get(context.Background(), key, freehold.NewToken(head))
				if err != nil || v < want {
					t.Errorf("%s is %d, %v, want %d", key, v, err, want)
					return
				}
			}
		})
	}
	for i := 0; i < 2000 || c.Stats().Hits < 200 && !t.Failed(); i++ {
		apply(t, c, s.change(strconv.Itoa(i%20)))
	}
	close(stop)
	all.Wait()
}
