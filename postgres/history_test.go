package postgres_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// history stores events in the tables of a new journal, four to a stream, as engine and
// sequencer would have, and opens it: by COPY, and with indexes made afterwards, for
// that takes a tenth of the time.
func history(b *testing.B, events int, stream naming) *postgres.DB {
	b.Helper()
	url := testdb.Postgres(b)
	if err := postgres.Migrate(b.Context(), url, "test", &postgres.Options{Migrations: tables}, postgres.Roles{}); err != nil {
		b.Fatal(err)
	}
	if events > 0 {
		load(b, url, events, stream)
	}
	return open(b, url)
}

func load(b *testing.B, url string, events int, stream naming) {
	b.Helper()
	begun := time.Now()
	conn, other := connect(b, url), connect(b, url)
	exec := func(statement string, args ...any) {
		b.Helper()
		if _, err := conn.Exec(b.Context(), statement, args...); err != nil {
			b.Fatalf("%s: %v", statement, err)
		}
	}
	exec(`ALTER TABLE freehold.event DROP CONSTRAINT event_pkey, DROP CONSTRAINT event_stream_version_key`)
	exec(`ALTER TABLE freehold.stamp DROP CONSTRAINT stamp_pkey, DROP CONSTRAINT stamp_seq_key`)
	exec(`ALTER TABLE freehold.stream DROP CONSTRAINT stream_pkey`)
	exec(`DROP INDEX freehold.event_due`)
	var incarnation, source, epoch string
	incarnation = journal.NewEpoch()
	if err := conn.QueryRow(b.Context(), `SELECT source, epoch FROM freehold.journal`).Scan(&source, &epoch); err != nil {
		b.Fatal(err)
	}
	head := freehold.Mark{Source: freehold.Source(source), Epoch: freehold.Epoch(epoch)}
	exec(`INSERT INTO freehold.incarnation (number, id, position, chain, time) VALUES (1, $1, 0, $2, 0)`, incarnation, head.Chain[:])
	types, text := journaltest.Types(b), strings.Repeat("a little text. ", 8)
	const chunk = 20_000
	for done := 0; done < events; {
		var rows, stamps [][]any
		for len(rows) < chunk && done+len(rows) < events {
			n := done + len(rows)
			name := stream(int64(n / 4))
			drafts, err := journal.Draft(b.Context(), types, journal.NewID(), 0, journal.Now(), []freehold.Event{
				journaltest.Happened{N: n, Text: text}, journaltest.Happened{N: n + 1, Text: text}, journaltest.Happened{N: n + 2, Text: text}, journaltest.Happened{N: n + 3, Text: text}})
			if err != nil {
				b.Fatal(err)
			}
			for i := range drafts {
				r := &drafts[i]
				r.Stream, r.Version, r.Incarnation, r.Last = name, freehold.Version(i+1), incarnation, i == 3
				r.Digest = journal.Digest(r)
				head.Position++
				head.Chain = journal.Chain(head.Chain, head.Position, r.Digest)
				digest, chain := r.Digest, head.Chain
				rows = append(rows, []any{int64(head.Position), string(r.Stream), int64(r.Version), r.Type.Name, r.Type.Version, r.Time.UnixMicro(), r.ID, false, r.Raw, r.Nonce})
				stamps = append(stamps, []any{int64(head.Position), int64(head.Position), 1, r.Last, digest[:], chain[:]})
			}
		}
		var both sync.WaitGroup
		both.Go(func() {
			_, err := conn.CopyFrom(b.Context(), pgx.Identifier{"freehold", "event"}, []string{"seq", "stream", "version", "type", "schema", "time", "id", "internal", "payload", "nonce"}, pgx.CopyFromRows(rows))
			if err != nil {
				b.Error(err)
			}
		})
		both.Go(func() {
			_, err := other.CopyFrom(b.Context(), pgx.Identifier{"freehold", "stamp"}, []string{"position", "seq", "incarnation", "last", "digest", "chain"}, pgx.CopyFromRows(stamps))
			if err != nil {
				b.Error(err)
			}
		})
		both.Wait()
		if done += len(rows); b.Failed() {
			b.FailNow()
		}
	}
	exec(`SET maintenance_work_mem = '1GB'; SET work_mem = '1GB'`)
	exec(`INSERT INTO freehold.stream (name, version) SELECT stream, max(version) FROM freehold.event GROUP BY stream`)
	exec(`ALTER TABLE freehold.stream ADD PRIMARY KEY (name)`)
	exec(`ALTER TABLE freehold.event ADD PRIMARY KEY (seq), ADD UNIQUE (stream, version)`)
	exec(`ALTER TABLE freehold.stamp ADD PRIMARY KEY (position), ADD UNIQUE (seq)`)
	exec(`CREATE INDEX event_due ON freehold.event (xid, seq)`)
	exec(`SELECT setval('freehold.event_seq_seq', $1)`, events)
	exec(`INSERT INTO freehold.tick (pass, base, position, chain) SELECT max(pass) + 1, pg_current_snapshot(), $1, $2 FROM freehold.tick`, int64(head.Position), head.Chain[:])
	exec(`VACUUM ANALYZE freehold.event, freehold.stamp, freehold.stream`)
	exec(`CHECKPOINT`)
	b.Logf("%d events stored in %s", events, time.Since(begun).Round(time.Second))
}

// naming gives each stream its id.
type naming func(n int64) freehold.StreamID

// BenchmarkHistory compares appends of 64 callers, one event each, to new streams of a
// long journal with those to an empty one, and a reader of its middle with one of a
// short journal. They take turns of a third of a second. Random ids touch random pages
// of the table of streams and of two indexes, each of which PostgreSQL logs whole at its
// first change behind a checkpoint.
func BenchmarkHistory(b *testing.B) {
	b.Run("timed", func(b *testing.B) { compareHistory(b, journaltest.TimedStream) })
	b.Run("random", func(b *testing.B) { compareHistory(b, journaltest.RandomStream) })
}

func compareHistory(b *testing.B, stream naming) {
	events := 1_000_000
	if v := os.Getenv(journaltest.EnvEvents); v != "" {
		var err error
		if events, err = strconv.Atoi(v); err != nil {
			b.Fatalf("%s: %v", journaltest.EnvEvents, err)
		}
	}
	const short, window = 100_000, 50_000
	empty, small, full := history(b, 0, stream), history(b, short, stream), history(b, max(short, events), stream)
	const turn = time.Second / 3
	var next atomic.Int64
	type side struct {
		done int64
		took time.Duration
	}
	var appendEmpty, appendFull, followSmall, followFull side
	appends := func(db *postgres.DB, s *side) {
		var callers sync.WaitGroup
		var n atomic.Int64
		begun := time.Now()
		for range 64 {
			callers.Go(func() {
				for time.Since(begun) < turn {
					i := next.Add(1)
					if _, err := db.Append(context.Background(), happened(stream(1<<30+i), freehold.NoStream, int(i))); err != nil {
						b.Error(err)
						return
					}
					n.Add(1)
				}
			})
		}
		callers.Wait()
		s.done, s.took = s.done+n.Load(), s.took+time.Since(begun)
	}
	follow := func(db *postgres.DB, middle freehold.Position, s *side) {
		begun := time.Now()
		for time.Since(begun) < turn {
			at := freehold.Mark{Source: "test", Position: middle - window/2}
			for at.Position < middle+window/2 {
				rs, err := db.Journal().Read(b.Context(), at, 256)
				if err != nil {
					b.Fatal(err)
				}
				at, s.done = rs[len(rs)-1].At, s.done+int64(len(rs))
			}
		}
		s.took += time.Since(begun)
	}
	// What a journal has read last it keeps in memory, unless that has newer events: without
	// one, a quarter of what is read here would not come from the database.
	if _, err := small.Append(b.Context(), happened(stream(1<<31), freehold.NoStream, 0)); err != nil {
		b.Fatal(err)
	}
	follow(small, short/2, &side{}) // fills the caches of both
	follow(full, freehold.Position(max(short, events)/2), &side{})
	for b.Loop() {
		appends(empty, &appendEmpty)
		appends(full, &appendFull)
		follow(small, short/2, &followSmall)
		follow(full, freehold.Position(max(short, events)/2), &followFull)
	}
	rate := func(s side) float64 { return float64(s.done) / s.took.Seconds() }
	b.ReportMetric(0, "ns/op") // a turn's, which says nothing
	b.ReportMetric(rate(appendEmpty), "append_empty/s")
	b.ReportMetric(rate(appendFull), "append_full/s")
	b.ReportMetric(100*rate(appendFull)/rate(appendEmpty), "append_pct_of_empty")
	b.ReportMetric(rate(followSmall), "follow_short/s")
	b.ReportMetric(rate(followFull), "follow_full/s")
	b.ReportMetric(100*rate(followFull)/rate(followSmall), "follow_pct_of_short")
}
