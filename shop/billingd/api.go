package billingd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

const (
	maxBody      = 64 << 10
	maxBatchBody = 4 << 20
	maxBatch     = 1000
)

// TokenIn is what every read accepts.
type TokenIn struct {
	Token string `header:"Consistency-Token" doc:"wait until this has been seen; from the answer to a command"`
}

// Page is what every list accepts.
type Page struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"at most so many"`
}

// newAPI describes the service's interface on mux, /openapi.json included.
func (s *Server) newAPI(mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("Freehold shop: Billing", "1.0.0")
	config.Info.Description = "Payments, invoices, credit notes and the ledger. Amounts are decimal text with three places."
	config.Formats = maps.Clone(config.Formats) // they are shared by all APIs of the process
	config.Formats["application/x-ndjson"] = huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshalLines}
	config.RejectUnknownQueryParameters = true
	config.CreateHooks = nil // no $schema in answers
	config.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[event.Money](), reflect.TypeFor[string]())
	api := humago.New(mux, config)
	s.reads(api)
	s.commands(api)
	return api
}

// unmarshalLines reads NDJSON as if it were an array.
func unmarshalLines(data []byte, v any) error {
	lines := bytes.FieldsFunc(data, func(r rune) bool { return r == '\n' || r == '\r' })
	array := make([]byte, 0, len(data)+len(lines)+2)
	array = append(array, '[')
	for _, line := range lines {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(array) > 1 {
			array = append(array, ',')
		}
		array = append(array, line...)
	}
	return json.Unmarshal(append(array, ']'), v)
}

// body is an answer.
type body[V any] struct{ Body V }

func (s *Server) reads(api huma.API) {
	huma.Get(api, "/payments/{order}", func(ctx context.Context, in *struct {
		TokenIn
		Order string `path:"order" maxLength:"64" doc:"id of the order"`
	}) (*body[paymentView], error) {
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (paymentView, error) {
			p, err := billingdb.Payment(ctx, tx, in.Order)
			if err != nil {
				return paymentView{}, err
			}
			return viewOf(p), nil
		})
	}, about("payment", "One order's payment"))

	huma.Get(api, "/invoices/{number}", func(ctx context.Context, in *struct {
		TokenIn
		Number string `path:"number" maxLength:"40" example:"INV-000000042"`
	}) (*body[billing.Invoice], error) {
		n, err := billing.ParseNumber(in.Number)
		if err != nil {
			return nil, invalid("path.number", err.Error(), in.Number)
		}
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (billing.Invoice, error) {
			return billingdb.Invoice(ctx, tx, n)
		})
	}, about("invoice", "One invoice"))

	huma.Get(api, "/invoices", func(ctx context.Context, in *struct {
		TokenIn
		Page
		Order string `query:"order" maxLength:"64" doc:"only the invoice of this order"`
		After string `query:"after" maxLength:"40" doc:"number of the last invoice of the page before"`
	}) (*body[list[billing.Invoice]], error) {
		after, err := numberAfter(in.After)
		if err != nil {
			return nil, err
		}
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (list[billing.Invoice], error) {
			if in.Order != "" {
				return upToOne(billingdb.InvoiceOf(ctx, tx, in.Order))
			}
			return listOf(billingdb.Invoices(ctx, tx, after, in.Limit))
		})
	}, about("invoices", "Invoices by number"))

	huma.Get(api, "/credit-notes", func(ctx context.Context, in *struct {
		TokenIn
		Page
		Order  string `query:"order" maxLength:"64" doc:"only those of this order"`
		Return string `query:"return" maxLength:"64" doc:"only that of this return"`
		After  string `query:"after" maxLength:"40" doc:"number of the last credit note of the page before"`
	}) (*body[list[billing.CreditNote]], error) {
		after, err := numberAfter(in.After)
		if err != nil {
			return nil, err
		}
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (list[billing.CreditNote], error) {
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
		TokenIn
		Page
		After int64 `query:"after" minimum:"0" doc:"number of the last entry of the page before"`
	}) (*body[list[billingdb.Posting]], error) {
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (list[billingdb.Posting], error) {
			return listOf(billingdb.Entries(ctx, tx, in.After, in.Limit))
		})
	}, about("ledger-entries", "Ledger entries in the order of their posting, each with both of its sides"))

	huma.Get(api, "/ledger/accounts", func(ctx context.Context, in *struct{ TokenIn }) (*body[list[billing.Balance]], error) {
		if err := s.await(ctx, in.Token); err != nil {
			return nil, problem(err)
		}
		v, err := listOf(s.store.Accounts(ctx, s.db))
		return &body[list[billing.Balance]]{v}, problem(err)
	}, about("ledger-accounts", "Balances of all accounts; they sum up to zero"))

	huma.Get(api, "/adjustments", func(ctx context.Context, in *struct {
		TokenIn
		Page
		After int64 `query:"after" minimum:"0" doc:"number of the last adjustment of the page before"`
	}) (*body[list[billingdb.NumberedAdjustment]], error) {
		return read(ctx, s, in.TokenIn, func(ctx context.Context, tx sqldb.Tx) (list[billingdb.NumberedAdjustment], error) {
			return listOf(billingdb.Adjustments(ctx, tx, in.After, in.Limit))
		})
	}, about("list-adjustments", "Ledger adjustments by number"))

	huma.Get(api, "/books", func(ctx context.Context, in *struct{ TokenIn }) (*body[list[billing.Books]], error) {
		if err := s.await(ctx, in.Token); err != nil {
			return nil, problem(err)
		}
		v, err := listOf(s.store.Books(ctx, s.db))
		return &body[list[billing.Books]]{v}, problem(err)
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

// AdjustmentIn is the command to adjust the ledger.
type AdjustmentIn struct {
	Reference string    `json:"reference,omitempty" doc:"the client's own number" example:"A563186"`
	Customer  string    `json:"customer,omitempty"`
	Country   string    `json:"country,omitempty" example:"United Kingdom"`
	Currency  string    `json:"currency" doc:"ISO 4217 code" example:"GBP"`
	At        time.Time `json:"at,omitzero" doc:"business time; now if it is missing"`
	Lines     []lineIn  `json:"lines" doc:"what is corrected; the sum of quantity times price is posted"`
}

type lineIn struct {
	SKU         string `json:"sku" example:"B"`
	Description string `json:"description,omitempty" example:"Adjust bad debt"`
	Quantity    int64  `json:"quantity" example:"1"`
	Price       string `json:"price" doc:"decimal text with up to three places; may be negative" example:"-11062.060"`
}

type adjustmentWithKey struct {
	Key string `json:"key" minLength:"1" maxLength:"128" doc:"idempotency key"`
	AdjustmentIn
}

// adjusted answers a command to adjust the ledger.
type adjusted struct {
	Adjustment string `json:"adjustment"`
	Repeated   bool   `json:"repeated" doc:"the command was known; nothing has changed"`
}

type adjustmentOut struct {
	Status   int
	Location string `header:"Location"`
	Token    string `header:"Consistency-Token" doc:"hand it to reads that must see this command"`
	Body     adjusted
}

type adjustmentsOut struct {
	Token string `header:"Consistency-Token" doc:"hand it to reads that must see these commands"`
	Body  list[adjusted]
}

func (s *Server) commands(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "adjust", Method: http.MethodPost, Path: "/adjustments", Summary: "Adjust the ledger",
		MaxBodyBytes: maxBody, DefaultStatus: http.StatusCreated, Errors: []int{400, 409, 413, 422, 503},
	}, func(ctx context.Context, in *struct {
		Key  string `header:"Idempotency-Key" required:"true" minLength:"1" maxLength:"128" doc:"the same key is the same command"`
		Body AdjustmentIn
	}) (*adjustmentOut, error) {
		done, token, err := s.adjust(ctx, []adjustmentWithKey{{in.Key, in.Body}}, func(int) string { return "body" })
		if err != nil {
			return nil, problem(err)
		}
		out := &adjustmentOut{Status: http.StatusCreated, Location: "/adjustments?after=0", Token: token.String(), Body: done[0]}
		if done[0].Repeated {
			out.Status = http.StatusOK
		}
		return out, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "adjust-batch", Method: http.MethodPost, Path: "/adjustments/batch",
		Summary:      "Adjust the ledger many times, all or none: a JSON array, or NDJSON",
		MaxBodyBytes: maxBatchBody, Errors: []int{400, 409, 413, 422, 503},
	}, func(ctx context.Context, in *struct {
		Body []adjustmentWithKey `maxItems:"1000"`
	}) (*adjustmentsOut, error) {
		done, token, err := s.adjust(ctx, in.Body, func(i int) string { return "body[" + strconv.Itoa(i) + "]" })
		if err != nil {
			return nil, problem(err)
		}
		return &adjustmentsOut{Token: token.String(), Body: list[adjusted]{done}}, nil
	})
}

// command checks one command and gives it its id and the digest of its content.
func (in adjustmentWithKey) command() (a billing.Adjustment, digest string, err error) {
	trade := event.Trade{Reference: in.Reference, Customer: in.Customer, Country: in.Country, Currency: in.Currency, At: in.At.UTC()}
	lines := make([]event.Line, len(in.Lines))
	for i, l := range in.Lines {
		price, err := event.ParseMoney(l.Price)
		if err != nil {
			return a, "", &billing.FieldError{Field: fmt.Sprintf("lines[%d].price", i), Want: err.Error()}
		}
		lines[i] = event.Line{SKU: l.SKU, Description: l.Description, Quantity: l.Quantity, Price: price}
	}
	raw, err := json.Marshal(in.AdjustmentIn)
	if err != nil {
		return a, "", err
	}
	hash := sha256.Sum256(raw)
	a, err = billing.NewAdjustment(uuid.NewSHA1(adjustmentSpace, []byte(in.Key)).String(), trade, lines)
	return a, hex.EncodeToString(hash[:]), err
}

// adjust posts adjustments in one transaction. where names the place of the ith in
// the body.
func (s *Server) adjust(ctx context.Context, all []adjustmentWithKey, where func(int) string) ([]adjusted, freehold.Token, error) {
	adjustments, digests := make([]billing.Adjustment, len(all)), make([]string, len(all))
	for i, in := range all {
		var err error
		if adjustments[i], digests[i], err = in.command(); err != nil {
			if wrong := new(billing.FieldError); errors.As(err, &wrong) {
				err = invalid(where(i)+"."+wrong.Field, wrong.Want, nil)
			}
			return nil, freehold.Token{}, err
		}
	}
	done := make([]adjusted, len(all))
	token, err := s.db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for i, a := range adjustments {
			if a.At.IsZero() {
				a.At = tx.Now()
			}
			fresh, err := s.store.Adjust(ctx, tx, a, digests[i])
			if err != nil {
				return err
			}
			done[i] = adjusted{Adjustment: a.ID, Repeated: !fresh}
		}
		return nil
	})
	return done, token, err
}

// adjustmentSpace is the name space of ids made from idempotency keys.
var adjustmentSpace = uuid.MustParse("2f6e1d5a-6c0c-5b0e-9d55-3c7c2a9b1e10")
