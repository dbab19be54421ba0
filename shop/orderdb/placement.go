package orderdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/sqldb"
)

// Command is an event that begins a stream: an order placed, or a stand-alone return.
type Command struct {
	Stream freehold.StreamID
	Event  freehold.Event
	Body   string // digest of the command
}

// Placing is the command that places an order.
func Placing(e event.OrderPlaced) Command {
	return Command{freehold.Stream("order", e.Order), e, e.Body}
}

// TakingBack is the command that records a return that names no order.
func TakingBack(e event.OrderReturned) Command {
	return Command{freehold.Stream("return", e.Return), e, e.Body}
}

// Outcome is what became of a command: done now, Repeated if it had been done
// before, or refused with order.ErrOtherBody.
type Outcome struct {
	Repeated bool
	Err      error
}

// Begin does commands in their order, each once, in one transaction: those under a
// key that was used before change nothing. Only an error of the database concerns
// them all. Without a repeated key nothing is read first.
func Begin(ctx context.Context, db freehold.DB[sqldb.Tx], commands []Command) ([]Outcome, freehold.Token, error) {
	out := make([]Outcome, len(commands))
	writes := make([]freehold.Write, len(commands))
	seen := make(map[freehold.StreamID]bool, len(commands))
	twice := false
	for i, c := range commands {
		writes[i] = freehold.Write{Stream: c.Stream, Expect: freehold.NoStream, Events: []freehold.Event{c.Event}}
		twice = twice || seen[c.Stream]
		seen[c.Stream] = true
	}
	if !twice {
		tok, err := db.Append(ctx, writes...)
		if !errors.As(err, new(*freehold.Conflict)) {
			return out, tok, err
		}
	}
	tok, err := db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for i, c := range commands {
			var err error
			if out[i], err = begin(ctx, tx, c); err != nil {
				return err
			}
		}
		return nil
	})
	return out, tok, err
}

// begin does one command unless its stream has begun.
func begin(ctx context.Context, tx sqldb.Tx, c Command) (Outcome, error) {
	for r, err := range tx.Events(ctx, c.Stream, 0) {
		if err != nil {
			return Outcome{}, err
		}
		var was struct {
			Body string `json:"body"`
		}
		if err := json.Unmarshal(r.Raw, &was); err != nil {
			return Outcome{}, fmt.Errorf("orderdb: %s: %w", c.Stream, err)
		}
		if was.Body != c.Body {
			return Outcome{Err: order.ErrOtherBody}, nil
		}
		return Outcome{Repeated: true}, nil
	}
	_, err := tx.Append(ctx, c.Stream, freehold.NoStream, c.Event)
	return Outcome{}, err
}
