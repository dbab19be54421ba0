package follow_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// flaky is a source whose reads fail now and then, and which may be put back while it
// is read. Only the follower's loop reads.
type flaky struct {
	rng   *rand.Rand
	often float64 // how many reads fail
	asked int
	fail  func(format string, args ...any)

	mu     sync.Mutex
	now    *journal.Journal
	next   *journal.Journal // which it is behind some more reads
	reads  int              // until then
	turned func()           // called at that moment
}

func (s *flaky) journal() *journal.Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// enough reads for any of these tests, many times over.
const enough = 30_000

var errFlaky = errors.New("this read fails on purpose")

func (s *flaky) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	if s.asked++; s.asked == enough {
		s.fail("%d reads, of which %v fail, do not get it anywhere", s.asked, s.often)
	}
	if s.rng.Float64() < s.often {
		return nil, errFlaky
	}
	s.mu.Lock()
	if s.reads--; s.next != nil && s.reads < 0 {
		s.now, s.next = s.next, nil
		s.turned()
	}
	s.mu.Unlock()
	return s.journal().Read(ctx, after, limit)
}

func (s *flaky) Name() freehold.Source    { return s.journal().Name() }
func (s *flaky) Types() *freehold.Catalog { return s.journal().Types() }
func (s *flaky) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	return s.journal().Bounds(ctx)
}
func (s *flaky) Incarnations(ctx context.Context) ([]journal.Incarnation, error) {
	return s.journal().Incarnations(ctx)
}

// Wait is short, for a source that is put back does not wake who waits for the old one.
func (s *flaky) Wait(ctx context.Context, after freehold.Mark) error {
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := s.journal().Wait(short, after); err != nil && short.Err() == nil {
		return err
	}
	return ctx.Err()
}

// ahead is a follower of which some lanes are ahead of the floor: a stream that cannot be
// applied holds up one of them.
type ahead struct {
	t       *testing.T
	ctx     context.Context // ends at the first failure
	cancel  context.CancelFunc
	rng     *rand.Rand
	db      *memory.DB
	lanes   int
	streams []string // the first is the one that is held up
	said    map[string]string
	stuck   atomic.Bool
	decided atomic.Bool // new events may be applied
}

func (a *ahead) lane(stream string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(stream))
	return h.Sum32() % uint32(a.lanes)
}

func (a *ahead) fail(format string, args ...any) {
	a.t.Errorf(format, args...)
	a.cancel()
}

// say appends to a stream, and notes what the stream should be.
func (a *ahead) say(db *memory.DB, stream, text string) {
	a.t.Helper()
	appendNotes(a.t, db, stream, text)
	a.said[stream] += text + ";"
}

func (a *ahead) follow(source follow.Source, batch, lanes int) (*follow.Follower, func()) {
	a.t.Helper()
	opts := quiet()
	opts.Lanes, opts.Batch, opts.Pause, opts.MaxPause = lanes, batch, time.Microsecond, 10*time.Microsecond
	f, err := follow.New("f", a.db, []follow.Source{source}, opts, follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if a.stuck.Load() && string(r.Stream) == a.streams[0] {
			return fmt.Errorf("not now: %w", freehold.ErrUnavailable)
		}
		if strings.HasPrefix(e.Text, "new") && !a.decided.Load() {
			a.fail("%s of another history was applied before the operator had decided", r.At)
		}
		return notes(ctx, tx, e, r)
	}))
	if err != nil {
		a.t.Fatal(err)
	}
	return f, run(a.t, f)
}

// whole waits until streams are what they should be.
func (a *ahead) whole(f *follow.Follower, of func(stream string) bool) {
	a.t.Helper()
	for _, s := range a.streams {
		for of(s) {
			got, want := read(a.t, a.db, "note/"+s), a.said[s]
			if got == want {
				break
			}
			if a.ctx.Err() != nil || !strings.HasPrefix(want, got) {
				a.t.Fatalf("%s is %q, want %q: %+v", s, got, want, f.Status(context.Background()))
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// prepare brings lanes ahead of the floor. It returns the source, and one as it was at
// a moment between the floor and the furthest lane's mark.
func (a *ahead) prepare() (source, restored *memory.DB) {
	disk := memory.NewDisk()
	source = reopen(a.t, disk)
	behind := func() []string { // not in the lane that is held up
		var all []string
		for _, s := range a.streams {
			if a.lane(s) != a.lane(a.streams[0]) {
				all = append(all, s)
			}
		}
		return all
	}
	for n := 0; len(a.streams) < 3 || len(behind()) == 0 || n < 3+a.rng.IntN(5); n++ {
		a.streams = append(a.streams, "n-"+strconv.Itoa(a.rng.IntN(1000)+1000*n))
	}
	const batch = 64
	f, stop := a.follow(source.Journal(), batch, a.lanes)
	for range 2 { // the first batch is applied without lanes
		for _, s := range a.streams {
			a.say(source, s, "1")
		}
		_, head, _ := source.Journal().Bounds(a.ctx)
		if err := f.WaitFor(a.ctx, freehold.NewToken(head)); err != nil {
			a.t.Fatal(err)
		}
	}
	stop()
	a.stuck.Store(true)
	a.say(source, a.streams[0], "2") // which holds up the floor
	more := 2 + a.rng.IntN(30)
	at := a.rng.IntN(more)
	for n := range more {
		if n == at {
			restored = reopen(a.t, disk.Clone())
		}
		a.say(source, a.streams[a.rng.IntN(len(a.streams))], strconv.Itoa(3+n))
	}
	a.say(source, behind()[0], "last")
	f, stop = a.follow(source.Journal(), batch, a.lanes)
	a.whole(f, func(s string) bool { return a.lane(s) != a.lane(a.streams[0]) })
	stop()
	return source, restored
}

// TestLanesThatAreAheadKnowAnotherHistory puts a source back to between the floor and the
// mark of a lane that is ahead, and writes on, beyond that mark or not: while the
// follower is away, or between any two of its reads. No lane may apply or skip a new event
// before the operator has decided, although reads fail, and batches are too small to
// reach the mark.
func TestLanesThatAreAheadKnowAnotherHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			a := newAhead(t, seed)
			source, restored := a.prepare()
			var news []string
			for n := range 1 + a.rng.IntN(60) {
				s := a.streams[a.rng.IntN(len(a.streams))]
				appendNotes(t, restored, s, "new"+strconv.Itoa(n))
				news = append(news, s)
			}
			s := &flaky{rng: rand.New(rand.NewPCG(seed, 8)), fail: a.fail, often: []float64{0, 0.5, 0.8}[seed%3], now: restored.Journal()}
			if seed%2 == 0 {
				s.now, s.next, s.reads = source.Journal(), restored.Journal(), a.rng.IntN(12)
				s.turned = func() { a.stuck.Store(false) }
			} else {
				a.stuck.Store(false)
			}
			f, _ := a.follow(s, 1+a.rng.IntN(6), 1+a.rng.IntN(4))
			_, head, _ := restored.Journal().Bounds(a.ctx)
			for f.Status(a.ctx)[0].State != follow.Diverged {
				if a.ctx.Err() != nil || f.Status(a.ctx)[0].Mark == head {
					t.Fatalf("another history is not recognised: %+v", f.Status(t.Context()))
				}
				time.Sleep(100 * time.Microsecond)
			}
			a.decided.Store(true)
			if _, err := f.Keep(a.ctx, "here"); err != nil {
				t.Fatal(err)
			}
			if err := f.WaitFor(a.ctx, freehold.NewToken(head)); err != nil {
				t.Fatalf("%v: %+v", err, f.Status(t.Context()))
			}
			want := map[string]string{}
			for n, s := range news {
				want[s] += "new" + strconv.Itoa(n) + ";"
			}
			for _, s := range a.streams {
				got := read(t, a.db, "note/"+s)
				if !strings.HasSuffix(got, want[s]) || strings.Count(got, "new") != strings.Count(want[s], "new") {
					t.Errorf("%s is %q, want it to end with %q, once", s, got, want[s])
				}
			}
		})
	}
}

// TestLanesThatAreAheadGoOnAlthoughReadsFail lets the follower go on from where some of
// its lanes are ahead, in batches too small to reach them, with reads that mostly fail.
func TestLanesThatAreAheadGoOnAlthoughReadsFail(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			a := newAhead(t, seed)
			source, _ := a.prepare()
			a.stuck.Store(false)
			s := &flaky{rng: rand.New(rand.NewPCG(seed, 8)), fail: a.fail, often: []float64{0.5, 0.8, 0.9}[seed%3], now: source.Journal()}
			f, _ := a.follow(s, 1+a.rng.IntN(6), 1+a.rng.IntN(4))
			for n := range a.rng.IntN(20) {
				a.say(source, a.streams[a.rng.IntN(len(a.streams))], "more"+strconv.Itoa(n))
			}
			_, head, _ := source.Journal().Bounds(a.ctx)
			if err := f.WaitFor(a.ctx, freehold.NewToken(head)); err != nil {
				t.Fatalf("%v: %+v", err, f.Status(t.Context()))
			}
			a.whole(f, func(string) bool { return true })
		})
	}
}

func newAhead(t *testing.T, seed uint64) *ahead {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	rng := rand.New(rand.NewPCG(seed, 7))
	return &ahead{t: t, ctx: ctx, cancel: cancel, rng: rng, db: open(t), lanes: 2 + rng.IntN(3), said: map[string]string{}}
}
