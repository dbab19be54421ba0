package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
)

// raw returns a pool of as many connections as there are callers, on a new database
// with a table of keys and payloads.
func raw(b *testing.B, connections int32) *pgxpool.Pool {
	b.Helper()
	config, err := pgxpool.ParseConfig(testdb.Postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns, config.MinConns = connections, connections
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(b.Context(), `CREATE TABLE raw (key text PRIMARY KEY, payload bytea NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	return pool
}

// BenchmarkConformance measures the engine against PostgreSQL as pgx gives it.
func BenchmarkConformance(b *testing.B) {
	h := harness()
	h.Raw = journaltest.Raw[sqldb.Tx]{
		OneByOne: func(b *testing.B, _ string) func(key string, payload []byte) error {
			pool := raw(b, 64)
			return func(key string, payload []byte) error {
				_, err := pool.Exec(b.Context(), `INSERT INTO raw (key, payload) VALUES ($1, $2)`, key, payload)
				return err
			}
		},
		Batched: func(b *testing.B, _ string) func(keys []string, payload []byte) error {
			pool := raw(b, 1)
			return func(keys []string, payload []byte) error {
				_, err := pool.Exec(b.Context(), `INSERT INTO raw (key, payload) SELECT k, $2 FROM unnest($1::text[]) k`, keys, payload)
				return err
			}
		},
		Scan: func(b *testing.B, _ journaltest.DB[sqldb.Tx], place string) func() (int, error) {
			conn := connect(b, at(b, place))
			return func() (n int, err error) {
				rows, err := conn.Query(b.Context(), `SELECT s.position, s.digest, s.chain, e.stream, e.version, e.type, e.time, e.id, e.payload, e.nonce
					FROM freehold.stamp s JOIN freehold.event e USING (seq) ORDER BY s.position`)
				if err != nil {
					return 0, err
				}
				defer rows.Close()
				var r struct {
					position, version, time       int64
					digest, chain, payload, nonce []byte
					stream, typ, id               string
				}
				_, err = pgx.ForEachRow(rows, []any{&r.position, &r.digest, &r.chain, &r.stream, &r.version, &r.typ, &r.time, &r.id, &r.payload, &r.nonce}, func() error {
					n++
					return nil
				})
				return n, err
			}
		},
	}
	journaltest.Benchmark(b, h)
}
