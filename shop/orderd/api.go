package orderd

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/web"
)

// done is the answer to a command, or to one of a batch.
type done struct {
	ID       string           `json:"id,omitempty" doc:"of the order or return"`
	Status   order.Status     `json:"status,omitempty"`
	Repeated bool             `json:"repeated,omitempty" doc:"the command was known; nothing has changed"`
	Error    *huma.ErrorModel `json:"error,omitempty" doc:"why this command of a batch was refused; the others were done"`
}

// commandOut is the answer to one command.
type commandOut struct {
	Status   int
	Location string `header:"Location"`
	Token    string `header:"Consistency-Token" doc:"hand it to reads that must see this command"`
	Body     done
}

// batchOut is the answer to a batch: 201, or 207 if some commands were refused.
type batchOut struct {
	Status int
	Token  string `header:"Consistency-Token" doc:"hand it to reads that must see these commands"`
	Body   []done
}

// CommandIn is a command as it was sent. It is exported for huma, which reads
// embedded fields of exported types only.
type CommandIn struct {
	Key     string `header:"Idempotency-Key" maxLength:"128" doc:"the same key is the same command; without one, here or in the body, a request sent again is another command"`
	RawBody []byte `contentType:"application/json"`
}

// batchIn is a batch as it was sent.
type batchIn struct {
	RawBody []byte `contentType:"application/json"`
}

// problem adds what only this service knows to the answers that all give.
func problem(err error) error {
	switch {
	case errors.Is(err, order.ErrUnknown):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, order.ErrState):
		return huma.Error409Conflict(err.Error())
	case errors.Is(err, order.ErrOtherBody):
		return huma.Error409Conflict(err.Error(), &huma.ErrorDetail{Location: "header.Idempotency-Key", Message: "was used with another body"})
	}
	return web.Problem(named("body", err))
}

func (s *Server) api(mux *http.ServeMux) {
	api := web.NewAPI(mux, "Order", "Orders, their checkout, and what was sold. Amounts are decimal text with three places.")
	placing, returning, goods := schemaOf[orderIn](api), schemaOf[returnIn](api), schemaOf[goodsIn](api)

	post(api, "place-order", "/orders", "Place an order", func(ctx context.Context, in *CommandIn) (*commandOut, error) {
		return s.one(ctx, in, place(placing))
	}).takes(placing)
	post(api, "place-orders", "/orders/batch", "Place orders in their order, each under its key", func(ctx context.Context, in *batchIn) (*batchOut, error) {
		return s.many(ctx, in, place(placing))
	}).takesMany(placing)
	post(api, "return-goods", "/returns", "Take goods back whose order is not known", func(ctx context.Context, in *CommandIn) (*commandOut, error) {
		return s.one(ctx, in, takeBack(returning))
	}).takes(returning)
	post(api, "return-goods-batch", "/returns/batch", "Take goods back, each return under its key", func(ctx context.Context, in *batchIn) (*batchOut, error) {
		return s.many(ctx, in, takeBack(returning))
	}).takesMany(returning)
	post(api, "return-order", "/orders/{id}/return", "Take goods of a shipped order back, at the prices they were sold for", func(ctx context.Context, in *struct {
		CommandIn
		ID string `path:"id" maxLength:"64"`
	}) (*commandOut, error) {
		return s.comeBack(ctx, in.ID, &in.CommandIn, goods)
	}).takes(goods).optional()
	post(api, "cancel-order", "/orders/{id}/cancel", "Cancel an order before it is shipped", func(ctx context.Context, in *struct {
		ID     string `path:"id" maxLength:"64"`
		Reason string `query:"reason" maxLength:"200" default:"cancelled by the customer"`
	}) (*commandOut, error) {
		return s.decide(ctx, in.ID, order.Cancel(in.Reason))
	})
	post(api, "ship-order", "/orders/{id}/ship", "Ship a paid order", func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"64"`
	}) (*commandOut, error) {
		return s.decide(ctx, in.ID, order.Ship)
	})
	s.reads(api)
}

// operation is a registered command, whose body this service reads itself.
type operation struct{ body *huma.RequestBody }

// post registers a command.
func post[In, Out any](api huma.API, id, path, summary string, fn func(context.Context, *In) (*Out, error)) operation {
	limit := int64(web.MaxBody)
	if _, batch := any(fn).(func(context.Context, *batchIn) (*batchOut, error)); batch {
		limit = web.MaxBatchBody
	}
	huma.Register(api, huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, DefaultStatus: http.StatusCreated,
		MaxBodyBytes: limit, BodyReadTimeout: 30 * time.Second, SkipValidateBody: true, Errors: []int{400, 404, 409, 413, 422, 503},
	}, fn)
	return operation{api.OpenAPI().Paths[path].Post.RequestBody}
}

// takes documents the body.
func (o operation) takes(s schema) operation {
	o.body.Content["application/json"].Schema = s.ref
	return o
}

// takesMany documents a batch of bodies.
func (o operation) takesMany(s schema) {
	o.body.Content["application/json"].Schema = &huma.Schema{Type: huma.TypeArray, Items: s.ref}
	o.body.Content["application/x-ndjson"] = &huma.MediaType{Schema: s.ref}
}

// optional lets the body be left out.
func (o operation) optional() { o.body.Required = false }
