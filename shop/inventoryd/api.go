package inventoryd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/inventorydb"
	"github.com/freehold-go/freehold/shop/web"
)

// productIn defines a product.
type productIn struct {
	SKU         string `json:"sku" minLength:"1" maxLength:"64"`
	Description string `json:"description" maxLength:"200"`
	Price       string `json:"price" maxLength:"24" example:"2.550"`
	Received    int64  `json:"received,omitempty" minimum:"0" maximum:"1000000000000" doc:"units that come with it"`
}

// DefinitionKey is the key of a request that defines products. It is exported for huma,
// which reads embedded fields of exported types only.
type DefinitionKey struct {
	Key string `header:"Idempotency-Key" maxLength:"128" doc:"the same key is the same command; without one, a request sent again receives its units again"`
}

// movementIn corrects stock.
type movementIn struct{ web.TradeIn }

// movementOut is the answer to one.
type movementOut struct {
	ID string `json:"id"`
}

// stockOut is a product's stock.
type stockOut struct {
	Rows []inventorydb.Row `json:"rows"`
	More bool              `json:"more"`
}

func (s *Server) api(mux *http.ServeMux) {
	api := web.NewAPI(mux, "Inventory", "Products, stock and reservations.")
	huma.Register(api, huma.Operation{OperationID: "define-product", Method: http.MethodPost, Path: "/products", MaxBodyBytes: web.MaxBody, Summary: "Define or change a product, and receive units of it"},
		func(ctx context.Context, in *struct {
			DefinitionKey
			Body productIn
		}) (*web.Answer[inventorydb.Product], error) {
			all, tok, err := s.define(ctx, in.Key, []productIn{in.Body}, single)
			if err != nil {
				return nil, err
			}
			return &web.Answer[inventorydb.Product]{Token: tok.String(), Body: all[0]}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "define-products", Method: http.MethodPost, Path: "/products/batch", MaxBodyBytes: web.MaxBatchBody, Summary: "Define several products"},
		func(ctx context.Context, in *struct {
			DefinitionKey
			Body []productIn `minItems:"1" maxItems:"5000"`
		}) (*web.Answer[[]inventorydb.Product], error) {
			all, tok, err := s.define(ctx, in.Key, in.Body, several)
			return &web.Answer[[]inventorydb.Product]{Token: tok.String(), Body: all}, err
		})
	huma.Get(api, "/products", func(ctx context.Context, in *struct {
		web.Token
		From  string `query:"from" maxLength:"64"`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) (*web.Body[[]inventorydb.Product], error) {
		out := &web.Body[[]inventorydb.Product]{Body: []inventorydb.Product{}}
		return out, s.read(ctx, in.Token, func(ctx context.Context, tx kv.Tx) error {
			all, err := inventorydb.Products(ctx, tx, in.From, in.Limit)
			if len(all) > 0 {
				out.Body = all
			}
			return err
		})
	})
	huma.Get(api, "/products/{sku}", func(ctx context.Context, in *struct {
		web.Token
		SKU string `path:"sku" maxLength:"64"`
	}) (*web.Body[inventorydb.Product], error) {
		p, err := s.product(ctx, in.Token, in.SKU)
		return &web.Body[inventorydb.Product]{Body: p}, err
	})
	huma.Get(api, "/stock/{sku}", func(ctx context.Context, in *struct {
		web.Token
		SKU string `path:"sku" maxLength:"64"`
	}) (*web.Body[inventory.Stock], error) {
		out := &web.Body[inventory.Stock]{}
		return out, s.read(ctx, in.Token, func(ctx context.Context, tx kv.Tx) error {
			stock, found, err := inventorydb.StockOf(ctx, tx, in.SKU)
			if err == nil && !found {
				err = fmt.Errorf("%w: product %s", web.ErrNotFound, in.SKU)
			}
			out.Body = stock
			return err
		})
	})
	huma.Get(api, "/stock", func(ctx context.Context, in *struct {
		web.Token
		From  string `query:"from" maxLength:"65"`
		Limit int    `query:"limit" minimum:"1" maximum:"5000" default:"1000"`
	}) (*web.Body[stockOut], error) {
		out := &web.Body[stockOut]{}
		return out, s.read(ctx, in.Token, func(ctx context.Context, tx kv.Tx) (err error) {
			out.Body.Rows, out.Body.More, err = inventorydb.Stocks(ctx, tx, in.From, in.Limit)
			return err
		})
	})
	huma.Register(api, huma.Operation{OperationID: "move", Method: http.MethodPost, Path: "/movements", MaxBodyBytes: web.MaxBody, Summary: "Correct stock without an order; quantities are what leaves"},
		func(ctx context.Context, in *struct {
			Key  string `header:"Idempotency-Key" maxLength:"128"`
			Body movementIn
		}) (*web.Answer[movementOut], error) {
			key, err := web.Key(in.Key, in.Body.Key)
			if err != nil {
				return nil, err
			}
			in.Body.Key = key
			all, tok, err := s.move(ctx, []movementIn{in.Body}, single)
			if err != nil {
				return nil, err
			}
			return &web.Answer[movementOut]{Token: tok.String(), Body: all[0]}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "move-batch", Method: http.MethodPost, Path: "/movements/batch", MaxBodyBytes: web.MaxBatchBody, Summary: "Several corrections, each under its key, in their order"},
		func(ctx context.Context, in *struct {
			Body []movementIn `minItems:"1" maxItems:"1000"`
		}) (*web.Answer[[]movementOut], error) {
			all, tok, err := s.move(ctx, in.Body, several)
			return &web.Answer[[]movementOut]{Token: tok.String(), Body: all}, err
		})
}

func (s *Server) read(ctx context.Context, token web.Token, fn func(ctx context.Context, tx kv.Tx) error) error {
	tok, err := token.Parse()
	if err == nil {
		err = s.await(ctx, tok)
	}
	if err == nil {
		err = s.db.View(ctx, fn)
	}
	return web.Problem(err)
}

// single and several say where in a request its ith command is.
func single(int) string    { return "body" }
func several(i int) string { return fmt.Sprintf("body[%d]", i) }

// define does a request once, if it has a key.
func (s *Server) define(ctx context.Context, key string, in []productIn, where func(int) string) ([]inventorydb.Product, freehold.Token, error) {
	all := make([]inventorydb.Product, len(in))
	for i, p := range in {
		if err := errors.Join(web.Plain(where(i)+".sku", p.SKU), web.Plain(where(i)+".description", p.Description)); err != nil {
			return nil, freehold.Token{}, err
		}
		price, err := event.ParseMoney(p.Price)
		if err != nil || price < 0 {
			return nil, freehold.Token{}, web.Invalid(where(i)+".price", "want an amount from 0", p.Price)
		}
		all[i] = inventorydb.Product{SKU: p.SKU, Description: p.Description, Price: price}
	}
	digest, err := web.Digest(in)
	if err != nil {
		return nil, freehold.Token{}, err
	}
	tok, err := s.db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		if key != "" {
			if first, err := inventorydb.FirstUnder(ctx, tx, web.ID("definition", key), digest); err != nil || !first {
				return err
			}
		}
		for i, p := range all {
			if err := s.store.Define(ctx, tx, p, in[i].Received); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, inventorydb.ErrOtherBody) {
		err = web.ErrOtherBody
	}
	return all, tok, web.Problem(err)
}

func (s *Server) move(ctx context.Context, in []movementIn, where func(int) string) ([]movementOut, freehold.Token, error) {
	events := make([]event.StockAdjusted, len(in))
	out := make([]movementOut, len(in))
	for i, m := range in {
		trade, lines, err := m.Event(where(i), time.Now().UTC().Truncate(time.Microsecond))
		if err != nil {
			return nil, freehold.Token{}, err
		}
		if m.Key == "" {
			return nil, freehold.Token{}, web.Invalid(where(i)+".key", "want an idempotency key", "")
		}
		for k, l := range lines {
			if l.Quantity == 0 || l.Quantity > event.MaxQuantity || l.Quantity < -event.MaxQuantity {
				return nil, freehold.Token{}, web.Invalid(fmt.Sprintf("%s.lines[%d].quantity", where(i), k), "want a number other than 0, within a thousand million", l.Quantity)
			}
		}
		if _, err := event.Total(lines); err != nil {
			return nil, freehold.Token{}, web.Invalid(where(i)+".lines", err.Error(), nil)
		}
		digest, err := web.Digest(m)
		if err != nil {
			return nil, freehold.Token{}, err
		}
		id := web.ID("movement", m.Key)
		events[i], out[i] = event.StockAdjusted{Movement: id, Trade: trade, Body: digest, Lines: lines}, movementOut{id}
	}
	tok, err := s.db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		for _, e := range events {
			if _, err := s.store.Move(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	var conflict *freehold.Conflict
	if errors.As(err, &conflict) {
		err = fmt.Errorf("%w (%s)", web.ErrOtherBody, conflict.Stream)
	}
	return out, tok, web.Problem(err)
}
