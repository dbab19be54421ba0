package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/sqlite"
	"github.com/freehold-go/freehold/transport"
)

// held reads what the broker has of a source, from the beginning up to a place, as a
// consumer sees it that asks nobody else.
func held(t testing.TB, bus *nats.Bus, source freehold.Source, upto freehold.Position) []freehold.Recorded {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all []freehold.Recorded
	var err error
	for again := true; again; again = err != nil && ctx.Err() == nil { // it ends with its connection
		all = nil
		err = bus.Subscriber().Subscribe(ctx, source, freehold.Mark{Source: source}, transport.Handler{
			Head: func(transport.Head) {},
			Events: func(_ context.Context, events []freehold.Recorded) error {
				if all = append(all, events...); all[len(all)-1].At.Position >= upto {
					cancel()
				}
				return nil
			},
		})
	}
	if err != nil || len(all) == 0 || all[len(all)-1].At.Position < upto {
		t.Fatalf("the broker holds %d events of %s, %v, want those up to %d", len(all), source, err, upto)
	}
	return all
}

// whole checks that the broker holds a journal: every event once, in order.
func whole(t testing.TB, bus *nats.Bus, j *journal.Journal) {
	t.Helper()
	_, head, err := j.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := freehold.Mark{Source: j.Name(), Epoch: head.Epoch}
	for i, r := range held(t, bus, j.Name(), head.Position) {
		if !journal.Follows(at, &r) {
			t.Fatalf("message %d is %s, behind %s", i+1, r.At, at)
		}
		at = r.At
	}
	if at != head {
		t.Errorf("the broker ends at %s, the journal at %s", at, head)
	}
}

// TestBrokerEmptiedBehindItsAcknowledgementsIsFilledAgain: the relay has every
// acknowledgement, nothing new happens, and then the broker starts with an empty
// store. What it had acknowledged is published again.
func TestBrokerEmptiedBehindItsAcknowledgementsIsFilledAgain(t *testing.T) {
	inBothWays(t, brokerEmptiedBehindItsAcknowledgementsIsFilledAgain)
}

func brokerEmptiedBehindItsAcknowledgementsIsFilledAgain(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	dir := filepath.Join(t.TempDir(), "js")
	srv, bus := start(t, dir)
	s := connect(t, bus)
	s.arrived(s.place(50))
	published(t, bus, s.sender)
	starts := srv.Starts()
	removeAll(t, dir)
	for srv.Starts() == starts {
		time.Sleep(time.Millisecond)
	}
	published(t, bus, s.sender)
	whole(t, bus, s.sender.Journal())
	s.arrived(s.place(1))
}

// TestRelayOutlivesItsBroker stops the broker, several times, while orders come in.
func TestRelayOutlivesItsBroker(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "js")
	launch := func() *embed.Server {
		t.Helper()
		srv, err := embed.Start(dir, &embed.Options{Addr: address, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return srv
	}
	srv := launch()
	bus, err := nats.Connect(t.Context(), "nats://"+address, &nats.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Close(); srv.Close() })
	s := connect(t, bus)
	for range 3 {
		s.arrived(s.place(20))
		published(t, bus, s.sender)
		if err := srv.Close(); err != nil {
			t.Fatal(err)
		}
		s.place(20) // and the relay meets errors
		failing(t, s.relay)
		srv = launch()
		published(t, bus, s.sender)
	}
	whole(t, bus, s.sender.Journal())
	s.arrived(s.place(1))
}

// failing waits until a relay has met an error.
func failing(t testing.TB, r *outbox.Relay) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for r.Status(ctx)[0].State != follow.Retrying {
		if ctx.Err() != nil {
			t.Fatalf("the relay has not noticed that the broker is down: %+v", r.Status(ctx))
		}
		time.Sleep(time.Millisecond)
	}
}

// TestTwoRelaysOfOneJournalKeepTheOrder runs a second relay, as a replica of the
// service would, from the beginning and from the middle.
func TestTwoRelaysOfOneJournalKeepTheOrder(t *testing.T) {
	inBothWays(t, twoRelaysOfOneJournalKeepTheOrder)
}

func twoRelaysOfOneJournalKeepTheOrder(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	_, bus := start(t, filepath.Join(t.TempDir(), "js"))
	s := connect(t, bus)
	second := func() {
		goes(t, outbox.New(s.sender.Journal(), bus.Publisher("order"), &outbox.Options{Batch: 7, Heartbeat: 50 * time.Millisecond, MaxPause: 10 * time.Millisecond, Log: quiet}))
	}
	second()
	s.arrived(s.place(200))
	second()
	s.arrived(s.place(200))
	published(t, bus, s.sender)
	whole(t, bus, s.sender.Journal())
}

// TestStreamPurgedInsideTheDuplicateWindow empties the stream by hand, at once behind
// a publication, so that the broker still remembers the ids of messages that it does
// not hold any more.
func TestStreamPurgedInsideTheDuplicateWindow(t *testing.T) {
	inBothWays(t, streamPurgedInsideTheDuplicateWindow)
}

func streamPurgedInsideTheDuplicateWindow(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	srv, bus := start(t, filepath.Join(t.TempDir(), "js"))
	conn, err := natsgo.Connect("", natsgo.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	s := connect(t, bus)
	for range 5 {
		s.arrived(s.place(20))
		published(t, bus, s.sender)
		stream, err := js.Stream(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		published(t, bus, s.sender)
		s.arrived(s.place(1))
	}
	published(t, bus, s.sender)
	whole(t, bus, s.sender.Journal())
}

// TestWhatSomebodyElseWroteIsPassedOver has others write to a source's subjects, at the end
// of its stream, where the relay looks for its own last event: text, a page that begins
// well, and a page of another source.
func TestWhatSomebodyElseWroteIsPassedOver(t *testing.T) {
	t.Parallel()
	srv, bus := start(t, filepath.Join(t.TempDir(), "js"))
	conn, err := natsgo.Connect("", natsgo.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := connect(t, bus)
	s.arrived(s.place(3))
	published(t, bus, s.sender)
	line := func(r freehold.Recorded) string { return string(transport.AppendJSON(nil, &r)) + "\n" }
	all := held(t, bus, "order", 1)
	other := all[0]
	other.At.Source = "billing"
	for _, text := range []string{"hello", line(all[0]) + "{\n", line(other), "", "\n"} {
		for _, kind := range []string{transport.PageType, "text/plain"} {
			msg := &natsgo.Msg{Subject: "order.events", Data: []byte(text), Header: natsgo.Header{"content-type": {kind}}}
			if _, err := conn.RequestMsg(msg, time.Minute); err != nil {
				t.Fatal(err)
			}
			s.arrived(s.place(2))
			published(t, bus, s.sender)
		}
	}
	stream := map[freehold.Position]int{}
	_, head, _ := s.sender.Journal().Bounds(t.Context())
	for _, r := range held(t, bus, "order", head.Position) {
		if r.At.Source == "order" {
			stream[r.At.Position]++
		}
	}
	if len(stream) != int(head.Position) {
		t.Errorf("the broker holds %d of %d events", len(stream), head.Position)
	}
}

// TestRolledBackTransactionReachesNobody lets transactions fail behind their appends,
// between others that commit: no event of theirs is in the journal, on the broker, or
// applied elsewhere.
func TestRolledBackTransactionReachesNobody(t *testing.T) {
	t.Parallel()
	_, bus := start(t, filepath.Join(t.TempDir(), "js"))
	s := connect(t, bus)
	no := errors.New("rolled back on purpose")
	var tok freehold.Token
	for n := range 30 {
		_, err := s.sender.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			if _, err := tx.Append(ctx, freehold.Stream("ghost", strconv.Itoa(n)), freehold.NoStream, Placed{1000 + n}); err != nil {
				return err
			}
			return no
		})
		if !errors.Is(err, no) {
			t.Fatal(err)
		}
		tok = s.place(1)
	}
	s.arrived(tok)
	published(t, bus, s.sender)
	for _, r := range held(t, bus, "order", 60) {
		if r.Stream.Category() == "ghost" {
			t.Errorf("the broker holds %s, which was rolled back", r.Stream)
		}
	}
	whole(t, bus, s.sender.Journal())
}

// TestKilledBetweenCommitAndPublication kills a service with SIGKILL when its order is
// committed and nothing has left it. The next start publishes the order, though
// nobody asks for it.
func TestKilledBetweenCommitAndPublication(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"sqlite.commit.after:2", "outbox.publish.before", "outbox.publish.after"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildService$")
			cmd.Env = append(os.Environ(), childDir+"="+dir, fault.Env+"="+point)
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the service was not killed: %v\n%s", err, out)
			}
			db, bus := service(t, dir)
			goes(t, outbox.New(db.Journal(), bus.Publisher("order"), &outbox.Options{Log: quiet}))
			_, head, err := db.Journal().Bounds(t.Context())
			if err != nil || head.Position == 0 {
				t.Fatalf("the journal ends at %v, %v: nothing was committed", head, err)
			}
			whole(t, bus, db.Journal())
		})
	}
}

const childDir = "FREEHOLD_NATS_TEST_DIR"

// service opens a database and a broker in a directory.
func service(t testing.TB, dir string) (*sqlite.DB, *nats.Bus) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "order.db"), "order", catalog(t), &sqlite.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	_, bus := start(t, filepath.Join(dir, "js"))
	return db, bus
}

// TestChildService is no test: it is the service that is killed above.
func TestChildService(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.SkipNow() // run in a process of its own
	}
	db, bus := service(t, dir)
	goes(t, outbox.New(db.Journal(), bus.Publisher("order"), &outbox.Options{Log: quiet}))
	for n := range 100 {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: freehold.Stream("order", strconv.Itoa(n)), Expect: freehold.NoStream, Events: []freehold.Event{Hidden{}, Placed{n}}}); err != nil {
			t.Fatal(err)
		}
	}
	<-t.Context().Done()
}

// TestRestoredJournalIsNotPublishedOverItsSuccessor restores a service's database to
// an older state, below its consumers' marks, and writes on. Relay and consumer
// stop, apply nothing of the other history, and go on when they are told to.
func TestRestoredJournalIsNotPublishedOverItsSuccessor(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"shorter": 1, "as long": 3, "longer": 9} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, bus := start(t, filepath.Join(t.TempDir(), "js"))
			disk := memory.NewDisk()
			s := connectDisk(t, bus, disk)
			s.place(2)
			backup := disk.Clone()
			s.arrived(s.place(3))
			published(t, bus, s.sender)
			was := s.applied()
			s.use(backup)
			for n := range more {
				s.placeAs(100 + n)
			}
			diverged(t, "relay", s.relay)
			diverged(t, "consumer", s.orders)
			if got := s.applied(); got != was {
				t.Errorf("applied %s, was %s: another history was applied", got, was)
			}
			if _, err := s.relay.Adopt(t.Context(), "order"); err != nil {
				t.Error(err)
			}
			if _, err := s.orders.Adopt(t.Context(), "order"); err != nil {
				t.Error(err)
			}
			_, head, _ := s.sender.Journal().Bounds(t.Context())
			published(t, bus, s.sender)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.orders.WaitFor(ctx, freehold.NewToken(head)); err != nil {
				t.Fatal(err)
			}
			for n := range more {
				was += fmt.Sprintf("%d;", 100+n)
			}
			if got := s.applied(); got != was {
				t.Errorf("applied %s, want %s", got, was)
			}
		})
	}
}

func diverged(t testing.TB, what string, f interface {
	Status(context.Context) []follow.Status
}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for f.Status(ctx)[0].State != follow.Diverged {
		if ctx.Err() != nil {
			t.Fatalf("the %s has not recognised the restored journal: %+v", what, f.Status(ctx))
		}
		time.Sleep(time.Millisecond)
	}
}

// TestBrokerKeepsItsStreamsWhereItIsTold: a server that is given no directory would
// use one that the system empties.
func TestBrokerKeepsItsStreamsWhereItIsTold(t *testing.T) {
	t.Parallel()
	if srv, err := embed.Start("", &embed.Options{Log: quiet}); err == nil {
		t.Errorf("it keeps its streams in %v", srv.Audit())
	}
	dir := filepath.Join(t.TempDir(), "js")
	srv, _ := start(t, dir)
	audit := srv.Audit()
	if len(audit) != 1 || !strings.HasPrefix(audit[0], "broker: store "+dir) || !strings.Contains(audit[0], "disposable") {
		t.Errorf("audit %q, want the directory %s as the server has it", audit, dir)
	}
}
