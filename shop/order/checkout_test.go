package order_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
)

// shop is the Order service's checkout, and the journals of the two participants.
type shop struct {
	t       *testing.T
	disk    *memory.Disk
	own     *memory.DB
	inv     *memory.DB
	bill    *memory.DB
	orders  *aggregate.Repo[order.Order]
	process *saga.Process[kv.Tx, order.Checkout]
	stop    func()
}

func open(t *testing.T, disk *memory.Disk, name freehold.Source, types func() (*freehold.Catalog, error)) *memory.DB {
	t.Helper()
	c, err := types()
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(t.Context(), name, c, &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func setup(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, disk: memory.NewDisk()}
	s.inv = open(t, nil, event.SourceInventory, event.InventoryTypes)
	s.bill = open(t, nil, event.SourceBilling, event.BillingTypes)
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.inv.Close()
		s.bill.Close()
	})
	return s
}

// start opens the Order service and runs its checkout.
func (s *shop) start() {
	s.t.Helper()
	s.own = open(s.t, s.disk, event.SourceOrder, event.OrderTypes)
	s.orders = aggregate.New[order.Order]("order", s.own, nil)
	var err error
	s.process, err = saga.New("checkout", 1, s.own, []follow.Source{s.own.Journal(), s.inv.Journal(), s.bill.Journal()},
		&saga.Options{Options: follow.Options{Log: slog.New(slog.DiscardHandler)}}, order.Routes[kv.Tx](s.orders)...)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.process.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		s.own.Close()
	}
}

// happen appends an event to a stream and waits until the checkout has seen it.
func (s *shop) happen(db *memory.DB, stream freehold.StreamID, e freehold.Event) {
	s.t.Helper()
	tok, err := db.Append(s.t.Context(), freehold.Write{Stream: stream, Expect: freehold.Any, Events: []freehold.Event{e}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.wait(tok)
}

func (s *shop) wait(tok freehold.Token) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := s.process.WaitFor(ctx, tok); err != nil {
		s.t.Fatal(err)
	}
}

// settle waits until the checkout has seen everything in Order's own journal.
func (s *shop) settle() {
	s.t.Helper()
	for {
		_, head, err := s.own.Journal().Bounds(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		s.wait(freehold.NewToken(head))
		if _, now, _ := s.own.Journal().Bounds(s.t.Context()); now == head {
			return
		}
	}
}

// does lets something of the outside happen to the order with an id.
func (s *shop) does(what, id string) {
	s.t.Helper()
	reservation, payment := freehold.Stream("reservation", id), freehold.Stream("payment", id)
	switch what {
	case "placed":
		e := placed(s.t, goods("A", 2, 1000), fee("POST", 4))
		e.Order, e.Deadline = id, time.Now().Add(30*time.Second)
		s.happen(s.own, freehold.Stream("order", id), e)
	case "reserved":
		s.happen(s.inv, reservation, event.StockReserved{Order: id})
	case "sold out":
		s.happen(s.inv, reservation, event.StockRejected{Order: id, Code: "sold-out", SKU: "A", Reason: "none left"})
	case "authorized":
		s.happen(s.bill, payment, event.PaymentAuthorized{Order: id, Amount: 2004})
	case "declined":
		s.happen(s.bill, payment, event.PaymentDeclined{Order: id, Reason: "no money"})
	case "captured":
		s.happen(s.bill, payment, event.PaymentCaptured{Order: id, Amount: 2004})
	case "not captured":
		s.happen(s.bill, payment, event.PaymentCaptureFailed{Order: id, Reason: "card expired"})
	case "cancel":
		_, tok, err := s.orders.Do(s.t.Context(), id, order.Cancel("changed my mind"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.wait(tok)
	default:
		s.t.Fatalf("unknown happening %q", what)
	}
}

// events lists the types in an order's stream.
func (s *shop) events(id string) string {
	s.t.Helper()
	var all []string
	for r, err := range s.own.Events(s.t.Context(), freehold.Stream("order", id), 0) {
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, strings.TrimPrefix(r.Type.Name, "order."))
	}
	return strings.Join(all, " ")
}

// live counts the processes that have not ended.
func (s *shop) live() (n int) {
	s.t.Helper()
	err := s.own.View(s.t.Context(), func(ctx context.Context, tx kv.Tx) error {
		for _, err := range s.own.Keeper(tx).Scan(ctx, "saga/checkout", "") {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// permute calls fn with every order of the items.
func permute(items []string, fn func([]string)) {
	var walk func(k int)
	walk = func(k int) {
		if k == len(items) {
			fn(slices.Clone(items))
			return
		}
		for i := k; i < len(items); i++ {
			items[k], items[i] = items[i], items[k]
			walk(k + 1)
			items[k], items[i] = items[i], items[k]
		}
	}
	walk(0)
}

// FIELD rows 13, 14, 18 and 38: whatever answers arrive, in every order, each of
// them twice, the order ends once, and with the only end that they allow.
func TestEveryOrderOfArrivalEndsTheOrderOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := 0
	for _, c := range []struct {
		happens []string
		last    string // happens behind them
		want    []string
	}{
		{[]string{"placed", "reserved", "authorized"}, "captured", []string{"placed confirmed paid"}},
		{[]string{"placed", "reserved", "authorized"}, "not captured", []string{"placed confirmed cancelled"}},
		{[]string{"placed", "reserved", "declined"}, "", []string{"placed rejected"}},
		{[]string{"placed", "sold out", "authorized"}, "", []string{"placed rejected"}},
		{[]string{"placed", "sold out", "declined"}, "", []string{"placed rejected"}},
	} {
		permute(c.happens, func(order []string) {
			n++
			id := fmt.Sprint(n)
			for _, what := range order {
				s.does(what, id)
				if what != "placed" {
					s.does(what, id) // told twice
				}
			}
			if c.last != "" {
				s.does(c.last, id)
				s.does(c.last, id)
			}
			s.settle()
			if got := s.events(id); !slices.Contains(c.want, got) {
				t.Errorf("%v, %s: %s, want %v", order, c.last, got, c.want)
			}
		})
	}
	if live := s.live(); live > 0 {
		t.Errorf("%d of %d processes have not ended", live, n)
	}
}

// FIELD row 38: a cancel before and after each answer, and what is told afterwards
// is recorded and not acted on.
func TestCancelBeforeAndAfterEachAnswerEndsTheOrderOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := 0
	permute([]string{"reserved", "authorized", "captured", "cancel"}, func(happens []string) {
		if slices.Index(happens, "captured") < max(slices.Index(happens, "reserved"), slices.Index(happens, "authorized")) {
			return // nobody captures before the order is confirmed
		}
		n++
		id := fmt.Sprint(n)
		s.does("placed", id)
		for _, what := range happens {
			s.does(what, id)
		}
		s.settle()
		want := "placed cancelled"
		switch slices.Index(happens, "cancel") {
		case 2:
			want = "placed confirmed cancelled"
		case 3:
			want = "placed confirmed paid cancelled"
		}
		if got := s.events(id); got != want {
			t.Errorf("%v: %s, want %s", happens, got, want)
		}
	})
	if live := s.live(); live > 0 || n != 8 {
		t.Errorf("%d of %d processes have not ended, want 0 of 8", live, n)
	}
}

// FIELD row 17: a silent participant, also across a restart.
func TestSilentParticipantEndsTheOrderAtItsDeadline(t *testing.T) {
	t.Parallel()
	for _, answered := range []string{"", "reserved", "authorized"} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("answered %q restart %v", answered, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := setup(t)
					s.does("placed", "1")
					if answered != "" {
						s.does(answered, "1")
					}
					time.Sleep(29 * time.Second)
					if got := s.events("1"); got != "placed" {
						t.Errorf("a second before the deadline: %s", got)
					}
					if restart {
						s.stop()
						time.Sleep(time.Hour) // the deadline passes while nothing runs
						s.start()
					}
					time.Sleep(1500 * time.Millisecond)
					synctest.Wait()
					if got := s.events("1"); got != "placed rejected" {
						t.Errorf("behind the deadline: %s, want placed rejected", got)
					}
					// What comes late is recorded and changes nothing.
					s.does("reserved", "1")
					s.does("authorized", "1")
					s.settle()
					if got := s.events("1"); got != "placed rejected" || s.live() != 0 {
						t.Errorf("after late answers: %s, %d live", got, s.live())
					}
				})
			})
		}
	}
}

func TestOrderWithoutGoodsIsConfirmed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	e := placed(t, fee("POST", 4))
	e.Deadline = time.Now().Add(time.Hour)
	s.happen(s.own, "order-1", e)
	s.does("reserved", "1")
	s.does("authorized", "1")
	s.does("captured", "1")
	s.settle()
	if got := s.events("1"); got != "placed confirmed paid" {
		t.Errorf("%s, want placed confirmed paid", got)
	}
}

func TestPartialOrderGoesOnWithTheLinesThatAreInStock(t *testing.T) {
	t.Parallel()
	s := setup(t)
	e := placed(t, goods("A", 1, 1000), goods("B", 1, 200))
	e.Deadline, e.Policy = time.Now().Add(time.Hour), event.Partial
	s.happen(s.own, "order-1", e)
	s.does("authorized", "1")
	s.happen(s.inv, "reservation-1", event.StockReserved{Order: "1", Dropped: []int{0}})
	s.settle()
	o, _, err := s.orders.Load(t.Context(), "1")
	if err != nil || o.Status != order.Confirmed || o.Amount != 200 || len(o.Kept) != 1 || o.Kept[0].SKU != "B" {
		t.Errorf("%+v, %v, want only B to go on", o, err)
	}
}
