package orderd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/web"
)

// orderOut is an order with its lines.
type orderOut struct {
	orderdb.OrderView
	Lines []event.Line `json:"lines" doc:"as placed"`
}

type listOut struct {
	Orders []orderdb.OrderView `json:"orders"`
	After  int64               `json:"after,omitempty" doc:"give it as after= for the next page; missing on the last one"`
}

type reportOut struct {
	Rows []orderdb.Row `json:"rows"`
	More bool          `json:"more" doc:"there are rows behind these: go on from the last key with a zero byte behind it"`
}

// lookAgain is how often an order is looked at that another instance changes.
const lookAgain = 20 * time.Millisecond

// maxWait bounds how long a read waits for an order to change.
const maxWait = 30 * time.Second

func about(id, summary string) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.OperationID, o.Summary, o.Errors = id, summary, []int{404, 409, 422, 503}
	}
}

func (s *Server) reads(api huma.API) {
	huma.Get(api, "/orders/{id}", func(ctx context.Context, in *struct {
		web.Token
		ID    string `path:"id" maxLength:"64"`
		Until string `query:"until" enum:"confirmed,paid,shipped,returned,done" doc:"wait until the order has come so far, or its checkout has ended; then the answer is the order as it is"`
		Wait  string `query:"wait" default:"10s" maxLength:"10" doc:"how long to wait with until, at most 30s"`
	}) (*web.Body[orderOut], error) {
		tok, err := in.Parse()
		if err != nil {
			return nil, err
		}
		wait, err := waitOf(in.Wait)
		if err != nil {
			return nil, err
		}
		var out orderOut
		if in.Until == "" {
			out, err = s.get(ctx, in.ID, tok)
		} else {
			out, err = s.await(ctx, in.ID, tok, order.Status(in.Until), wait)
		}
		if err != nil {
			return nil, problem(err)
		}
		return &web.Body[orderOut]{Body: out}, nil
	}, about("order", "One order, its lines and its whole history"))

	huma.Get(api, "/orders", func(ctx context.Context, in *struct {
		web.Token
		Customer string `query:"customer" maxLength:"64" doc:"only this customer's"`
		Status   string `query:"status" enum:"placed,confirmed,paid,shipped,returned,rejected,cancelled" doc:"only those in this state"`
		After    int64  `query:"after" minimum:"0" doc:"from the page before"`
		Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*web.Body[listOut], error) {
		out := listOut{Orders: []orderdb.OrderView{}}
		return read(ctx, s, s.views, in.Token, &out, func(ctx context.Context, tx kv.Tx, ns string) error {
			page, next, err := orderdb.NewOrders(ns).List(ctx, tx, orderdb.Filter{Customer: in.Customer, Status: order.Status(in.Status)}, in.After, in.Limit)
			out.Orders, out.After = append([]orderdb.OrderView{}, page...), next
			return err
		})
	}, about("orders", "Orders in the order of their placing"))

	huma.Get(api, "/reports/summary", func(ctx context.Context, in *web.Token) (*web.Body[orderdb.Summary], error) {
		var out orderdb.Summary
		return read(ctx, s, s.sales, *in, &out, func(ctx context.Context, tx kv.Tx, ns string) (err error) {
			out, err = orderdb.NewSales(ns).Summary(ctx, tx)
			return err
		})
	}, about("summary", "What everything adds up to"))

	huma.Get(api, "/reports/sales", func(ctx context.Context, in *struct {
		web.Token
		By    string `query:"by" enum:"country,month,day,customer,sku,invoice" required:"true"`
		From  string `query:"from" maxLength:"65" doc:"first key"`
		Limit int    `query:"limit" minimum:"1" maximum:"5000" default:"1000"`
	}) (*web.Body[reportOut], error) {
		var out reportOut
		return read(ctx, s, s.sales, in.Token, &out, func(ctx context.Context, tx kv.Tx, ns string) error {
			rows, more, err := orderdb.NewSales(ns).Report(ctx, tx, in.By, in.From, in.Limit)
			out = reportOut{append([]orderdb.Row{}, rows...), more}
			return err
		})
	}, about("sales", "Rows, units and value sold, by key: lines of confirmed orders, returns (negative), movements and adjustments"))

	huma.Get(api, "/reports/digest", func(ctx context.Context, in *struct {
		web.Token
		By string `query:"by" enum:"country,month,day,customer,sku,invoice" required:"true"`
	}) (*web.Body[orderdb.Digest], error) {
		var out orderdb.Digest
		return read(ctx, s, s.sales, in.Token, &out, func(ctx context.Context, tx kv.Tx, ns string) (err error) {
			out, err = orderdb.NewSales(ns).Digest(ctx, tx, in.By)
			return err
		})
	}, about("sales-digest", "What all rows of a sales report add up to, and a digest of them"))

	huma.Get(api, "/services", func(context.Context, *struct{}) (*web.Body[map[string]string], error) {
		return &web.Body[map[string]string]{Body: s.services}, nil
	}, about("services", "Where the shop's services are"))
}

// waitOf reads "5s", "500ms" or a number of seconds.
func waitOf(text string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if seconds, numberErr := strconv.Atoi(text); numberErr == nil {
		wait, err = time.Duration(min(seconds, 3600))*time.Second, nil
	}
	if err != nil || wait < 0 || wait > maxWait {
		return 0, web.Invalid("query.wait", fmt.Sprintf("want a time from 0s to %s", maxWait), text)
	}
	return wait, nil
}

// read answers from a read model that has what the token asks for.
func read[V any](ctx context.Context, s *Server, p *projection.Projection[kv.Tx], in web.Token, out *V, fn func(ctx context.Context, tx kv.Tx, ns string) error) (*web.Body[V], error) {
	tok, err := in.Parse()
	if err != nil {
		return nil, err
	}
	if err := s.view(ctx, p, tok, fn); err != nil {
		return nil, problem(err)
	}
	return &web.Body[V]{Body: *out}, nil
}

// view runs fn on a read model that has what the token asks for. What it asks of
// other services is waited for where their events change Order's journal, and then
// in the read model up to what they led to.
func (s *Server) view(ctx context.Context, p *projection.Projection[kv.Tx], tok freehold.Token, fn func(ctx context.Context, tx kv.Tx, ns string) error) error {
	own := s.db.Journal()
	for _, source := range tok.Sources() {
		if source == own.Name() {
			continue
		}
		waitCtx, cancel := context.WithTimeout(ctx, s.wait)
		defer cancel()
		if err := s.checkout.WaitFor(waitCtx, tok); err != nil {
			return err
		}
		head, err := s.db.Append(waitCtx) // behind what the checkout has just committed
		switch {
		case errors.Is(err, freehold.ErrLatched): // what is committed can still be read
			var mark freehold.Mark
			if _, mark, err = own.Bounds(ctx); err != nil {
				return err
			}
			head = freehold.NewToken(mark)
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("%w: %w", freehold.ErrBehind, err)
		case err != nil:
			return err
		}
		tok = tok.Merge(head)
		break
	}
	return p.View(ctx, tok, fn)
}

// find returns an order as the read model has it.
func (s *Server) find(ctx context.Context, id string, tok freehold.Token) (out orderOut, err error) {
	err = s.view(ctx, s.views, tok, func(ctx context.Context, tx kv.Tx, ns string) error {
		o, lines, found, err := orderdb.NewOrders(ns).Get(ctx, tx, id)
		if err == nil && !found {
			return fmt.Errorf("%w: %s", order.ErrUnknown, id)
		}
		out = orderOut{o, lines}
		return err
	})
	return out, err
}

// get returns an order. One that the read model does not have yet is waited for if
// the journal has it.
func (s *Server) get(ctx context.Context, id string, tok freehold.Token) (orderOut, error) {
	out, err := s.find(ctx, id, tok)
	if !errors.Is(err, order.ErrUnknown) {
		return out, err
	}
	stream := freehold.Stream("order", id)
	if stream.Validate() != nil {
		return out, err
	}
	for r, eventErr := range s.db.Events(ctx, stream, 0) {
		if eventErr != nil {
			return out, eventErr
		}
		return s.find(ctx, id, tok.Merge(freehold.NewToken(r.At)))
	}
	return out, err
}

// await returns an order when it has come as far as until, its checkout has ended,
// or the time is up.
func (s *Server) await(ctx context.Context, id string, tok freehold.Token, until order.Status, wait time.Duration) (orderOut, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	changed, forget := s.waits.on(id)
	defer forget()
	for {
		out, err := s.get(ctx, id, tok)
		if err != nil || reached(out.Status, until) {
			return out, err
		}
		var look <-chan time.Time // the read model is built by another instance, and does not tell
		if !s.Leads() {
			look = time.After(lookAgain)
		}
		select {
		case at := <-changed:
			tok = tok.Merge(freehold.NewToken(at))
		case <-look:
		case <-timer.C:
			return out, nil
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
}

// reached reports whether there is nothing more to wait for.
func reached(now, until order.Status) bool {
	switch until {
	case order.Shipped, order.Returned:
		return now.Reached(until) || now == order.Rejected || now == order.Cancelled
	}
	return now.Done() || now.Reached(until)
}
