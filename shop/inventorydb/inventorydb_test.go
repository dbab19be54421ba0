package inventorydb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/inventorydb"
)

var quiet = slog.New(slog.DiscardHandler)

// engine opens a fresh database that is closed, and its stock added up, at the end.
type engine struct {
	name string
	open func(t testing.TB) follow.DB[kv.Tx]
}

func engines() []engine {
	return []engine{
		{"memory", func(t testing.TB) follow.DB[kv.Tx] {
			db, err := memory.Open(t.Context(), event.SourceInventory, inventoryTypes(t), &memory.Options{Log: quiet})
			return opened(t, db, err)
		}},
		{"pebble", func(t testing.TB) follow.DB[kv.Tx] {
			db, err := pebble.Open(t.Context(), t.TempDir(), event.SourceInventory, inventoryTypes(t), &pebble.Options{Relaxed: true, Log: quiet})
			return opened(t, db, err)
		}},
	}
}

func opened[D interface {
	follow.DB[kv.Tx]
	Close() error
}](t testing.TB, db D, err error) follow.DB[kv.Tx] {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for sku, s := range stockIn(t, db) {
			if !s.Balanced() {
				t.Errorf("%s does not add up: %+v", sku, s)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func inventoryTypes(t testing.TB) *freehold.Catalog {
	t.Helper()
	types, err := event.InventoryTypes()
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// onEach runs a test on every engine.
func onEach(t *testing.T, fn func(t *testing.T, s *shop)) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			fn(t, start(t, e.open(t), -1))
		})
	}
}

// shop is an Inventory database that follows an Order journal.
type shop struct {
	t        testing.TB
	db       follow.DB[kv.Tx]
	store    *inventorydb.Store
	orders   *memory.DB
	follower *follow.Follower
}

func start(t testing.TB, db follow.DB[kv.Tx], opening int64) *shop {
	t.Helper()
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, db: db, store: &inventorydb.Store{Opening: opening}}
	if s.orders, err = memory.Open(t.Context(), event.SourceOrder, types, &memory.Options{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	s.follower, err = follow.New("reservations", db, []follow.Source{s.orders.Journal()}, &follow.Options{Attempts: 2, Pause: time.Millisecond, Log: quiet}, s.store.Routes()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.follower.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, s.orders.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// say appends events of one order to the Order journal, in one transaction, and
// waits until Inventory has them.
func (s *shop) say(order string, events ...freehold.Event) {
	s.t.Helper()
	if err := s.wait(s.append(order, events...)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) append(order string, events ...freehold.Event) freehold.Token {
	s.t.Helper()
	token, err := s.orders.Append(s.t.Context(), freehold.Write{Stream: freehold.Stream("order", order), Expect: freehold.Any, Events: events})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

func (s *shop) wait(token freehold.Token) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	return s.follower.WaitFor(ctx, token)
}

// define receives units of a product.
func (s *shop) define(sku string, received int64) {
	s.t.Helper()
	s.update(func(ctx context.Context, tx kv.Tx) error {
		return s.store.Define(ctx, tx, inventorydb.Product{SKU: sku, Description: "a " + sku, Price: 2500}, received)
	})
}

func (s *shop) update(fn func(ctx context.Context, tx kv.Tx) error) {
	s.t.Helper()
	if _, err := s.db.Update(s.t.Context(), fn); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) stock(sku string) inventory.Stock {
	s.t.Helper()
	return stockIn(s.t, s.db)[sku]
}

func stockIn(t testing.TB, db follow.DB[kv.Tx]) map[string]inventory.Stock {
	t.Helper()
	all := map[string]inventory.Stock{}
	if _, err := db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx kv.Tx) error {
		rows, _, err := inventorydb.Stocks(ctx, tx, "", 1<<20)
		for _, r := range rows {
			all[r.SKU] = r.Stock
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// history lists the types of a stream's events.
func (s *shop) history(stream freehold.StreamID) string {
	s.t.Helper()
	var all []string
	s.update(func(ctx context.Context, tx kv.Tx) error {
		all = nil
		for r, err := range tx.Events(ctx, stream, 0) {
			if err != nil {
				return err
			}
			all = append(all, strings.TrimPrefix(r.Type.Name, "stock."))
		}
		return nil
	})
	return strings.Join(all, " ")
}

var at = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

func goods(sku string, n int64) event.Line { return event.Line{SKU: sku, Quantity: n, Stocked: true} }

func placed(order string, lines ...event.Line) event.OrderPlaced {
	return event.OrderPlaced{Order: order, Trade: event.Trade{Currency: "GBP", At: at}, Policy: event.AllOrNothing, Lines: lines}
}

func confirmed(order string) event.OrderConfirmed { return event.OrderConfirmed{Order: order} }
func rejected(order string) event.OrderRejected   { return event.OrderRejected{Order: order} }
func cancelled(order string) event.OrderCancelled { return event.OrderCancelled{Order: order} }

func returned(id, order string, lines ...event.Line) event.OrderReturned {
	return event.OrderReturned{Return: id, Order: order, Lines: lines}
}

// Each order of arrival has the effect of the order's end.
func TestOrderEndsTheSameWhateverArrivesFirst(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		for name, c := range map[string]struct {
			events  []freehold.Event
			want    inventory.Stock
			history string
		}{
			"placed":                        {[]freehold.Event{placed("", goods("", 3))}, inventory.Stock{Free: 7, Reserved: 3}, "reserved"},
			"placed twice":                  {[]freehold.Event{placed("", goods("", 3)), placed("", goods("", 3))}, inventory.Stock{Free: 7, Reserved: 3}, "reserved"},
			"too much":                      {[]freehold.Event{placed("", goods("", 11))}, inventory.Stock{Free: 10}, "rejected"},
			"too much, rejected":            {[]freehold.Event{placed("", goods("", 11)), rejected("")}, inventory.Stock{Free: 10}, "rejected"},
			"confirmed":                     {[]freehold.Event{placed("", goods("", 3)), confirmed("")}, inventory.Stock{Free: 7, Shipped: 3}, "reserved committed"},
			"confirmed twice":               {[]freehold.Event{placed("", goods("", 3)), confirmed(""), confirmed("")}, inventory.Stock{Free: 7, Shipped: 3}, "reserved committed"},
			"rejected":                      {[]freehold.Event{placed("", goods("", 3)), rejected("")}, inventory.Stock{Free: 10}, "reserved released"},
			"rejected twice":                {[]freehold.Event{placed("", goods("", 3)), rejected(""), rejected("")}, inventory.Stock{Free: 10}, "reserved released"},
			"rejected before it was placed": {[]freehold.Event{rejected(""), placed("", goods("", 3))}, inventory.Stock{Free: 10}, ""},
			"cancelled before confirmed":    {[]freehold.Event{placed("", goods("", 3)), cancelled("")}, inventory.Stock{Free: 10}, "reserved released"},
			"cancelled, then confirmed":     {[]freehold.Event{placed("", goods("", 3)), cancelled(""), confirmed("")}, inventory.Stock{Free: 10}, "reserved released"},
			"cancelled when confirmed":      {[]freehold.Event{placed("", goods("", 3)), confirmed(""), cancelled("")}, inventory.Stock{Free: 10}, "reserved committed restocked"},
			"cancelled twice":               {[]freehold.Event{placed("", goods("", 3)), confirmed(""), cancelled(""), cancelled("")}, inventory.Stock{Free: 10}, "reserved committed restocked"},
			"returned": {[]freehold.Event{placed("", goods("", 3)), confirmed(""), returned("", "", goods("", 2))},
				inventory.Stock{Free: 9, Shipped: 3, Returned: 2}, "reserved committed"},
			"returned twice under one id": {[]freehold.Event{placed("", goods("", 3)), confirmed(""), returned("", "", goods("", 2)), returned("", "", goods("", 2))},
				inventory.Stock{Free: 9, Shipped: 3, Returned: 2}, "reserved committed"},
			"returned service": {[]freehold.Event{placed("", goods("", 3)), confirmed(""), returned("", "", event.Line{SKU: "", Quantity: 1})},
				inventory.Stock{Free: 7, Shipped: 3}, "reserved committed"},
		} {
			for _, together := range []bool{true, false} {
				name := fmt.Sprintf("%s, together %t", name, together)
				t.Run(name, func(t *testing.T) {
					s := &shop{t: t, db: s.db, store: s.store, orders: s.orders, follower: s.follower}
					id := strings.NewReplacer(" ", "", ",", "").Replace(name)
					s.define(id, 10)
					events := named(id, c.events)
					if together {
						s.say(id, events...)
					} else {
						for _, e := range events {
							s.say(id, e)
						}
					}
					c.want.Received = 10
					if diff := cmp.Diff(c.want, s.stock(id)); diff != "" {
						t.Errorf("stock (-want +got):\n%s", diff)
					}
					if got := s.history(freehold.Stream("reservation", id)); got != c.history {
						t.Errorf("answered %q, want %q", got, c.history)
					}
				})
			}
		}
	})
}

// named gives events the order, return and product id that they leave out.
func named(id string, events []freehold.Event) []freehold.Event {
	lines := func(in []event.Line) []event.Line {
		out := make([]event.Line, len(in))
		for i, l := range in {
			l.SKU = id
			out[i] = l
		}
		return out
	}
	all := make([]freehold.Event, len(events))
	for i, e := range events {
		switch e := e.(type) {
		case event.OrderPlaced:
			e.Order, e.Lines = id, lines(e.Lines)
			all[i] = e
		case event.OrderConfirmed:
			e.Order = id
			all[i] = e
		case event.OrderRejected:
			e.Order = id
			all[i] = e
		case event.OrderCancelled:
			e.Order = id
			all[i] = e
		case event.OrderReturned:
			e.Order, e.Return, e.Lines = id, id, lines(e.Lines)
			all[i] = e
		}
	}
	return all
}

// An order that is confirmed and was never placed is a fault that is set aside with
// all that follows of this order; other orders go on.
func TestConfirmationWithoutReservationIsParkedAlone(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 10)
		lost := s.append("lost", confirmed("lost"))
		s.say("fine", placed("fine", goods("A", 1)), confirmed("fine"))
		if err := s.wait(lost); !errors.Is(err, follow.ErrParked) {
			t.Errorf("waiting for what is parked: %v", err)
		}
		parked, err := s.follower.Parked(t.Context(), 10)
		if err != nil || len(parked) != 1 || parked[0].Key != "order-lost" || !strings.Contains(parked[0].Error, "never reserved") {
			t.Errorf("parked %+v, %v", parked, err)
		}
		if diff := cmp.Diff(inventory.Stock{Free: 9, Shipped: 1, Received: 10}, s.stock("A")); diff != "" {
			t.Errorf("stock (-want +got):\n%s", diff)
		}
	})
}

// TestEveryFaultLeavesTheSameStock runs the handlers under followtest's schedules:
// duplicates, gaps, commits that fail or whose outcome is unknown, restarts behind
// every event.
func TestEveryFaultLeavesTheSameStock(t *testing.T) {
	t.Parallel()
	orderTypes, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	var given []freehold.Write
	say := func(order string, events ...freehold.Event) {
		for _, e := range events {
			given = append(given, freehold.Write{Stream: freehold.Stream("order", order), Expect: freehold.Any, Events: []freehold.Event{e}})
		}
	}
	say("1", placed("1", goods("A", 4), goods("B", 1)), confirmed("1"))
	say("2", placed("2", goods("A", 4)), rejected("2"))
	say("3", placed("3", goods("A", 3)), rejected("3"))
	say("4", placed("4", goods("A", 2), goods("A", 1)), confirmed("4"), cancelled("4"))
	say("5", cancelled("5"), placed("5", goods("B", 1)))
	say("1", returned("r1", "1", goods("A", 2)))
	say("", returned("r2", "", goods("C", 9)))
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			followtest.Run(t, followtest.Case[kv.Tx]{
				Open:  e.open,
				Types: orderTypes,
				Given: given,
				Routes: func() []follow.Route[kv.Tx] {
					return (&inventorydb.Store{Opening: 7}).Routes()
				},
				Digest: func(ctx context.Context, tx kv.Tx) (string, error) {
					rows, _, err := inventorydb.Stocks(ctx, tx, "", 100)
					text := fmt.Sprintf("%+v", rows)
					for _, order := range []string{"1", "2", "3", "4", "5"} {
						for r, err := range tx.Events(ctx, freehold.Stream("reservation", order), 0) {
							if err != nil {
								return "", err
							}
							text += fmt.Sprintf(" %s@%d=%s", r.Stream, r.Version, r.Raw)
						}
					}
					return text, err
				},
			})
		})
	}
}
