package etcd_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
)

// payload makes an event of about 230 stored bytes, as in DESIGN §9.
var payload = strings.Repeat("a little text. ", 8)

func openBench(b *testing.B, url string) *etcd.DB {
	b.Helper()
	db, err := etcd.Open(b.Context(), url, "test", journaltest.Types(b), &etcd.Options{Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// callers runs fn from 64 goroutines.
func callers(b *testing.B, fn func(n int64) error) {
	var n atomic.Int64
	b.SetParallelism(32) // times GOMAXPROCS 2
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := fn(n.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func rate(b *testing.B, what string) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), what+"/s")
}

// BenchmarkConformance is what every engine measures.
func BenchmarkConformance(b *testing.B) { journaltest.Benchmark(b, harness()) }

// BenchmarkReserve is Inventory's transaction: three bounded adds and an event.
func BenchmarkReserve(b *testing.B) {
	for _, members := range []int{1, 3} {
		b.Run("members="+strconv.Itoa(members), func(b *testing.B) { reserve(b, openBench(b, start(b, members).prefixed()), 3) })
	}
}

func reserve(b *testing.B, db *etcd.DB, items int64) {
	_, err := db.Update(b.Context(), func(ctx context.Context, tx kv.Tx) error {
		for i := range 4000 {
			if err := tx.Put(ctx, "free/"+strconv.Itoa(i), []byte("1000000000")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	callers(b, func(n int64) error {
		_, err := db.Update(context.Background(), func(ctx context.Context, tx kv.Tx) error {
			for i := range items {
				if _, err := tx.Add(ctx, "free/"+strconv.FormatInt((n*31+i*977)%4000, 10), -1, 0); err != nil {
					return err
				}
			}
			_, err := tx.Append(ctx, freehold.Stream("reservation", strconv.FormatInt(n, 16)), freehold.NoStream, journaltest.Happened{N: int(n), Text: payload})
			return err
		})
		return err
	})
	rate(b, "reservations")
}

// BenchmarkView reads one value.
func BenchmarkView(b *testing.B) {
	db := openBench(b, testdb.Etcd(b))
	_, err := db.Update(b.Context(), func(ctx context.Context, tx kv.Tx) error { return tx.Put(ctx, "k", []byte("v")) })
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		err := db.View(context.Background(), func(ctx context.Context, tx kv.Tx) error { _, _, err := tx.Get(ctx, "k"); return err })
		if err != nil {
			b.Fatal(err)
		}
	}
}
