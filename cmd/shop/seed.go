package main

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// product is a product as Inventory's interface takes it.
type product struct {
	SKU         string `json:"sku"`
	Description string `json:"description"`
	Price       string `json:"price"`
	Received    int64  `json:"received,omitempty"`
}

// catalogue is what a new shop sells.
var catalogue = []product{
	{"KETTLE-1L", "Enamel kettle, one litre", "24.500", 500},
	{"MUG-BLUE", "Stoneware mug, blue", "7.250", 2000},
	{"MUG-WHITE", "Stoneware mug, white", "7.250", 2000},
	{"LAMP-DESK", "Brass desk lamp", "59.000", 120},
	{"CLOTH-LINEN", "Linen dish cloth", "4.995", 5000},
	{"NAIL-3CM", "Steel nail, 3 cm", "0.001", 1000000},
	{"LAST-ONE", "The only one of its kind", "999.000", 1},
}

// seedKey is the key under which a shop receives the catalogue, whoever sends it and
// however often.
const seedKey = "shop/catalogue"

// seed fills the catalogue of a shop that has no products. While Inventory refuses that,
// tell is told why.
func seed(ctx context.Context, s *shop, tell func(why string)) error {
	c, err := newClient(s.urls, s.token)
	if err != nil {
		return err
	}
	var have []product
	if err := patiently(ctx, func() error { return c.get(ctx, c.urls.Inventory+"/products?limit=1", &have) }); err != nil || len(have) > 0 {
		return err
	}
	begun, told := time.Now(), ""
	return patiently(ctx, func() error {
		err := c.postUnder(ctx, seedKey, c.urls.Inventory+"/products/batch", catalogue, nil)
		var status *statusError
		if errors.As(err, &status) && time.Since(begun) > time.Second { // it is more than a start
			if why := cmp.Or(status.detail, status.Error()); why != told {
				told = why
				tell(told)
			}
		}
		return err
	})
}
