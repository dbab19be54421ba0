// Package journaltest is the conformance suite of engines: what a journal, its
// transactions and its keeper must do, whatever the database beneath. An engine's
// own test is a [Harness] of a few lines, given to [Run]; engines with keys and
// values also give it to [RunKeyValue], and every engine's benchmarks are
// [Benchmark].
//
// # Guarantees
//
// An engine that passes holds G1, G2, G3 and G12, and G4 and G7 as far as followers
// on it are concerned. Beside named outcomes there is a property test: random
// operations on the engine and on a model of a page, with everything that can be
// observed compared.
//
// # Ordering
//
// Subtests are independent and run in parallel; each opens a database of its own.
//
// # Failure
//
// Every subtest is named for the outcome that it proves. What an engine's harness
// cannot do is skipped by name, never silently. The suite itself is tested by
// planted bugs, see CONTRIBUTING.md.
package journaltest

import (
	"context"
	"errors"
	"flag"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// DB is an engine's database under test; every engine's *DB has these methods.
type DB[T freehold.Tx] interface {
	follow.DB[T]
	Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]
	Journal() *journal.Journal
	Close() error
}

// Setup says how the suite wants a database opened.
type Setup struct {
	// Place is a directory; each subtest has its own. Opened again after Close a
	// database must hold what it held.
	Place string
	// Types is the catalog to open it with.
	Types *freehold.Catalog
	// Limit is how long a closure may hold a transaction until it is rolled back.
	// 0 is the engine's own limit.
	Limit time.Duration
}

// Harness is an engine under test.
type Harness[T freehold.Tx] struct {
	// Open opens the database at a place, under the source name "test".
	Open func(t testing.TB, s Setup) DB[T]
	// Put and Get write and read a piece of the service's own state; a key that was
	// never written is "".
	Put func(ctx context.Context, tx T, key, value string) error
	Get func(ctx context.Context, tx T, key string) (string, error)
	// FailCommits makes the engine's next n commits fail, definitely and before
	// anything is durable. nil if the engine cannot.
	FailCommits func(db DB[T], n int)
	// Alter changes one byte of the stored payload of the event at a position, past
	// the engine. The database at place is closed. nil if the harness cannot.
	Alter func(t testing.TB, place string, p freehold.Position)
	// Shift moves the first byte of the stored payload of the event at a position to
	// the end of its nonce, so that the digest remains right, past the engine. The
	// database at place is closed. nil if the harness cannot.
	Shift func(t testing.TB, place string, p freehold.Position)
	// Vanishes says that a database opened again at the place of one that is open
	// takes that one's place, as if its process had been killed, and that nothing
	// outlives the process. Elsewhere processes are killed.
	Vanishes bool
	// Shared says that several instances of a service may have the database open.
	Shared bool
	// Cut removes all events up to a position, which ends a transaction and which all
	// followers have passed. nil if the engine keeps everything.
	Cut func(t testing.TB, db DB[T], at freehold.Mark)
	// MaxEvent is the largest payload that the engine stores, in bytes; 0 is 2 MiB
	// or more.
	MaxEvent int
	// Raw is the database beneath, for the ratios of [Benchmark].
	Raw Raw[T]
}

// place returns a setup of a new directory.
func place(t testing.TB) Setup {
	t.Helper()
	return Setup{Place: t.TempDir(), Types: Types(t)}
}

type suite[T freehold.Tx] struct{ Harness[T] }

// Run runs the suite, or only those of its groups that are named: for an engine that
// has passed, opened in another way.
func Run[T freehold.Tx](t *testing.T, h Harness[T], groups ...string) {
	s := suite[T]{h}
	chosen := func(group string) bool { return len(groups) == 0 || slices.Contains(groups, group) }
	type test struct {
		name string
		run  func(t *testing.T, db DB[T])
	}
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"append", []test{
			{"expectations hold or conflict with the actual version", s.expectations},
			{"several streams are written atomically, with conditions on others", s.severalStreams},
			{"a stream may be written twice in one append", s.sameStreamTwice},
			{"several events keep all versions", s.severalEvents},
			{"one of many racing appends wins and each other gets the conflict", s.racing},
			{"bad stream ids and unknown types are refused and leave nothing", s.refused},
			{"events of any size come back as they were", s.sizes},
			{"metadata, time and ids are recorded", s.metadata},
			{"a token names the position of the command's own event", s.token},
		}},
		{"transaction", []test{
			{"state and events commit together or not at all", s.atomic},
			{"a transaction sees its own appends and writes", s.ownWrites},
			{"a conflict that the closure handles leaves the rest", s.handledConflict},
			{"an iteration may be left early", s.leftEarly},
			{"an Update inside an Update fails at once", s.nested},
			{"a transaction is dead after its closure", s.deadHandle},
			{"a goroutine that keeps the transaction writes nothing", s.keptHandle},
			{"a View cannot write", s.readOnly},
			{"a View is a snapshot of state, events and mark", s.snapshot},
			{"what was acknowledged is seen by every later View", s.readYourWrites},
			{"Lock makes a read that decides a write safe", s.lock},
		}},
		{"commit", []test{
			{"a failed closure does not fail its neighbours", s.neighbours},
			{"a conflict tells a version that was committed", s.committedConflict},
			{"success is not told before the commit", s.ackAfterCommit},
			{"readers see nothing whose commit fails", s.durableHead},
			{"a panic and Goexit roll back and leave the writer whole", s.panics},
			{"a caller that was cancelled before its turn was not executed", s.cancelledBefore},
			{"a caller that is cancelled inside a group gets the outcome", s.cancelledInside},
			{"a closure that takes too long is rolled back and its neighbours go on", s.tooLong},
			{"a closure that never looks up is left behind", s.stuck},
			{"callers of a closing database get an outcome or ErrClosed, and Close may be called again", s.closing},
		}},
		{"order", []test{
			{"readers see every event once, in order, while writers write", s.dense},
			{"transactions are adjacent, and pages end with Last", s.adjacent},
			{"a transaction stands behind all that it had read", s.behindReads},
			{"many streams and long transactions page whole", s.pages},
			{"reading goes on from every position", s.resume},
			{"what is read from memory is what was stored", s.remembered},
			{"Wait wakes for a commit", s.wait},
			{"Wait ends with its context and with the database", s.waitEnds},
		}},
		{"history", []test{
			{"everything survives opening again, under a new incarnation", s.reopen},
			{"a fork begins an epoch, and tokens of the old one are good up to its base", s.forked},
			{"a fork that several find is recorded once", s.forkedOnce},
			{"verify finds an altered byte", s.altered},
			{"verify finds a byte that went from payload to nonce", s.shifted},
			{"old versions are upcast on read", s.upcasts},
			{"types that are no longer known stay readable as stored", s.unknownTypes},
		}},
		{"cut", []test{
			{"a journal that was cut begins there and goes on", s.cut},
			{"a follower at the cut goes on, and one below stops and says why", s.cutFollowers},
			{"what a follower still needs is not cut", s.cutNeeded},
		}},
		{"keeper", []test{
			{"marks move by compare-and-set", s.marks},
			{"of many racing moves one wins", s.racingMoves},
			{"values are kept by space and key", s.keeps},
			{"values and marks roll back with the transaction", s.keepsRollBack},
			{"a View cannot write", s.keeperReadOnly},
		}},
		{"follower", []test{
			{"what a failed attempt wrote is gone, and its event comes again until it is parked", s.failing},
			{"a poisoned event holds up its key only and is released in order", s.poison},
			{"a follower stopped at any event of a batch loses and doubles nothing", s.interrupted},
			{"a handler that overruns its deadline costs no event of its batch", s.overrun},
			{"an event that kills the process is parked after some starts", s.deadly},
			{"the whole history delivered again changes nothing", s.again},
			{"lanes that are stopped at work, and instances with different numbers of them, apply everything once", s.lanes},
			{"no timer stands between an event and its effect", s.noTimer},
		}},
	} {
		if group.name == "cut" && h.Cut == nil {
			continue // the engine keeps all events: there is nothing to prove
		}
		if !chosen(group.name) {
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					db := h.Open(t, place(t))
					test.run(t, db)
					verify(t, db)
					if err := db.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
			}
		})
	}
	if !chosen("random") {
		return
	}
	t.Run("random operations do what the model does", func(t *testing.T) {
		t.Parallel()
		s.random(t)
	})
}

func init() {
	// A failing property test prints its seed; files beside the engines' sources
	// are not wanted.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

var errNo = errors.New("journaltest: no")

func verify[T freehold.Tx](t *testing.T, db DB[T]) {
	t.Helper()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	if got.Position != head.Position || got.Chain != head.Chain {
		t.Errorf("verified up to %v, the head is %v", got, head)
	}
}

// readAll reads the journal in pages and checks order, chain and page ends.
func readAll[T freehold.Tx](t testing.TB, db DB[T], page int) []freehold.Recorded {
	t.Helper()
	return readOn(t, db, freehold.Mark{Source: db.Journal().Name()}, page)
}

func readOn[T freehold.Tx](t testing.TB, db DB[T], at freehold.Mark, page int) []freehold.Recorded {
	t.Helper()
	var all []freehold.Recorded
	for {
		rs, err := db.Journal().Read(t.Context(), at, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) == 0 {
			return all
		}
		if !rs[len(rs)-1].Last {
			t.Fatalf("a page ends inside a transaction, at %d", rs[len(rs)-1].At.Position)
		}
		for i := range rs {
			if !journal.Follows(at, &rs[i]) {
				t.Fatalf("position %d does not follow %d", rs[i].At.Position, at.Position)
			}
			at = rs[i].At
		}
		all = append(all, rs...)
	}
}

func mustAppend[T freehold.Tx](t testing.TB, db DB[T], writes ...freehold.Write) freehold.Token {
	t.Helper()
	tok, err := db.Append(t.Context(), writes...)
	if err != nil {
		t.Error(err)
	}
	return tok
}

func write(s freehold.StreamID, e freehold.Expect, events ...freehold.Event) freehold.Write {
	return freehold.Write{Stream: s, Expect: e, Events: events}
}

func wantConflict(t *testing.T, err error, want freehold.Conflict) {
	t.Helper()
	var c *freehold.Conflict
	if !errors.As(err, &c) {
		t.Errorf("error %v, want a *freehold.Conflict", err)
	} else if *c != want {
		t.Errorf("conflict tells %+v, want %+v", *c, want)
	}
}

func (s suite[T]) get(t testing.TB, db DB[T], key string) (value string) {
	t.Helper()
	err := db.View(t.Context(), func(ctx context.Context, tx T) (err error) {
		value, err = s.Get(ctx, tx, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// alone runs fn on a goroutine of its own, because it may end it.
func alone(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}
