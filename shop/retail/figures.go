package retail

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Figures is what the services' own books say after a replay. Amounts are decimal
// text with three places. The names and meanings are those of the truth table.
type Figures struct {
	Rows                    int               `json:"rows"`
	RejectedRows            int               `json:"rejected_rows"`
	AcceptedInvoices        int64             `json:"accepted_invoices"` // orders with goods that were confirmed
	RejectedInvoices        int64             `json:"rejected_invoices"`
	AcceptedGoodsLines      int64             `json:"accepted_goods_lines"`
	DroppedLines            int64             `json:"dropped_lines"`
	UnitsShipped            int64             `json:"units_shipped"`
	Billed                  string            `json:"billed"`
	ValueOfRejectedInvoices string            `json:"value_of_rejected_invoices"`
	SKUsWithMovement        int64             `json:"skus_with_movement"`
	StockLeft               int64             `json:"stock_left_on_those_skus"`
	SKUsAtZero              int64             `json:"skus_at_zero"`
	FinalStockSHA256        string            `json:"final_stock_sha256"`
	GrossSales              string            `json:"gross_sales"`
	ReturnsValue            string            `json:"returns_value"`
	LedgerAdjustments       string            `json:"ledger_adjustments"`
	Net                     string            `json:"net"`
	ByCountryNet            map[string]string `json:"by_country_net"`
	ByMonthNet              map[string]string `json:"by_month_net"`
	Digests                 Digests           `json:"digests"`
	Seconds                 float64           `json:"seconds"`
	OrdersPerSecond         float64           `json:"orders_per_second"`
	Audit                   Audit             `json:"audit"`
}

// Digests are SHA-256 values over lines "key TAB rows TAB units TAB thousandths",
// keys sorted bytewise.
type Digests struct {
	PerInvoice   string `json:"per_invoice"`
	PerStockCode string `json:"per_stock_code"`
	PerCustomer  string `json:"per_customer_missing_as_empty_key"`
	PerCountry   string `json:"per_country"`
	PerMonth     string `json:"per_month"`
	PerDay       string `json:"per_day"`
}

// Audit is the auditor's count of checks made and violations found.
type Audit struct {
	Violations int `json:"violations"`
	Checks     int `json:"checks"`
}

// Truth is a truth table: what a correct system must answer.
type Truth struct {
	Counts struct {
		Rows *int `json:"rows"`
	} `json:"counts"`
	Money     map[string]any    `json:"money"`
	ByCountry map[string]string `json:"by_country_net_all"`
	ByMonth   []struct {
		Month string `json:"month"`
		Net   string `json:"net"`
	} `json:"by_month"`
	FirstRows *struct {
		Rows int    `json:"rows"`
		Net  string `json:"net"`
	} `json:"first_10000_rows"`
	Finite struct {
		Runs      []map[string]any `json:"runs"`
		Unlimited map[string]any   `json:"unlimited_stock"`
	} `json:"finite_stock_oracle"`
	Digests map[string]string `json:"digests"`
}

// ReadTruth reads a truth table.
func ReadTruth(path string) (*Truth, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("retail: truth table: %w: give the path of its JSON file, or leave out --truth", err)
	}
	var t Truth
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("retail: truth table %s: %w: want the JSON file that came with the data, or leave out --truth", path, err)
	}
	return &t, nil
}

// expectation is one figure of the truth table, as text.
type expectation struct{ name, want string }

// Expect selects the figures that a replay with these settings must reach. It is
// an error if the table has none for them.
func (t *Truth) Expect(rows int, unlimited bool, stock int64, partial bool) (Expected, error) {
	e, err := t.expect(rows, unlimited, stock, partial)
	if err == nil && len(e) == 0 {
		err = errors.New("retail: the truth table has no figures: leave out --truth, or give another file")
	}
	return e, err
}

func (t *Truth) expect(rows int, unlimited bool, stock int64, partial bool) (Expected, error) {
	var e Expected
	add := func(name string, want any) {
		switch want := want.(type) {
		case nil:
		case float64:
			e = append(e, expectation{name, strconv.FormatFloat(want, 'f', -1, 64)})
		default:
			e = append(e, expectation{name, fmt.Sprint(want)})
		}
	}
	switch {
	case rows > 0:
		if t.FirstRows == nil || t.FirstRows.Rows != rows || !unlimited {
			return nil, fmt.Errorf("retail: the truth table has no figures for the first %d rows with this stock: leave out --rows or --truth", rows)
		}
		add("rows", t.FirstRows.Rows)
		add("net", t.FirstRows.Net)
		return e, nil
	case unlimited:
		if t.Counts.Rows != nil {
			add("rows", *t.Counts.Rows)
		}
		for _, name := range []string{"net", "gross_sales", "returns_value", "ledger_adjustments"} {
			add(name, t.Money[name])
		}
		u := t.Finite.Unlimited
		add("accepted_invoices", u["accepted_invoices"])
		add("billed", u["billed"])
		add("units_shipped", u["units_shipped"])
		add("accepted_goods_lines", u["goods_lines"])
		for _, country := range slices.Sorted(maps.Keys(t.ByCountry)) {
			add("by_country_net."+country, t.ByCountry[country])
		}
		for _, m := range t.ByMonth {
			add("by_month_net."+m.Month, m.Net)
		}
		for _, name := range slices.Sorted(maps.Keys(t.Digests)) {
			if name != "rule" {
				add("digests."+strings.TrimSuffix(name, "_missing_as_empty_key"), t.Digests[name])
			}
		}
		return e, nil
	}
	mode := "all_or_nothing"
	if partial {
		mode = "partial"
	}
	for _, run := range t.Finite.Runs {
		if run["mode"] != mode || run["opening_stock_per_sku"] != float64(stock) {
			continue
		}
		if t.Counts.Rows != nil {
			add("rows", *t.Counts.Rows)
		}
		for _, name := range slices.Sorted(maps.Keys(run)) {
			if name != "mode" && name != "opening_stock_per_sku" {
				add(name, run[name])
			}
		}
		return e, nil
	}
	return nil, fmt.Errorf("retail: the truth table has no run with stock %d and policy %s: leave out --truth", stock, strings.ReplaceAll(mode, "_", "-"))
}

// Expected is the figures that a replay must reach.
type Expected []expectation

// Compare returns how many figures agree, and an error that names the first that
// does not.
func (e Expected) Compare(f *Figures) (int, error) {
	got := f.flat()
	for i, want := range e {
		have, ok := got[want.name]
		if !ok {
			return i, fmt.Errorf("%s: want %s, the books have no such figure", want.name, want.want)
		}
		if have != want.want {
			return i, fmt.Errorf("%s: want %s, the books say %s", want.name, want.want, have)
		}
	}
	return len(e), nil
}

// flat gives every figure as text under its path.
func (f *Figures) flat() map[string]string {
	raw, _ := json.Marshal(f) // a struct of plain fields
	var tree map[string]any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	_ = d.Decode(&tree)
	flat := map[string]string{}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, v := range m {
				name := k
				if prefix == "digests." {
					name = strings.TrimSuffix(k, "_missing_as_empty_key")
				}
				walk(prefix+name+".", v)
			}
			return
		}
		flat[strings.TrimSuffix(prefix, ".")] = fmt.Sprint(v)
	}
	walk("", tree)
	return flat
}
