package main

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/retail"
)

// figures asks the services' read sides for what the truth table has.
func (c *client) figures(ctx context.Context, all bool) (*retail.Figures, error) {
	var sum orderdb.Summary
	if err := shortly(ctx, func() error { return c.get(ctx, c.urls.Order+"/reports/summary", &sum) }); err != nil {
		return nil, err
	}
	f := &retail.Figures{
		AcceptedInvoices: sum.GoodsOrders, RejectedInvoices: sum.GoodsRejected, AcceptedGoodsLines: sum.GoodsLines,
		DroppedLines: sum.DroppedLines, UnitsShipped: sum.GoodsUnits, Billed: sum.GoodsBilled.String(), ValueOfRejectedInvoices: sum.RejectedValue.String(),
		GrossSales: sum.Gross.String(), ReturnsValue: sum.Returns.String(), LedgerAdjustments: sum.Adjustments.String(), Net: sum.Net.String(),
		ByCountryNet: map[string]string{}, ByMonthNet: map[string]string{},
	}
	for _, d := range []struct {
		by     string
		digest *string
		net    map[string]string
	}{
		{"invoice", &f.Digests.PerInvoice, nil}, {"sku", &f.Digests.PerStockCode, nil}, {"customer", &f.Digests.PerCustomer, nil},
		{"country", &f.Digests.PerCountry, f.ByCountryNet}, {"month", &f.Digests.PerMonth, f.ByMonthNet}, {"day", &f.Digests.PerDay, nil},
	} {
		var rows []orderdb.Row
		err := pages(ctx, c, c.urls.Order+"/reports/sales?by="+d.by, func(r orderdb.Row) string { return r.Key }, func(r orderdb.Row) error {
			rows = append(rows, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
		*d.digest = digest(rows)
		for _, r := range rows {
			if d.net != nil {
				d.net[r.Key] = r.Value.String()
			}
		}
	}
	return f, c.stockFigures(ctx, f)
}

// digest is SHA-256 over lines "key TAB rows TAB units TAB thousandths", keys sorted
// bytewise.
func digest(rows []orderdb.Row) string {
	sort.Slice(rows, func(i, k int) bool { return rows[i].Key < rows[k].Key })
	h := sha256.New()
	for _, r := range rows {
		if r.Rows != 0 {
			fmt.Fprintf(h, "%s\t%d\t%d\t%d\n", r.Key, r.Rows, r.Units, int64(r.Value))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// stockFigures adds what is left of the codes that moved.
func (c *client) stockFigures(ctx context.Context, f *retail.Figures) error {
	h := sha256.New()
	err := pages(ctx, c, c.urls.Inventory+"/stock", func(r stockRow) string { return r.SKU }, func(r stockRow) error {
		if !r.Moved() {
			return nil
		}
		f.SKUsWithMovement++
		f.StockLeft += r.Free
		if r.Free == 0 {
			f.SKUsAtZero++
		}
		fmt.Fprintf(h, "%s\t%d\n", r.SKU, r.Free)
		return nil
	})
	f.FinalStockSHA256 = hex.EncodeToString(h.Sum(nil))
	return err
}

// rejectsFile holds the lines that could not be used.
type rejectsFile struct {
	file *os.File
	csv  *csv.Writer
}

func (r *replayCmd) openRejects() (*rejectsFile, error) {
	path := r.Rejects
	if path == "" {
		path = filepath.Join(r.Data, "rejects.csv")
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("file for the rejects: %w: give another --rejects", err)
	}
	w := &rejectsFile{f, csv.NewWriter(f)}
	return w, w.csv.Write([]string{"line", "reason", "text"})
}

func (w *rejectsFile) add(r retail.Reject) {
	_ = w.csv.Write([]string{strconv.Itoa(r.Line), r.Reason, r.Text}) // Close reports the error
}

func (w *rejectsFile) Close() error {
	w.csv.Flush()
	if err := w.csv.Error(); err != nil {
		return err
	}
	return w.file.Close()
}
