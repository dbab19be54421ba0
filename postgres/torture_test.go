package postgres_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// envTorture makes the torture long: for how long each of its runs goes on, such as
// 2m. Then 200,000 events are committed beside the stranger's transaction, and nothing
// else may run on the machine, for lag is judged.
const envTorture = "FREEHOLD_TORTURE"

// torture is one run: writers of all kinds on one database, faults, readers, and
// controls, which read as other systems do and must be seen to fail.
type torture struct {
	t       *testing.T
	writers int
	bulk    int // writers of many events at once, which make the history long
	streams int
	rivals  bool // all instances give positions at once
	alone   bool // on the machine: lag is judged
	length  time.Duration
	enough  enough

	url       string
	dbs       []*postgres.DB
	readers   []*reader
	controls  []*control
	ledger    ledger
	stop      chan struct{} // closed when the writers shall end
	committed atomic.Int64  // events, as far as their writers know
	passes    passes
	stalls    stalls
}

// enough is what must have happened at least.
type enough struct{ commits, rollbacks, savepoints, stragglers, prepared, killedWriters, killedSequencers int64 }

func TestTorture(t *testing.T) {
	length, long := 2*time.Second, false
	if text := os.Getenv(envTorture); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", envTorture, err)
		}
		long = true
	}
	n := max(1, int64(length/(4*time.Second))) // times what a short run must have done
	t.Run("16 writers", func(t *testing.T) {
		run := &torture{alone: long, writers: 16, streams: 40, length: length,
			enough: enough{250 * n, 10 * n, 20 * n, 4 * n, 4 * n, 6 * n, 3 * n}}
		run.setup(t)
		run.torment(nil)
		run.check()
		run.wantControlsFail()
	})
	t.Run("64 writers and three sequencers at once", func(t *testing.T) {
		run := &torture{alone: long, writers: 64, streams: 100, length: length, rivals: true,
			enough: enough{250 * n, 10 * n, 20 * n, 4 * n, 4 * n, 6 * n, 3 * n}}
		run.setup(t)
		run.torment(nil)
		run.check()
		run.wantControlsFail()
	})
	t.Run("a stranger's transaction", func(t *testing.T) {
		events, atLeast := int64(10_000), length/2
		if long {
			events, atLeast = 200_000, length
		}
		run := &torture{alone: long, writers: 16, bulk: 2, streams: 40, length: atLeast,
			enough: enough{100 * n, 5 * n, 10 * n, 2 * n, 2 * n, 4 * n, 2 * n}}
		run.setup(t)
		stranger := connect(t, run.url)
		var xid string
		if _, err := stranger.Exec(t.Context(), `BEGIN`); err != nil {
			t.Fatal(err)
		}
		if err := stranger.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text`).Scan(&xid); err != nil {
			t.Fatal(err)
		}
		run.torment(func() bool { return run.committed.Load() >= events })
		run.wantFlat()
		run.wantFencedStandStill()
		if _, err := stranger.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		run.check()
		t.Logf("a stranger held transaction id %s while %d events were committed", xid, run.committed.Load())
	})
}

// setup opens three instances and begins to read.
func (run *torture) setup(t *testing.T) {
	t.Helper()
	run.t, run.url, run.stop = t, testdb.Postgres(t), make(chan struct{})
	for i := range 3 {
		opts := &postgres.Options{Connections: 24, Log: slog.New(slog.DiscardHandler)}
		if run.rivals {
			opts.OwnLock(i + 1)
		}
		opts.Passed(run.passes.note)
		db, err := postgres.Open(t.Context(), run.url, "test", journaltest.Types(t), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		run.dbs = append(run.dbs, db)
	}
	run.ledger.init(t, run.url, run.streams)
}

// torment lets everything happen at once until the time is over and more says so.
func (run *torture) torment(more func() bool) {
	t := run.t
	reading, endReading := context.WithCancel(t.Context())
	defer endReading()
	var readers, faults, writers sync.WaitGroup
	for _, db := range run.dbs[:2] {
		r := &reader{db: db}
		run.readers = append(run.readers, r)
		readers.Go(func() { r.follow(reading) })
	}
	for _, c := range newControls() {
		run.controls = append(run.controls, c)
		readers.Go(func() { c.follow(reading, t, run.url) })
	}
	readers.Go(func() { run.stalls.watch(reading, t, run.url) })
	faulty, endFaults := context.WithCancel(t.Context())
	faults.Go(func() { run.kill(faulty) })
	for i := range run.writers {
		writers.Go(func() { run.newWriter(i).work() })
	}
	for i := range run.bulk {
		writers.Go(func() { run.newWriter(1000 + i).workInBulk() })
	}
	begun := time.Now()
	for time.Since(begun) < run.length || more != nil && !more() || !run.didEnough() {
		if time.Since(begun) > 10*run.length+time.Minute {
			break // the check tells what is missing
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the time for tests is over")
		}
	}
	took := time.Since(begun)
	close(run.stop)
	writers.Wait()
	endFaults()
	faults.Wait()
	run.awaitReaders()
	endReading()
	readers.Wait()
	t.Logf("%d events in %.1f s; %s", run.committed.Load(), took.Seconds(), run.ledger.counts())
}

// awaitReaders waits until all that was committed has a place and is read.
func (run *torture) awaitReaders() {
	conn := connect(run.t, run.url)
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var due, head int64
		err := conn.QueryRow(run.t.Context(), `SELECT (SELECT count(*) FROM freehold.event) - (SELECT count(*) FROM freehold.stamp),
			(SELECT coalesce(max(position), 0) FROM freehold.stamp)`).Scan(&due, &head)
		if err != nil {
			run.t.Fatal(err)
		}
		if due == 0 && run.readers[0].at.Load() >= head && run.readers[1].at.Load() >= head {
			break
		}
		if time.Now().After(until) {
			run.t.Errorf("a minute behind the last commit %d events have no place, readers are at %d and %d of %d",
				due, run.readers[0].at.Load(), run.readers[1].at.Load(), head)
			break
		}
	}
	time.Sleep(300 * time.Millisecond) // so that controls, too, have read what they ever will
}

// kill ends server processes of writers and sequencers at random.
func (run *torture) kill(ctx context.Context) {
	conn := connect(run.t, run.url)
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Duration(100+n%7*30) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		whose, count := `= 'torture writer' OR application_name = 'freehold test'`, &run.ledger.killedWriters
		if n%3 == 2 {
			whose, count = `LIKE 'freehold sequencer %'`, &run.ledger.killedSequencers
		}
		var done bool
		err := conn.QueryRow(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND (application_name `+whose+`) ORDER BY state <> 'active', random() LIMIT 1`).Scan(&done)
		if err == nil && done {
			count.Add(1)
		} else if err != nil && err != pgx.ErrNoRows && ctx.Err() == nil {
			run.t.Error(err)
		}
	}
}

// passes are those of all sequencers, and what they cost.
type passes struct {
	mu  sync.Mutex
	all []onePass
}

type onePass struct {
	events int
	took   time.Duration
}

func (p *passes) note(events int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, onePass{events, took})
}

// stalls are pauses of the machine and the server, for which nobody here is to
// blame: how long statements without any work took, and the longest of them.
type stalls struct {
	worst atomic.Int64
	took  []time.Duration
}

func (s *stalls) watch(ctx context.Context, t *testing.T, url string) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		begun := time.Now()
		time.Sleep(time.Millisecond)
		if _, err := conn.Exec(ctx, `SELECT`); err == nil {
			s.took = append(s.took, time.Since(begun))
			s.worst.Store(max(s.worst.Load(), int64(time.Since(begun))))
		}
	}
}
