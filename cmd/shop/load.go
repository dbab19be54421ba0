package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// loadCmd places orders and audits the shop afterwards.
type loadCmd struct {
	target
	Duration    time.Duration `help:"For how long to place orders." default:"10s"`
	Orders      int           `help:"How many orders to place; --duration does not count then." placeholder:"N"`
	Concurrency int           `help:"How many clients." default:"64"`
	Rate        string        `help:"Orders per second, or max. With a number orders are sent at their times whatever the answers (open loop); with max each client sends the next when one of its orders has ended (closed loop)." default:"max"`
	InFlight    int           `help:"With --rate max, how many orders each client has under way." default:"16"`
	Lines       int           `help:"Lines of an order." default:"3"`
	Decline     int           `help:"Percentage of payments that are declined." default:"0" placeholder:"PCT"`
	JSON        bool          `help:"Print one JSON object."`
}

// loadReport is what load prints with --json.
type loadReport struct {
	Orders          int64         `json:"orders"`
	Confirmed       int64         `json:"confirmed"`
	Rejected        int64         `json:"rejected"`
	Seconds         float64       `json:"seconds"`
	OrdersPerSecond float64       `json:"orders_per_second"`
	Latency         latency       `json:"latency_ms"`
	Effect          effectLatency `json:"effect_latency_ms"`
	Audit           struct {
		Violations int `json:"violations"`
		Checks     int `json:"checks"`
	} `json:"audit"`
}

type latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

type effectLatency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *loadCmd) rate() (float64, error) {
	if l.Rate == "max" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(l.Rate, 64)
	if err != nil || !(n >= 0.001 && n <= 1e6) { // NaN is refused too
		return 0, fmt.Errorf("--rate %s: want max, or a number from 0.001 to 1000000", l.Rate)
	}
	return n, nil
}

// check refuses numbers that no load can be run with.
func (l *loadCmd) check() error {
	for _, f := range []struct {
		name               string
		got, least, atMost int
	}{
		{"--orders", l.Orders, 0, 1_000_000_000}, {"--concurrency", l.Concurrency, 1, 10_000}, {"--in-flight", l.InFlight, 1, 10_000},
		{"--lines", l.Lines, 1, 1000}, {"--decline", l.Decline, 0, 100},
	} {
		if f.got < f.least || f.got > f.atMost {
			return fmt.Errorf("%s %d: want a number from %d to %d", f.name, f.got, f.least, f.atMost)
		}
	}
	if l.Duration <= 0 {
		return fmt.Errorf("--duration %s: want one above 0, such as 10s", l.Duration)
	}
	return nil
}

func (l *loadCmd) Run(ctx context.Context) error {
	rate, err := l.rate()
	if err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	var report *loadReport
	var violations []string
	err = l.with(ctx, shopConfig{}, func(ctx context.Context, c *client) error {
		report, violations, err = l.load(ctx, c, rate)
		return err
	})
	if err != nil {
		return err
	}
	if l.JSON {
		raw, err := json.Marshal(report)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	} else {
		fmt.Printf("%d orders in %.1f s: %.0f completed/s; %d confirmed, %d rejected\n", report.Orders, report.Seconds, report.OrdersPerSecond, report.Confirmed, report.Rejected)
		fmt.Printf("latency ms: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f (from the intended time to the end of the checkout)\n", report.Latency.P50, report.Latency.P90, report.Latency.P99, report.Latency.P999, report.Latency.Max)
		fmt.Printf("commit to effect in another service, ms: p50 %.1f  p99 %.1f  max %.1f\n", report.Effect.P50, report.Effect.P99, report.Effect.Max)
		fmt.Printf("audit: %d checks, %d violations\n", report.Audit.Checks, report.Audit.Violations)
	}
	if len(violations) > 0 {
		for _, v := range violations[:min(10, len(violations))] {
			fmt.Fprintln(os.Stderr, "violation:", v)
		}
		return errFound
	}
	return nil
}

func (l *loadCmd) load(ctx context.Context, c *client, rate float64) (*loadReport, []string, error) {
	g := &generator{cmd: l, c: c, open: map[string]*checkout{}, placedAt: map[string]time.Time{}}
	if err := g.stockUp(ctx); err != nil {
		return nil, nil, fmt.Errorf("products for the load: %w", err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers sync.WaitGroup
	if err := g.watch(watching, &watchers); err != nil {
		return nil, nil, err
	}
	size := int64(l.Orders)
	if size == 0 {
		size = -1
	}
	p := newProgress(size)
	begun := time.Now()
	showing, stopShowing := context.WithCancel(ctx)
	go g.show(showing, p, begun)
	err := g.generate(ctx, rate, begun)
	if err == nil {
		err = g.drain(ctx)
	}
	seconds := time.Since(begun).Seconds()
	stopShowing()
	p.done()
	stopWatching()
	watchers.Wait()
	if err != nil {
		return nil, nil, err
	}
	audited, err := c.audit(ctx, func(string) {})
	if err != nil {
		return nil, nil, err
	}
	r := &loadReport{Orders: g.confirmed + g.rejected, Confirmed: g.confirmed, Rejected: g.rejected, Seconds: seconds,
		OrdersPerSecond: float64(g.confirmed+g.rejected) / seconds}
	r.Latency = latency{quantile(g.latencies, .5), quantile(g.latencies, .9), quantile(g.latencies, .99), quantile(g.latencies, .999), quantile(g.latencies, 1)}
	r.Effect = effectLatency{quantile(g.effects, .5), quantile(g.effects, .99), quantile(g.effects, 1)}
	r.Audit.Checks, r.Audit.Violations = audited.Checks, len(audited.Violations)
	return r, audited.Violations, nil
}

// quantile gives milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
}
