package retail_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold/shop/retail"
)

const header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"

func write(t testing.TB, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func zipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns all rows and rejects of a file.
func read(t testing.TB, path string, limit int) (rows []retail.Row, rejects []retail.Reject, err error) {
	t.Helper()
	r, err := retail.Open(path, limit, func(bad retail.Reject) { rejects = append(rejects, bad) })
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			if r.Rows() != len(rows)+len(rejects) || r.Rejected() != len(rejects) {
				t.Errorf("%d rows and %d rejects are counted as %d and %d", len(rows), len(rejects), r.Rows(), r.Rejected())
			}
			return rows, rejects, nil
		}
		if err != nil {
			return rows, rejects, err
		}
		rows = append(rows, row)
	}
}

const two = "536365,85123A,\"LANTERN, \"\"SMALL\"\"\",6,12/1/2010 8:26,2.55,17850,EIRE\n536366,22633,HAND WARMER,-1,1/31/2011 13:05,0.001,,United Kingdom\n"

var twoRows = []retail.Row{
	{Line: 2, Invoice: "536365", Code: "85123A", Description: `LANTERN, "SMALL"`, Quantity: 6, At: time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC), Price: 2550, Customer: "17850", Country: "EIRE"},
	{Line: 3, Invoice: "536366", Code: "22633", Description: "HAND WARMER", Quantity: -1, At: time.Date(2011, 1, 31, 13, 5, 0, 0, time.UTC), Price: 1, Country: "United Kingdom"},
}

func TestRowsAreReadWhateverTheFileLooksLike(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{
		"plain":                   []byte(header + two),
		"without the last line's": []byte(strings.TrimSuffix(header+two, "\n")),
		"lines of another system": []byte(strings.ReplaceAll(header+two, "\n", "\r\n")),
		"with a byte order mark":  []byte("\ufeff" + header + two),
		"compressed":              zipped(t, header+two),
		"compressed in parts":     append(zipped(t, header), zipped(t, two)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, rejects, err := read(t, write(t, "file", text), 0)
			if err != nil || len(rejects) > 0 {
				t.Errorf("%v, rejects %v", err, rejects)
			}
			if diff := cmp.Diff(twoRows, rows); diff != "" {
				t.Error(diff)
			}
		})
	}
	if rows, _, err := read(t, write(t, "file", []byte(header+two)), 1); err != nil || len(rows) != 1 {
		t.Errorf("%d rows with a limit of 1, %v", len(rows), err)
	}
}

// TestBadLinesAreRejectedOneByOne: each is told with its line and its column, and
// the rows around it are read.
func TestBadLinesAreRejectedOneByOne(t *testing.T) {
	t.Parallel()
	for line, says := range map[string]string{
		"536365,85123A,X,six,12/1/2010 8:26,2.55,17850,EIRE":                         `column Quantity "six"`,
		"536365,85123A,X,1.5,12/1/2010 8:26,2.55,17850,EIRE":                         `column Quantity "1.5"`,
		"536365,85123A,X,99999999999999999999,12/1/2010 8:26,2.55,17850,EIRE":        "is not a whole number of 64 bits",
		"536365,85123A,X,9223372036854775807,12/1/2010 8:26,2.55,17850,EIRE":         "column Quantity 9223372036854775807: want",
		"536365,85123A,X,0,12/1/2010 8:26,2.55,17850,EIRE":                           "column Quantity 0: want",
		"536365,85123A,X,1000000000,12/1/2010 8:26,9000000000000.000,17850,EIRE":     "is too large",
		"536365,85123A,X,2,12/1/2010 8:26,500000000.001,17850,EIRE":                  "is too large: want at most 1000000000.000",
		"536365,85123A,X,6,2010-12-01 08:26,2.55,17850,EIRE":                         `column InvoiceDate "2010-12-01 08:26"`,
		"536365,85123A,X,6,13/1/2010 8:26,2.55,17850,EIRE":                           `column InvoiceDate "13/1/2010 8:26"`,
		"536365,85123A,X,6,12/1/2010 8:26,2.5555,17850,EIRE":                         `column UnitPrice "2.5555"`,
		"536365,85123A,X,6,12/1/2010 8:26,free,17850,EIRE":                           `column UnitPrice "free"`,
		"536365,85123A,X,6,12/1/2010 8:26,NaN,17850,EIRE":                            `column UnitPrice "NaN"`,
		"536365,85123A,X,6,12/1/2010 8:26,2.55,17850":                                "7 fields, want 8",
		"536365,85123A,X,6,12/1/2010 8:26,2.55,17850,EIRE,more":                      "9 fields, want 8",
		",85123A,X,6,12/1/2010 8:26,2.55,17850,EIRE":                                 "column InvoiceNo is empty",
		"536365,,X,6,12/1/2010 8:26,2.55,17850,EIRE":                                 "column StockCode is empty",
		"536365,85123A,X,6,12/1/2010 8:26,2.55,17850,":                               "column Country is empty",
		"536365,85123A," + strings.Repeat("x", 201) + ",6,1/1/2010 8:26,2.55,1,EIRE": "column Description is over 200 bytes",
		"536365,85123A,X,6,12/1/2010 8:26,2.55," + strings.Repeat("1", 33) + ",EIRE": "column CustomerID is over 32 bytes",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			path := write(t, "file.csv", []byte(header+two+line+"\n"+two))
			rows, rejects, err := read(t, path, 0)
			if err != nil || len(rows) != 4 || len(rejects) != 1 {
				t.Fatalf("%d rows, rejects %v, %v", len(rows), rejects, err)
			}
			if r := rejects[0]; r.Line != 4 || !strings.Contains(r.Reason, says) || !strings.Contains(line, strings.Split(r.Text, ",")[0]) {
				t.Errorf("rejected as %+v, want line 4 and %q", r, says)
			}
		})
	}
}

func TestFilesThatCannotBeReadAreToldApart(t *testing.T) {
	t.Parallel()
	whole := zipped(t, header+strings.Repeat(two, 2000))
	for name, c := range map[string]struct {
		text []byte
		says string
	}{
		"empty":                      {nil, "is empty"},
		"empty and compressed":       {zipped(t, ""), "is empty"},
		"other columns":              {[]byte("a,b\n1,2\n"), "want InvoiceNo,"},
		"columns in another order":   {[]byte("StockCode,InvoiceNo,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"), "want InvoiceNo,"},
		"not what it looks like":     {[]byte("\x1f\x8b\x08junk"), "the file is damaged"},
		"cut off":                    {whole[:len(whole)/2], "the file is damaged or cut off"},
		"a bit of the middle":        {append(append(append([]byte{}, whole[:len(whole)/2]...), whole[len(whole)/2]^0x55), whole[len(whole)/2+1:]...), "the file is damaged or cut off"},
		"a quotation mark is opened": {[]byte(header + "536365,85123A,\"X,6,12/1/2010 8:26,2.55,17850,EIRE\n" + strings.Repeat(strings.ReplaceAll(two, `"`, ""), 2000)), "line 2: a quotation mark is opened"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, rejects, err := read(t, write(t, "file", c.text), 0)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d rows, %d rejects, %v, want %q", len(rows), len(rejects), err, c.says)
			}
		})
	}
	if _, err := retail.Open(t.TempDir(), 0, nil); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := retail.Open(filepath.Join(t.TempDir(), "none"), 0, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestInvoicesComeWhole: rows of an invoice may be scattered over the file, and
// invoices come in the order of their first rows.
// TestInvoiceOfTooMuchLosesOnlyTheRowsThatAreTooMuch: the services would refuse it as a
// whole, and the replay would end there.
func TestInvoiceOfTooMuchLosesOnlyTheRowsThatAreTooMuch(t *testing.T) {
	t.Parallel()
	row := func(invoice, price string) string {
		return invoice + ",22633,X,1,12/1/2010 8:26," + price + ",1,EIRE\n"
	}
	path := write(t, "file.csv", []byte(header+row("1", "600000000")+row("2", "1")+row("1", "400000000.001")+row("1", "400000000")+row("2", "1000000000")))
	plan, err := retail.Survey(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a plan serves more than one reading
		var got []string
		r, err := retail.Open(path, 0, func(bad retail.Reject) { got = append(got, fmt.Sprintf("line %d: %s", bad.Line, bad.Reason)) })
		if err != nil {
			t.Fatal(err)
		}
		err = retail.Invoices(r, plan, func(inv retail.Invoice) error {
			got = append(got, fmt.Sprintf("invoice %s: %d rows", inv.Number, len(inv.Rows)))
			return nil
		})
		r.Close()
		want := []string{
			"line 4: the rows of invoice 1 come to more than 1000000000.000 with this one", "invoice 1: 2 rows",
			"line 6: the rows of invoice 2 come to more than 1000000000.000 with this one", "invoice 2: 1 rows",
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s %v", diff, err)
		}
	}
}

func TestInvoicesComeWhole(t *testing.T) {
	t.Parallel()
	row := func(invoice, quantity, price string) string {
		return invoice + ",22633,X," + quantity + ",12/1/2010 8:26," + price + ",1,EIRE\n"
	}
	path := write(t, "file.csv", []byte(header+row("1", "1", "1")+row("2", "1", "1")+row("1", "2", "0")+row("C3", "-1", "1")+row("x", "1", "1")+
		row("A4", "1", "-5")+row("2", "3", "1")+row("C3", "1", "1")+row("2", "-3", "1")+row("5", "1", "1")))
	plan, err := retail.Survey(path, 0)
	if err != nil || plan.Invoices != 5 || plan.Total != 10 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	var rejects []retail.Reject
	r, err := retail.Open(path, 0, func(bad retail.Reject) { rejects = append(rejects, bad) })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	type invoice struct {
		Number string
		Lines  []int
		Kinds  []retail.Kind
	}
	var got []invoice
	err = retail.Invoices(r, plan, func(inv retail.Invoice) error {
		one := invoice{Number: inv.Number, Kinds: inv.Kinds}
		for _, row := range inv.Rows {
			one.Lines = append(one.Lines, row.Line)
		}
		got = append(got, one)
		return nil
	})
	want := []invoice{
		{"1", []int{2, 4}, []retail.Kind{retail.Sale, retail.Movement}}, {"2", []int{3, 8}, []retail.Kind{retail.Sale, retail.Sale}},
		{"C3", []int{5}, []retail.Kind{retail.Return}}, {"A4", []int{7}, []retail.Kind{retail.Adjustment}}, {"5", []int{11}, []retail.Kind{retail.Sale}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || len(rejects) != 3 || r.Progress() != 1 {
		t.Errorf("%s %v, rejects %+v, progress %v", diff, err, rejects, r.Progress())
	}
	failed := errors.New("no")
	again, err := retail.Open(path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := retail.Invoices(again, plan, func(retail.Invoice) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("an invoice that cannot be sent: %v", err)
	}
}

func TestGoodsAreToldFromServices(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{"85123A": true, "22633": true, "DCGS0003": true, "PADS": true, "POST": false, "D": false, "M": false, "gift_0001_20": false, "": false, "DCG": false} {
		if got := retail.Stocked(code); got != want {
			t.Errorf("%q is stocked: %v", code, got)
		}
	}
}

// TestTruthIsComparedFigureByFigure also wants that a table that says nothing of
// these settings is not taken for agreement.
func TestTruthIsComparedFigureByFigure(t *testing.T) {
	t.Parallel()
	truth := func(text string) (*retail.Truth, error) {
		return retail.ReadTruth(write(t, "truth.json", []byte(text)))
	}
	if _, err := truth(`{"a"`); err == nil || !strings.Contains(err.Error(), "leave out --truth") {
		t.Errorf("half a table: %v", err)
	}
	none, err := truth(`{}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Expect(0, true, 0, false); err == nil {
		t.Error("a table without figures agrees with everything")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(header + two))
	f.Add(zipped(f, header+two))
	f.Add([]byte(header + "1,2,\"3,4,5,6,7,8\n"))
	f.Add([]byte(header + ",,,,,,,\n\"\"\n\n,"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := write(t, "file", text)
		rows, rejects, err := read(t, path, 1000)
		if err != nil {
			return
		}
		plan, err := retail.Survey(path, 1000)
		if err != nil || plan.Total != len(rows)+len(rejects) {
			t.Fatalf("the plan is %+v, %v, of %d rows and %d rejects", plan, err, len(rows), len(rejects))
		}
		r, err := retail.Open(path, 1000, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n := 0
		if err := retail.Invoices(r, plan, func(inv retail.Invoice) error { n += len(inv.Rows); return nil }); err != nil {
			t.Fatal(err)
		}
		if n+r.Rejected() != plan.Total {
			t.Fatalf("%d rows in invoices, %d rejected, of %d", n, r.Rejected(), plan.Total)
		}
	})
}
