package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
)

// mostLag is for how long an event may be committed and not read, at worst, beside
// what the machine itself stood still, in a run that has the machine for itself.
const mostLag = time.Second

// verdict is what is wrong with what a reader has met.
type verdict struct {
	missed  int // committed events that it never met
	doubled int // events that it met twice
	order   int // events that came before one that is older in their stream
	torn    int // transactions between whose events there are others'
	before  int // events that came before something that their transaction had read
	lag     time.Duration
}

func (v verdict) String() string {
	return fmt.Sprintf("%d missed, %d doubled, %d stream order violations, %d torn transactions, %d events before something they had read, lag %s at worst",
		v.missed, v.doubled, v.order, v.torn, v.before, v.lag.Round(time.Millisecond))
}

// eventName is stream and version.
type eventName struct {
	stream  string
	version int64
}

// judge compares what a reader has met with what was committed.
func (run *torture) judge(got, truth []placed) (v verdict) {
	index := make(map[eventName]int, len(got))
	first, newest := map[string]int{}, map[string]int64{}
	torn := map[string]bool{}
	for i, p := range got {
		name := eventName{p.stream, p.version}
		if _, twice := index[name]; twice {
			v.doubled++
		}
		index[name] = i
		if p.version < newest[p.stream] {
			v.order++
		}
		newest[p.stream] = max(newest[p.stream], p.version)
		if _, begun := first[p.tx]; !begun {
			first[p.tx] = i
		} else if got[i-1].tx != p.tx {
			torn[p.tx] = true
		}
	}
	v.torn = len(torn)
	for _, p := range truth {
		if _, met := index[eventName{p.stream, p.version}]; !met {
			v.missed++
		}
	}
	for _, r := range run.ledger.records {
		at, met := first[r.key]
		if !met {
			continue
		}
		for s, version := range r.reads {
			if other, met := index[eventName{s, version}]; met && other > at {
				v.before++
			}
		}
		if !r.done.IsZero() {
			v.lag = max(v.lag, got[at].at.Sub(r.done))
		}
	}
	return v
}

// truth is what was committed, as the table says, in the order of the journal.
func (run *torture) truth() (all []placed, holes int) {
	t := run.t
	rows, err := connect(t, run.url).Query(t.Context(), `SELECT coalesce(s.position, 0), e.stream, e.version, e.meta::json->>'correlation'
		FROM freehold.event e LEFT JOIN freehold.stamp s USING (seq) ORDER BY s.position`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var p placed
		var position int64
		if err := rows.Scan(&position, &p.stream, &p.version, &p.tx); err != nil {
			t.Fatal(err)
		}
		if all = append(all, p); position != int64(len(all)) {
			holes++
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all, holes
}

// check compares journal, readers and ledger.
func (run *torture) check() {
	t := run.t
	t.Helper()
	truth, holes := run.truth()
	if holes > 0 {
		t.Errorf("%d positions are not where they should be", holes)
	}
	run.checkLedger(truth)
	worst := time.Duration(run.stalls.worst.Load())
	for i, r := range run.readers {
		v := run.judge(r.got, truth)
		t.Logf("reader %d: %s; the machine stood still for %s at worst", i+1, v, worst.Round(time.Millisecond))
		if run.alone && v.lag > mostLag+3*worst { // a new connection takes some round trips
			t.Errorf("reader %d was %s behind", i+1, v.lag)
		}
		if v.lag = 0; v != (verdict{}) || r.breaks > 0 || r.ends > 0 {
			t.Errorf("reader %d: %s, %d breaks, %d wrong ends of transactions", i+1, v, r.breaks, r.ends)
		}
		if !slices.EqualFunc(r.got, truth, func(a, b placed) bool { return a.stream == b.stream && a.version == b.version }) {
			t.Errorf("reader %d has met another order than that of the table", i+1)
		}
	}
	at, err := run.dbs[0].Journal().Verify(t.Context(), freehold.Mark{}, nil)
	for try := 0; errors.Is(err, freehold.ErrUnavailable) && try < 100; try++ { // its pool has connections that were killed at the end
		at, err = run.dbs[0].Journal().Verify(t.Context(), freehold.Mark{}, nil)
	}
	if err != nil || int(at.Position) != len(truth) {
		t.Errorf("verified up to %d of %d: %v", at.Position, len(truth), err)
	}
	if !run.didEnough() {
		t.Errorf("not enough has happened: %+v, want at least %+v", run.did(), run.enough)
	}
}

func (run *torture) did() enough {
	l := &run.ledger
	return enough{l.commits(), l.rollbacks.Load(), l.savepoints.Load(), l.stragglers.Load(), l.prepared.Load(), l.killedWriters.Load(), l.killedSequencers.Load()}
}

func (run *torture) didEnough() bool {
	did, want := run.did(), run.enough
	return did.commits >= want.commits && did.rollbacks >= want.rollbacks && did.savepoints >= want.savepoints && did.stragglers >= want.stragglers &&
		did.prepared >= want.prepared && did.killedWriters >= want.killedWriters && did.killedSequencers >= want.killedSequencers
}

// checkLedger wants each transaction's events to be there, all or none, as its writer
// was told, and behind what had been read when it began.
func (run *torture) checkLedger(truth []placed) {
	t := run.t
	there, first := map[string]int{}, map[string]int64{}
	for i, p := range truth {
		if there[p.tx]++; there[p.tx] == 1 {
			first[p.tx] = int64(i + 1)
		}
	}
	conn := connect(t, run.url)
	var lost, ghosts, partial, early int
	for _, r := range run.ledger.records {
		if r.outcome == unknown && r.xid != "" {
			var status *string
			err := conn.QueryRow(t.Context(), `SELECT pg_xact_status($1::text::xid8)`, r.xid).Scan(&status)
			if err != nil && err != pgx.ErrNoRows {
				t.Fatal(err)
			}
			if r.outcome = aborted; status != nil && *status == "committed" {
				r.outcome = committed
			}
		}
		n := there[r.key]
		delete(there, r.key)
		switch {
		case n == 0 && r.outcome == committed:
			lost++
		case n > 0 && r.outcome == aborted:
			ghosts++
		case n > 0 && n != r.events:
			partial++
		case n > 0 && first[r.key] <= r.after:
			early++
		}
	}
	if lost+ghosts+partial+early+len(there) > 0 {
		t.Errorf("of transactions %d were answered and are not there, %d were not committed and are there, %d are there in part, %d stand before what was read before they began, %d are nobody's",
			lost, ghosts, partial, early, len(there))
	}
}

// wantControlsFail wants every other way of reading to go wrong as it is known to.
func (run *torture) wantControlsFail() {
	t := run.t
	t.Helper()
	truth, _ := run.truth()
	for _, c := range run.controls {
		v := run.judge(c.got, truth)
		t.Logf("control, %s: %s", c.name, v)
		fails := map[string]bool{
			byPosition: v.missed > 0, byPositionXmin: v.missed > 0, byTimeOut: v.missed > 0,
			byXid: v.order > 0, byInsertionOnly: v.torn > 0 && v.before > 0,
		}
		if !fails[c.name] {
			t.Errorf("a reader with %s does not fail: this test does not provoke what it is about", c.name)
		}
	}
}

// wantFencedStandStill wants readers fenced by xmin to have met nothing that was
// committed since the stranger began.
func (run *torture) wantFencedStandStill() {
	run.t.Helper()
	for _, c := range run.controls {
		if c.name == byXid || c.name == byPositionXmin {
			run.t.Logf("control, %s: %d events met while the stranger's transaction was open", c.name, len(c.got))
			if len(c.got) > 0 {
				run.t.Errorf("a reader with %s does not stand still", c.name)
			}
		}
	}
}

// wantFlat wants a pass at the end to cost what one at the beginning did. Passes with
// few events are compared, of each half those that nothing else delayed. If statements
// without any work have become slower, the machine has.
func (run *torture) wantFlat() {
	t := run.t
	t.Helper()
	run.passes.mu.Lock()
	defer run.passes.mu.Unlock()
	var small []time.Duration
	for _, p := range run.passes.all {
		if p.events > 0 && p.events <= 128 {
			small = append(small, p.took)
		}
	}
	if len(small) < 50 {
		t.Errorf("%d passes are too few to compare", len(small))
		return
	}
	halves := func(all []time.Duration) (begin, end time.Duration) {
		half := len(all) / 2
		for _, some := range [][]time.Duration{all[:half], all[half:]} {
			slices.Sort(some)
			begin, end = end, some[len(some)/5]
		}
		return begin, end
	}
	begin, end := halves(small)
	idleBegin, idleEnd := halves(run.stalls.took)
	slower := max(1, float64(idleEnd)/float64(idleBegin))
	t.Logf("%d passes: %s in the first half, %s in the second (the fifth that nothing delayed); the machine was %.1f times as slow", len(run.passes.all), begin.Round(time.Microsecond), end.Round(time.Microsecond), slower)
	if float64(end) > slower*float64(3*begin+5*time.Millisecond) { // looking at all of the history takes far longer
		t.Errorf("passes became slower, from %s to %s, while a stranger's transaction was open", begin, end)
	}
}
