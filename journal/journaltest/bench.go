package journaltest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Raw is the database beneath an engine, used as its own documentation says is
// fastest, with the engine's durability. Fields that are nil leave their ratio out.
type Raw[T freehold.Tx] struct {
	// OneByOne opens a new database in dir and returns a function that stores one
	// payload and a key with a commit of its own. As many goroutines as the engine
	// has callers use it at the same time.
	OneByOne func(b *testing.B, dir string) (insert func(key string, payload []byte) error)
	// Batched opens a new database in dir and returns a function that stores a
	// payload under each of the keys with one commit. One goroutine uses it.
	Batched func(b *testing.B, dir string) (insert func(keys []string, payload []byte) error)
	// Scan returns a function that reads the rows or keys and values of all events
	// that db holds, past the engine, and says how many there were.
	Scan func(b *testing.B, db DB[T], place string) (scan func() (int, error))
}

// EnvEvents names the variable with the number of events that [Benchmark] stores
// before it measures a long journal: 1,000,000 if it is not set.
const EnvEvents = "FREEHOLD_BENCH_EVENTS"

// payload makes an event of about 230 stored bytes beside the chain.
var payload = strings.Repeat("a little text. ", 8)

// rawPayload is what a raw database stores for such an event: payload, header
// fields and chain.
var rawPayload = []byte(strings.Repeat("v", 230))

// batch is how many events share a commit in the ceiling.
const batch = 1024

// Benchmark measures an engine against the database beneath it. Contenders take
// turns of a third of a second within one run, so that all meet the same disk and
// the same neighbours, and the ratios are metrics:
//
//	x_one_by_one     appends, over one commit for each event at the same number of callers
//	pct_of_ceiling   appends, of batches of 1,024 written by one caller
//	pct_of_raw_scan  a no-op follower, of reading the same rows past the engine
//	pct_of_empty     appends to a journal of a million events, of those to an empty one
//
// Run it with -benchtime=3s or longer.
func Benchmark[T freehold.Tx](b *testing.B, h Harness[T]) {
	s := suite[T]{h}
	for _, callers := range []int{1, 16, 64} {
		b.Run("append/callers="+strconv.Itoa(callers), func(b *testing.B) { s.benchAppend(b, callers, false) })
	}
	b.Run("closure/callers=64", func(b *testing.B) { s.benchAppend(b, 64, true) })
	b.Run("follow", s.benchFollow)
	b.Run("history", func(b *testing.B) { s.benchHistory(b, TimedStream) })
	b.Run("history_random", func(b *testing.B) { s.benchHistory(b, RandomStream) })
}

// contender is one side of a comparison.
type contender struct {
	name    string
	callers int
	one     func(n int64) (events int, err error)

	next  atomic.Int64
	count atomic.Int64
	took  time.Duration
}

// turn lets the callers of a contender work for a third of a second.
func (c *contender) turn(b *testing.B) {
	begun := time.Now()
	end := begun.Add(time.Second / 3)
	var all sync.WaitGroup
	for range c.callers {
		all.Go(func() {
			for time.Now().Before(end) {
				n, err := c.one(c.next.Add(1))
				if err != nil {
					b.Errorf("%s: %v", c.name, err)
					return
				}
				c.count.Add(int64(n))
			}
		})
	}
	all.Wait()
	c.took += time.Since(begun)
}

func (c *contender) rate() float64 { return float64(c.count.Load()) / c.took.Seconds() }

func takeTurns(b *testing.B, all ...*contender) {
	for b.Loop() {
		for _, c := range all {
			c.turn(b)
		}
	}
	b.ReportMetric(0, "ns/op") // a turn's, which says nothing
	for _, c := range all {
		b.ReportMetric(c.rate(), c.name+"/s")
	}
}

// TimedStream is the nth stream of a service whose ids begin with their time, as UUIDs of
// version 7 and the shop's orders do: eight a millisecond.
func TimedStream(n int64) freehold.StreamID {
	ms, h := uint64(1_700_000_000_000+n>>3), uint64(n)*0x9e3779b97f4a7c15
	return freehold.StreamID(fmt.Sprintf("order-%08x-%04x-7%03x-8%03x-%012x", uint32(ms>>16), uint16(ms), uint16(h>>52), uint16(h>>40)&0xfff, uint64(n)*0x9e3779b97f&0xffffffffffff))
}

// RandomStream is the nth stream of a service whose ids are random.
func RandomStream(n int64) freehold.StreamID {
	h := uint64(n) * 0x9e3779b97f4a7c15
	return freehold.StreamID(fmt.Sprintf("order-%08x-%04x-5%03x-8%03x-%012x", uint32(h>>32), uint16(h>>16), uint16(h)&0xfff, uint16(h>>52)&0xfff, uint64(n)*0x9e3779b97f&0xffffffffffff))
}

func (s suite[T]) openBench(b *testing.B) (DB[T], Setup) {
	b.Helper()
	setup := place(b)
	db := s.Open(b, setup)
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db, setup
}

// appender is a contender that appends one event to a new stream.
func appender[T freehold.Tx](name string, db DB[T], callers int, closure bool) *contender {
	return &contender{name: name, callers: callers, one: func(n int64) (int, error) {
		e := Happened{N: int(n), Text: payload}
		if !closure {
			_, err := db.Append(context.Background(), write(RandomStream(n), freehold.NoStream, e))
			return 1, err
		}
		_, err := db.Update(context.Background(), func(ctx context.Context, tx T) error {
			_, err := tx.Append(ctx, RandomStream(n), freehold.NoStream, e)
			return err
		})
		return 1, err
	}}
}

func (s suite[T]) benchAppend(b *testing.B, callers int, closure bool) {
	db, _ := s.openBench(b)
	engine := appender("events", db, callers, closure)
	all := []*contender{engine}
	var one, ceiling *contender
	if s.Raw.OneByOne != nil {
		insert := s.Raw.OneByOne(b, b.TempDir())
		one = &contender{name: "one_by_one", callers: callers, one: func(n int64) (int, error) { return 1, insert(string(RandomStream(n)), rawPayload) }}
		all = append(all, one)
	}
	if s.Raw.Batched != nil {
		insert := s.Raw.Batched(b, b.TempDir())
		ceiling = &contender{name: "ceiling", callers: 1, one: func(n int64) (int, error) {
			keys := make([]string, batch)
			for i := range keys {
				keys[i] = string(RandomStream(n*batch + int64(i)))
			}
			return batch, insert(keys, rawPayload)
		}}
		all = append(all, ceiling)
	}
	takeTurns(b, all...)
	if one != nil {
		b.ReportMetric(engine.rate()/one.rate(), "x_one_by_one")
	}
	if ceiling != nil {
		b.ReportMetric(100*engine.rate()/ceiling.rate(), "pct_of_ceiling")
	}
}

// fill appends events, four to a stream, in large transactions. Its streams have the
// numbers from -events to -4, each fourth.
func fill[T freehold.Tx](b *testing.B, db DB[T], events int, stream func(int64) freehold.StreamID) {
	b.Helper()
	for n := 0; n < events; {
		var writes []freehold.Write
		for range 250 {
			w := freehold.Write{Stream: stream(int64(n - events)), Expect: freehold.NoStream}
			for range 4 {
				w.Events = append(w.Events, Happened{N: n, Text: payload})
				n++
			}
			writes = append(writes, w)
		}
		if _, err := db.Append(b.Context(), writes...); err != nil {
			b.Fatal(err)
		}
	}
}

// events is how long the long journal is, at most limit.
func events(b *testing.B, limit int) int {
	b.Helper()
	n := 1_000_000
	if v := os.Getenv(EnvEvents); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			b.Fatalf("%s: %v", EnvEvents, err)
		}
	}
	return max(1000, min(n, limit)/1000*1000)
}

// nothing is a follower's sink that does nothing, from the first event to the last.
type nothing struct {
	head freehold.Position
	stop func()
}

func (nothing) Mark(_ context.Context, s freehold.Source) (freehold.Mark, error) {
	return freehold.Mark{Source: s}, nil
}

func (n nothing) Apply(_ context.Context, _ freehold.Mark, rs []freehold.Recorded) error {
	if rs[len(rs)-1].At.Position == n.head {
		n.stop()
	}
	return nil
}

func (s suite[T]) benchFollow(b *testing.B) {
	db, setup := s.openBench(b)
	n := events(b, 200_000)
	fill(b, db, n, TimedStream)
	db.Journal().Forget() // read the store, not the memory of the newest
	_, head, err := db.Journal().Bounds(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var scan func() (int, error)
	if s.Raw.Scan != nil {
		scan = s.Raw.Scan(b, db, setup.Place)
	}
	var rawTook, journalTook, followTook time.Duration
	turns := 0
	for b.Loop() {
		turns++
		if scan != nil {
			begun := time.Now()
			if got, err := scan(); err != nil || got != n {
				b.Fatalf("raw scan: %d events, %v, want %d", got, err, n)
			}
			rawTook += time.Since(begun)
		}
		begun := time.Now()
		for at := (freehold.Mark{Source: db.Journal().Name()}); at.Position < head.Position; {
			rs, err := db.Journal().Read(b.Context(), at, 256)
			if err != nil {
				b.Fatal(err)
			}
			at = rs[len(rs)-1].At
		}
		journalTook += time.Since(begun)
		begun = time.Now()
		ctx, stop := context.WithCancel(b.Context())
		f := follow.Into("nothing", []follow.Source{db.Journal()}, nothing{head.Position, stop}, nil)
		if err := f.Run(ctx); err != nil {
			b.Fatal(err)
		}
		followTook += time.Since(begun)
		stop()
	}
	total := float64(n) * float64(turns)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(total/journalTook.Seconds(), "journal/s")
	b.ReportMetric(total/followTook.Seconds(), "follow/s")
	if scan != nil {
		b.ReportMetric(total/rawTook.Seconds(), "raw_scan/s")
		b.ReportMetric(100*rawTook.Seconds()/followTook.Seconds(), "pct_of_raw_scan")
	}
}

// benchHistory compares a journal of a million events with an empty one, by what is
// appended to new streams, and to 200 that are there already.
func (s suite[T]) benchHistory(b *testing.B, stream func(int64) freehold.StreamID) {
	empty, _ := s.openBench(b)
	full, _ := s.openBench(b)
	fill(b, full, events(b, 100_000_000), stream)
	one := func(name string, db DB[T], expect freehold.Expect, number func(n int64) int64) *contender {
		return &contender{name: name, callers: 64, one: func(n int64) (int, error) {
			_, err := db.Append(context.Background(), write(stream(number(n)), expect, Happened{N: int(n), Text: payload}))
			return 1, err
		}}
	}
	unknown, known := func(n int64) int64 { return n }, func(n int64) int64 { return -4 * (n%200 + 1) }
	news := []*contender{one("empty", empty, freehold.NoStream, unknown), one("full", full, freehold.NoStream, unknown)}
	knowns := []*contender{one("known_empty", empty, freehold.Any, known), one("known_full", full, freehold.Any, known)}
	takeTurns(b, append(news, knowns...)...)
	b.ReportMetric(100*news[1].rate()/news[0].rate(), "pct_of_empty")
	b.ReportMetric(100*knowns[1].rate()/knowns[0].rate(), "pct_of_empty_known")
}
