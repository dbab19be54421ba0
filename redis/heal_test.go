package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/redis"
)

// model is a journal and a read model of it, whose follower runs.
type model struct {
	*testing.T
	source *memory.DB
	store  *redis.Store
	view   *projection.Projection[kv.Tx]
	total  int64
}

func newSource(t *testing.T) *memory.DB {
	t.Helper()
	source, err := memory.Open(t.Context(), "given", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

func newModel(t *testing.T, url string, source *memory.DB, o *redis.Options) *model {
	t.Helper()
	m := &model{T: t, source: source, store: store(t, url, o)}
	var err error
	m.view, err = projection.New("sums", 1, m.store, []follow.Source{source.Journal()}, &projection.Options{
		Options: follow.Options{Batch: 5, MaxPause: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}, Wait: 20 * time.Second,
	}, func(ns string) []follow.Route[kv.Tx] {
		return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e Counted, r freehold.Recorded) error {
			if _, err := tx.Add(ctx, ns+"/total", e.N, 0); err != nil {
				return err
			}
			return tx.Put(ctx, fmt.Sprintf("%s/all/%06d", ns, r.At.Position), []byte(fmt.Sprint(e.N)))
		})}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.view.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("follower: %v", err)
		}
	})
	return m
}

// add appends n events to the journal.
func (m *model) add(n int) (tok freehold.Token) {
	m.Helper()
	for range n {
		m.total++
		var err error
		if tok, err = m.source.Append(m.Context(), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{Counted{m.total}}}); err != nil {
			m.Fatal(err)
		}
	}
	return tok
}

// read adds up what the read model holds; the sum must be that of the rows.
func read(ctx context.Context, tx kv.Tx, ns string) (rows int64, err error) {
	var sum int64
	for item, err := range tx.Scan(ctx, ns+"/all/", "") {
		if err != nil {
			return 0, err
		}
		var n int64
		if _, err := fmt.Sscan(string(item.Value), &n); err != nil {
			return 0, err
		}
		rows, sum = rows+1, sum+n
	}
	raw, _, err := tx.Get(ctx, ns+"/total")
	if err != nil {
		return 0, err
	}
	if want := fmt.Sprint(sum); string(raw) != want && sum > 0 {
		return 0, fmt.Errorf("%d rows add up to %s, the total is %q", rows, want, raw)
	}
	if want := rows * (rows + 1) / 2; sum != want {
		return 0, fmt.Errorf("%d rows add up to %d, want %d", rows, sum, want)
	}
	return rows, nil
}

// want reads with a token and wants all events up to it.
func (m *model) want(tok freehold.Token, rows int64) {
	m.Helper()
	var got int64
	err := m.view.View(m.Context(), tok, func(ctx context.Context, tx kv.Tx, ns string) (err error) {
		got, err = read(ctx, tx, ns)
		return err
	})
	if err != nil || got != rows {
		m.Errorf("the read model has %d rows, %v; want %d; %+v", got, err, rows, m.view.Status(m.Context()))
	}
}

func TestAnEmptiedStoreIsBuiltAgain(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	m := newModel(t, srv.URL()+"/shop", newSource(t), nil)
	tok := m.add(40)
	m.want(tok, 40)
	srv.Do("FLUSHALL")
	m.want(tok, 40) // nothing new in the journal
	m.want(m.add(10), 50)
	srv.Do("FLUSHALL")
	m.want(m.add(10), 60)
}

// TestAnIdleFollowerNoticesByItself: nobody reads, nothing is appended.
func TestAnIdleFollowerNoticesByItself(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	m := newModel(t, srv.URL(), newSource(t), &redis.Options{Watch: 5 * time.Millisecond})
	m.want(m.add(40), 40)
	lost := m.store.Lost()
	srv.Do("FLUSHALL")
	<-lost
	for m.view.Status(t.Context())[0].Lag == 0 && srv.Do("HGET", "{views}:meta", "n") == "$-1" { // it has not begun
		if t.Context().Err() != nil {
			t.Fatal("nothing happens")
		}
	}
	tok := freehold.NewToken(head(t, m.source))
	m.want(tok, 40)
}

func head(t *testing.T, db *memory.DB) freehold.Mark {
	t.Helper()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestAStoreRestoredToAnOlderStateGoesOnFromThere(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	m := newModel(t, srv.URL()+"/shop", newSource(t), nil)
	m.want(m.add(20), 20)
	if said := srv.Do("SAVE"); said != "+OK" {
		t.Fatal(said)
	}
	dump, err := os.ReadFile(filepath.Join(srv.Dir(), "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	tok := m.add(20)
	m.want(tok, 40)
	srv.Kill()
	if err := os.WriteFile(filepath.Join(srv.Dir(), "dump.rdb"), dump, 0o600); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	m.wantAgain(tok, 40)
	m.want(m.add(10), 50)
}

// wantAgain is want after the server was away: reads may say that it is.
func (m *model) wantAgain(tok freehold.Token, rows int64) {
	m.Helper()
	for {
		err := m.view.View(m.Context(), tok, func(ctx context.Context, tx kv.Tx, ns string) error {
			_, err := read(ctx, tx, ns)
			return err
		})
		if err == nil || !errors.Is(err, freehold.ErrUnavailable) {
			break
		}
	}
	m.want(tok, rows)
}

func TestAServerThatIsKilledAndRestartedLosesNothingOfTheReadModel(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"with its log":      {"--appendonly", "yes", "--appendfsync", "always"},
		"with nothing":      nil,
		"with some seconds": {"--appendonly", "yes", "--appendfsync", "no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := testredis.NewServer(t, args...)
			m := newModel(t, srv.URL(), newSource(t), nil)
			for i := range int64(4) {
				m.wantAgain(m.add(25), 30*i+25)
				srv.Kill()
				tok := m.add(5)
				srv.Restart()
				m.wantAgain(tok, 30*i+30)
			}
		})
	}
}

func TestCompetingInstancesApplyEachEventOnce(t *testing.T) {
	t.Parallel()
	url := testredis.Start(t)
	source := newSource(t)
	first := newModel(t, url, source, nil)
	for range 3 {
		newModel(t, url, source, nil)
	}
	var tok freehold.Token
	for range 40 {
		tok = first.add(10)
	}
	first.want(tok, 400)
}

// TestReadersSeeOneCommitWhileTheStoreIsEmptiedAndBuilt: whatever happens, a read
// is of one commit, and one with a token has at least what the token names.
func TestReadersSeeOneCommitWhileTheStoreIsEmptiedAndBuilt(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	m := newModel(t, srv.URL(), newSource(t), &redis.Options{Watch: 5 * time.Millisecond})
	var all sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	tok, rows := m.add(1), int64(1)
	reads := make([]int, 3)
	for i := range reads {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				tok, rows := tok, rows
				mu.Unlock()
				var got int64
				err := m.view.View(t.Context(), tok, func(ctx context.Context, tx kv.Tx, ns string) (err error) {
					got, err = read(ctx, tx, ns)
					return err
				})
				if err != nil && !errors.Is(err, freehold.ErrBehind) || err == nil && got < rows {
					t.Errorf("%d rows, %v; want %d at least", got, err, rows)
					return
				}
				if err == nil {
					reads[i]++
				}
			}
		})
	}
	for i := range 100 {
		next := m.add(3)
		mu.Lock()
		tok, rows = next, int64(1+3*(i+1))
		mu.Unlock()
		if i%10 == 9 {
			srv.Do("FLUSHALL")
		}
		if i%3 == 0 {
			m.want(next, rows)
		}
	}
	close(stop)
	all.Wait()
	for i, n := range reads {
		if n < 20 {
			t.Errorf("reader %d has read %d times only", i, n)
		}
	}
	m.want(tok, rows)
}
