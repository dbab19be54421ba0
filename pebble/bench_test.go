package pebble_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

// payload makes an event of about 230 stored bytes, as in DESIGN §9.
var payload = strings.Repeat("a little text. ", 8)

func openBench(b *testing.B, opts *pebble.Options) *pebble.DB {
	b.Helper()
	if opts == nil {
		opts = &pebble.Options{}
	}
	opts.Log = slog.New(slog.DiscardHandler)
	db, err := pebble.Open(b.Context(), b.TempDir(), "test", journaltest.Types(b), opts)
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

func rate(b *testing.B, what string) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), what+"/s")
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

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

// BenchmarkConformance is what every engine measures.
func BenchmarkConformance(b *testing.B) {
	h := harness()
	h.Raw = journaltest.Raw[kv.Tx]{
		OneByOne: func(b *testing.B, dir string) func(string, []byte) error {
			db := openRaw(b, dir)
			return func(key string, payload []byte) error { return db.Set([]byte(key), payload, lib.Sync) }
		},
		Batched: func(b *testing.B, dir string) func([]string, []byte) error {
			db := openRaw(b, dir)
			return func(keys []string, payload []byte) error {
				batch := db.NewBatch()
				for _, key := range keys {
					if err := batch.Set([]byte(key), payload, nil); err != nil {
						return err
					}
				}
				return batch.Commit(lib.Sync)
			}
		},
		Scan: func(_ *testing.B, db journaltest.DB[kv.Tx], _ string) func() (int, error) {
			return func() (int, error) { return db.(*pebble.DB).RawScan(math.MaxInt) }
		},
	}
	journaltest.Benchmark(b, h)
}

func openRaw(b *testing.B, dir string) *lib.DB {
	b.Helper()
	db, err := lib.Open(dir, &lib.Options{FormatMajorVersion: lib.FormatNewest, MemTableSize: 16 << 20, Logger: quiet{}})
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

// BenchmarkAppend is the engine alone, for profiles.
func BenchmarkAppend(b *testing.B) {
	db := openBench(b, nil)
	before := db.Syncs()
	defer func() { b.ReportMetric(float64(b.N)/float64(db.Syncs()-before), "events/sync") }()
	callers(b, func(n int64) error {
		_, err := db.Append(context.Background(), freehold.Write{Stream: freehold.Stream("order", strconv.FormatInt(n, 16)), Expect: freehold.NoStream,
			Events: []freehold.Event{journaltest.Happened{N: int(n), Text: payload}}})
		return err
	})
	rate(b, "events")
}

// BenchmarkReserve is Inventory's transaction: five bounded adds and an event.
func BenchmarkReserve(b *testing.B) {
	db := openBench(b, nil)
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
			for i := range int64(5) {
				if _, err := tx.Add(ctx, "free/"+strconv.FormatInt((n*31+i*977)%4000, 10), -1, 0); err != nil {
					return err
				}
			}
			_, err := tx.Append(ctx, freehold.Stream("reservation", strconv.FormatInt(n, 16)), freehold.NoStream, journaltest.Happened{N: int(n), Text: payload})
			return err
		})
		return err
	})
	rate(b, "orders")
}

func BenchmarkGet(b *testing.B) {
	db := openBench(b, nil)
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
