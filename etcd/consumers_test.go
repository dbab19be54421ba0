package etcd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport"
)

// patient bounds what only a defect takes so long.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a state that no token names.
func eventually(ctx context.Context, t *testing.T, what string, is func() (bool, any)) {
	t.Helper()
	for {
		ok, got := is()
		if ok {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %+v", what, got)
		}
		time.Sleep(time.Millisecond)
	}
}

func running(t *testing.T, f *follow.Follower) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follower: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// counted counts how often each event is applied.
func counted(ctx context.Context, tx kv.Tx, e journaltest.Happened, _ freehold.Recorded) error {
	_, err := tx.Add(ctx, "seen/"+strconv.Itoa(e.N), 1, 0)
	return err
}

// TestLanesHoldBackTheCutAtTheirFloorOnly cuts the journal of a follower whose lanes had
// their last events long ago, and again when it has no lanes any more.
func TestLanesHoldBackTheCutAtTheirFloorOnly(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	db := open(t, testdb.Etcd(t))
	next := 0
	for _, lanes := range []int{4, 4, 1} {
		f, err := follow.New("f", db, []follow.Source{db.Journal()}, &follow.Options{Lanes: lanes, Log: quiet}, follow.On(counted))
		if err != nil {
			t.Fatal(err)
		}
		stop := running(t, f)
		said(t, db, next, next+20) // for all lanes
		next += 20
		for range 5 { // for one of them
			if _, err := db.Append(ctx, freehold.Write{Stream: "a-0", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: next}}}); err != nil {
				t.Fatal(err)
			}
			next++
		}
		_, head, _ := db.Journal().Bounds(ctx)
		if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, "the floor is not the head", func() (bool, any) {
			all, err := db.Journal().Consumers(ctx)
			return err == nil && len(all) == 1 && all[0] == journal.Consumer{Name: "f", Mark: head, Own: true}, all
		})
		stop()
		if first, err := db.CutNow(ctx, time.Nanosecond); err != nil || first != head {
			t.Errorf("in %d lanes: cut at %v, %v, want %v, to which all of them have applied everything", lanes, first, err, head)
		}
	}
}

// TestAFollowerThatIsGoneIsNamedAndRetired lets a follower of the service itself, and a
// consumer, hold back the cut, and does what the warnings say.
func TestAFollowerThatIsGoneIsNamedAndRetired(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	var log bytes.Buffer
	db, err := etcd.Open(ctx, testdb.Etcd(t), "test", journaltest.Types(t), &etcd.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	said(t, db, 0, 10)
	all, err := db.Journal().Read(ctx, freehold.Mark{Source: "test"}, 10)
	if err != nil || len(all) != 10 {
		t.Fatal(len(all), err)
	}
	move := func(from, to freehold.Mark) {
		t.Helper()
		if _, err := db.Update(ctx, func(ctx context.Context, tx kv.Tx) error { return db.Keeper(tx).Move(ctx, "old view", from, to) }); err != nil {
			t.Fatal(err)
		}
	}
	move(freehold.Mark{Source: "test"}, all[1].At)
	if err := db.Journal().Register(ctx, "other/f", all[4].At); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(outbox.Feed(db.Journal()))
	defer server.Close()
	ask := func(method, query string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, server.URL+"/feed/consumers"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	cut := func(when string, want freehold.Position, by, forget string) {
		t.Helper()
		log.Reset()
		first, err := db.CutNow(ctx, time.Nanosecond)
		if err != nil || first.Position != want {
			t.Fatalf("%s: cut at %v, %v, want %d", when, first, err, want)
		}
		if said := log.String(); by != "" && !(strings.Contains(said, by) && strings.Contains(said, forget)) {
			t.Errorf("%s: the warning is %q, want it to name %s and %s", when, said, by, forget)
		}
		_, body := ask(http.MethodGet, "")
		var listed []journal.Consumer
		if err := json.Unmarshal([]byte(body), &listed); err != nil || len(listed) == 0 || want < 10 && listed[0].Mark.Position != want {
			t.Errorf("%s: the list begins with who does not hold back the cut: %s", when, body)
		}
	}
	cut("at first", 2, `follower="old view"`, "DELETE /feed/consumers?name=old+view&retired=true")
	for query, want := range map[string]int{"": 400, "?name=nobody": 404, "?name=nobody&retired=true": 404, "?name=other/f&retired=true": 404, "?name=consumer:other/f": 404, "?name=old+view&retired=1": 400} {
		if status, body := ask(http.MethodDelete, query); status != want {
			t.Errorf("%q: %d, want %d: %s", query, status, want, body)
		}
	}
	if status, body := ask(http.MethodDelete, "?name=old+view"); status != 409 || !strings.Contains(body, `DELETE /feed/consumers?name=old+view\u0026retired=true`) {
		t.Errorf("an own follower is to be forgotten: %d %s, want 409 and what to do instead", status, body)
	}
	cut("refused", 2, "", "")
	retire := func() {
		t.Helper()
		if status, body := ask(http.MethodDelete, "?name=old+view&retired=true"); status != 204 {
			t.Fatal(status, body)
		}
	}
	retire()
	move(all[1].At, all[2].At)                      // it was not gone after all
	cut("moved on since it was retired", 3, "", "") // which was said already
	retire()
	cut("retired", 5, "follower=other/f", "DELETE /feed/consumers?name=other%2Ff")
	if _, body := ask(http.MethodGet, ""); !strings.Contains(body, `"own":true,"retired":true}]`) {
		t.Errorf("retired is not last, or not told: %s", body)
	}
	if status, body := ask(http.MethodDelete, "?name=other/f"); status != 204 {
		t.Fatal(status, body)
	}
	cut("forgotten", 10, "", "")

	f, err := follow.New("old view", db, []follow.Source{db.Journal()}, &follow.Options{Log: quiet}, follow.On(counted))
	if err != nil {
		t.Fatal(err)
	}
	running(t, f)
	eventually(ctx, t, "a follower that was retired goes on", func() (bool, any) {
		st := f.Status(ctx)[0]
		return st.State == follow.Diverged && strings.Contains(st.Error, "events 4 to 10 of test were cut"), st
	})
}

// TestLookingAtMarksAsksTheMembersAFewTimes counts the requests that it takes to see who
// needs which events, when all that this process had read is out of date: they are as
// many for a dozen followers as for two.
func TestLookingAtMarksAsksTheMembersAFewTimes(t *testing.T) {
	t.Parallel()
	ctx, url := patient(t), testdb.Etcd(t)
	var asked atomic.Int64
	var count grpc.UnaryClientInterceptor = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		asked.Add(1)
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	db, err := etcd.Open(ctx, url, "test", journaltest.Types(t), etcd.Options{Log: quiet}.Through(count, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, known := open(t, url), 0
	look := func(followers int) int64 {
		t.Helper()
		_, err := other.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
			for ; known < followers; known++ {
				to := freehold.Mark{Source: "test", Position: freehold.Position(known + 1)}
				if err := other.Keeper(tx).Move(ctx, "f"+strconv.Itoa(known), freehold.Mark{Source: "test"}, to); err != nil {
					return err
				}
			}
			return tx.Put(ctx, "something", nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := db.Journal().Fresh(ctx); err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		if all, err := db.Journal().Consumers(ctx); err != nil || len(all) != followers {
			t.Fatalf("%d followers, %v, want %d", len(all), err, followers)
		}
		return asked.Load() - before
	}
	requests := func(followers int) int64 { // now and then the process asks for the head, too
		return min(look(followers), look(followers), look(followers))
	}
	if two, dozen := requests(2), requests(12); dozen != two {
		t.Errorf("%d requests for a dozen followers, %d for two", dozen, two)
	}
}

// late is a broker that holds what stands behind a place, and delivers it to everybody.
type late struct {
	j     *journal.Journal
	after freehold.Mark
}

func (l late) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	for after := l.after; ; {
		rs, err := l.j.Read(ctx, after, 10)
		if err != nil {
			return err
		}
		if len(rs) == 0 {
			if err := l.j.Wait(ctx, after); err != nil {
				return nil // it is over
			}
			continue
		}
		if err := h.Events(ctx, rs); err != nil {
			return err
		}
		after = rs[len(rs)-1].At
	}
}

// TestAConsumerThatNobodyKnewIsToldWhatItLost starts a consumer for the first time, or
// with a database of long ago, when what it needs has been cut: it must stop and say so,
// and apply nothing of what is there, whichever way it reads, until it is told to skip
// what it has lost.
func TestAConsumerThatNobodyKnewIsToldWhatItLost(t *testing.T) {
	t.Parallel()
	for _, broker := range []bool{false, true} {
		for at, lost := range map[int]string{0: "events 1 to 6 of test were cut", 3: "events 4 to 6 of test were cut"} {
			t.Run("broker "+strconv.FormatBool(broker)+", at "+strconv.Itoa(at), func(t *testing.T) {
				t.Parallel()
				ctx := patient(t)
				db := open(t, testdb.Etcd(t))
				said(t, db, 0, 6)
				all, err := db.Journal().Read(ctx, freehold.Mark{Source: "test"}, 6)
				if err != nil || len(all) != 6 {
					t.Fatal(len(all), err)
				}
				types := journaltest.Types(t)
				there, err := memory.Open(ctx, "other", types, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer there.Close()
				if at > 0 {
					_, err := there.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
						return there.Keeper(tx).Move(ctx, "f", freehold.Mark{Source: "test"}, all[at-1].At)
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				first, err := db.CutNow(ctx, time.Nanosecond)
				if err != nil || first != all[5].At {
					t.Fatal(first, err)
				}
				said(t, db, 6, 9)
				server := httptest.NewServer(outbox.Feed(db.Journal()))
				defer server.Close()
				opts := &inbox.Options{Consumer: "other", Tell: time.Millisecond, Log: quiet}
				if broker {
					opts.Subscriber = late{db.Journal(), first}
				}
				source, err := inbox.Remote("test", server.URL+"/feed", types, opts)
				if err != nil {
					t.Fatal(err)
				}
				var skips atomic.Bool
				f, err := follow.New("f", there, []follow.Source{source}, &follow.Options{Lanes: 1 + at, Log: quiet}, follow.On(func(ctx context.Context, tx kv.Tx, e journaltest.Happened, r freehold.Recorded) error {
					if !skips.Load() {
						t.Errorf("%s was applied, although what stands before it was lost", r.At)
					}
					return counted(ctx, tx, e, r)
				}))
				if err != nil {
					t.Fatal(err)
				}
				run, stop := context.WithCancel(ctx)
				var reading sync.WaitGroup
				reading.Go(func() { _ = source.Run(run) })
				defer func() { stop(); reading.Wait() }()
				defer running(t, f)()
				stopped := func() (bool, any) {
					st := f.Status(ctx)[0]
					return st.State == follow.Diverged && strings.Contains(st.Error, lost) &&
						strings.Contains(st.Error, "start it from a database that has applied them") && st.Mark.Position == freehold.Position(at), st
				}
				eventually(ctx, t, "it does not say what it lost", stopped)
				said(t, db, 9, 12)
				if ok, st := stopped(); !ok {
					t.Errorf("news let it go on: %+v", st)
				}
				if known, err := db.Journal().Consumers(ctx); err != nil || len(known) != 0 {
					t.Errorf("a consumer that needs what was cut is registered: %+v, %v", known, err)
				}
				skips.Store(true)
				if behind, err := f.Skip(ctx, "test"); err != nil || behind != first {
					t.Fatalf("it skips to %s, %v, want %s", behind, err, first)
				}
				said(t, db, 12, 14)
				_, head, err := db.Journal().Bounds(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
					t.Fatal(err)
				}
				err = there.View(ctx, func(ctx context.Context, tx kv.Tx) error {
					for n := range 14 {
						if _, found, err := tx.Get(ctx, "seen/"+strconv.Itoa(n)); err != nil || found != (n >= 6) {
							t.Errorf("event %d is applied: %v, %v", n+1, found, err)
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				eventually(ctx, t, "it does not tell that it is behind the cut", func() (bool, any) {
					known, err := db.Journal().Consumers(ctx)
					return err == nil && len(known) == 1 && known[0].Mark.Position >= first.Position, known
				})
			})
		}
	}
}
