package orderd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/web"
	"github.com/freehold-go/freehold/sqldb"
)

// orderIn places an order.
type orderIn struct {
	web.TradeIn
	Policy          string `json:"policy,omitempty" enum:"all-or-nothing,partial" default:"all-or-nothing" doc:"what happens if some lines are not in stock"`
	DeadlineSeconds int    `json:"deadline_seconds,omitempty" minimum:"1" maximum:"604800" default:"30" doc:"how long to wait for stock and payment"`
	Simulate        string `json:"simulate,omitempty" enum:"decline,timeout,late,capture-decline" doc:"what the simulated payment provider shall do"`
}

// returnIn takes goods back.
type returnIn struct {
	web.TradeIn
	Order string `json:"order,omitempty" maxLength:"64" doc:"the order they belong to, if it is known"`
}

// placed is the answer to a command.
type placed struct {
	ID     string       `json:"id"`
	Status order.Status `json:"status"`
}

// orderOut is an order with its lines.
type orderOut struct {
	orderdb.OrderView
	Lines []event.Line `json:"lines"`
}

type listOut struct {
	Orders []orderdb.OrderView `json:"orders"`
	After  int64               `json:"after,omitempty" doc:"give it as after= for the next page"`
}

type reportOut struct {
	Rows []orderdb.Row `json:"rows"`
	More bool          `json:"more"`
}

// problem adds the order's own errors to those that all services have.
func problem(err error) error {
	var field *order.FieldError
	switch {
	case errors.As(err, &field):
		return web.Invalid("body."+field.Field, field.Want, nil)
	case errors.Is(err, order.ErrUnknown):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, order.ErrState):
		return huma.Error409Conflict(err.Error())
	}
	return web.Problem(err)
}

func (s *Server) api(mux *http.ServeMux) {
	api := web.NewAPI(mux, "Order", "Orders, their checkout, and what was sold. Amounts are decimal text with three places.")
	command := func(id, path, summary string, size int64) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, MaxBodyBytes: size, DefaultStatus: http.StatusCreated}
	}
	huma.Register(api, command("place-order", "/orders", "Place an order", web.MaxBody), func(ctx context.Context, in *struct {
		Key  string `header:"Idempotency-Key" maxLength:"128"`
		Body orderIn
	}) (*web.Answer[placed], error) {
		key, err := web.Key(in.Key, in.Body.Key)
		if err != nil {
			return nil, err
		}
		in.Body.Key = key
		e, err := in.Body.event(time.Now())
		if err != nil {
			return nil, problem(err)
		}
		tok, err := s.db.Append(ctx, freehold.Write{Stream: freehold.Stream("order", e.Order), Expect: freehold.NoStream, Events: []freehold.Event{e}})
		status := order.Placed
		var conflict *freehold.Conflict
		if errors.As(err, &conflict) {
			status, tok, err = s.again(ctx, e)
		}
		return &web.Answer[placed]{Token: tok.String(), Body: placed{e.Order, status}}, problem(err)
	})
	huma.Register(api, command("place-orders", "/orders/batch", "Place several orders, each under its key, in their order", web.MaxBatchBody), func(ctx context.Context, in *struct {
		Body []orderIn `minItems:"1" maxItems:"1000"`
	}) (*web.Answer[[]placed], error) {
		out, tok, err := s.placeAll(ctx, in.Body)
		return &web.Answer[[]placed]{Token: tok.String(), Body: out}, problem(err)
	})
	act := func(id, path, summary string, decide func(reason string) order.Decision) {
		op := command(id, path, summary, web.MaxBody)
		op.DefaultStatus = http.StatusOK
		huma.Register(api, op, func(ctx context.Context, in *struct {
			ID     string `path:"id" maxLength:"64"`
			Reason string `query:"reason" maxLength:"200"`
		}) (*web.Answer[placed], error) {
			o, tok, err := s.orders.Do(ctx, in.ID, decide(in.Reason))
			return &web.Answer[placed]{Token: tok.String(), Body: placed{in.ID, o.Status}}, problem(err)
		})
	}
	act("cancel-order", "/orders/{id}/cancel", "Cancel an order before it is shipped", func(reason string) order.Decision {
		if reason == "" {
			reason = "cancelled by the customer"
		}
		return order.Cancel(reason)
	})
	act("ship-order", "/orders/{id}/ship", "Ship a paid order", func(string) order.Decision { return order.Ship })
	huma.Register(api, command("return", "/returns", "Take goods back", web.MaxBody), func(ctx context.Context, in *struct {
		Key  string `header:"Idempotency-Key" maxLength:"128"`
		Body returnIn
	}) (*web.Answer[placed], error) {
		key, err := web.Key(in.Key, in.Body.Key)
		if err != nil {
			return nil, err
		}
		in.Body.Key = key
		out, tok, err := s.returnAll(ctx, []returnIn{in.Body})
		if err != nil {
			return nil, problem(err)
		}
		return &web.Answer[placed]{Token: tok.String(), Body: out[0]}, nil
	})
	huma.Register(api, command("return-batch", "/returns/batch", "Take goods of several returns back", web.MaxBatchBody), func(ctx context.Context, in *struct {
		Body []returnIn `minItems:"1" maxItems:"1000"`
	}) (*web.Answer[[]placed], error) {
		out, tok, err := s.returnAll(ctx, in.Body)
		return &web.Answer[[]placed]{Token: tok.String(), Body: out}, problem(err)
	})
	s.reads(api)
}

// event checks a command and gives its event.
func (in orderIn) event(now time.Time) (event.OrderPlaced, error) {
	now = now.UTC().Truncate(time.Microsecond)
	trade, lines, err := in.TradeIn.Event(now)
	if err != nil {
		return event.OrderPlaced{}, err
	}
	total, err := order.Check(trade, lines)
	if err != nil {
		return event.OrderPlaced{}, err
	}
	digest, err := web.Digest(in)
	if err != nil {
		return event.OrderPlaced{}, err
	}
	e := event.OrderPlaced{Order: web.ID("order", in.Key), Trade: trade, Policy: in.Policy, Deadline: now.Add(time.Duration(in.DeadlineSeconds) * time.Second),
		Simulate: in.Simulate, Body: digest, Lines: lines, Total: total}
	if e.Policy == "" {
		e.Policy = event.AllOrNothing
	}
	if in.DeadlineSeconds == 0 {
		e.Deadline = now.Add(30 * time.Second)
	}
	return e, nil
}

// again answers a command whose order exists already.
func (s *Server) again(ctx context.Context, e event.OrderPlaced) (order.Status, freehold.Token, error) {
	o, _, err := s.orders.Load(ctx, e.Order)
	if err != nil {
		return "", freehold.Token{}, err
	}
	if o.Placed.Body != e.Body {
		return "", freehold.Token{}, web.ErrOtherBody
	}
	_, head, err := s.db.Journal().Bounds(ctx)
	return o.Status, freehold.NewToken(head), err
}

// placeAll places orders in one transaction, in their order.
func (s *Server) placeAll(ctx context.Context, in []orderIn) ([]placed, freehold.Token, error) {
	events := make([]event.OrderPlaced, len(in))
	out := make([]placed, len(in))
	now := time.Now()
	for i, o := range in {
		if o.Key == "" {
			return nil, freehold.Token{}, web.Invalid(fmt.Sprintf("body[%d].key", i), "want an idempotency key", "")
		}
		var err error
		if events[i], err = o.event(now); err != nil {
			return nil, freehold.Token{}, err
		}
		out[i] = placed{events[i].Order, order.Placed}
	}
	tok, err := s.db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for _, e := range events {
			err := appendOnce(ctx, tx, freehold.Stream("order", e.Order), e, e.Body)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return out, tok, err
}

// appendOnce begins a stream with an event, unless it has begun with the same one.
func appendOnce(ctx context.Context, tx sqldb.Tx, stream freehold.StreamID, e freehold.Event, digest string) error {
	_, err := tx.Append(ctx, stream, freehold.NoStream, e)
	var conflict *freehold.Conflict
	if !errors.As(err, &conflict) {
		return err
	}
	for r, err := range tx.Events(ctx, stream, 0) {
		if err != nil {
			return err
		}
		var was struct{ Body string }
		if err := json.Unmarshal(r.Raw, &was); err != nil {
			return err
		}
		if was.Body != digest {
			return fmt.Errorf("%w (%s)", web.ErrOtherBody, stream)
		}
		return nil
	}
	return nil
}

// returnAll records returns in one transaction.
func (s *Server) returnAll(ctx context.Context, in []returnIn) ([]placed, freehold.Token, error) {
	events := make([]event.OrderReturned, len(in))
	out := make([]placed, len(in))
	for i, r := range in {
		if r.Key == "" {
			return nil, freehold.Token{}, web.Invalid(fmt.Sprintf("body[%d].key", i), "want an idempotency key", "")
		}
		trade, lines, err := r.TradeIn.Event(time.Now().UTC().Truncate(time.Microsecond))
		if err != nil {
			return nil, freehold.Token{}, err
		}
		total, err := order.Check(trade, lines)
		if err != nil {
			return nil, freehold.Token{}, err
		}
		digest, err := web.Digest(r)
		if err != nil {
			return nil, freehold.Token{}, err
		}
		events[i] = event.OrderReturned{Return: web.ID("return", r.Key), Order: r.Order, Trade: trade, Body: digest, Lines: lines, Amount: total}
		out[i] = placed{events[i].Return, "returned"}
	}
	tok, err := s.db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for _, e := range events {
			if e.Order != "" {
				o, err := s.orders.DoTx(ctx, tx, e.Order, func(order.Order) ([]freehold.Event, error) { return nil, nil })
				if err != nil {
					return err
				}
				if o.Status != order.Shipped {
					return fmt.Errorf("%w: order %s is %q, only a shipped order can be returned", order.ErrState, e.Order, o.Status)
				}
			}
			if err := appendOnce(ctx, tx, freehold.Stream("return", e.Return), e, e.Body); err != nil {
				return err
			}
		}
		return nil
	})
	return out, tok, err
}

func (s *Server) reads(api huma.API) {
	huma.Get(api, "/orders/{id}", func(ctx context.Context, in *struct {
		web.Token
		ID    string `path:"id" maxLength:"64"`
		Until string `query:"until" enum:"confirmed,paid,shipped,done" doc:"wait until it is there, or the checkout has ended"`
		Wait  int    `query:"wait" minimum:"0" maximum:"30" default:"10" doc:"seconds to wait with until"`
	}) (*web.Body[orderOut], error) {
		tok, err := in.Parse()
		if err != nil {
			return nil, err
		}
		out, err := s.get(ctx, in.ID, tok, in.Until, time.Duration(in.Wait)*time.Second)
		return &web.Body[orderOut]{Body: out}, problem(err)
	})
	huma.Get(api, "/orders", func(ctx context.Context, in *struct {
		web.Token
		Customer string `query:"customer" maxLength:"64"`
		Status   string `query:"status" enum:"placed,confirmed,paid,shipped,returned,rejected,cancelled"`
		After    int64  `query:"after" minimum:"0"`
		Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*web.Body[listOut], error) {
		tok, err := in.Parse()
		if err != nil {
			return nil, err
		}
		out := listOut{Orders: []orderdb.OrderView{}}
		err = s.view(ctx, s.views, tok, func(ctx context.Context, tx kv.Tx, ns string) error {
			all, next, err := orderdb.NewOrders(ns).List(ctx, tx, orderdb.Filter{Customer: in.Customer, Status: order.Status(in.Status)}, in.After, in.Limit)
			if len(all) > 0 {
				out.Orders = all
			}
			out.After = next
			return err
		})
		return &web.Body[listOut]{Body: out}, problem(err)
	})
	huma.Get(api, "/reports/summary", func(ctx context.Context, in *web.Token) (*web.Body[orderdb.Summary], error) {
		tok, err := in.Parse()
		if err != nil {
			return nil, err
		}
		out := &web.Body[orderdb.Summary]{}
		err = s.view(ctx, s.sales, tok, func(ctx context.Context, tx kv.Tx, ns string) (err error) {
			out.Body, err = orderdb.NewSales(ns).Summary(ctx, tx)
			return err
		})
		return out, problem(err)
	})
	huma.Get(api, "/reports/sales", func(ctx context.Context, in *struct {
		web.Token
		By    string `query:"by" enum:"country,month,day,customer,sku,invoice" required:"true"`
		From  string `query:"from" maxLength:"65"`
		Limit int    `query:"limit" minimum:"1" maximum:"5000" default:"1000"`
	}) (*web.Body[reportOut], error) {
		tok, err := in.Parse()
		if err != nil {
			return nil, err
		}
		out := reportOut{Rows: []orderdb.Row{}}
		err = s.view(ctx, s.sales, tok, func(ctx context.Context, tx kv.Tx, ns string) error {
			rows, more, err := orderdb.NewSales(ns).Report(ctx, tx, in.By, in.From, in.Limit)
			if out.More = more; len(rows) > 0 {
				out.Rows = rows
			}
			return err
		})
		return &web.Body[reportOut]{Body: out}, problem(err)
	})
	huma.Get(api, "/services", func(context.Context, *struct{}) (*web.Body[map[string]string], error) {
		return &web.Body[map[string]string]{Body: s.services}, nil
	})
}

// get returns an order; with until it waits for a status or the checkout's end.
func (s *Server) get(ctx context.Context, id string, tok freehold.Token, until string, wait time.Duration) (out orderOut, err error) {
	deadline, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		_, head, err := s.db.Journal().Bounds(ctx)
		if err != nil {
			return out, err
		}
		err = s.view(ctx, s.views, tok, func(ctx context.Context, tx kv.Tx, ns string) error {
			o, lines, found, err := orderdb.NewOrders(ns).Get(ctx, tx, id)
			if err == nil && !found {
				err = fmt.Errorf("%w: %s", order.ErrUnknown, id)
			}
			out = orderOut{o, lines}
			return err
		})
		unknown := errors.Is(err, order.ErrUnknown)
		if err != nil && !unknown || until == "" || !unknown && (out.Status.Done() || out.Status.Reached(order.Status(until))) {
			return out, err
		}
		if s.db.Journal().Wait(deadline, head) != nil {
			return out, err
		}
		_, head, boundsErr := s.db.Journal().Bounds(ctx)
		if boundsErr != nil {
			return out, boundsErr
		}
		tok = tok.Merge(freehold.NewToken(head))
	}
}
