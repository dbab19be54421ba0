package inbox_test

import (
	"context"
	"sync"
	"testing"

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
