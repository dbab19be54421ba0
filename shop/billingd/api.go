package billingd

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/web"
	"github.com/freehold-go/freehold/sqldb"
)

// Page is what every list accepts.
type Page struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"at most so many"`
}

// register describes the service's interface on mux, /openapi.json included.
func (s *Server) register(mux *http.ServeMux) {
	api := web.NewAPI(mux, "Billing", "Payments, invoices, credit notes and the ledger. Amounts are decimal text with three places.")
	s.reads(api)
	s.commands(api)
}

func (s *Server) reads(api huma.API) {
	huma.Get(api, "/payments/{order}", func(ctx context.Context, in *struct {
		web.Token
		Order string `path:"order" maxLength:"64" doc:"id of the order"`
	}) (*web.Body[paymentView], error) {
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (paymentView, error) {
			p, err := billingdb.Payment(ctx, tx, in.Order)
			if err != nil {
				return paymentView{}, err
			}
			return viewOf(p), nil
		})
	}, about("payment", "One order's payment"))

	huma.Get(api, "/invoices/{number}", func(ctx context.Context, in *struct {
		web.Token
		Number string `path:"number" maxLength:"40" example:"INV-000000042"`
	}) (*web.Body[billing.Invoice], error) {
		n, err := billing.ParseNumber(in.Number)
		if err != nil {
			return nil, web.Invalid("path.number", err.Error(), in.Number)
		}
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (billing.Invoice, error) {
			return billingdb.Invoice(ctx, tx, n)
		})
	}, about("invoice", "One invoice"))

	huma.Get(api, "/invoices", func(ctx context.Context, in *struct {
		web.Token
		Page
		Order string `query:"order" maxLength:"64" doc:"only the invoice of this order"`
		After string `query:"after" maxLength:"40" doc:"number of the last invoice of the page before"`
	}) (*web.Body[list[billing.Invoice]], error) {
		after, err := numberAfter(in.After)
		if err != nil {
			return nil, err
		}
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (list[billing.Invoice], error) {
			if in.Order != "" {
				return upToOne(billingdb.InvoiceOf(ctx, tx, in.Order))
			}
			return listOf(billingdb.Invoices(ctx, tx, after, in.Limit))
		})
	}, about("invoices", "Invoices by number"))

	huma.Get(api, "/credit-notes", func(ctx context.Context, in *struct {
		web.Token
		Page
		Order  string `query:"order" maxLength:"64" doc:"only those of this order"`
		Return string `query:"return" maxLength:"64" doc:"only that of this return"`
		After  string `query:"after" maxLength:"40" doc:"number of the last credit note of the page before"`
	}) (*web.Body[list[billing.CreditNote]], error) {
		after, err := numberAfter(in.After)
		if err != nil {
			return nil, err
		}
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (list[billing.CreditNote], error) {
			switch {
			case in.Return != "":
				return upToOne(billingdb.CreditNoteOf(ctx, tx, in.Return))
			case in.Order != "":
				return listOf(billingdb.CreditNotesOf(ctx, tx, in.Order))
			}
			return listOf(billingdb.CreditNotes(ctx, tx, after, in.Limit))
		})
	}, about("credit-notes", "Credit notes by number"))

	huma.Get(api, "/ledger/entries", func(ctx context.Context, in *struct {
		web.Token
		Page
		After int64 `query:"after" minimum:"0" doc:"number of the last entry of the page before"`
	}) (*web.Body[list[billingdb.Posting]], error) {
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (list[billingdb.Posting], error) {
			return listOf(billingdb.Entries(ctx, tx, in.After, in.Limit))
		})
	}, about("ledger-entries", "Ledger entries in the order of their posting, each with both of its sides"))

	huma.Get(api, "/ledger/accounts", func(ctx context.Context, in *struct{ web.Token }) (*web.Body[list[billing.Balance]], error) {
		if err := s.await(ctx, in.Token); err != nil {
			return nil, problem(err)
		}
		v, err := listOf(s.store.Accounts(ctx, s.db))
		return &web.Body[list[billing.Balance]]{Body: v}, problem(err)
	}, about("ledger-accounts", "Balances of all accounts; they sum up to zero"))

	huma.Get(api, "/adjustments", func(ctx context.Context, in *struct {
		web.Token
		Page
		After int64 `query:"after" minimum:"0" doc:"number of the last adjustment of the page before"`
	}) (*web.Body[list[billingdb.NumberedAdjustment]], error) {
		return read(ctx, s, in.Token, func(ctx context.Context, tx sqldb.Tx) (list[billingdb.NumberedAdjustment], error) {
			return listOf(billingdb.Adjustments(ctx, tx, in.After, in.Limit))
		})
	}, about("list-adjustments", "Ledger adjustments by number"))

	huma.Get(api, "/books", func(ctx context.Context, in *struct{ web.Token }) (*web.Body[list[billing.Books]], error) {
		if err := s.await(ctx, in.Token); err != nil {
			return nil, problem(err)
		}
		v, err := listOf(s.store.Books(ctx, s.db))
		return &web.Body[list[billing.Books]]{Body: v}, problem(err)
	}, about("books", "Totals of each currency"))
}

// list is an answer with many items.
type list[V any] struct {
	Items []V `json:"items"`
}

func listOf[V any](items []V, err error) (list[V], error) {
	if items == nil {
		items = []V{}
	}
	return list[V]{items}, err
}

func upToOne[V any](item V, err error) (list[V], error) {
	if isNotFound(err) {
		return list[V]{[]V{}}, nil
	}
	return list[V]{[]V{item}}, err
}

// paymentView is a payment as others see it.
type paymentView struct {
	Order      string        `json:"order"`
	State      billing.State `json:"state" enum:"unplaced,authorizing,authorized,declined,capturing,captured,voiding,voided,refunding,refunded"`
	Currency   string        `json:"currency,omitempty"`
	Total      event.Money   `json:"total" doc:"of the order as placed"`
	Authorized event.Money   `json:"authorized"`
	Captured   event.Money   `json:"captured"`
	Voided     event.Money   `json:"voided"`
	Refunded   event.Money   `json:"refunded"`
	InFlight   string        `json:"in_flight,omitempty" doc:"idempotency key of the call to the provider that is under way"`
	Reason     string        `json:"reason,omitempty" doc:"of the last refusal"`
	Refunds    []refundView  `json:"refunds,omitempty"`
}

type refundView struct {
	Return string              `json:"return,omitempty" doc:"empty for the cancellation of the order"`
	Amount event.Money         `json:"amount"`
	State  billing.RefundState `json:"state" enum:"waiting,due,paid,refused,void"`
}

func viewOf(p *billing.Payment) paymentView {
	v := paymentView{Order: p.Order, State: p.State(), Currency: p.Trade.Currency, Total: p.Total, Authorized: p.Authorised(),
		Captured: p.Captured, Voided: p.Voided, Refunded: p.Refunded(), Reason: p.Reason}
	if p.Call != "" {
		v.InFlight = billing.Key(p.Order, p.Call)
	}
	for _, r := range p.Refunds {
		v.Refunds = append(v.Refunds, refundView{r.Return, r.Amount, r.State})
	}
	return v
}

// adjusted answers a command to adjust the ledger.
type adjusted struct {
	Adjustment string      `json:"adjustment"`
	Amount     event.Money `json:"amount" doc:"sum of the lines, as posted"`
	Repeated   bool        `json:"repeated" doc:"the command was known; nothing has changed"`
}

func (s *Server) commands(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "adjust", Method: http.MethodPost, Path: "/adjustments",
		Summary:      "Adjust the ledger by the value of the lines, which may be negative",
		MaxBodyBytes: web.MaxBody, DefaultStatus: http.StatusCreated, Errors: []int{400, 409, 413, 422, 503},
	}, func(ctx context.Context, in *struct {
		Key  string `header:"Idempotency-Key" maxLength:"128" doc:"the same key is the same command; needed unless the body has it"`
		Body web.TradeIn
	}) (*adjustedOut, error) {
		if in.Key == "" && in.Body.Key == "" {
			return nil, web.Invalid("header.Idempotency-Key", "a command to the ledger needs a key, so that its repetition posts nothing", nil)
		}
		var err error
		if in.Body.Key, err = web.Key(in.Key, in.Body.Key); err != nil {
			return nil, err
		}
		done, token, err := s.adjust(ctx, []web.TradeIn{in.Body}, func(int) string { return "body" })
		if err != nil {
			return nil, problem(err)
		}
		out := &adjustedOut{Status: http.StatusCreated, Token: token.String(), Body: done[0]}
		if done[0].Repeated {
			out.Status = http.StatusOK
		}
		return out, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "adjust-batch", Method: http.MethodPost, Path: "/adjustments/batch",
		Summary:      "Adjust the ledger many times, all or none, each under its key: a JSON array, or NDJSON",
		MaxBodyBytes: web.MaxBatchBody, Errors: []int{400, 409, 413, 422, 503},
	}, func(ctx context.Context, in *struct {
		Body []web.TradeIn `minItems:"1" maxItems:"1000"`
	}) (*web.Answer[[]adjusted], error) {
		where := func(i int) string { return "body[" + strconv.Itoa(i) + "]" }
		for i, one := range in.Body {
			if one.Key == "" {
				return nil, web.Invalid(where(i)+".key", "a command to the ledger needs a key, so that its repetition posts nothing", nil)
			}
		}
		done, token, err := s.adjust(ctx, in.Body, where)
		if err != nil {
			return nil, problem(err)
		}
		return &web.Answer[[]adjusted]{Token: token.String(), Body: done}, nil
	})
}

type adjustedOut struct {
	Status int
	Token  string `header:"Consistency-Token" doc:"hand it to reads that must see this command"`
	Body   adjusted
}

// adjust posts adjustments in one transaction. where names the place of the ith in
// the body.
func (s *Server) adjust(ctx context.Context, all []web.TradeIn, where func(int) string) ([]adjusted, freehold.Token, error) {
	var none freehold.Token
	adjustments, digests := make([]billing.Adjustment, len(all)), make([]string, len(all))
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, in := range all {
		trade, lines, err := in.Event(where(i), now)
		if err != nil {
			return nil, none, err
		}
		if adjustments[i], err = billing.NewAdjustment(web.ID("adjustment", in.Key), trade, lines); err != nil {
			return nil, none, field(where(i), err)
		}
		if digests[i], err = web.Digest(in); err != nil {
			return nil, none, err
		}
	}
	done := make([]adjusted, len(all))
	token, err := s.db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for i, a := range adjustments {
			fresh, err := s.store.Adjust(ctx, tx, a, digests[i])
			if err != nil {
				return err
			}
			done[i] = adjusted{Adjustment: a.ID, Amount: a.Amount, Repeated: !fresh}
		}
		return nil
	})
	return done, token, err
}
