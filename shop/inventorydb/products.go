package inventorydb

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
)

// Product is what is sold.
type Product struct {
	SKU         string      `json:"sku"`
	Description string      `json:"description"`
	Price       event.Money `json:"price"`
}

var (
	products    = kv.NewTable[Product]("product/")
	definitions = kv.NewTable[string]("definition/") // digests of commands that define products, by id
)

// ErrOtherBody is returned for a command whose key has been used for another one.
var ErrOtherBody = errors.New("inventorydb: this idempotency key was used with another body")

// FirstUnder reports whether a command that defines products is the first one under its
// id, and remembers it in the transaction that does it. digest identifies its content:
// the same command again has been done, another one under its id is [ErrOtherBody].
func FirstUnder(ctx context.Context, tx kv.Tx, id, digest string) (first bool, err error) {
	switch was, found, err := definitions.Get(ctx, tx, id); {
	case err != nil:
		return false, err
	case found && was != digest:
		return false, fmt.Errorf("definition %s: %w", id, ErrOtherBody)
	case found:
		return false, nil
	}
	return true, definitions.Put(ctx, tx, id, digest)
}

// Define sets a product's description and price, and receives units of it: each time
// that it is called. What a client may send again goes through [FirstUnder].
func (s *Store) Define(ctx context.Context, tx kv.Tx, p Product, received int64) error {
	was, found, err := products.Get(ctx, tx, p.SKU)
	if err != nil {
		return err
	}
	if found && was == p && received == 0 {
		return nil
	}
	shelf := s.shelf(ctx, tx)
	stock, err := shelf.create(p.SKU)
	if err != nil {
		return err
	}
	stock.Free += received
	stock.Received += received
	if err := errors.Join(shelf.store(), products.Put(ctx, tx, p.SKU, p)); err != nil {
		return err
	}
	_, found, err = stocks.Get(ctx, tx, p.SKU)
	if err == nil && !found {
		err = stocks.Put(ctx, tx, p.SKU, *stock)
	}
	if err != nil {
		return err
	}
	_, err = tx.Append(ctx, freehold.Stream("product", url.PathEscape(p.SKU)), freehold.Any,
		event.ProductDefined{SKU: p.SKU, Description: p.Description, Price: p.Price, Received: received})
	return err
}

// ProductOf returns a product.
func ProductOf(ctx context.Context, tx kv.Tx, sku string) (Product, bool, error) {
	return products.Get(ctx, tx, sku)
}

// Products returns up to limit products from a SKU on, by SKU.
func Products(ctx context.Context, tx kv.Tx, from string, limit int) (all []Product, err error) {
	for e, err := range products.All(ctx, tx, from) {
		if err != nil {
			return nil, err
		}
		if len(all) == limit {
			break
		}
		all = append(all, e.Value)
	}
	return all, nil
}
