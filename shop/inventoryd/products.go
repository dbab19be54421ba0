package inventoryd

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/inventorydb"
	"github.com/freehold-go/freehold/shop/web"
)

// found is a product as the cache holds it; nil is a product that is not defined.
type found struct{ product *inventorydb.Product }

// productCache returns the cache of products, which definitions invalidate.
func (s *Server) productCache() *cache.Cache[string, found] {
	load := func(ctx context.Context, sku string) (f found, at freehold.Mark, err error) {
		err = s.db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
			at = tx.Mark()
			p, ok, err := inventorydb.ProductOf(ctx, tx, sku)
			if ok {
				f.product = &p
			}
			return err
		})
		return f, at, err
	}
	return cache.New(load, defined, nil)
}

// defined names the product that an event has changed.
func defined(r freehold.Recorded) []string {
	if !strings.HasPrefix(string(r.Stream), "product-") {
		return nil
	}
	sku, err := url.PathUnescape(r.Stream.ID())
	if err != nil {
		return nil // no stream of ours: definitions escape the code
	}
	return []string{sku}
}

// watchProducts feeds the cache and shows what it does.
func (s *Server) watchProducts() {
	s.Go("product-cache", follow.Observe("product-cache", []follow.Source{s.db.Journal()}, s.products.Apply))
	s.Gauge("freehold_cache_hits", "Product reads answered by the cache.", func() float64 { return float64(s.products.Stats().Hits) })
	s.Gauge("freehold_cache_misses", "Product reads that had to wait for the database.", func() float64 { return float64(s.products.Stats().Misses) })
	s.Gauge("freehold_cache_entries", "Products in the cache.", func() float64 { return float64(s.products.Stats().Entries) })
	s.Gauge("freehold_cache_staleness_seconds", "Age of the newest event when the cache applied it.", func() float64 { return s.products.Stats().Staleness.Seconds() })
}

// product reads one through the cache.
func (s *Server) product(ctx context.Context, token web.Token, sku string) (inventorydb.Product, error) {
	tok, err := token.Parse()
	if err == nil {
		err = s.await(ctx, tok)
	}
	if err != nil {
		return inventorydb.Product{}, web.Problem(err)
	}
	f, err := s.products.Get(ctx, sku, tok)
	if err == nil && f.product == nil {
		err = fmt.Errorf("%w: product %s", web.ErrNotFound, sku)
	}
	if err != nil {
		return inventorydb.Product{}, web.Problem(err)
	}
	return *f.product, nil
}
