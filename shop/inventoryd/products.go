package inventoryd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/redis"
	"github.com/freehold-go/freehold/shop/inventorydb"
	"github.com/freehold-go/freehold/shop/web"
)

// found is a product as the cache holds it; nil is a product that is not defined.
type found struct{ product *inventorydb.Product }

// codec keeps them as JSON; null is a product that is not defined.
var codec = cache.Codec[found]{
	Encode: func(f found) ([]byte, error) { return json.Marshal(f.product) },
	Decode: func(raw []byte) (f found, err error) { return f, json.Unmarshal(raw, &f.product) },
}

// sharedName changes when what is stored under it does.
const sharedName = "inventory.products.1"

// cacheProducts makes the cache of products, which definitions invalidate, lets a
// follower feed it, and shows what it does.
func (s *Server) cacheProducts(second *redis.Cache) {
	s.products = cache.New(s.loadProduct, defined, nil)
	if second != nil {
		s.products.Share(second, func(sku string) string { return sku }, codec)
		s.Gauge("freehold_cache_shared_hits", "Product reads answered by the shared cache.", func() float64 { return float64(s.products.Stats().Shared) })
		s.Gauge("freehold_cache_shared_away", "Times that the shared cache did not answer.", func() float64 { return float64(second.Stats().Away) })
	}
	s.Go("product-cache", follow.Observe("product-cache", []follow.Source{s.db.Journal()}, s.products.Apply))
	s.Gauge("freehold_cache_hits", "Product reads answered by the cache.", func() float64 { return float64(s.products.Stats().Hits) })
	s.Gauge("freehold_cache_misses", "Product reads that had to wait for the database or the shared cache.", func() float64 { return float64(s.products.Stats().Misses) })
	s.Gauge("freehold_cache_entries", "Products in the cache.", func() float64 { return float64(s.products.Stats().Entries) })
	s.Gauge("freehold_cache_staleness_seconds", "Age of the newest event when the cache applied it.", func() float64 { return s.products.Stats().Staleness.Seconds() })
}

func (s *Server) loadProduct(ctx context.Context, sku string) (f found, at freehold.Mark, err error) {
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

// product reads one through the cache.
func (s *Server) product(ctx context.Context, token web.Token, sku string) (inventorydb.Product, error) {
	tok, err := token.Parse()
	if err == nil {
		err = s.await(ctx, tok)
	}
	if err == nil {
		tok, err = s.db.Journal().Translate(ctx, tok) // the cache knows the present epoch only
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
