package billingdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// Store is Billing's storage code. It holds no transaction and no rows; all of its
// methods work on the transaction they are given. It is safe for concurrent use.
type Store struct {
	holdFor time.Duration
	series  seriesNames
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
	return &Store{holdFor: holdFor, series: seriesNames{names: map[string]string{}}}
}

// Routes are the handlers of what the Order service says.
func (s *Store) Routes() []follow.Route[sqldb.Tx] {
	return []follow.Route[sqldb.Tx]{
		follow.On(s.Placed), follow.On(s.Confirmed), follow.On(s.Rejected), follow.On(s.Cancelled), follow.On(s.Returned),
	}
}

// Placed asks for the authorisation of the order's total.
func (s *Store) Placed(ctx context.Context, tx sqldb.Tx, e event.OrderPlaced, _ freehold.Recorded) error {
	return s.change(ctx, tx, e.Order, true, func(p *billing.Payment) (billing.Change, error) {
		return p.Place(e.Trade, e.Total, e.Simulate)
	})
}

// Confirmed asks for the capture of the confirmed amount.
func (s *Store) Confirmed(ctx context.Context, tx sqldb.Tx, e event.OrderConfirmed, _ freehold.Recorded) error {
	return s.change(ctx, tx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
		return p.Confirm(e.Trade, e.Amount)
	})
}

// Rejected lets go or pays back what was held or charged for the order.
func (s *Store) Rejected(ctx context.Context, tx sqldb.Tx, e event.OrderRejected, _ freehold.Recorded) error {
	return s.change(ctx, tx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
		return p.End(billing.Rejected)
	})
}

// Cancelled lets go or pays back what was held or charged for the order.
func (s *Store) Cancelled(ctx context.Context, tx sqldb.Tx, e event.OrderCancelled, _ freehold.Recorded) error {
	return s.change(ctx, tx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
		return p.End(billing.Cancelled)
	})
}

// Returned credits a return: against the invoice of its order, or by itself if it
// has none.
func (s *Store) Returned(ctx context.Context, tx sqldb.Tx, e event.OrderReturned, _ freehold.Recorded) error {
	if e.Order != "" {
		return s.change(ctx, tx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
			return p.Return(e.Return, e.Amount)
		})
	}
	if err := tx.Lock(ctx, "billing/return/"+e.Return); err != nil {
		return err
	}
	if known, err := hasCredit(ctx, tx, e.Return); known || err != nil {
		return err
	}
	issued, err := s.issueCredit(ctx, tx, "", &e.Trade, billing.Credit{Return: e.Return, Amount: e.Amount})
	if err != nil {
		return err
	}
	_, err = tx.Append(ctx, freehold.Stream("credit", e.Return), freehold.NoStream, issued)
	return err
}

// Answered records the definite outcome of a call to the provider. An outcome of a
// call that is not in flight (any more) changes nothing.
func (s *Store) Answered(ctx context.Context, tx sqldb.Tx, e event.CallRequested, o billing.Outcome) error {
	return s.change(ctx, tx, e.Order, false, func(p *billing.Payment) (billing.Change, error) {
		return p.Answer(e.Step, o, tx.Now(), s.holdFor)
	})
}

// Expire voids up to limit holds that nobody has claimed in time, and returns how
// many there were.
func (s *Store) Expire(ctx context.Context, tx sqldb.Tx, now time.Time, limit int) (int, error) {
	orders, err := expired(ctx, tx, now, limit)
	if err != nil {
		return 0, err
	}
	for _, order := range orders {
		err := s.change(ctx, tx, order, false, func(p *billing.Payment) (billing.Change, error) { return p.Expire(now) })
		if err != nil {
			return 0, err
		}
	}
	return len(orders), nil
}

// fact is something that a payment learns.
type fact func(*billing.Payment) (billing.Change, error)

// change lets one fact change the payment of an order and writes what it leads to.
// fresh says that nothing is stored yet, probably: that saves a read.
func (s *Store) change(ctx context.Context, tx sqldb.Tx, order string, fresh bool, f fact) error {
	if err := tx.Lock(ctx, "billing/payment/"+order); err != nil {
		return err
	}
	if fresh {
		if done, err := s.create(ctx, tx, &billing.Payment{Order: order}, f); done || err != nil {
			return err
		}
	} else if p, revision, ok := s.recent.get(order); ok {
		if done, err := s.alter(ctx, tx, &p, revision, f, true); done || err != nil {
			return err
		}
	}
	p, revision, found, err := load(ctx, tx, order)
	if err != nil {
		return err
	}
	done := false
	if found {
		done, err = s.alter(ctx, tx, p, revision, f, false)
	} else {
		done, err = s.create(ctx, tx, p, f)
	}
	if err == nil && !done {
		return fmt.Errorf("billingdb: payment %s was changed by another transaction", order)
	}
	return err
}

// create lets the fact be the first of an order. It reports false if it is not.
func (s *Store) create(ctx context.Context, tx sqldb.Tx, p *billing.Payment, f fact) (done bool, err error) {
	c, err := f(p)
	if err != nil || !c.New {
		return true, err
	}
	revision := rand.Int64()
	if inserted, err := insert(ctx, tx, p, revision); !inserted || err != nil {
		return false, err
	}
	s.recent.put(p, revision)
	return true, s.write(ctx, tx, p, c)
}

// alter lets the fact change a payment that is stored at a revision. It reports
// false if it is not, or if it is only remembered and nothing is to be changed.
func (s *Store) alter(ctx context.Context, tx sqldb.Tx, p *billing.Payment, revision int64, f fact, remembered bool) (done bool, err error) {
	was := *p
	c, err := f(p)
	if remembered && (err != nil || !c.New) {
		return false, nil
	}
	if err != nil || !c.New {
		return true, err
	}
	next := rand.Int64()
	if updated, err := update(ctx, tx, &was, p, revision, next); !updated || err != nil {
		return false, err
	}
	s.recent.put(p, next)
	return true, s.write(ctx, tx, p, c)
}

// write issues the documents, posts the entries and appends the events of a change.
func (s *Store) write(ctx context.Context, tx sqldb.Tx, p *billing.Payment, c billing.Change) error {
	events := c.Events
	if c.Invoice != nil {
		issued, err := s.issueInvoice(ctx, tx, p, *c.Invoice)
		if err != nil {
			return err
		}
		events = append(events, issued)
	}
	if err := postMore(ctx, tx, p.Trade.Currency, c.Entries); err != nil {
		return err
	}
	for _, credit := range c.Credits {
		issued, err := s.issueCredit(ctx, tx, p.Order, &p.Trade, credit)
		if err != nil {
			return err
		}
		events = append(events, issued)
	}
	if c.Call != nil {
		events = append(events, *c.Call)
	}
	if len(events) == 0 {
		return nil
	}
	_, err := tx.Append(ctx, billing.Stream(p.Order), freehold.Any, events...)
	return err
}
