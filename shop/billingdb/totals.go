package billingdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// totals are the sums over everything up to certain numbers. The rows they cover
// never change, so a later reading only adds what has come since.
type totals struct {
	entry     int64            // ledger entries up to this
	adjusted  int64            // adjustments up to this
	documents map[string]int64 // by table and series: documents up to this
	sums      map[flow]event.Money
	entries   map[string]int64 // how many, by currency
	counts    map[count]int64
	issued    map[count]event.Money // sum of documents, from their own table
}

// flow is one kind of ledger entry.
type flow struct {
	kind          billing.Kind
	debit, credit billing.Account
	currency      string
}

// count is what is counted besides ledger entries.
type count struct{ table, currency string }

func (t *totals) clone() totals {
	c := totals{entry: t.entry, adjusted: t.adjusted, documents: maps.Clone(t.documents), sums: maps.Clone(t.sums),
		entries: maps.Clone(t.entries), counts: maps.Clone(t.counts), issued: maps.Clone(t.issued)}
	if c.sums == nil {
		c.documents, c.sums, c.entries = map[string]int64{}, map[flow]event.Money{}, map[string]int64{}
		c.counts, c.issued = map[count]int64{}, map[count]event.Money{}
	}
	return c
}

// sum brings the totals up to what tx sees.
func (t *totals) sum(ctx context.Context, tx sqldb.Tx) error {
	if err := t.sumEntries(ctx, tx); err != nil {
		return fmt.Errorf("billingdb: sum ledger: %w", err)
	}
	for _, table := range []string{"invoice", "credit_note"} {
		if err := t.sumDocuments(ctx, tx, table); err != nil {
			return fmt.Errorf("billingdb: sum %ss: %w", table, err)
		}
	}
	return t.group(ctx, tx, "adjustment", `
SELECT currency, COUNT(*), CAST(SUM(amount) AS BIGINT), MAX(number)
FROM adjustment
WHERE number > $1
GROUP BY currency`, &t.adjusted, t.adjusted)
}

func (t *totals) sumEntries(ctx context.Context, tx sqldb.Tx) error {
	rows, err := tx.QueryContext(ctx, `
SELECT kind, debit, credit, currency, COUNT(*), CAST(SUM(amount) AS BIGINT), MAX(entry)
FROM ledger_entry
WHERE entry > $1
GROUP BY kind, debit, credit, currency`, t.entry)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var f flow
		var n, sum, last int64
		if err := rows.Scan(&f.kind, &f.debit, &f.credit, &f.currency, &n, &sum, &last); err != nil {
			return err
		}
		if t.sums[f], err = t.sums[f].Plus(event.Money(sum)); err != nil {
			return err
		}
		t.entries[f.currency] += n
		t.entry = max(t.entry, last)
	}
	return rows.Err()
}

func (t *totals) sumDocuments(ctx context.Context, tx sqldb.Tx, table string) error {
	names, err := many(ctx, tx, func(row scanner) (name string, err error) {
		err = row.Scan(&name)
		return name, err
	}, "series", `SELECT series FROM document_series WHERE kind = $1`, map[string]string{"invoice": billing.InvoiceSeries, "credit_note": billing.CreditSeries}[table])
	if err != nil {
		return err
	}
	for _, series := range names {
		last := t.documents[table+" "+series]
		err := t.group(ctx, tx, table, `
SELECT currency, COUNT(*), CAST(SUM(amount) AS BIGINT), MAX(number)
FROM `+table+`
WHERE series = $2 AND number > $1
GROUP BY currency`, &last, last, series)
		if err != nil {
			return err
		}
		t.documents[table+" "+series] = last
	}
	return nil
}

func (t *totals) group(ctx context.Context, tx sqldb.Tx, table, query string, last *int64, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		c := count{table: table}
		var n, sum, highest int64
		if err := rows.Scan(&c.currency, &n, &sum, &highest); err != nil {
			return err
		}
		if t.issued[c], err = t.issued[c].Plus(event.Money(sum)); err != nil {
			return err
		}
		t.counts[c] += n
		*last = max(*last, highest)
	}
	return rows.Err()
}

// upToDate returns the totals of one snapshot. Readings take turns, so that each
// snapshot is at least as new as the one before it.
func (s *Store) upToDate(ctx context.Context, db freehold.DB[sqldb.Tx]) (totals, error) {
	s.summing.Lock()
	defer s.summing.Unlock()
	var now totals
	err := db.View(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		now = s.totals.clone()
		return now.sum(ctx, tx)
	})
	if err != nil {
		return totals{}, err
	}
	s.totals = now // never changed, only replaced
	return now, nil
}

// Books returns the totals of each currency, by currency.
func (s *Store) Books(ctx context.Context, db freehold.DB[sqldb.Tx]) ([]billing.Books, error) {
	t, err := s.upToDate(ctx, db)
	if err != nil {
		return nil, err
	}
	byCurrency := map[string]*billing.Books{}
	books := func(currency string) *billing.Books {
		b := byCurrency[currency]
		if b == nil {
			b = &billing.Books{Currency: currency}
			byCurrency[currency] = b
		}
		return b
	}
	for f, sum := range t.sums {
		b := books(f.currency)
		switch f.kind {
		case billing.KindInvoice:
			b.Billed += sum
		case billing.KindCapture:
			b.Captured += sum
		case billing.KindCredit:
			b.CreditNotes += sum
		case billing.KindRefund:
			b.Refunded += sum
		case billing.KindAdjustment:
			if f.debit == billing.Receivable {
				b.Adjustments += sum
			} else {
				b.Adjustments -= sum
			}
		}
	}
	for c, n := range t.counts {
		b := books(c.currency)
		switch c.table {
		case "invoice":
			b.Invoices = n
		case "credit_note":
			b.Credits = n
		case "adjustment":
			b.Corrections = n
		}
	}
	all := []billing.Books{}
	for _, currency := range slices.Sorted(maps.Keys(byCurrency)) {
		b := byCurrency[currency]
		b.Net, b.Entries = b.Billed-b.CreditNotes+b.Adjustments, t.entries[currency]
		if billed, credited, adjusted := t.issued[count{"invoice", currency}], t.issued[count{"credit_note", currency}], t.issued[count{"adjustment", currency}]; billed != b.Billed || credited != b.CreditNotes || adjusted != b.Adjustments {
			return nil, fmt.Errorf("billingdb: the %s documents say %s billed, %s credited, %s adjusted, the ledger says %s, %s, %s: run shop verify",
				currency, billed, credited, adjusted, b.Billed, b.CreditNotes, b.Adjustments)
		}
		all = append(all, *b)
	}
	return all, nil
}

// Accounts returns the balances of all ledger accounts, by currency and account.
func (s *Store) Accounts(ctx context.Context, db freehold.DB[sqldb.Tx]) ([]billing.Balance, error) {
	t, err := s.upToDate(ctx, db)
	if err != nil {
		return nil, err
	}
	balances := map[string]*billing.Balance{}
	side := func(a billing.Account, currency string) *billing.Balance {
		key := currency + " " + string(a)
		if balances[key] == nil {
			balances[key] = &billing.Balance{Account: a, Currency: currency}
		}
		return balances[key]
	}
	for f, sum := range t.sums {
		d, c := side(f.debit, f.currency), side(f.credit, f.currency)
		d.Debit += sum
		c.Credit += sum
	}
	all := []billing.Balance{}
	for _, key := range slices.SortedFunc(maps.Keys(balances), strings.Compare) {
		b := balances[key]
		b.Balance = b.Debit - b.Credit
		all = append(all, *b)
	}
	return all, nil
}
