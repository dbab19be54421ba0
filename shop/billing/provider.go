package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/freehold-go/freehold/shop/event"
)

var (
	// ErrUnknown is returned by a provider's operation that was not answered: it may
	// or may not have happened. Ask with its key.
	ErrUnknown = errors.New("billing: provider did not answer: the outcome is unknown until it is asked with the same key")
	// ErrPending is returned by a query for an operation that the provider has, but
	// has not finished. Ask again.
	ErrPending = errors.New("billing: provider has not finished the operation")
	// ErrNoOperation is returned by a query for a key that the provider has never
	// seen. The same operation under the same key may be sent again.
	ErrNoOperation = errors.New("billing: provider knows no operation with this key")
)

// Request is one operation at the provider.
type Request struct {
	Key      string // idempotency key, see [Key]
	Order    string
	Amount   event.Money
	Simulate string // for the simulated provider only
}

// Outcome is a provider's definite answer.
type Outcome struct {
	Approved bool   `json:"approved"`
	Reason   string `json:"reason,omitempty"` // of a refusal
}

// Provider is a payment gateway, as Billing uses it. Operations with a key that the
// provider has seen before have no second effect and give the first answer. A
// refusal is an [Outcome]; an error says that there is none yet: [ErrUnknown], or
// anything else that makes a later repetition under the same key sensible. It is
// safe for concurrent use.
type Provider interface {
	// Authorize holds an amount of the customer's.
	Authorize(ctx context.Context, r Request) (Outcome, error)
	// Capture charges an amount that is held. It is final: the rest of the hold is
	// let go.
	Capture(ctx context.Context, r Request) (Outcome, error)
	// Void lets a hold go.
	Void(ctx context.Context, r Request) (Outcome, error)
	// Refund pays back a part of what was charged.
	Refund(ctx context.Context, r Request) (Outcome, error)
	// Query returns the outcome of the operation with a key: [ErrPending] if there
	// is none yet, [ErrNoOperation] if the provider has no such operation.
	Query(ctx context.Context, key string) (Outcome, error)
}

// Perform makes the call that an event asks for. attempt counts from 1: from the
// second on, what became of the earlier ones is asked first, and only an
// operation that the provider has never seen is sent again, under its key.
func Perform(ctx context.Context, p Provider, e event.CallRequested, attempt int) (Outcome, error) {
	key := Key(e.Order, e.Step)
	if attempt > 1 {
		o, err := p.Query(ctx, key)
		if !errors.Is(err, ErrNoOperation) {
			return o, wrap(e, "query", err)
		}
	}
	r := Request{Key: key, Order: e.Order, Amount: e.Amount, Simulate: e.Simulate}
	var o Outcome
	var err error
	switch step, _, _ := strings.Cut(e.Step, "-"); step {
	case StepAuthorize:
		o, err = p.Authorize(ctx, r)
	case StepCapture:
		o, err = p.Capture(ctx, r)
	case StepVoid:
		o, err = p.Void(ctx, r)
	case StepRefund:
		o, err = p.Refund(ctx, r)
	default:
		err = fmt.Errorf("unknown step %q", e.Step)
	}
	return o, wrap(e, e.Step, err)
}

func wrap(e event.CallRequested, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("billing: %s of %s: %w", what, Key(e.Order, e.Step), err)
}
