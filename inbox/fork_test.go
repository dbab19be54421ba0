package inbox_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/transport"
)

// stale is a broker that still holds events of an epoch that has ended.
type stale struct {
	events    []freehold.Recorded
	deliver   chan struct{} // closed when they shall be delivered
	delivered chan struct{} // closed when they were
	once      *sync.Once
}

func (b stale) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	select {
	case <-b.deliver:
	case <-ctx.Done():
		return nil
	}
	err := h.Events(ctx, append([]freehold.Recorded(nil), b.events...))
	b.once.Do(func() { close(b.delivered) })
	<-ctx.Done()
	return err
}

// What a source lost continues the chain of a consumer that stands at the base. It is
// not applied for all that: the feed says that its epoch has ended.
func TestOrphansThatTheBrokerHoldsAreNotApplied(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	s := newSender(t, disk)
	s.place(t, 1, 2)
	backup := disk.Clone()
	_, base, err := s.db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.place(t, 3, 4)
	orphans, err := s.db.Journal().Read(t.Context(), base, 100)
	if err != nil {
		t.Fatal(err)
	}
	s.use(t, backup)
	if _, err := s.db.Journal().Fork(t.Context(), nil, base, "for a test"); err != nil {
		t.Fatal(err)
	}
	broker := stale{orphans, make(chan struct{}), make(chan struct{}), new(sync.Once)}
	src := remote(t, s, broker)
	db := own(t)
	f := receiver(t, db, src)
	wait(t, f, freehold.NewToken(base)) // of the old epoch
	close(broker.deliver)
	<-broker.delivered
	wait(t, f, s.place(t, 5))
	if got, want := seen(t, db), "1;2;5;"; got != want {
		t.Errorf("applied %s want %s", got, want)
	}
	held, err := src.Orphans(t.Context(), base, orphans[len(orphans)-1].At)
	if err != nil || len(held) != 4 || held[0].At.Position != 5 {
		t.Errorf("%d orphans: %v", len(held), err)
	}
	if held, err := src.Orphans(t.Context(), base, freehold.Mark{Position: 8}); err == nil {
		t.Errorf("%d orphans that lead to no such mark", len(held))
	}
}

// busy is a broker that delivers the same events again and again.
type busy struct{ events []freehold.Recorded }

func (b busy) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := h.Events(ctx, append([]freehold.Recorded(nil), b.events...)); err != nil {
			return err
		}
	}
}

// TestOrphansOfABusySourceAreListed: the source was let go on, the stream no longer holds
// the last orphan, and what flows now does not end.
func TestOrphansOfABusySourceAreListed(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	s.place(t, 1)
	_, base, err := s.db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, err := s.db.Journal().Read(t.Context(), freehold.Mark{Source: "order"}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Journal().Fork(t.Context(), nil, base, "for a test"); err != nil {
		t.Fatal(err)
	}
	s.place(t, 2, 3)
	news, err := s.db.Journal().Read(t.Context(), base, 100)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		events     []freehold.Recorded
		quiet, all time.Duration
	}{
		"events of the present": {news, 100 * time.Millisecond, time.Hour},
		"events that ended":     {ended, time.Hour, 100 * time.Millisecond},
	} {
		src := remote(t, s, busy{c.events})
		src.Patience(c.quiet, c.all)
		if _, _, err := src.Bounds(t.Context()); err != nil { // it knows the present
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		lost := freehold.Mark{Source: "order", Epoch: base.Epoch, Position: 4, Chain: freehold.Hash{1}}
		if held, err := src.Orphans(ctx, base, lost); err == nil || ctx.Err() != nil {
			t.Errorf("%s: %d orphans, %v, the context %v", name, len(held), err, ctx.Err())
		}
		cancel()
	}
}

// TestADamagedOrphanIsNotListed: an operator decides by what the list says.
func TestADamagedOrphanIsNotListed(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	s.place(t, 1, 2)
	rs, err := s.db.Journal().Read(t.Context(), freehold.Mark{Source: "order"}, 100)
	if err != nil {
		t.Fatal(err)
	}
	src := remote(t, s, busy{rs})
	src.Patience(time.Second, time.Second)
	if held, err := src.Orphans(t.Context(), rs[1].At, rs[3].At); err != nil || len(held) != 2 {
		t.Fatalf("%d orphans, %v", len(held), err)
	}
	rs = slices.Clone(rs)
	rs[3].Raw = []byte(`{"n":6}`)
	src = remote(t, s, busy{rs})
	src.Patience(50*time.Millisecond, 50*time.Millisecond)
	if held, err := src.Orphans(t.Context(), rs[1].At, rs[3].At); err == nil {
		t.Errorf("%d orphans, of which the last says %s", len(held), held[len(held)-1].Raw)
	}
}
