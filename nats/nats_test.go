package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport/transporttest"
)

// Placed crosses; Hidden is internal.
type Placed struct {
	N int `json:"n"`
}

func (Placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

type Hidden struct{}

func (Hidden) EventType() freehold.Type { return freehold.T("order.hidden", 1) }

var quiet = slog.New(slog.DiscardHandler)

func catalog(t testing.TB) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[Placed](), freehold.Internal[Hidden]())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, name freehold.Source) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), name, catalog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func start(t testing.TB, dir string) (*embed.Server, *nats.Bus) {
	t.Helper()
	srv, err := embed.Start(dir, &embed.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return srv, attach(t, srv, "", &nats.Options{Server: srv, Pages: true})
}

// inBothWays runs a test with pages and with a message for each event.
func inBothWays(t *testing.T, test func(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus))) {
	t.Parallel()
	t.Run("pages", func(t *testing.T) {
		t.Parallel()
		test(t, start)
	})
	t.Run("a message each", func(t *testing.T) {
		t.Parallel()
		test(t, func(t testing.TB, dir string) (*embed.Server, *nats.Bus) {
			srv, _ := start(t, dir)
			return srv, attach(t, srv, "", &nats.Options{Server: srv})
		})
	})
}

// startRemote is start by a URL, as other processes do.
func startRemote(t testing.TB, dir string) (*embed.Server, *nats.Bus) {
	t.Helper()
	srv, err := embed.Start(dir, &embed.Options{Log: quiet, Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return srv, attach(t, srv, srv.URL(), &nats.Options{})
}

func attach(t testing.TB, srv *embed.Server, url string, o *nats.Options) *nats.Bus {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	bus, err := nats.Connect(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Close(); srv.Close() })
	return bus
}

// goes runs r until the test ends, or stop is called.
func goes(t testing.TB, r interface{ Run(context.Context) error }) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// services are a sender with a relay and a receiver with an inbox.
type services struct {
	t        testing.TB
	bus      *nats.Bus
	receiver *memory.DB
	orders   *follow.Follower
	placed   int

	mu     sync.Mutex // of sender: the feed reads it
	sender *memory.DB
	relay  *outbox.Relay
	stop   func() // the relay
}

func connect(t testing.TB, bus *nats.Bus) *services {
	t.Helper()
	return connectDisk(t, bus, memory.NewDisk())
}

func connectDisk(t testing.TB, bus *nats.Bus, disk *memory.Disk) *services {
	t.Helper()
	return connectServices(t, bus, bus, disk)
}

// connectApart gives the receiver a connection of its own.
func connectApart(t testing.TB, sending, receiving *nats.Bus) *services {
	t.Helper()
	return connectServices(t, sending, receiving, memory.NewDisk())
}

func connectServices(t testing.TB, bus, receiving *nats.Bus, disk *memory.Disk) *services {
	t.Helper()
	s := &services{t: t, bus: bus, receiver: open(t, "billing")}
	s.use(disk)
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		db := s.sender
		s.mu.Unlock()
		outbox.Feed(db.Journal()).ServeHTTP(w, r)
	}))
	t.Cleanup(feed.Close)
	src, err := inbox.Remote("order", feed.URL+"/feed", catalog(t), &inbox.Options{Subscriber: receiving.Subscriber(), Silence: 300 * time.Millisecond, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	goes(t, src)
	s.orders, err = follow.New("orders", s.receiver, []follow.Source{src}, &follow.Options{Log: quiet, MaxPause: 100 * time.Millisecond},
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
	goes(t, s.orders)
	return s
}

// use starts the sender on a disk, with a relay of its own.
func (s *services) use(disk *memory.Disk) {
	s.t.Helper()
	db, err := memory.Open(s.t.Context(), "order", catalog(s.t), &memory.Options{Disk: disk})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.sender = db
	s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	s.relay = outbox.New(db.Journal(), s.bus.Publisher("order"), &outbox.Options{Heartbeat: 50 * time.Millisecond, MaxPause: 100 * time.Millisecond, Log: quiet})
	s.stop = goes(s.t, s.relay)
}

func (s *services) place(n int) (tok freehold.Token) {
	s.t.Helper()
	for range n {
		tok = s.placeAs(s.placed)
		s.placed++
	}
	return tok
}

// placeAs places one order with a number of its own.
func (s *services) placeAs(n int) freehold.Token {
	s.t.Helper()
	tok, err := s.sender.Append(s.t.Context(), freehold.Write{Stream: freehold.Stream("order", strconv.Itoa(n)), Expect: freehold.NoStream, Events: []freehold.Event{Hidden{}, Placed{n}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return tok
}

// applied is the numbers of the orders that the receiver has applied, in order.
func (s *services) applied() (numbers string) {
	s.t.Helper()
	err := s.receiver.View(s.t.Context(), func(ctx context.Context, tx kv.Tx) error {
		raw, _, err := tx.Get(ctx, "seen")
		numbers = string(raw)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return numbers
}

// arrived waits for a token and checks that everything was applied once, in order.
func (s *services) arrived(tok freehold.Token) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.orders.WaitFor(ctx, tok); err != nil {
		s.t.Fatalf("%v: %+v", err, s.orders.Status(ctx))
	}
	want := ""
	for n := range s.placed {
		want += fmt.Sprintf("%d;", n)
	}
	if got := s.applied(); got != want {
		s.t.Errorf("seen %s\nwant %s", got, want)
	}
}

// published waits until the broker holds the journal's head.
func published(t testing.TB, bus *nats.Bus, db *memory.DB) {
	t.Helper()
	_, head, _ := db.Journal().Bounds(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		last, err := bus.Publisher("order").Last(ctx, "order")
		if err == nil && last.Mark == head {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the broker holds %v (%v), the head is %v", last, err, head)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEventsArriveOnceInOrder(t *testing.T) { inBothWays(t, eventsArriveOnceInOrder) }

func eventsArriveOnceInOrder(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	_, bus := start(t, filepath.Join(t.TempDir(), "js"))
	s := connect(t, bus)
	s.arrived(s.place(1))
	s.arrived(s.place(500))
	published(t, bus, s.sender)
}

func TestStoreDirectoryDeletedWhileEventsFlow(t *testing.T) {
	inBothWays(t, storeDirectoryDeletedWhileEventsFlow)
}

func storeDirectoryDeletedWhileEventsFlow(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	dir := filepath.Join(t.TempDir(), "js")
	_, bus := start(t, dir)
	s := connect(t, bus)
	for range 3 {
		s.arrived(s.place(50))
		removeAll(t, dir)
		s.arrived(s.place(50))
	}
	published(t, bus, s.sender)
	s.arrived(s.place(50))
}

// removeAll removes a directory in which a server is still writing.
func removeAll(t testing.TB, dir string) {
	t.Helper()
	for range 1000 {
		if os.RemoveAll(dir) == nil {
			return
		}
	}
	t.Fatalf("%s cannot be removed", dir)
}

func TestStoreDirectoryRestoredFromAnOlderCopy(t *testing.T) {
	inBothWays(t, storeDirectoryRestoredFromAnOlderCopy)
}

func storeDirectoryRestoredFromAnOlderCopy(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	dir := filepath.Join(t.TempDir(), "js")
	srv, bus := start(t, dir)
	s := connect(t, bus)
	s.arrived(s.place(100))
	published(t, bus, s.sender)
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-r", dir, copied).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	s.arrived(s.place(100))
	published(t, bus, s.sender)
	removeAll(t, dir)
	if err := os.Rename(copied, dir); err != nil {
		t.Fatal(err)
	}
	s.arrived(s.place(100))
	published(t, bus, s.sender)
	_ = srv
}

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("in the process", func(t *testing.T) { conformance(t, start) })
	t.Run("by URL", func(t *testing.T) { conformance(t, startRemote) })
	t.Run("pages by URL", func(t *testing.T) {
		conformance(t, func(t testing.TB, dir string) (*embed.Server, *nats.Bus) {
			srv, _ := startRemote(t, dir)
			return srv, attach(t, srv, srv.URL()+"?pages=true", &nats.Options{})
		})
	})
}

func conformance(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	t.Parallel()
	dirs := sync.Map{} // of brokers
	transporttest.Run(t, transporttest.Harness{
		Start: func(t testing.TB) transporttest.Broker {
			dir := filepath.Join(t.TempDir(), "js")
			_, bus := start(t, dir)
			dirs.Store(bus, dir)
			return bus
		},
		Forget: func(t testing.TB, b transporttest.Broker) {
			dir, _ := dirs.Load(b)
			removeAll(t, dir.(string))
		},
		MaxEvent: 8 << 20,
	})
}

func TestSecondServerOnOneDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "js")
	start(t, dir)
	if srv, err := embed.Start(dir, nil); err == nil {
		srv.Close()
		t.Error("a second server was started")
	}
}

func BenchmarkPublishAndReceive(b *testing.B) {
	_, bus := start(b, filepath.Join(b.TempDir(), "js"))
	s := connect(b, bus)
	b.ResetTimer()
	tok := s.place(b.N)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := s.orders.WaitFor(ctx, tok); err != nil {
		b.Fatal(err)
	}
}

// TestAnAddressThatNoServerCanHaveIsRefused keeps a mistyped URL from looking like a
// server that is down.
func TestAnAddressThatNoServerCanHaveIsRefused(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://127.0.0.1:4222", "nats://", "nats://127.0.0.1:port", "nats://127.0.0.1:70000", "nats://a:4222,,nats://b:4222", "nats://u:secret@%zz:4222", "ftp://u:secret@h"} {
		bus, err := nats.Connect(t.Context(), url, nil)
		if err == nil {
			bus.Close()
			t.Errorf("%s: accepted", url)
			continue
		}
		if text := err.Error(); strings.Contains(text, "secret") || strings.Contains(text, "\n") || !strings.Contains(text, "want nats://host:port") {
			t.Errorf("%s: %q", url, text)
		}
	}
}
