package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
)

// outcome is what a writer knows of a transaction's end.
type outcome int

const (
	aborted outcome = iota
	committed
	unknown
)

// record is what a writer knows of one of its transactions.
type record struct {
	key     string // the correlation of its events
	xid     string // if the writer is none of the engine's
	outcome outcome
	events  int
	reads   map[string]int64 // the highest version that it had read of streams
	after   int64            // a position that somebody had read before it began
	done    time.Time        // when its commit was answered, if that did not wait for its position
}

// ledger is what all writers know.
type ledger struct {
	mu      sync.Mutex
	records map[string]*record

	rollbacks, savepoints, stragglers, prepared, killedWriters, killedSequencers, failed atomic.Int64
}

func (l *ledger) init(t *testing.T, url string, streams int) {
	l.records = map[string]*record{}
	_, err := connect(t, url).Exec(t.Context(), `INSERT INTO freehold.stream (name, version) SELECT 'hot-' || n, 0 FROM generate_series(1, $1) n`, streams)
	if err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) add(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[r.key] = r
}

func (l *ledger) commits() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.outcome == committed {
			n++
		}
	}
	return n
}

func (l *ledger) counts() string {
	return fmt.Sprintf("%d commits, %d rolled back, %d savepoints rolled back, %d stragglers, %d prepared, %d writers and %d sequencers killed, %d failed",
		l.commits(), l.rollbacks.Load(), l.savepoints.Load(), l.stragglers.Load(), l.prepared.Load(), l.killedWriters.Load(), l.killedSequencers.Load(), l.failed.Load())
}

// writer is one of many; conn is its own, for transactions past the engine.
type writer struct {
	run  *torture
	n    int
	made int
	rnd  *rand.Rand
	conn *pgx.Conn
}

func (run *torture) newWriter(n int) *writer {
	return &writer{run: run, n: n, rnd: rand.New(rand.NewPCG(1, uint64(n)))}
}

func (w *writer) begin() *record {
	w.made++
	return &record{key: fmt.Sprintf("w%dt%d", w.n, w.made), reads: map[string]int64{}, after: w.run.readers[0].at.Load()}
}

func (w *writer) percent(n int) bool { return w.rnd.IntN(100) < n }

// pause is short mostly, and now and then longer than anything else here.
func (w *writer) pause() {
	if w.rnd.IntN(150) == 0 {
		w.run.ledger.stragglers.Add(1)
		time.Sleep(300 * time.Millisecond)
		return
	}
	time.Sleep(rand.N(8 * time.Millisecond))
}

// streams are one to three, sorted.
func (w *writer) streams() []string {
	all := map[string]bool{}
	for range 1 + w.rnd.IntN(3) {
		all[fmt.Sprintf("hot-%d", 1+w.rnd.IntN(w.run.streams))] = true
	}
	var sorted []string
	for s := range all {
		sorted = append(sorted, s)
	}
	slices.Sort(sorted)
	return sorted
}

// work writes until it is told to stop.
func (w *writer) work() {
	defer w.disconnect()
	for {
		select {
		case <-w.run.stop:
			return
		default:
		}
		r := w.begin()
		var err error
		switch kind := w.rnd.IntN(10); {
		case kind < 6:
			err = w.past(r)
		case kind < 9:
			err = w.update(r)
		default:
			err = w.append(r)
		}
		if err != nil && !errors.Is(err, errRollback) {
			w.run.ledger.failed.Add(1)
			w.disconnect()
		}
		if r.outcome == committed {
			w.run.committed.Add(int64(r.events))
		}
		w.run.ledger.add(r)
		time.Sleep(rand.N(4 * time.Millisecond))
	}
}

// workInBulk appends many events at a time to a stream of its own.
func (w *writer) workInBulk() {
	events := make([]freehold.Event, 50)
	for i := range events {
		events[i] = journaltest.Happened{N: i}
	}
	stream := freehold.Stream("bulk", fmt.Sprint(w.n))
	for {
		select {
		case <-w.run.stop:
			return
		default:
		}
		r := w.begin()
		r.events = len(events)
		_, err := w.run.dbs[w.n%3].Append(freehold.WithMeta(context.Background(), freehold.Meta{Correlation: r.key}),
			freehold.Write{Stream: stream, Expect: freehold.Any, Events: events})
		r.end(err)
		if r.outcome == committed {
			w.run.committed.Add(int64(r.events))
		}
		w.run.ledger.add(r)
	}
}

// end takes note of what the engine has answered.
func (r *record) end(err error) {
	switch {
	case err == nil:
		r.outcome = committed
	case errors.Is(err, freehold.ErrUnknown):
		r.outcome = unknown
	default:
		r.outcome = aborted
	}
}

var errRollback = errors.New("rolled back on purpose")

// update writes by a closure of the engine's.
func (w *writer) update(r *record) error {
	rollback := w.percent(8)
	ctx := freehold.WithMeta(context.Background(), freehold.Meta{Correlation: r.key})
	_, err := w.run.dbs[w.rnd.IntN(3)].Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		r.reads, r.events = map[string]int64{}, 0
		for _, s := range w.streams() {
			other := fmt.Sprintf("hot-%d", 1+w.rnd.IntN(w.run.streams))
			var v int64
			if err := tx.QueryRowContext(ctx, newest, other).Scan(&v); err != nil {
				return err
			}
			r.reads[other] = max(r.reads[other], v)
			w.pause()
			events := make([]freehold.Event, 1+w.rnd.IntN(3))
			for i := range events {
				events[i] = journaltest.Happened{N: i}
			}
			v2, err := tx.Append(ctx, freehold.StreamID(s), freehold.Any, events...)
			if err != nil {
				return err
			}
			r.reads[s] = max(r.reads[s], int64(v2)-int64(len(events)))
			r.events += len(events)
		}
		if rollback {
			return errRollback
		}
		return nil
	})
	if r.end(err); errors.Is(err, errRollback) {
		w.run.ledger.rollbacks.Add(1)
	}
	return err
}

// newest is the highest committed version of a stream.
const newest = `SELECT coalesce(max(version), 0) FROM freehold.event WHERE stream = $1`

// append writes by a call that others may share.
func (w *writer) append(r *record) error {
	var writes []freehold.Write
	for _, s := range w.streams() {
		n := 1 + w.rnd.IntN(3)
		events := make([]freehold.Event, n)
		for i := range events {
			events[i] = journaltest.Happened{N: i}
		}
		writes = append(writes, freehold.Write{Stream: freehold.StreamID(s), Expect: freehold.Any, Events: events})
		r.events += n
	}
	_, err := w.run.dbs[w.rnd.IntN(3)].Append(freehold.WithMeta(context.Background(), freehold.Meta{Correlation: r.key}), writes...)
	r.end(err)
	return err
}

func (w *writer) connect(ctx context.Context) (err error) {
	if w.conn != nil {
		return nil
	}
	w.conn, err = pgx.Connect(ctx, w.run.url+"?application_name="+url.PathEscape("torture writer"))
	return err
}

func (w *writer) disconnect() {
	if w.conn != nil {
		_ = w.conn.Close(context.Background())
		w.conn = nil
	}
}

// past writes past the engine, by the same rules: the rows of streams are locked in
// the order of their names, then versions are read, then events draw their numbers
// as they are inserted. It may take one stream after the other, and read between.
func (w *writer) past(r *record) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	if _, err := w.conn.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	if err := w.conn.QueryRow(ctx, `SELECT pg_current_xact_id()::text`).Scan(&r.xid); err != nil {
		return err
	}
	streams := w.streams()
	atOnce := w.percent(50)
	versions := map[string]int64{}
	lock := func(s string) error {
		var v int64
		err := w.conn.QueryRow(ctx, `SELECT version FROM freehold.stream WHERE name = $1 FOR UPDATE`, s).Scan(&v)
		versions[s], r.reads[s] = v, v
		return err
	}
	for i := 0; atOnce && i < len(streams); i++ {
		if err := lock(streams[i]); err != nil {
			return err
		}
	}
	for i, s := range streams {
		if other := fmt.Sprintf("hot-%d", 1+w.rnd.IntN(w.run.streams)); !slices.Contains(streams, other) && !(atOnce && i > 0) {
			var v int64
			if err := w.conn.QueryRow(ctx, newest, other).Scan(&v); err != nil {
				return err
			}
			r.reads[other] = max(r.reads[other], v)
		}
		if !atOnce {
			w.pause()
			if err := lock(s); err != nil {
				return err
			}
		}
		if err := w.insert(ctx, r, s, versions); err != nil {
			return err
		}
	}
	w.pause()
	return w.finish(ctx, r)
}

// insert inserts one to three events of a stream, some of them behind savepoints.
func (w *writer) insert(ctx context.Context, r *record, s string, versions map[string]int64) error {
	one := func(v int64) error {
		_, err := w.conn.Exec(ctx, `INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, meta, payload, nonce)
			VALUES ($1, $2, 'test.happened', 2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $3, false, $4, '{"n":0}', decode(md5(random()::text), 'hex'))`,
			s, v, fmt.Sprintf("%s-%d", r.key, r.events), fmt.Sprintf(`{"correlation":%q}`, r.key))
		return err
	}
	for range 1 + w.rnd.IntN(3) {
		if kind := w.rnd.IntN(100); kind < 20 { // a number is drawn for nothing
			w.run.ledger.savepoints.Add(1)
			if _, err := w.conn.Exec(ctx, `SAVEPOINT s`); err != nil {
				return err
			}
			if err := one(versions[s] + 1); err != nil {
				return err
			}
			if _, err := w.conn.Exec(ctx, `ROLLBACK TO s`); err != nil {
				return err
			}
		} else if kind < 30 { // what follows has another id inside
			if _, err := w.conn.Exec(ctx, `SAVEPOINT s`); err != nil {
				return err
			}
		}
		versions[s]++
		if err := one(versions[s]); err != nil {
			return err
		}
		r.events++
	}
	_, err := w.conn.Exec(ctx, `UPDATE freehold.stream SET version = $2 WHERE name = $1`, s, versions[s])
	return err
}

// finish commits, most of the time.
func (w *writer) finish(ctx context.Context, r *record) error {
	switch n := w.rnd.IntN(100); {
	case n < 8:
		w.run.ledger.rollbacks.Add(1)
		_, err := w.conn.Exec(ctx, `ROLLBACK`)
		return errors.Join(errRollback, err)
	case n < 10:
		return w.prepare(ctx, r)
	}
	r.outcome = unknown // whoever is killed now does not know
	_, err := w.conn.Exec(ctx, `COMMIT`)
	if err == nil {
		r.outcome, r.done = committed, time.Now()
	}
	return err
}

// prepare commits in two phases, and ends the second on another connection if its
// own is killed.
func (w *writer) prepare(ctx context.Context, r *record) error {
	id := strings.TrimPrefix(w.run.url[strings.LastIndex(w.run.url, "/"):], "/") + "_" + r.key
	r.outcome = unknown
	_, err := w.conn.Exec(ctx, `PREPARE TRANSACTION '`+id+`'`)
	end := `COMMIT PREPARED '` + id + `'`
	if err != nil {
		end = `ROLLBACK PREPARED '` + id + `'` // if it exists
	} else {
		w.run.ledger.prepared.Add(1)
		time.Sleep(rand.N(100 * time.Millisecond))
	}
	for ctx.Err() == nil {
		if err := w.connect(ctx); err == nil {
			_, err := w.conn.Exec(ctx, end)
			if err == nil && strings.HasPrefix(end, "COMMIT") {
				r.outcome, r.done = committed, time.Now()
			}
			if err == nil || strings.Contains(err.Error(), "does not exist") {
				return nil // unless answered, its id tells what became of it
			}
		}
		w.disconnect()
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("a prepared transaction stays: " + id)
}
