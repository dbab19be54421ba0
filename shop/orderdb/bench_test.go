package orderdb_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/redis"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/orderdb"
)

// Orders of a bench, each of benchLines lines, like those of the retail file.
const (
	benchOrders = 2000
	benchLines  = 26
)

func benchSource(b *testing.B) *memory.DB {
	b.Helper()
	source, err := memory.Open(b.Context(), "order", types(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { source.Close() })
	r := rand.New(rand.NewPCG(1, 2))
	day := time.Date(2010, 12, 1, 8, 0, 0, 0, time.UTC)
	for i := range benchOrders {
		id := fmt.Sprintf("0d3b4a5e-6a57-5d0b-9a6b-%012d", i)
		t := event.Trade{Reference: fmt.Sprint(536365 + i), Customer: fmt.Sprint(12346 + r.IntN(4372)), Country: "United Kingdom", Currency: "GBP", At: day.Add(time.Duration(i) * 25 * time.Minute)}
		lines := make([]event.Line, benchLines)
		for k := range lines {
			lines[k] = event.Line{SKU: fmt.Sprint(20000 + int(r.ExpFloat64()*500)), Quantity: 1 + r.Int64N(24), Price: event.Money(10 * r.Int64N(1000)), Stocked: true}
		}
		placed := make([]event.Line, benchLines)
		for k := range placed {
			placed[k] = lines[k]
			placed[k].Description = "WHITE HANGING HEART T-LIGHT HOLDER"
		}
		total, err := event.Sum(lines)
		if err != nil {
			b.Fatal(err)
		}
		_, err = source.Append(b.Context(), freehold.Write{Stream: freehold.Stream("order", id), Events: []freehold.Event{
			event.OrderPlaced{Order: id, Trade: t, Policy: event.AllOrNothing, Lines: placed, Total: total, Body: "0123456789abcdef0123456789abcdef"},
			event.OrderConfirmed{Order: id, Trade: t, Lines: lines, Amount: total}, event.OrderPaid{Order: id, Amount: total}}})
		if err != nil {
			b.Fatal(err)
		}
	}
	return source
}

// benchStores are where read models are built.
var benchStores = map[string]func(b *testing.B) follow.DB[kv.Tx]{
	"pebble": func(b *testing.B) follow.DB[kv.Tx] {
		none, err := freehold.NewCatalog()
		if err != nil {
			b.Fatal(err)
		}
		db, err := pebble.Open(b.Context(), b.TempDir(), "views", none, &pebble.Options{Disposable: true})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		return db
	},
	"redis": func(b *testing.B) follow.DB[kv.Tx] {
		c, err := redis.Open(b.Context(), testredis.Start(b), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		s, err := c.Store("views")
		if err != nil {
			b.Fatal(err)
		}
		return s
	},
}

func benchBuild(b *testing.B, routes func(ns string) []follow.Route[kv.Tx]) {
	for name, open := range benchStores {
		b.Run(name, func(b *testing.B) { benchBuildIn(b, open(b), routes) })
	}
}

func benchBuildIn(b *testing.B, db follow.DB[kv.Tx], routes func(ns string) []follow.Route[kv.Tx]) {
	source := benchSource(b)
	_, head, err := source.Journal().Bounds(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		ns := fmt.Sprint("v", n)
		f, err := follow.New(ns, db, []follow.Source{source.Journal()}, nil, routes(ns)...)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
			b.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*benchOrders*benchLines), "ns/line")
	b.ReportMetric(float64(n*benchOrders)/b.Elapsed().Seconds(), "orders/s")
}

func BenchmarkSales(b *testing.B) {
	benchBuild(b, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewSales(ns).Routes() })
}

func BenchmarkOrders(b *testing.B) {
	benchBuild(b, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewOrders(ns).Routes() })
}
