package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
)

// BenchmarkLanes applies events whose handler makes four statements each, with servers
// as far away as this machine's own, and farther: each statement then waits so long.
func BenchmarkLanes(b *testing.B) {
	for _, away := range []time.Duration{0, time.Millisecond} {
		for _, lanes := range []int{1, 4, 8} {
			b.Run(fmt.Sprintf("away=%v/lanes=%d", away, lanes), func(b *testing.B) { benchmarkLanes(b, away, lanes) })
		}
	}
}

func benchmarkLanes(b *testing.B, away time.Duration, lanes int) {
	const statements, streams = 4, 256
	db := open(b, testdb.Postgres(b))
	_, err := db.Update(b.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE counted (key text PRIMARY KEY, n bigint NOT NULL)`); err != nil {
			return err
		}
		_, err := tx.Append(ctx, "first-1", freehold.NoStream, journaltest.Happened{})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	counts := follow.On(func(ctx context.Context, tx sqldb.Tx, _ journaltest.Happened, r freehold.Recorded) error {
		for i := range statements {
			time.Sleep(away)
			if _, err := tx.ExecContext(ctx, `INSERT INTO counted (key, n) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET n = counted.n + 1`, fmt.Sprintf("%s/%d", r.Stream, i)); err != nil {
				return err
			}
		}
		return nil
	})
	run := func() {
		f, err := follow.New("f", db, []follow.Source{db.Journal()}, &follow.Options{Lanes: lanes, Log: slog.New(slog.DiscardHandler)}, counts)
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		_, head, err := db.Journal().Fresh(b.Context())
		if err == nil {
			err = f.WaitFor(b.Context(), freehold.NewToken(head))
		}
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	run() // the first batch is applied without lanes
	for n := 0; n < b.N; n += streams {
		var ws []freehold.Write
		for i := range min(streams, b.N-n) {
			ws = append(ws, freehold.Write{Stream: freehold.Stream("a", fmt.Sprint(i)), Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: n}}})
		}
		if _, err := db.Append(b.Context(), ws...); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	run()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
