package redis_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
)

// BenchmarkUpdate writes 1 to 1,000 fields of 200 bytes a transaction.
func BenchmarkUpdate(b *testing.B) {
	s := store(b, testredis.Start(b), nil)
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			value, k := make([]byte, 200), 0
			for b.Loop() {
				_, err := s.Update(b.Context(), func(ctx context.Context, tx kv.Tx) error {
					for range n {
						k++
						if err := tx.Put(ctx, fmt.Sprintf("key/%08d", k%100_000), value); err != nil {
							return err
						}
					}
					_, _, err := tx.Get(ctx, "another")
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "fields/s")
		})
	}
}

// BenchmarkView reads one field, and scans a hundred.
func BenchmarkView(b *testing.B) {
	s := store(b, testredis.Start(b), nil)
	_, err := s.Update(b.Context(), func(ctx context.Context, tx kv.Tx) error {
		for i := range 10_000 {
			if err := tx.Put(ctx, fmt.Sprintf("key/%08d", i), make([]byte, 200)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, read := range map[string]func(ctx context.Context, tx kv.Tx) error{
		"get": func(ctx context.Context, tx kv.Tx) error {
			_, _, err := tx.Get(ctx, "key/00000077")
			return err
		},
		"scan": func(ctx context.Context, tx kv.Tx) error {
			n := 0
			for _, err := range tx.Scan(ctx, "key/", "key/00000500") {
				if n++; err != nil || n == 100 {
					return err
				}
			}
			return nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := s.View(b.Context(), read); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkSharedCache asks for an entry that is there.
func BenchmarkSharedCache(b *testing.B) {
	c := openCache(b, testredis.Start(b), nil)
	ctx := context.Background()
	c.Invalidate(ctx, at("e", 10), at("e", 10), nil)
	c.Fill(ctx, "a", make([]byte, 200), []freehold.Mark{at("e", 10)})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, _, found := c.Get(ctx, "a"); !found {
				b.Error("it is not there")
				return
			}
		}
	})
}
