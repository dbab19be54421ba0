package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/retail"
)

// replayCmd sends an Online Retail file through a shop.
type replayCmd struct {
	File      string `arg:"" help:"The .csv or .csv.gz file." type:"path"`
	Data      string `help:"Directory of the databases. Run again on the same one it goes on where it stopped. Default: a temporary one." type:"path"`
	URL       string `help:"URL of the Order service of a running shop, or of its instances with commas; --data then only keeps where the replay stands." placeholder:"URL"`
	TokenFile string `help:"File with the operator's token of a running shop." type:"path"`
	Stock     string `help:"Opening stock of every code: a number, or unlimited. With a number only orders are sent." default:"unlimited"`
	Policy    string `help:"What happens to orders of which some lines are not in stock." enum:"all-or-nothing,partial" default:"all-or-nothing"`
	Truth     string `help:"Truth table (JSON) to compare with; exit status 1 names the first figure that differs." type:"path"`
	Rows      int    `help:"Read only the first N rows." placeholder:"N"`
	Rejects   string `help:"File for the lines that could not be used, with number and reason. Default: rejects.csv in the data directory." type:"path"`
	JSON      bool   `help:"Print one JSON object."`
}

// unlimited is the opening stock that no year of sales uses up.
const unlimited = 1_000_000_000_000

func (r *replayCmd) stock() (int64, error) {
	if r.Stock == "unlimited" {
		return unlimited, nil
	}
	n, err := strconv.ParseInt(r.Stock, 10, 64)
	if err != nil || n < 0 || n > unlimited {
		return 0, fmt.Errorf("--stock %s: want unlimited, or a number from 0", r.Stock)
	}
	return n, nil
}

// replayMemory bounds what Go takes in a replay, in bytes. A replay makes garbage
// faster than anything else does, and what it needs does not grow with the file:
// without a bound, two thirds of the process would be garbage that is not yet
// collected. The databases' own memory and the program come on top.
const replayMemory = 330 << 20

func (r *replayCmd) Run(ctx context.Context) error {
	begun := time.Now()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(replayMemory)
	}
	stock, err := r.stock()
	if err != nil {
		return err
	}
	if r.Rows < 0 {
		return fmt.Errorf("--rows %d: want a number from 1", r.Rows)
	}
	var expected retail.Expected
	if r.Truth != "" {
		truth, err := retail.ReadTruth(r.Truth)
		if err != nil {
			return err
		}
		if expected, err = truth.Expect(r.Rows, r.Stock == "unlimited", stock, r.Policy == event.Partial); err != nil {
			return err
		}
	}
	plan, err := retail.Survey(r.File, r.Rows)
	if err != nil {
		return err
	}
	if r.Data == "" {
		if r.Data, err = os.MkdirTemp("", "shop-replay-"); err != nil {
			return err
		}
		defer os.RemoveAll(r.Data)
	}
	if err := os.MkdirAll(r.Data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	place, err := r.readPlace(stock)
	if err != nil {
		return err
	}
	var figures *retail.Figures
	at := target{Data: r.Data, URL: r.URL, TokenFile: r.TokenFile}
	err = at.with(ctx, shopConfig{Opening: &stock}, func(ctx context.Context, c *client) error {
		if r.URL != "" {
			if err := c.setOpening(ctx, stock); err != nil {
				return err
			}
		}
		if figures, err = r.replay(ctx, c, plan, place); err != nil {
			return err
		}
		figures.Seconds = time.Since(begun).Seconds()
		figures.OrdersPerSecond = float64(figures.AcceptedInvoices+figures.RejectedInvoices) / figures.Seconds
		return nil
	})
	if err != nil {
		return err
	}
	return r.tell(figures, expected)
}

func (r *replayCmd) tell(f *retail.Figures, expected retail.Expected) error {
	if r.JSON {
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	} else {
		fmt.Printf("rows %d (%d rejected) in %.1f s, %.0f orders/s\n", f.Rows, f.RejectedRows, f.Seconds, f.OrdersPerSecond)
		fmt.Printf("orders with goods: %d accepted, %d rejected; billed %s; units %d\n", f.AcceptedInvoices, f.RejectedInvoices, f.Billed, f.UnitsShipped)
		fmt.Printf("gross %s  returns %s  adjustments %s  net %s\n", f.GrossSales, f.ReturnsValue, f.LedgerAdjustments, f.Net)
		fmt.Printf("stock: %d codes moved, %d units left on them, %d at zero, digest %s\n", f.SKUsWithMovement, f.StockLeft, f.SKUsAtZero, f.FinalStockSHA256)
		fmt.Printf("audit: %d checks, %d violations\n", f.Audit.Checks, f.Audit.Violations)
	}
	if f.Audit.Violations > 0 {
		fmt.Fprintln(os.Stderr, "shop: the audit found violations: see shop verify --data "+r.Data)
		return errFound
	}
	if expected != nil {
		n, err := expected.Compare(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, "shop: differs from the truth table:", err)
			return errFound
		}
		fmt.Fprintf(os.Stderr, "%d figures equal those of the truth table\n", n)
	}
	return nil
}

// place is where a replay stands: everything of the first Invoices invoices has
// been acknowledged by the services. Losing it costs only that they are sent again.
type place struct {
	File     string `json:"file"`
	Settings string `json:"settings"`
	Invoices int    `json:"invoices"`
}

func (r *replayCmd) placeFile() string { return filepath.Join(r.Data, "replay.json") }

// readPlace returns where an earlier replay into the same directory stopped. One of
// another file, or with other settings, is refused.
func (r *replayCmd) readPlace(stock int64) (place, error) {
	info, err := os.Stat(r.File)
	if err != nil {
		return place{}, err
	}
	raw, err := os.ReadFile(r.File)
	if err != nil {
		return place{}, err
	}
	sum := sha256.Sum256(raw)
	p := place{File: hex.EncodeToString(sum[:8]) + "/" + strconv.FormatInt(info.Size(), 10), Settings: fmt.Sprintf("stock %d, %s, rows %d", stock, r.Policy, r.Rows)}
	stored, err := os.ReadFile(r.placeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	var was place
	if err == nil {
		err = json.Unmarshal(stored, &was)
	}
	if err != nil {
		return p, nil // unreadable: everything is sent again, under the same keys
	}
	if was.File != p.File || was.Settings != p.Settings {
		return p, fmt.Errorf("%s holds the replay of another file or with other settings (%s): give another --data", r.Data, was.Settings)
	}
	return was, nil
}

func (r *replayCmd) writePlace(p place) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := r.placeFile() + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, r.placeFile())
}

// wave is the commands of some invoices, by service.
type wave struct {
	invoices    int
	lines       int
	orders      []map[string]any
	returns     []map[string]any
	movements   []map[string]any
	adjustments []map[string]any
}

// Waves are sent as wholes: large enough to share commits, small enough to keep the
// services busy while the next one is read.
const (
	waveInvoices = 200
	waveLines    = 4000
	maxOpen      = 4000 // orders placed and not ended
)

func (r *replayCmd) replay(ctx context.Context, c *client, plan *retail.Plan, at place) (*retail.Figures, error) {
	rejects, err := r.openRejects()
	if err != nil {
		return nil, err
	}
	defer rejects.Close()
	reader, err := retail.Open(r.File, r.Rows, rejects.add)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	p := newProgress(int64(plan.Invoices))
	defer p.done()

	waves := make(chan *wave, 2)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(waves)
		seen, w := 0, &wave{}
		push := func() error {
			select {
			case waves <- w:
				w = &wave{}
				return nil
			case <-groupCtx.Done():
				return groupCtx.Err()
			}
		}
		err := retail.Invoices(reader, plan, func(inv retail.Invoice) error {
			if seen++; seen <= at.Invoices {
				return nil
			}
			r.add(w, inv)
			if w.invoices >= waveInvoices || w.lines >= waveLines {
				return push()
			}
			return nil
		})
		if err == nil && w.invoices > 0 {
			err = push()
		}
		return err
	})
	group.Go(func() error {
		for w := range waves {
			if err := c.room(groupCtx); err != nil {
				return err
			}
			if err := c.send(groupCtx, w); err != nil {
				return err
			}
			at.Invoices += w.invoices
			if err := r.writePlace(at); err != nil {
				return err
			}
			p.at(int64(at.Invoices), "replay: invoice %d of %d", at.Invoices, plan.Invoices)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if _, err := c.settle(ctx, p.say); err != nil {
		return nil, err
	}
	p.say("reading the results")
	figures, err := c.figures(ctx, r.Stock == "unlimited")
	if err != nil {
		return nil, err
	}
	if r.Policy != event.Partial {
		figures.DroppedLines = 0 // nothing is dropped, whole orders are rejected
	}
	figures.Rows, figures.RejectedRows = reader.Rows(), reader.Rejected()
	report, err := c.audit(ctx, p.say)
	if err != nil {
		return nil, err
	}
	figures.Audit = retail.Audit{Violations: len(report.Violations), Checks: report.Checks}
	for _, v := range report.Violations[:min(10, len(report.Violations))] {
		fmt.Fprintln(os.Stderr, "violation:", v)
	}
	return figures, nil
}

// add turns an invoice into commands. With finite stock only orders with goods
// count.
func (r *replayCmd) add(w *wave, inv retail.Invoice) {
	w.invoices++
	w.lines += len(inv.Rows)
	byKind := map[retail.Kind][]retail.Row{}
	goods := false
	for i, row := range inv.Rows {
		byKind[inv.Kinds[i]] = append(byKind[inv.Kinds[i]], row)
		goods = goods || inv.Kinds[i] == retail.Sale && retail.Stocked(row.Code)
	}
	finite := r.Stock != "unlimited"
	if finite && !goods {
		return
	}
	if rows := byKind[retail.Sale]; len(rows) > 0 {
		o := trade("order", inv.Number, rows, 1)
		o["policy"], o["deadline_seconds"] = r.Policy, 24*60*60
		w.orders = append(w.orders, o)
	}
	if finite {
		return
	}
	if rows := byKind[retail.Return]; len(rows) > 0 {
		w.returns = append(w.returns, trade("return", inv.Number, rows, -1))
	}
	if rows := byKind[retail.Movement]; len(rows) > 0 {
		w.movements = append(w.movements, trade("movement", inv.Number, rows, 1))
	}
	if rows := byKind[retail.Adjustment]; len(rows) > 0 {
		a := trade("adjustment", inv.Number, rows, 1)
		for _, l := range a["lines"].([]map[string]any) {
			delete(l, "stocked")
			delete(l, "at")
		}
		w.adjustments = append(w.adjustments, a)
	}
}

// trade is the body of a command for rows of one invoice.
func trade(kind, number string, rows []retail.Row, sign int64) map[string]any {
	first := rows[0]
	lines := make([]map[string]any, len(rows))
	for i, row := range rows {
		lines[i] = map[string]any{"sku": row.Code, "quantity": sign * row.Quantity, "price": row.Price.String(), "stocked": retail.Stocked(row.Code)}
		if row.Description != "" {
			lines[i]["description"] = row.Description
		}
		if !row.At.Equal(first.At) {
			lines[i]["at"] = row.At
		}
	}
	body := map[string]any{"key": "retail/" + kind + "/" + number, "reference": number, "country": first.Country, "currency": "GBP", "at": first.At, "lines": lines}
	if first.Customer != "" {
		body["customer"] = first.Customer
	}
	return body
}

// room waits while too many orders are under way.
func (c *client) room(ctx context.Context) error {
	for {
		var sum orderdb.Summary
		if err := patiently(ctx, func() error { return c.get(ctx, c.urls.Order+"/reports/summary", &sum) }); err != nil {
			return err
		}
		if sum.Placed-sum.Paid-sum.Rejected-sum.Cancelled < maxOpen {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send posts a wave to the services, and returns when all have acknowledged it.
func (c *client) send(ctx context.Context, w *wave) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, batch := range []struct {
		url  string
		body []map[string]any
	}{
		{c.urls.Order + "/orders/batch", w.orders}, {c.urls.Order + "/returns/batch", w.returns},
		{c.urls.Inventory + "/movements/batch", w.movements}, {c.urls.Billing + "/adjustments/batch", w.adjustments},
	} {
		if len(batch.body) > 0 {
			group.Go(func() error {
				return patiently(ctx, func() error { return c.post(ctx, batch.url, batch.body, nil) })
			})
		}
	}
	return group.Wait()
}
