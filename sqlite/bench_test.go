package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// payload makes an event of about 230 stored bytes beside the chain.
var payload = strings.Repeat("a little text. ", 8)

func openBench(b *testing.B, opts *sqlite.Options) *sqlite.DB {
	b.Helper()
	if opts == nil {
		opts = &sqlite.Options{}
	}
	opts.Log = slog.New(slog.DiscardHandler)
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"), "test", journaltest.Types(b), opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// stream is the nth stream: random-looking, as ids of orders are.
func stream(n int64) freehold.StreamID {
	h := uint64(n) * 0x9e3779b97f4a7c15
	return freehold.StreamID(fmt.Sprintf("order-%08x-%04x-5%03x-8%03x-%012x", uint32(h>>32), uint16(h>>16), uint16(h)&0xfff, uint16(h>>52)&0xfff, uint64(n)*0x9e3779b97f&0xffffffffffff))
}

func one(n int64) freehold.Write {
	return freehold.Write{Stream: stream(n), Expect: freehold.NoStream, Events: []freehold.Event{journaltest.Happened{N: int(n), Text: payload}}}
}

func rate(b *testing.B, what string) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), what+"/s")
}

// callers runs fn from 64 goroutines.
func callers(b *testing.B, fn func(n int64) error) {
	var n atomic.Int64
	b.SetParallelism(32) // times GOMAXPROCS 2
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := fn(n.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkAppend is the engine alone, for profiles.
func BenchmarkAppend(b *testing.B) {
	db := openBench(b, nil)
	callers(b, func(n int64) error {
		_, err := db.Append(context.Background(), one(n))
		return err
	})
	rate(b, "events")
}

// BenchmarkStatements is what domain statements cost inside one closure.
func BenchmarkStatements(b *testing.B) {
	db := openBench(b, &sqlite.Options{Migrations: tables})
	in := func(b *testing.B, fn func(ctx context.Context, tx sqldb.Tx, i int) error) {
		b.ReportAllocs()
		for n := 0; n < b.N; n += 1000 {
			_, err := db.Update(b.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				for i := range min(1000, b.N-n) {
					if err := fn(ctx, tx, n+i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	const id = "6b2f0a4e-0000-5000-8000-"
	b.Run("upsert", func(b *testing.B) {
		in(b, func(ctx context.Context, tx sqldb.Tx, i int) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO state (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, id+strconv.Itoa(i%5000), "a value")
			return err
		})
	})
	b.Run("queryrow", func(b *testing.B) {
		in(b, func(ctx context.Context, tx sqldb.Tx, i int) error {
			var v string
			return tx.QueryRowContext(ctx, `SELECT value FROM state WHERE key = $1`, id+strconv.Itoa(i%50)).Scan(&v)
		})
	})
	b.Run("query", func(b *testing.B) {
		in(b, func(ctx context.Context, tx sqldb.Tx, i int) error {
			rows, err := tx.QueryContext(ctx, `SELECT key, value FROM state WHERE key >= $1 ORDER BY key LIMIT 3`, id+strconv.Itoa(i%50))
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var k, v string
				if err := rows.Scan(&k, &v); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	})
}

// raw is the driver with the engine's own schema and settings, and rows made
// beforehand.
type raw struct {
	conn          *sql.Conn
	begin, commit *sql.Stmt
	stream, event *sql.Stmt
	n             int64
}

const eventColumns = `position, stream, version, stream_name, type, schema, time, id, incarnation, internal, last, meta, payload, nonce, digest, chain`

func openRaw(b *testing.B) *raw {
	b.Helper()
	path := filepath.Join(b.TempDir(), "raw.db")
	db, err := sqlite.Open(b.Context(), path, "test", journaltest.Types(b), nil) // for the schema
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	conn := openConn(b, path)
	prepare := func(query string) *sql.Stmt { return prepare(b, conn, query) }
	return &raw{conn: conn, begin: prepare("BEGIN IMMEDIATE"), commit: prepare("COMMIT"),
		stream: prepare("INSERT INTO freehold_stream (name, number) VALUES (?, ?)"),
		event:  prepare("INSERT INTO freehold_event (" + eventColumns + ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")}
}

var bytes32 = make([]byte, 32)

// insert writes batch rows in one transaction, or in one each if batch is 1.
func (r *raw) insert(batch int) error {
	ctx := context.Background()
	do := func(st *sql.Stmt, args ...any) error { _, err := st.ExecContext(ctx, args...); return err }
	if batch > 1 {
		if err := do(r.begin); err != nil {
			return err
		}
	}
	for range batch {
		r.n++
		name := string(stream(r.n))
		if batch == 1 {
			if err := do(r.begin); err != nil {
				return err
			}
		}
		if err := do(r.stream, name, r.n); err != nil {
			return err
		}
		if err := do(r.event, r.n, r.n, int64(1), name, "test.happened", int64(2), int64(1700000000123456), "0190163d8694739b93e1b9e2c4b1c8a0-0", int64(1), int64(0), int64(1), nil,
			`{"n":1000,"text":"`+payload+`"}`, bytes32[:16], bytes32, bytes32); err != nil {
			return err
		}
		if batch == 1 {
			if err := do(r.commit); err != nil {
				return err
			}
		}
	}
	if batch > 1 {
		return do(r.commit)
	}
	return nil
}

// BenchmarkConformance is what every engine measures.
func BenchmarkConformance(b *testing.B) {
	h := harness()
	h.Raw = journaltest.Raw[sqldb.Tx]{OneByOne: oneByOne, Batched: batched, Scan: scan}
	journaltest.Benchmark(b, h)
}

// openTable opens a new database with the engine's settings and a table of keys.
func openTable(b *testing.B, dir string) *sql.Conn {
	b.Helper()
	conn := openConn(b, filepath.Join(dir, "raw.db"))
	if _, err := conn.ExecContext(context.Background(), `CREATE TABLE event (key TEXT PRIMARY KEY, payload BLOB NOT NULL) WITHOUT ROWID`); err != nil {
		b.Fatal(err)
	}
	return conn
}

func openConn(b *testing.B, path string) *sql.Conn {
	b.Helper()
	pool, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=wal_autocheckpoint(4000)&_pragma=cache_size(-16384)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pool.Close() })
	conn, err := pool.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

func prepare(b *testing.B, conn *sql.Conn, query string) *sql.Stmt {
	b.Helper()
	st, err := conn.PrepareContext(context.Background(), query)
	if err != nil {
		b.Fatal(err)
	}
	return st
}

// oneByOne shares one connection: SQLite has one writer, and several connections
// that wait for each other's locks are slower.
func oneByOne(b *testing.B, dir string) func(string, []byte) error {
	st := prepare(b, openTable(b, dir), `INSERT INTO event (key, payload) VALUES (?, ?)`)
	var mu sync.Mutex
	return func(key string, payload []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := st.ExecContext(context.Background(), key, payload)
		return err
	}
}

func batched(b *testing.B, dir string) func([]string, []byte) error {
	conn := openTable(b, dir)
	st := prepare(b, conn, `INSERT INTO event (key, payload) VALUES (?, ?)`)
	begin, commit := prepare(b, conn, "BEGIN IMMEDIATE"), prepare(b, conn, "COMMIT")
	return func(keys []string, payload []byte) error {
		if _, err := begin.ExecContext(context.Background()); err != nil {
			return err
		}
		for _, key := range keys {
			if _, err := st.ExecContext(context.Background(), key, payload); err != nil {
				return err
			}
		}
		_, err := commit.ExecContext(context.Background())
		return err
	}
}

func scan(b *testing.B, _ journaltest.DB[sqldb.Tx], place string) func() (int, error) {
	st := prepare(b, openConn(b, filepath.Join(place, "test.db")), `SELECT `+eventColumns+` FROM freehold_event ORDER BY position`)
	return func() (n int, err error) {
		rows, err := st.QueryContext(context.Background())
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for rows.Next() {
			var position, stream, version, schema, micros, incarnation, internal, last int64
			var name, id, typ string
			var meta sql.NullString
			var payload, nonce, digest, chain []byte
			if err := rows.Scan(&position, &stream, &version, &name, &typ, &schema, &micros, &id, &incarnation, &internal, &last, &meta, &payload, &nonce, &digest, &chain); err != nil {
				return 0, err
			}
			n++
		}
		return n, rows.Err()
	}
}

// BenchmarkRatio lets the raw driver and the engine take turns of a third of a
// second, so that all meet the same disk and the same neighbours.
func BenchmarkRatio(b *testing.B) {
	type contender struct {
		name string
		n    int64
		cpu  time.Duration
		turn func(end time.Time) (int64, error)
	}
	var all []*contender
	for _, batch := range []int{1, 64, 256, 1024} {
		r := openRaw(b)
		all = append(all, &contender{name: "raw" + strconv.Itoa(batch), turn: func(end time.Time) (n int64, err error) {
			for time.Now().Before(end) {
				if err := r.insert(batch); err != nil {
					return n, err
				}
				n += int64(batch)
			}
			return n, nil
		}})
	}
	db := openBench(b, nil)
	var next atomic.Int64
	all = append(all, &contender{name: "engine", turn: func(end time.Time) (int64, error) {
		before := next.Load()
		var group sync.WaitGroup
		var failed atomic.Pointer[error]
		for range 64 {
			group.Go(func() {
				for time.Now().Before(end) {
					if _, err := db.Append(context.Background(), one(next.Add(1))); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		group.Wait()
		if err := failed.Load(); err != nil {
			return 0, *err
		}
		return next.Load() - before, nil
	}})
	var took = map[string]time.Duration{}
	for b.Loop() {
		for _, c := range all {
			begun, cpu := time.Now(), used()
			n, err := c.turn(begun.Add(time.Second / 3))
			if err != nil {
				b.Fatal(err)
			}
			took[c.name] += time.Since(begun)
			c.n += n
			c.cpu += used() - cpu
		}
	}
	rates := map[string]float64{}
	for _, c := range all {
		rates[c.name] = float64(c.n) / took[c.name].Seconds()
		b.ReportMetric(rates[c.name], c.name+"/s")
		b.ReportMetric(float64(c.cpu.Nanoseconds())/1e3/float64(c.n), c.name+"-µscpu")
	}
	b.ReportMetric(rates["engine"]/rates["raw1"], "x-autocommit")
	for _, batch := range []string{"64", "256", "1024"} {
		b.ReportMetric(100*rates["engine"]/rates["raw"+batch], "%of-raw"+batch)
	}
}

// used is the processor time of the process so far.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the own process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
