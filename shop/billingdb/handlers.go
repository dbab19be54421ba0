package billingdb

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// Store is Billing's storage code. It holds no transaction and no rows; all of its
// methods work on the transaction they are given. It is safe for concurrent use.
type Store struct {
	holdFor time.Duration
	recent  recent

	summing sync.Mutex
	totals  totals
}

// HoldFor is how long an authorisation is held by default before it expires.
const HoldFor = 7 * 24 * time.Hour

// NewStore returns the storage code. holdFor is how long the provider keeps an
// authorisation that nobody claims; 0 is [HoldFor].
func NewStore(holdFor time.Duration) *Store {
	if holdFor <= 0 {
		holdFor = HoldFor
	}
	return &Store{holdFor: holdFor}
}

// Routes are the handlers of what the Order service says: one, which takes events
// in sets.
func (s *Store) Routes() []follow.Route[sqldb.Tx] {
	return []follow.Route[sqldb.Tx]{follow.Batch(s.Apply, event.OrderPlaced{}.EventType(), event.OrderConfirmed{}.EventType(),
		event.OrderRejected{}.EventType(), event.OrderCancelled{}.EventType(), event.OrderReturned{}.EventType())}
}

// Apply takes events of orders in, in order. Types that say nothing about money are
// passed over.
func (s *Store) Apply(ctx context.Context, tx sqldb.Tx, rs []freehold.Recorded) error {
	b := s.batch(tx)
	for i := range rs {
		r := &rs[i]
		switch r.Type.Name {
		case "order.placed", "order.confirmed", "order.rejected", "order.cancelled", "order.returned":
		default:
			continue
		}
		e, err := r.Decode()
		if err == nil {
			err = b.take(freehold.WithMeta(ctx, r.Caused()), e)
		}
		if err != nil {
			return fmt.Errorf("%s at %s: %w", r.Type, r.At, err)
		}
	}
	return b.flush(ctx)
}

// take takes one event of an order in.
func (b *batch) take(ctx context.Context, e freehold.Event) error {
	switch e := e.(type) {
	case event.OrderPlaced: // asks for the authorisation of the order's total
		return b.change(ctx, e.Order, true, func(p *billing.Payment) (billing.Change, error) {
			return p.Place(e.Trade, e.Total, e.Simulate)
		})
	case event.OrderConfirmed: // asks for the capture of the confirmed amount
		return b.change(ctx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.Confirm(e.Trade, e.Amount)
		})
	case event.OrderRejected: // lets go or pays back what was held or charged
		return b.change(ctx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.End(billing.Rejected)
		})
	case event.OrderCancelled: // the same
		return b.change(ctx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.End(billing.Cancelled)
		})
	case event.OrderReturned:
		if e.Order == "" {
			return b.creditAlone(ctx, e)
		}
		return b.change(ctx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.Return(e.Return, e.Amount)
		})
	default:
		return fmt.Errorf("billingdb: decodes to %T", e)
	}
}

// creditAlone credits a return of goods of which no order is known.
func (b *batch) creditAlone(ctx context.Context, e event.OrderReturned) error {
	if err := b.tx.Lock(ctx, "billing/return/"+e.Return); err != nil {
		return err
	}
	if known, err := hasCredit(ctx, b.tx, e.Return); known || err != nil {
		return err
	}
	issued, err := b.issueCredit(ctx, "", &e.Trade, billing.Credit{Return: e.Return, Amount: e.Amount})
	if err != nil {
		return err
	}
	_, err = b.tx.Append(ctx, freehold.Stream("credit", e.Return), freehold.NoStream, issued)
	return err
}

// Answered records the definite outcomes of calls to the provider. An outcome of a
// call that is not in flight (any more) changes nothing.
func (s *Store) Answered(ctx context.Context, tx sqldb.Tx, done []intent.Done[event.CallRequested, billing.Outcome]) error {
	b := s.batch(tx)
	for i := range done {
		d := &done[i]
		err := b.change(freehold.WithMeta(ctx, d.Recorded.Caused()), d.Event.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.Answer(d.Event.Step, d.Outcome, tx.Now(), s.holdFor)
		})
		if err != nil {
			return err
		}
	}
	return b.flush(ctx)
}

// Expire voids up to limit holds that nobody has claimed in time, and returns how
// many there were.
func (s *Store) Expire(ctx context.Context, tx sqldb.Tx, now time.Time, limit int) (int, error) {
	orders, err := expired(ctx, tx, now, limit)
	if err != nil {
		return 0, err
	}
	b := s.batch(tx)
	for _, order := range orders {
		err := b.change(ctx, order, false, func(p *billing.Payment) (billing.Change, error) { return p.Expire(now) })
		if err != nil {
			return 0, err
		}
	}
	return len(orders), b.flush(ctx)
}

func paymentLock(order string) string { return "billing/payment/" + order }

// Hints are the payments that events of orders, or outcomes of calls, concern.
func Hints(rs []freehold.Recorded) follow.Hints {
	var h follow.Hints
	for i := range rs {
		order := rs[i].Stream.ID() // of an order as of a payment
		h.Locks = append(h.Locks, paymentLock(order))
		h.Streams = append(h.Streams, billing.Stream(order))
	}
	return h
}
