package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport"
)

// Placed is the event that crosses; Hidden is internal.
type Placed struct {
	N int `json:"n"`
}

func (Placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

type Hidden struct{}

func (Hidden) EventType() freehold.Type { return freehold.T("order.hidden", 1) }

func catalog(t testing.TB) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[Placed](), freehold.Internal[Hidden]())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sender is a service with a feed, which can be pointed at another history.
type sender struct {
	*httptest.Server
	mu sync.Mutex
	db *memory.DB
}

func newSender(t *testing.T, disk *memory.Disk) *sender {
	t.Helper()
	s := &sender{}
	s.use(t, disk)
	s.Server = httptest.NewServer(handler(func() *memory.DB {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.db
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sender) use(t *testing.T, disk *memory.Disk) {
	t.Helper()
	db, err := memory.Open(t.Context(), "order", catalog(t), &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.db = db
	s.mu.Unlock()
}

func (s *sender) place(t *testing.T, numbers ...int) freehold.Token {
	t.Helper()
	var tok freehold.Token
	for _, n := range numbers {
		var err error
		tok, err = s.db.Append(t.Context(), freehold.Write{Stream: freehold.Stream("order", strconv.Itoa(n)), Expect: freehold.NoStream, Events: []freehold.Event{Hidden{}, Placed{n}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return tok
}

// receiver is a service that counts the orders it hears of, in order.
func receiver(t *testing.T, db *memory.DB, source follow.Source) *follow.Follower {
	t.Helper()
	f, err := follow.New("orders", db, []follow.Source{source}, &follow.Options{Pause: time.Millisecond, MaxPause: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)},
		follow.On(func(ctx context.Context, tx kv.Tx, e Placed, _ freehold.Recorded) error {
			was, _, err := tx.Get(ctx, "seen")
			if err != nil {
				return err
			}
			return tx.Put(ctx, "seen", fmt.Appendf(was, "%d;", e.N))
		}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func seen(t *testing.T, db *memory.DB) (s string) {
	t.Helper()
	err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		raw, _, err := tx.Get(ctx, "seen")
		s = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func own(t *testing.T) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), "billing", catalog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func remote(t *testing.T, s *sender, sub transport.Subscriber) *inbox.Source {
	t.Helper()
	src, err := inbox.Remote("order", s.URL+"/feed", catalog(t), &inbox.Options{Subscriber: sub, Silence: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if sub != nil {
		run(t, src)
	}
	return src
}

func run(t *testing.T, src *inbox.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = src.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func wait(t *testing.T, f *follow.Follower, tok freehold.Token) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.WaitFor(ctx, tok); err != nil {
		t.Fatalf("%v; %+v", err, f.Status(t.Context()))
	}
}

func TestPullAppliesExactlyOnceAcrossRestarts(t *testing.T) {
	t.Parallel()
	s, db := newSender(t, memory.NewDisk()), own(t)
	want := ""
	for round := range 3 {
		t.Run(fmt.Sprint("start ", round), func(t *testing.T) {
			f := receiver(t, db, remote(t, s, nil))
			for n := range 50 {
				n += round * 50
				tok := s.place(t, n)
				want += fmt.Sprintf("%d;", n)
				if n%10 == 0 {
					wait(t, f, tok)
				}
			}
			_, head, _ := s.db.Journal().Bounds(t.Context())
			wait(t, f, freehold.NewToken(head))
			if got := seen(t, db); got != want {
				t.Errorf("seen %s\nwant %s", got, want)
			}
		})
	}
}

func TestSourceRestoredBelowItsConsumerIsRecognised(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"and silent": 0, "and written on": 2, "and written beyond": 9} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			s, db := newSender(t, disk), own(t)
			s.place(t, 1, 2)
			backup := disk.Clone()
			tok := s.place(t, 3, 4, 5)
			f := receiver(t, db, remote(t, s, nil))
			wait(t, f, tok)
			s.use(t, backup)
			for n := range more {
				s.place(t, 100+n)
			}
			s.CloseClientConnections() // the long poll of the old history
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for f.Status(ctx)[0].State != follow.Diverged {
				if ctx.Err() != nil {
					t.Fatalf("not recognised: %+v", f.Status(t.Context()))
				}
				time.Sleep(time.Millisecond)
			}
			if got, want := seen(t, db), "1;2;3;4;5;"; got != want {
				t.Errorf("seen %s, want %s", got, want)
			}
			if more == 0 {
				return // nothing new to adopt yet
			}
			if _, err := f.Adopt(ctx, "order"); err != nil {
				t.Fatal(err)
			}
			_, head, _ := s.db.Journal().Bounds(ctx)
			wait(t, f, freehold.NewToken(head))
			want := "1;2;3;4;5;"
			for n := range more {
				want += fmt.Sprintf("%d;", 100+n)
			}
			if got := seen(t, db); got != want {
				t.Errorf("seen %s after adopt, want %s", got, want)
			}
		})
	}
}

// lossy delivers a journal as a bad broker would: it drops, doubles, reorders and
// damages, and breaks off.
type lossy struct {
	db *memory.DB
}

var errBroken = errors.New("broker breaks off")

func (l lossy) Subscribe(ctx context.Context, _ freehold.Source, after freehold.Mark, h transport.Handler) error {
	n := 0
	for {
		rs, err := l.db.Journal().Read(ctx, after, 7)
		if err != nil {
			return err
		}
		for i := range rs {
			n++
			r := rs[i]
			if r.Internal {
				r = freehold.Recorded{Internal: true, At: r.At, Digest: r.Digest, Incarnation: r.Incarnation, Last: r.Last}
			}
			switch n % 11 {
			case 3: // lost
				continue
			case 5: // doubled
				_ = h.Events(ctx, []freehold.Recorded{r})
			case 7: // out of order
				_ = h.Events(ctx, []freehold.Recorded{rs[0]})
			case 9: // damaged
				r.Raw = []byte(`{"n":666}`)
			case 10:
				return errBroken
			}
			if err := h.Events(ctx, []freehold.Recorded{r}); err != nil {
				return err
			}
			after = r.At
		}
		if len(rs) == 0 {
			if err := l.db.Journal().Wait(ctx, after); err != nil {
				return nil
			}
		}
	}
}

func TestBrokerThatLosesDoublesAndReordersChangesNothing(t *testing.T) {
	t.Parallel()
	s, db := newSender(t, memory.NewDisk()), own(t)
	f := receiver(t, db, remote(t, s, lossy{s.db}))
	want := ""
	var tok freehold.Token
	for n := range 300 {
		tok = s.place(t, n)
		want += fmt.Sprintf("%d;", n)
	}
	wait(t, f, tok)
	if got := seen(t, db); got != want {
		t.Errorf("seen %s\nwant %s", got, want)
	}
}

// TestASubscriptionThatStoodStillGoesOn: an instance leads, stands by while others
// apply what comes, and leads again.
func TestASubscriptionThatStoodStillGoesOn(t *testing.T) {
	t.Parallel()
	s, db := newSender(t, memory.NewDisk()), own(t)
	src, err := inbox.Remote("order", s.URL+"/feed", catalog(t), &inbox.Options{Subscriber: lossy{s.db}, Silence: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for round := range 4 {
		t.Run(fmt.Sprint("time ", round), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			leader := src
			if round%2 == 0 {
				go func() { done <- src.Run(ctx) }()
			} else {
				leader = remote(t, s, nil) // the other instance
				done <- nil
			}
			f := receiver(t, db, leader)
			var tok freehold.Token
			for n := range 50 {
				tok = s.place(t, 100*round+n)
			}
			wait(t, f, tok)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			for n := range 50 {
				want += fmt.Sprintf("%d;", 100*round+n)
			}
			if got := seen(t, db); got != want {
				t.Errorf("seen %s\nwant %s", got, want)
			}
		})
	}
}

func TestSilentBrokerCostsOnlyTime(t *testing.T) {
	t.Parallel()
	s, db := newSender(t, memory.NewDisk()), own(t)
	f := receiver(t, db, remote(t, s, mute{}))
	wait(t, f, s.place(t, 1, 2, 3))
}

type mute struct{}

func (mute) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, _ transport.Handler) error {
	<-ctx.Done()
	return nil
}

func TestFeedRefusesBadQuestions(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	s.place(t, 1)
	for query, want := range map[string]int{"?after=x": 400, "?after=-1": 400, "?limit=x": 400, "?chain=zz": 400, "?after=99": 409, "": 200,
		"?after=1&chain=" + freehold.Hash{1}.String(): 409} {
		resp, err := s.Client().Get(s.URL + "/feed" + query)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: status %d, want %d", query, resp.StatusCode, want)
		}
	}
}

func handler(db func() *memory.DB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { outbox.Feed(db().Journal()).ServeHTTP(w, r) })
}
