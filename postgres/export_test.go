package postgres

import (
	"context"
	"time"

	"github.com/freehold-go/freehold"
)

// FailCommits makes the next n commits fail, for tests.
func (db *DB) FailCommits(n int) { db.failCommits.Store(int64(n)) }

// OwnLock lets an instance give positions while others do so too.
func (o *Options) OwnLock(n int) { o.hooks.lock = int64(n) << 8 }

// Asleep keeps an instance's sequencer from looking for news of which nobody tells it.
func (o *Options) Asleep() { o.hooks.asleep = true }

// Passed calls fn behind each pass that has written something, on the goroutine that made
// it.
func (o *Options) Passed(fn func(events int, took time.Duration)) { o.hooks.passed = fn }

// Limited calls fn before the connection of a closure is closed that has taken too
// long.
func (o *Options) Limited(fn func()) { o.hooks.limited = fn }

// Ended calls fn when the sequencer's connection is lost, before anybody else learns of it.
func (o *Options) Ended(fn func()) { o.hooks.ended = fn }

// Reconnected calls fn when the sequencer has a new connection, also the first one,
// before it compares what it knew of the journal with what is there.
func (o *Options) Reconnected(fn func()) { o.hooks.reconnected = fn }

// Patience bounds how long a caller waits for his token, and Close for the last pass.
func (o *Options) Patience(d time.Duration) { o.hooks.patience = d }

// SequencerLock is the key of the advisory lock of who gives positions.
const SequencerLock = int64(sequencerLock)

// Together runs calls of Append, of one write each, in one transaction, and returns how
// many of them are to run again alone, and what the others were answered.
func (db *DB) Together(ctx context.Context, writes ...freehold.Write) (alone int, answers []error) {
	var calls []*appendCall
	for _, w := range writes {
		call := &appendCall{ctx: ctx, writes: []freehold.Write{w}, done: make(chan outcome, 2)}
		if err := call.draft(db.types); err != nil {
			return 0, []error{err}
		}
		calls = append(calls, call)
	}
	db.appendTogether(calls)
	for _, call := range calls {
		if o := <-call.done; o.alone {
			alone++
		} else {
			answers = append(answers, o.err)
		}
	}
	return alone, answers
}

// Turned is the epoch that is present when readers of the database have told these, one
// after the other.
func Turned(told ...freehold.Epoch) freehold.Epoch {
	h := head{news: make(chan struct{})}
	for _, e := range told {
		h.turn(e)
	}
	return h.present()
}

// ReadMeta reads stored metadata.
func ReadMeta(stored string) (freehold.Meta, error) {
	var r freehold.Recorded
	err := readMeta(&stored, &r)
	return r.Meta, err
}

// PlanByIndex is what each connection is told of plans.
func PlanByIndex() string { return planByIndex(nil, false) }

// Statement is one that runs again and again beside a journal that grows: it may read
// few rows, however long that is.
type Statement struct{ Name, Text, Args string }

// Statements returns those of passes and of reading.
func Statements() []Statement {
	snapshot := `pg_current_snapshot()::text`
	return []Statement{
		{"what is due", inDifference, snapshot + `, NULL, 4096`},
		{"what is due in recent transactions", inRecent, snapshot + `, NULL, 4096`},
		{"what a pass missed", missedQuery, ``},
		{"what a token waits for", unplacedQuery, ``},
		{"stamps behind a position", stampsQuery, `500, 510`},
		{"events with neighbouring numbers", neighboursQuery, `500, 510`},
		{"events with scattered numbers", scatteredQuery, `'{500,700}'`},
		{"a stream", streamQuery, `'order-7', 0, 10`},
		{"streams", streamsQuery, `'{order-7,order-8}'`},
		{"which streams are new", newStreams, `'{order-7,order-8,order-new}', '{4,4,1}'`},
	}
}
