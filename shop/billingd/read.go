package billingd

import (
	"context"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/web"
	"github.com/freehold-go/freehold/sqldb"
)

// read waits for the token and runs fn on one snapshot.
func read[V any](ctx context.Context, s *Server, in web.Token, fn func(ctx context.Context, tx sqldb.Tx) (V, error)) (*web.Body[V], error) {
	if err := s.await(ctx, in); err != nil {
		return nil, problem(err)
	}
	var v V
	err := s.db.View(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		var err error
		v, err = fn(ctx, tx)
		return err
	})
	if err != nil {
		return nil, problem(err)
	}
	return &web.Body[V]{Body: v}, nil
}

// await returns when the database has what the token asks for: of Billing's own
// journal, and of the Order service's as far as Billing follows it. What it asks
// of others is not Billing's business.
func (s *Server) await(ctx context.Context, in web.Token) error {
	token, err := in.Parse()
	if err != nil || in.Token == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	if err := s.orders.WaitFor(ctx, token); err != nil {
		return err
	}
	return web.Holds(ctx, s.db.Journal(), token)
}

// defaultWait is how long a read waits for its token.
const defaultWait = 5 * time.Second

func isNotFound(err error) bool { return errors.Is(err, billingdb.ErrNotFound) }

// numberAfter reads the number behind which a list goes on.
func numberAfter(text string) (billing.Number, error) {
	if text == "" {
		return billing.Number{}, nil
	}
	n, err := billing.ParseNumber(text)
	if err != nil {
		return n, web.Invalid("query.after", err.Error(), text)
	}
	return n, nil
}

// about names an operation.
func about(id, summary string) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.OperationID, o.Summary = id, summary
		o.Errors = []int{404, 409, 422, 503}
	}
}
