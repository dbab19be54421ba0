// Package transporttest is the conformance suite of transports: what the two ends of
// a broker must do so that relay and inbox can make ordered, exactly-once delivery
// of it. A transport's own test is a [Harness] of a few lines, given to [Run].
//
// # Guarantees
//
// A transport that passes gives readers only what was published, each event whole
// and unchanged, and never lets two publishers of one source interleave. It need
// not be durable: a broker that forgets is part of the suite.
//
// # Ordering
//
// Subtests are independent and run in parallel, each with a broker of its own.
//
// # Failure
//
// Every subtest is named for the outcome that it proves.
package transporttest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// Broker is a broker under test, as one process sees it.
type Broker interface {
	// Publisher returns a publishing end of a source.
	Publisher(s freehold.Source) transport.Publisher
	// Subscriber returns the receiving end.
	Subscriber() transport.Subscriber
}

// Harness is a transport under test.
type Harness struct {
	// Start starts an empty broker, which ends with the test.
	Start func(t testing.TB) Broker
	// Forget makes a broker lose everything that it holds, while it runs. nil if it
	// cannot.
	Forget func(t testing.TB, b Broker)
	// MaxEvent is a payload's size, in bytes, that the broker does not take; 0 if
	// there is none.
	MaxEvent int
}

const source freehold.Source = "order"

// patience bounds what only a defect makes slow.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"an empty broker says so", empty},
		{"what was published is held, and arrives as it was", arrives},
		{"a subscription begins behind any mark", begins},
		{"what is published during a subscription arrives", live},
		{"a publisher that does not know the end is refused", refused},
		{"what a publisher has not published is not left out", overtaken},
		{"two publishers never interleave", interleave},
		{"publishing may begin further on", further},
		{"an event that is too large is left out", large},
		{"sources do not meet", apart},
		{"heads arrive, and a subscription ends with its context", heads},
		{"a broker that forgot is filled again", forgets},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, h)
		})
	}
}

// history makes n events of a source as its journal would: chained, in transactions
// of one to three events, every fifth event internal, and six in a row now and then. pad
// adds to the payloads.
func history(s freehold.Source, n int, pad string) []freehold.Recorded {
	at := freehold.Mark{Source: s, Epoch: "0123456789abcdef"}
	events := make([]freehold.Recorded, n)
	for i := range events {
		r := &events[i]
		*r = freehold.Recorded{
			ID: "tx" + strconv.Itoa(i) + "-0", Incarnation: "fedcba9876543210", Stream: freehold.Stream("order", strconv.Itoa(i%7)), Version: freehold.Version(i/7 + 1),
			Type: freehold.T("order.placed", 1), Time: time.UnixMicro(1_700_000_000_000_000 + int64(i)).UTC(), Last: i%3 != 1 || i == n-1,
			Meta: freehold.Meta{Correlation: "c " + strconv.Itoa(i), Actor: "ä\"%\n"}, Internal: i%5 == 4 || i%20 > 13,
			Raw: []byte(`{"n":` + strconv.Itoa(i) + `,"pad":"` + pad + `"}`), Nonce: []byte("0123456789abcdef"),
		}
		r.Digest = journal.Digest(r)
		at.Position++
		at.Chain = journal.Chain(at.Chain, at.Position, r.Digest)
		r.At = at
	}
	return events
}

// public is what others may see of events: of internal ones, only what keeps
// positions and chain whole. How a placeholder is named is the wire's.
func public(events []freehold.Recorded) []freehold.Recorded {
	seen := make([]freehold.Recorded, len(events))
	for i, r := range events {
		seen[i] = r
		if r.Internal {
			seen[i] = freehold.Recorded{At: r.At, Incarnation: r.Incarnation, Internal: true, Last: r.Last, Digest: r.Digest}
		}
	}
	return seen
}

func before(events []freehold.Recorded) freehold.Mark {
	return freehold.Mark{Source: events[0].At.Source, Epoch: events[0].At.Epoch}
}

// publisher returns a publisher that has asked for the end.
func publisher(t *testing.T, b Broker, s freehold.Source, want freehold.Mark) transport.Publisher {
	t.Helper()
	p := b.Publisher(s)
	last, err := p.Last(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if last.Position != want.Position || last.Chain != want.Chain {
		t.Fatalf("the broker holds %v, want %v", last, want)
	}
	return p
}

// publish publishes everything behind what an empty broker holds.
func publish(t *testing.T, b Broker, events []freehold.Recorded) transport.Publisher {
	t.Helper()
	p := publisher(t, b, events[0].At.Source, freehold.Mark{})
	if _, err := p.Publish(t.Context(), freehold.Mark{Source: events[0].At.Source}, events); err != nil {
		t.Fatal(err)
	}
	return p
}

// reception is a subscription under way.
type reception struct {
	t    *testing.T
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	events []freehold.Recorded
	heads  []transport.Head
	news   chan struct{}
}

// receive subscribes.
func receive(t *testing.T, b Broker, s freehold.Source, after freehold.Mark) *reception {
	t.Helper()
	return receiving(t, b, s, after, false)
}

// receiving subscribes, once or again and again: a broker that was just restarted may
// still lose connections, and a subscription that fails is begun again behind what it
// delivered.
func receiving(t *testing.T, b Broker, s freehold.Source, after freehold.Mark, again bool) *reception {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &reception{t: t, stop: stop, done: make(chan error, 1), news: make(chan struct{}, 1)}
	note := func() {
		select {
		case r.news <- struct{}{}:
		default:
		}
	}
	subscribe := func() error {
		return b.Subscriber().Subscribe(ctx, s, after, transport.Handler{
			Events: func(_ context.Context, events []freehold.Recorded) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				for _, e := range events {
					e.Raw = append([]byte(nil), e.Raw...)
					e.Nonce = append([]byte(nil), e.Nonce...)
					r.events = append(r.events, e)
					after = e.At
				}
				note()
				return nil
			},
			Head: func(h transport.Head) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.heads = append(r.heads, h)
				note()
			},
		})
	}
	go func() {
		for {
			if err := subscribe(); !again || err == nil || ctx.Err() != nil {
				r.done <- err
				return
			}
		}
	}()
	t.Cleanup(stop)
	return r
}

// until waits for something that the subscription delivers.
func (r *reception) until(what string, met func() bool) {
	r.t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		ok := met()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.news:
		case err := <-r.done:
			r.t.Fatalf("the subscription ended: %v, before %s", err, what)
		case <-limit:
			r.t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// gets waits for events and compares them.
func (r *reception) gets(want []freehold.Recorded) {
	r.t.Helper()
	r.until(strconv.Itoa(len(want))+" events", func() bool { return len(r.events) >= len(want) })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Internal && (len(e.Raw) > 0 || len(e.Nonce) > 0 || e.Stream != "" || e.Meta != (freehold.Meta{})) {
			r.t.Errorf("more than a placeholder has left the service: %+v", e)
		}
	}
	if diff := cmp.Diff(public(want), public(r.events), cmpopts.IgnoreUnexported(freehold.Recorded{}), cmpopts.EquateEmpty()); diff != "" {
		r.t.Errorf("received (-want +got):\n%.2000s", diff)
	}
}

func empty(t *testing.T, h Harness) {
	b := h.Start(t)
	publisher(t, b, source, freehold.Mark{})
	receive(t, b, source, freehold.Mark{Source: source}).stop()
}

func arrives(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 300, "")
	publish(t, b, events)
	last, err := b.Publisher(source).Last(t.Context(), source)
	if err != nil || last.Mark != events[299].At || last.Incarnation != events[299].Incarnation {
		t.Errorf("the broker holds %v, %v, want %v", last, err, events[299].At)
	}
	receive(t, b, source, freehold.Mark{Source: source}).gets(events)
}

func begins(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 40, "")
	publish(t, b, events)
	for i := range events[:39] {
		r := receive(t, b, source, events[i].At)
		var first freehold.Position
		r.until("an event", func() bool {
			if len(r.events) > 0 {
				first = r.events[0].At.Position
			}
			return first > 0
		})
		r.stop()
		// What was there before may be repeated; what comes behind may not be left out.
		if first > events[i+1].At.Position {
			t.Errorf("behind %d the first event is %d", events[i].At.Position, first)
		}
	}
}

func live(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 500, "")
	r := receive(t, b, source, freehold.Mark{Source: source})
	p := publisher(t, b, source, freehold.Mark{})
	after := freehold.Mark{Source: source}
	for rest, n := events, 1; len(rest) > 0; n = n%60 + 7 {
		n = min(n, len(rest))
		held, err := p.Publish(t.Context(), after, rest[:n])
		if err != nil || held != rest[n-1].At {
			t.Fatalf("the broker holds %v, %v, want %v", held, err, rest[n-1].At)
		}
		after, rest = held, rest[n:]
	}
	r.gets(events)
}

func refused(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 20, "")
	if _, err := b.Publisher(source).Publish(t.Context(), before(events), events); !errors.Is(err, transport.ErrMoved) {
		t.Errorf("without having asked: %v, want ErrMoved", err)
	}
	first := publish(t, b, events[:10])
	second, stale := publisher(t, b, source, events[9].At), publisher(t, b, source, events[9].At)
	if _, err := first.Publish(t.Context(), events[10].At, events[11:]); !errors.Is(err, transport.ErrMoved) {
		t.Errorf("behind a place where it does not end: %v, want ErrMoved", err)
	}
	publisher(t, b, source, events[9].At)
	if _, err := second.Publish(t.Context(), events[9].At, events[10:]); err != nil {
		t.Error(err)
	}
	// What it has is not what the broker knows already: nothing but the end that it
	// expects can keep it out.
	fork := history(source, 20, "another history")
	for i := range fork {
		fork[i].At.Epoch = "ffffffffffffffff"
	}
	if _, err := stale.Publish(t.Context(), events[9].At, fork[10:15]); !errors.Is(err, transport.ErrMoved) {
		t.Errorf("a publisher that was overtaken: %v, want ErrMoved", err)
	}
	publisher(t, b, source, events[19].At)
	receive(t, b, source, freehold.Mark{Source: source}).gets(events)
}

// overtaken has a publisher go on from an end that is not the end any more, with so much
// that it may need several messages of whatever size. It may be refused, or go on behind
// those events that are there already; what stands between may not be left out.
func overtaken(t *testing.T, h Harness) {
	events := history(source, 200, strings.Repeat("x", 2<<10))
	for _, n := range []int{1, 2, 5, 30, 100} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			b := h.Start(t)
			stale := publisher(t, b, source, freehold.Mark{})
			publish(t, b, events[:n])
			all := events
			if _, err := stale.Publish(t.Context(), freehold.Mark{Source: source}, events); errors.Is(err, transport.ErrMoved) {
				all = events[:n]
			} else if err != nil {
				t.Errorf("%v, want ErrMoved or nothing", err)
			}
			publisher(t, b, source, all[len(all)-1].At)
			receive(t, b, source, freehold.Mark{Source: source}).gets(all)
		})
	}
}

// interleave lets publishers of one journal race; each goes on from the end that
// it is told, and asks again when the broker does not answer, as a relay does.
func interleave(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 400, "")
	patience := time.Now().Add(time.Minute)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			p := b.Publisher(source)
			for {
				last, err := p.Last(t.Context(), source)
				if err != nil && time.Now().After(patience) {
					t.Error(err)
					return
				}
				if err != nil {
					t.Log(err)
					continue
				}
				at, place := last.Mark, int(last.Position)
				for err == nil && place < len(events) {
					n := min(1+(place*7+i*13)%40, len(events)-place)
					at, err = p.Publish(t.Context(), at, events[place:place+n])
					place += n
				}
				if err == nil {
					return
				}
			}
		})
	}
	all.Wait()
	receive(t, b, source, freehold.Mark{Source: source}).gets(events)
}

func further(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 60, "")
	p := publisher(t, b, source, freehold.Mark{})
	if _, err := p.Publish(t.Context(), freehold.Mark{Source: source}, events[20:30]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), events[29].At, events[40:]); err != nil {
		t.Fatal(err)
	}
	publisher(t, b, source, events[59].At)
	receive(t, b, source, freehold.Mark{Source: source}).gets(append(append([]freehold.Recorded(nil), events[20:30]...), events[40:]...))
}

func large(t *testing.T, h Harness) {
	if h.MaxEvent == 0 {
		t.Skip("the broker takes events of any size")
	}
	b := h.Start(t)
	events, big := history(source, 8, ""), history(source, 8, strings.Repeat("x", h.MaxEvent))
	mixed := append(append([]freehold.Recorded(nil), events[:2]...), big[2], events[3])
	p := publish(t, b, mixed)
	held, err := p.Publish(t.Context(), mixed[3].At, []freehold.Recorded{events[4], events[5], big[6]})
	if err != nil {
		t.Errorf("behind an event that was left out: %v", err)
	}
	// The broker must be known to end before the last one, or a relay takes it for lost,
	// and publishing must go on behind it.
	if held != events[5].At {
		t.Errorf("%T says that the broker holds %v, want %v", p, held, events[5].At)
	}
	if last, err := p.Last(t.Context(), source); err != nil || last.Mark != events[5].At {
		t.Errorf("the broker holds %v, %v, want %v", last, err, events[5].At)
	}
	if _, err := p.Publish(t.Context(), held, events[7:]); err != nil {
		t.Errorf("behind a last event that was left out: %v", err)
	}
	receive(t, b, source, freehold.Mark{Source: source}).gets([]freehold.Recorded{events[0], events[1], events[3], events[4], events[5], events[7]})
}

func apart(t *testing.T, h Harness) {
	b := h.Start(t)
	for _, s := range []freehold.Source{"order", "order.views", "order/2", "orders"} {
		publish(t, b, history(s, 10, string(s)))
	}
	for _, s := range []freehold.Source{"order", "order.views", "order/2", "orders"} {
		receive(t, b, s, freehold.Mark{Source: s}).gets(history(s, 10, string(s)))
	}
}

func heads(t *testing.T, h Harness) {
	b := h.Start(t)
	events := history(source, 3, "")
	p := publish(t, b, events)
	r := receive(t, b, source, freehold.Mark{Source: source})
	r.gets(events) // so the subscription stands
	want := transport.Head{Mark: events[2].At, Incarnation: events[2].Incarnation}
	if err := p.Announce(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	r.until("head", func() bool { return len(r.heads) > 0 })
	if r.heads[0] != want {
		t.Errorf("head %v, want %v", r.heads[0], want)
	}
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("a subscription whose context ended: %v, want nil", err)
		}
	case <-time.After(patience):
		t.Error("the subscription does not end with its context")
	}
}

func forgets(t *testing.T, h Harness) {
	if h.Forget == nil {
		t.Skip("the broker cannot be made to forget")
	}
	b := h.Start(t)
	events := history(source, 90, "")
	p := publish(t, b, events[:30])
	h.Forget(t, b)
	var last transport.Head
	limit := time.Now().Add(patience)
	for { // until the broker is back
		var err error
		if last, err = p.Last(t.Context(), source); err == nil && last.Position == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the broker holds %v, %v: want nothing", last, err)
		}
	}
	for { // it may still be settling
		_, err := p.Publish(t.Context(), last.Mark, events[60:])
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		if last, err = p.Last(t.Context(), source); err == nil && last.Position == 90 {
			break
		}
	}
	receiving(t, b, source, freehold.Mark{Source: source}, true).gets(events[60:])
}
