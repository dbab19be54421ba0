package order

import (
	"context"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/shop/event"
)

// Checkout is what the process remembers of an order between its answers.
type Checkout struct {
	Stock     bool  `json:"stock,omitempty"`     // Inventory holds the goods
	Payment   bool  `json:"payment,omitempty"`   // Billing holds the money
	Dropped   []int `json:"dropped,omitempty"`   // lines that were not in stock
	Confirmed bool  `json:"confirmed,omitempty"` // the decision is made, the capture is awaited
}

// Routes is the checkout: it waits for Inventory and Billing up to the command's
// deadline. If both agree the order is confirmed, and the process waits for the
// capture; if one refuses, or time is up, the order is rejected. The participants
// undo what they did by their own state when they see how the order ended, so the
// process has nothing to compensate itself. Answers may come in any order.
func Routes[T freehold.Tx](orders *aggregate.Repo[Order]) []saga.Route[T, Checkout] {
	fail := func(ctx context.Context, tx T, s *saga.Step[Checkout], code, reason string) error {
		if s.State.Confirmed {
			return nil // an answer repeated after the decision
		}
		s.End()
		_, err := orders.DoTx(ctx, tx, s.ID, Reject(code, reason))
		return err
	}
	settle := func(ctx context.Context, tx T, s *saga.Step[Checkout]) error {
		if !s.State.Stock || !s.State.Payment || s.State.Confirmed {
			return nil
		}
		o, err := orders.DoTx(ctx, tx, s.ID, Confirm(s.State.Dropped))
		if err != nil {
			return err
		}
		s.Clear("answers")
		if s.State.Confirmed = true; o.Status != Confirmed {
			s.End() // cancelled before, or nothing left
		}
		return nil
	}
	return []saga.Route[T, Checkout]{
		saga.Start(func(e event.OrderPlaced) string { return e.Order }, func(_ context.Context, _ T, s *saga.Step[Checkout], e event.OrderPlaced) error {
			s.DeadlineAt("answers", e.Deadline)
			return nil
		}),
		saga.On(func(e event.StockReserved) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], e event.StockReserved) error {
			s.State.Stock, s.State.Dropped = true, e.Dropped
			return settle(ctx, tx, s)
		}),
		saga.On(func(e event.StockRejected) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], e event.StockRejected) error {
			return fail(ctx, tx, s, e.Code, e.Reason)
		}),
		saga.On(func(e event.PaymentAuthorized) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], _ event.PaymentAuthorized) error {
			s.State.Payment = true
			return settle(ctx, tx, s)
		}),
		saga.On(func(e event.PaymentDeclined) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], e event.PaymentDeclined) error {
			return fail(ctx, tx, s, CodeDeclined, e.Reason)
		}),
		saga.On(func(e event.PaymentCaptured) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], e event.PaymentCaptured) error {
			s.End()
			_, err := orders.DoTx(ctx, tx, s.ID, MarkPaid(e.Amount))
			return err
		}),
		saga.On(func(e event.PaymentCaptureFailed) string { return e.Order }, func(ctx context.Context, tx T, s *saga.Step[Checkout], e event.PaymentCaptureFailed) error {
			s.End()
			_, err := orders.DoTx(ctx, tx, s.ID, CaptureFailed(e.Reason))
			return err
		}),
		saga.On(func(e event.OrderCancelled) string { return e.Order }, func(_ context.Context, _ T, s *saga.Step[Checkout], _ event.OrderCancelled) error {
			s.End() // a customer's command
			return nil
		}),
		saga.OnTimeout(func(ctx context.Context, tx T, s *saga.Step[Checkout], _ saga.Timeout) error {
			missing := "Inventory and Billing have"
			switch {
			case s.State.Stock:
				missing = "Billing has"
			case s.State.Payment:
				missing = "Inventory has"
			}
			return fail(ctx, tx, s, CodeTimeOut, missing+" not answered in time")
		}),
	}
}
