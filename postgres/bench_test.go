package postgres_test

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
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

// BenchmarkOwnTables measures appends against rows of the journal's own tables, with their
// indexes, that a program inserts which knows everything beforehand: an event with a
// commit of its own, and 1,024 streams, events and stamps with one.
func BenchmarkOwnTables(b *testing.B) {
	h := harness()
	own := func(b *testing.B, connections int32) *pgxpool.Pool {
		pool := raw(b, connections)
		if err := postgres.Migrate(b.Context(), pool.Config().ConnString(), "test", nil, postgres.Roles{}); err != nil {
			b.Fatal(err)
		}
		return pool
	}
	hash, text := make([]byte, 32), func(payload []byte) []byte { return payload[:len(payload)*3/5] } // the rest are the other columns
	h.Raw = journaltest.Raw[sqldb.Tx]{
		OneByOne: func(b *testing.B, _ string) func(key string, payload []byte) error {
			pool := own(b, 64)
			return func(key string, payload []byte) error {
				_, err := pool.Exec(b.Context(), `INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, payload, nonce)
					VALUES ($1, 1, 'test.happened', 2, 1700000000123456, '0190163d8694739b93e1b9e2c4b1c8a0-0', false, $2, $3)`, key, text(payload), hash[:16])
				return err
			}
		},
		Batched: func(b *testing.B, _ string) func(keys []string, payload []byte) error {
			pool, n := own(b, 1), int64(0)
			return func(keys []string, payload []byte) error {
				all := &pgx.Batch{}
				all.Queue(`INSERT INTO freehold.stream (name, version) SELECT k, 1 FROM unnest($1::text[]) k`, keys)
				all.Queue(`INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, payload, nonce)
					SELECT k, 1, 'test.happened', 2, 1700000000123456, '0190163d8694739b93e1b9e2c4b1c8a0-0', false, $2, $3 FROM unnest($1::text[]) k`, keys, text(payload), hash[:16])
				all.Queue(`INSERT INTO freehold.stamp (position, seq, incarnation, last, digest, chain) SELECT n, n, 1, true, $3, $3 FROM generate_series($1::int8, $2::int8) n`, n+1, n+int64(len(keys)), hash)
				n += int64(len(keys))
				return pool.SendBatch(b.Context(), all).Close()
			}
		},
	}
	journaltest.Benchmark(b, h)
}

// BenchmarkAlone is the engine alone with 64 callers, for profiles.
func BenchmarkAlone(b *testing.B) {
	e := func(n int64) freehold.Event {
		return journaltest.Happened{N: int(n), Text: strings.Repeat("a little text. ", 8)}
	}
	b.Run("append", func(b *testing.B) {
		alone(b, func(db *postgres.DB, n int64) error {
			_, err := db.Append(context.Background(), freehold.Write{Stream: journaltest.RandomStream(n), Expect: freehold.NoStream, Events: []freehold.Event{e(n)}})
			return err
		})
	})
	b.Run("closure", func(b *testing.B) {
		alone(b, func(db *postgres.DB, n int64) error {
			_, err := db.Update(context.Background(), func(ctx context.Context, tx sqldb.Tx) error {
				_, err := tx.Append(ctx, journaltest.RandomStream(n), freehold.NoStream, e(n))
				return err
			})
			return err
		})
	})
}

func alone(b *testing.B, one func(db *postgres.DB, n int64) error) {
	url := testdb.Postgres(b)
	db := open(b, url)
	counts := func() (passes, commits int64) {
		conn := connect(b, url)
		err := conn.QueryRow(b.Context(), `SELECT (SELECT max(pass) FROM freehold.tick), (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())`).Scan(&passes, &commits)
		if err != nil {
			b.Fatal(err)
		}
		return passes, commits
	}
	passes, commits := counts()
	var n atomic.Int64
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := one(db, n.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	allPasses, allCommits := counts()
	b.ReportMetric(float64(b.N)/float64(allPasses-passes), "events/pass")
	b.ReportMetric(float64(b.N)/float64(allCommits-commits), "events/commit")
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
