package billingdb_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// statement is one of Billing's.
type statement struct {
	query string
	args  []any
	rows  bool
}

// recordingTx takes note of the statements that go through it.
type recordingTx struct {
	sqldb.Tx
	all *[]statement
}

func (r *recordingTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	*r.all = append(*r.all, statement{query, args, false})
	return r.Tx.ExecContext(ctx, query, args...)
}

func (r *recordingTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	*r.all = append(*r.all, statement{query, args, true})
	return r.Tx.QueryContext(ctx, query, args...)
}

func (r *recordingTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	*r.all = append(*r.all, statement{query, args, true})
	return r.Tx.QueryRowContext(ctx, query, args...)
}

// BenchmarkNative runs the statements of a checkout in Billing's PostgreSQL database
// through database/sql, as handlers do, and through pgx itself, in turns of one run,
// each time in a transaction that is rolled back.
func BenchmarkNative(b *testing.B) {
	url := testdb.Postgres(b)
	db := must(postgres.Open(b.Context(), url, "billing", must(event.BillingTypes()), &postgres.Options{
		Migrations: billingdb.Schema("postgres"), Log: slog.New(slog.DiscardHandler)}))
	defer db.Close()
	store := billingdb.NewStore(0)
	var all []statement
	answered := func(name string) func(ctx context.Context, tx sqldb.Tx, order string) error {
		return func(ctx context.Context, tx sqldb.Tx, order string) error {
			return store.Answered(ctx, tx, done(event.CallRequested{Order: order, Step: name, Amount: 12340}, billing.Outcome{Approved: true}))
		}
	}
	for n := range 2 { // what only the first order needs is not the rule
		all = nil
		for _, step := range []func(ctx context.Context, tx sqldb.Tx, order string) error{
			func(ctx context.Context, tx sqldb.Tx, order string) error {
				return store.Apply(ctx, tx, recorded(b, placed(order, 12340)))
			},
			answered(billing.StepAuthorize),
			func(ctx context.Context, tx sqldb.Tx, order string) error {
				return store.Apply(ctx, tx, recorded(b, confirmed(order, 12340)))
			},
			answered(billing.StepCapture),
		} {
			err := db.Do(b.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				return step(ctx, &recordingTx{tx, &all}, order(n))
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	if _, err := db.Append(b.Context()); err != nil {
		b.Fatal(err)
	}
	native := must(pgx.Connect(b.Context(), url))
	defer native.Close(context.Background())
	if _, err := native.Exec(b.Context(), `DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
			EXECUTE 'ALTER TABLE ' || t || ' DISABLE TRIGGER USER'; EXECUTE 'TRUNCATE ' || t || ' CASCADE'; END LOOP; END $$`); err != nil {
		b.Fatal(err) // so that the same rows can be written again
	}
	pool := stdlib.OpenDB(*must(pgx.ParseConfig(url)))
	defer pool.Close()
	conn := must(pool.Conn(b.Context()))
	defer conn.Close()
	through := func() error {
		tx, err := conn.BeginTx(b.Context(), nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		for _, s := range all {
			if !s.rows {
				if _, err := tx.ExecContext(b.Context(), s.query, s.args...); err != nil {
					return fmt.Errorf("%s: %w", s.query, err)
				}
				continue
			}
			rows, err := tx.QueryContext(b.Context(), s.query, s.args...)
			if err != nil {
				return err
			}
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			to := make([]any, len(columns))
			for i := range to {
				to[i] = new(any)
			}
			for rows.Next() {
				if err := rows.Scan(to...); err != nil {
					return err
				}
			}
			if err := rows.Close(); err != nil {
				return err
			}
		}
		return nil
	}
	itself := func() error {
		tx, err := native.Begin(b.Context())
		if err != nil {
			return err
		}
		defer tx.Rollback(b.Context())
		for _, s := range all {
			if !s.rows {
				if _, err := tx.Exec(b.Context(), s.query, s.args...); err != nil {
					return fmt.Errorf("%s: %w", s.query, err)
				}
				continue
			}
			rows, err := tx.Query(b.Context(), s.query, s.args...)
			if err != nil {
				return err
			}
			for rows.Next() {
				if _, err := rows.Values(); err != nil {
					return err
				}
			}
			if rows.Close(); rows.Err() != nil {
				return rows.Err()
			}
		}
		return nil
	}
	var took [2][]time.Duration
	for b.Loop() {
		for i, run := range []func() error{through, itself} {
			begun := time.Now()
			if err := run(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begun))
		}
	}
	middle := func(all []time.Duration) float64 { // a pause of the machine is nobody's
		slices.Sort(all)
		return float64(all[len(all)/2].Microseconds())
	}
	sqls, natives := middle(took[0]), middle(took[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(all)), "statements")
	b.ReportMetric(sqls, "database/sql-µs")
	b.ReportMetric(natives, "pgx-µs")
	b.ReportMetric(100*(sqls/natives-1), "pct_slower")
}

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }
