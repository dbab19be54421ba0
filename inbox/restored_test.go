package inbox_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/transport"
)

// beating is a broker that has lost its events and goes on carrying heartbeats.
type beating struct{ s *sender }

func (b beating) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		b.s.mu.Lock()
		j := b.s.db.Journal()
		b.s.mu.Unlock()
		_, head, err := j.Bounds(ctx)
		if err != nil {
			return err
		}
		all, err := j.Incarnations(ctx)
		if err != nil {
			return err
		}
		h.Head(transport.Head{Mark: head, Incarnation: all[len(all)-1].ID})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// A source put back to an older state that keeps beating is never silent: its
// heartbeats themselves must lead its consumers to the feed, also when several
// followers, in front and behind, share what is known of the source.
func TestSourceRestoredIsRecognisedByItsHeartbeats(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"and silent": 0, "and written on": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			s := newSender(t, disk)
			s.place(t, 1, 2)
			backup := disk.Clone()
			tok := s.place(t, 3, 4, 5)
			src := remote(t, s, beating{s})
			var followers []*follow.Follower
			for range 4 {
				f := receiver(t, own(t), src)
				wait(t, f, tok)
				followers = append(followers, f)
			}
			s.use(t, backup)
			for n := range more {
				s.place(t, 100+n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for i, f := range followers {
				for f.Status(ctx)[0].State != follow.Diverged {
					if ctx.Err() != nil {
						t.Fatalf("follower %d has not recognised it: %+v", i, f.Status(t.Context()))
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
}

// given is a broker that delivers what a test gives it.
type given chan []freehold.Recorded

func (b given) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	for {
		select {
		case events := <-b:
			err := h.Events(ctx, events)
			b <- nil // they were taken
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// What a broker delivered of a history that is gone is still in memory when an operator
// lets the consumers go on from the base, and it continues the base's chain. It must not
// be applied a second time, whichever of them asks the feed first.
func TestWhatWasDeliveredOfALostHistoryIsNotAppliedAgain(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"shorter": 1, "as long": 2, "longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			s := newSender(t, disk)
			tok := s.place(t, 1, 2)
			broker := make(given)
			src := remote(t, s, broker)
			dbs := []*memory.DB{own(t), own(t)}
			var followers []*follow.Follower
			for _, db := range dbs {
				followers = append(followers, receiver(t, db, src))
				wait(t, followers[len(followers)-1], tok)
			}
			_, base, err := s.db.Journal().Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			backup := disk.Clone()
			tok = s.place(t, 3, 4)
			events, err := s.db.Journal().Read(t.Context(), base, 100)
			if err != nil {
				t.Fatal(err)
			}
			broker <- events
			<-broker
			for _, f := range followers {
				wait(t, f, tok)
			}
			s.use(t, backup)
			want := "1;2;3;4;"
			for n := range more {
				tok = s.place(t, 100+n)
				want += strconv.Itoa(100+n) + ";"
			}
			if _, _, err := src.Bounds(t.Context()); err != nil {
				t.Fatal(err)
			}
			if more == 2 { // the head tells it, before any follower has asked with its place
				rs, err := src.Read(t.Context(), base, 100)
				if err != nil || len(rs) == 0 || rs[0].ID == events[0].ID {
					t.Errorf("behind the base stand %v, %v", rs, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, f := range followers {
				for f.Status(ctx)[0].State != follow.Diverged && ctx.Err() == nil {
					runtime.Gosched()
				}
			}
			for i, f := range followers {
				if _, err := f.Adopt(ctx, "order"); err != nil {
					t.Fatal(err)
				}
				if err := f.WaitFor(ctx, tok); err != nil {
					t.Error(err)
				}
				if got := seen(t, dbs[i]); got != want {
					t.Errorf("follower %d has applied %s want %s", i, got, want)
				}
			}
		})
	}
}

// told is a broker that carries the heads that a test gives it.
type told chan transport.Head

func (b told) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	for {
		select {
		case head := <-b:
			h.Head(head)
			b <- head // it was taken
		case <-ctx.Done():
			return nil
		}
	}
}

// The feed is asked because something did not fit, and while it answers the source is put
// back. That answer settles only what it was asked for.
func TestSourceRestoredWhileItsFeedAnswersIsRecognised(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	s := newSender(t, disk)
	s.place(t, 1)
	backup := disk.Clone()
	s.place(t, 2)
	_, head, err := s.db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answered, arrived := make(chan struct{}), make(chan struct{}) // of the question that is held up
	var once sync.Once
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		s.Config.Handler.ServeHTTP(answer, r)
		if r.URL.Query().Get("after") == strconv.Itoa(int(head.Position)) {
			once.Do(func() { close(answered); <-arrived })
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the reader has gone
	}))
	t.Cleanup(front.Close)
	broker := make(told)
	src := silent(t, front.URL, broker)
	tell := func(h freehold.Mark, incarnation string) {
		broker <- transport.Head{Mark: h, Incarnation: incarnation}
		<-broker
	}
	odd := head
	odd.Chain[0]++
	tell(head, "first")
	tell(odd, "first") // the reason to ask
	read := make(chan error, 1)
	go func() {
		_, err := src.Read(t.Context(), head, 10)
		read <- err
	}()
	<-answered
	s.use(t, backup)
	_, back, err := s.db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tell(back, "second")
	close(arrived)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := src.Wait(ctx, head); err != nil {
		t.Fatalf("nobody asks the feed again: %v", err)
	}
	if _, err := src.Read(ctx, head, 10); !errors.Is(err, freehold.ErrDiverged) {
		t.Errorf("%v, want %v", err, freehold.ErrDiverged)
	}
}

// The feed refuses a place to which the broker's events have led. Whatever its reason, what
// the broker delivered is read no more before the feed has been asked: of who stands
// behind it, too.
func TestWhatWasDeliveredIsNotReadBehindARefusal(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{http.StatusConflict: freehold.ErrDiverged, http.StatusGone: freehold.ErrGone} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			s := newSender(t, disk)
			s.place(t, 1)
			backup := disk.Clone()
			var refused atomic.Bool
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if refused.Load() && r.URL.Query().Get("after") != "0" {
					w.WriteHeader(status)
					return
				}
				s.Config.Handler.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			broker := make(given)
			src := silent(t, front.URL, broker)
			broker <- nil
			<-broker // it has asked where the source stands
			_, base, err := s.db.Journal().Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.place(t, 2)
			events, err := s.db.Journal().Read(t.Context(), base, 100)
			if err != nil {
				t.Fatal(err)
			}
			broker <- events
			<-broker
			if rs, err := src.Read(t.Context(), base, 100); err != nil || len(rs) != len(events) {
				t.Fatalf("behind the base stand %v, %v", rs, err)
			}
			refused.Store(true)
			odd := events[len(events)-1].At
			odd.Chain[0]++ // so that the feed is asked
			if _, err := src.Read(t.Context(), odd, 100); !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
			if rs, err := src.Read(t.Context(), base, 100); !errors.Is(err, want) {
				t.Errorf("behind the base stand %v, %v, want %v", rs, err, want)
			}
			s.use(t, backup)
			s.place(t, 100, 101)
			refused.Store(false)
			for range 2 { // also once the feed has been asked
				if rs, err := src.Read(t.Context(), base, 100); err != nil || len(rs) != 4 || rs[0].ID == events[0].ID {
					t.Errorf("behind the base stand %v, %v", rs, err)
				}
			}
		})
	}
}

// silent runs a source of which nothing is asked but for a reason.
func silent(t *testing.T, url string, broker transport.Subscriber) *inbox.Source {
	t.Helper()
	src, err := inbox.Remote("order", url+"/feed", catalog(t), &inbox.Options{Subscriber: broker, Silence: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, src)
	return src
}
