package pebble_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// BenchmarkRawPuts is the ceiling: the library's own synced puts of 64 callers.
func BenchmarkRawPuts(b *testing.B) {
	disk := pebble.NewCountingDisk()
	db, err := lib.Open(b.TempDir(), &lib.Options{FS: disk, FormatMajorVersion: lib.FormatNewest, MemTableSize: 16 << 20, Logger: quiet{}})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	value := []byte(strings.Repeat("v", 230))
	defer func() { b.ReportMetric(float64(b.N)/float64(disk.Syncs()), "puts/sync") }()
	callers(b, func(n int64) error { return db.Set(binary.BigEndian.AppendUint64(nil, uint64(n)), value, lib.Sync) })
	rate(b, "puts")
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

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

func BenchmarkAppendInClosure(b *testing.B) {
	db := openBench(b, nil)
	callers(b, func(n int64) error {
		_, err := db.Update(context.Background(), func(ctx context.Context, tx kv.Tx) error {
			_, err := tx.Append(ctx, freehold.Stream("order", strconv.FormatInt(n, 16)), freehold.NoStream, journaltest.Happened{N: int(n), Text: payload})
			return err
		})
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

const scanned = 400_000

// filled returns a database with many events.
func filled(b *testing.B) *pebble.DB {
	db := openBench(b, &pebble.Options{Relaxed: true})
	for n := 0; n < scanned; {
		events := make([]freehold.Event, 500)
		for i := range events {
			events[i] = journaltest.Happened{N: n, Text: payload}
			n++
		}
		if _, err := db.Append(b.Context(), freehold.Write{Stream: freehold.Stream("order", strconv.Itoa(n)), Expect: freehold.NoStream, Events: events}); err != nil {
			b.Fatal(err)
		}
	}
	return db
}

// BenchmarkScan reads the journal: first the raw keys and values of the events
// with the library's iterator, then as the journal reads them.
func BenchmarkScan(b *testing.B) {
	db := filled(b)
	b.Run("raw", func(b *testing.B) {
		for n := 0; n < b.N; {
			read, err := db.RawScan(b.N - n)
			if err != nil {
				b.Fatal(err)
			}
			n += read
		}
		rate(b, "events")
	})
	b.Run("journal", func(b *testing.B) {
		at := freehold.Mark{Source: "test"}
		for n := 0; n < b.N; {
			rs, err := db.Journal().Read(b.Context(), at, 1024)
			if err != nil {
				b.Fatal(err)
			}
			if n += len(rs); len(rs) == 0 {
				at = freehold.Mark{Source: "test"}
				continue
			}
			at = rs[len(rs)-1].At
		}
		rate(b, "events")
	})
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

// BenchmarkRatio lets the library and the engine take turns of a third of a second
// with 64 callers each, so that both meet the same disk, and reports what the
// engine reaches of the library.
func BenchmarkRatio(b *testing.B) {
	raw, err := lib.Open(b.TempDir(), &lib.Options{FormatMajorVersion: lib.FormatNewest, MemTableSize: 16 << 20, Logger: quiet{}})
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	db := openBench(b, nil)
	value := []byte(strings.Repeat("v", 230))
	var rawN, n atomic.Int64
	turn := func(count *atomic.Int64, fn func(n int64) error) (cpu time.Duration) {
		var all sync.WaitGroup
		before := used()
		end := time.Now().Add(time.Second / 3)
		for range 64 {
			all.Go(func() {
				for time.Now().Before(end) {
					if err := fn(count.Add(1)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		return used() - before
	}
	var rawCPU, cpu time.Duration
	turns := 0
	for b.Loop() {
		rawCPU += turn(&rawN, func(n int64) error { return raw.Set(binary.BigEndian.AppendUint64(nil, uint64(n)), value, lib.Sync) })
		cpu += turn(&n, func(n int64) error {
			_, err := db.Append(context.Background(), freehold.Write{Stream: freehold.Stream("order", strconv.FormatInt(n, 16)), Expect: freehold.NoStream,
				Events: []freehold.Event{journaltest.Happened{N: int(n), Text: payload}}})
			return err
		})
		turns++
	}
	seconds := float64(turns) / 3
	b.ReportMetric(float64(rawN.Load())/seconds, "puts/s")
	b.ReportMetric(float64(n.Load())/seconds, "events/s")
	b.ReportMetric(100*float64(n.Load())/float64(rawN.Load()), "%ofraw")
	b.ReportMetric(float64(rawCPU.Microseconds())/float64(rawN.Load()), "µscpu/put")
	b.ReportMetric(float64(cpu.Microseconds())/float64(n.Load()), "µscpu/event")
}

// used is the processor time of the process so far.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
