package follow_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

func inLanes(n int) *follow.Options {
	o := quiet()
	o.Lanes, o.Batch = n, 16
	return o
}

// TestPoisonInALaneHoldsItsKeyOnly parks in one lane while the others go on, also
// across a change of the number of lanes.
func TestPoisonInALaneHoldsItsKeyOnly(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	var healed atomic.Bool
	ctx := patient(t)
	const streams, each = 8, 10
	var all []freehold.Write
	for n := range each {
		for s := range streams {
			text := strconv.Itoa(n)
			if s == 3 && n == 4 {
				text = "poison"
			}
			all = append(all, note("n-"+strconv.Itoa(s), text))
		}
	}
	for i, lanes := range []int{4, 1, 3, 2, 1} {
		some := all[i*len(all)/5 : (i+1)*len(all)/5]
		for _, w := range some {
			if _, err := source.Append(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
		f, err := follow.New("f", db, []follow.Source{source.Journal()}, inLanes(lanes), poisoned(&healed))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, f)
		_, head, _ := source.Journal().Bounds(ctx)
		if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil && !errors.Is(err, follow.ErrParked) {
			t.Fatal(err)
		}
		if i == 4 {
			if got, want := read(t, db, "note/n-3"), "0;1;2;3;"; got != want {
				t.Errorf("the poisoned key is %q, want %q", got, want)
			}
			healed.Store(true)
			if err := f.Retry(ctx, "here", "n-3"); err != nil {
				t.Error(err)
			}
		}
		stop()
	}
	for s := range streams {
		want := "0;1;2;3;4;5;6;7;8;9;"
		if s == 3 {
			want = "0;1;2;3;poison;5;6;7;8;9;"
		}
		if got := read(t, db, "note/n-"+strconv.Itoa(s)); got != want {
			t.Errorf("n-%d is %q, want %q", s, got, want)
		}
	}
}

// TestInstancesWithDifferentLanesApplyOnce runs followers of one name with 1, 2 and 4
// lanes at the same time while events come in: their number changes under load.
func TestInstancesWithDifferentLanesApplyOnce(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	var all []*follow.Follower
	for _, lanes := range []int{1, 2, 4, 4} {
		f, err := follow.New("f", db, []follow.Source{source.Journal()}, inLanes(lanes), follow.On(notes))
		if err != nil {
			t.Fatal(err)
		}
		run(t, f)
		all = append(all, f)
	}
	ctx := patient(t)
	want := ""
	for n := range 60 {
		for s := range 6 {
			if _, err := source.Append(ctx, note("n-"+strconv.Itoa(s), strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
		}
		want += strconv.Itoa(n) + ";"
	}
	_, head, _ := source.Journal().Bounds(ctx)
	for i, f := range all {
		if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
			t.Errorf("instance %d: %v: %+v", i, err, f.Status(ctx))
		}
	}
	for s := range 6 {
		if got := read(t, db, "note/n-"+strconv.Itoa(s)); got != want {
			t.Errorf("n-%d is %q, want %q", s, got, want)
		}
	}
}

// gated is a source whose reads wait.
type gated struct {
	*journal.Journal
	reads chan struct{} // one is waiting
	open  chan struct{}
}

func (g *gated) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	select {
	case g.reads <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.Journal.Read(ctx, after, limit)
}

// TestWhoChangesTheNumberOfLanesKnowsHowManyThereAre holds up an instance that is to have
// one lane, and has seen two that stand at one place, while another one makes four of them
// there, of which one goes on.
func TestWhoChangesTheNumberOfLanesKnowsHowManyThereAre(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	ctx := patient(t)
	streams := []string{"n-2", "n-1"} // of the third and of the fourth lane
	say := func(text string) freehold.Token {
		for _, s := range streams {
			appendNotes(t, source, s, text)
		}
		_, head, _ := source.Journal().Bounds(ctx)
		return freehold.NewToken(head)
	}
	var stuck atomic.Value // the streams whose events fail
	handler := follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if strings.Contains(stuck.Load().(string), string(r.Stream)) {
			return errors.New("not now")
		}
		return notes(ctx, tx, e, r)
	})
	instance := func(from follow.Source, lanes int) *follow.Follower {
		opts := inLanes(lanes)
		opts.Attempts, opts.Pause, opts.MaxPause = 1<<20, time.Millisecond, time.Millisecond
		f, err := follow.New("f", db, []follow.Source{from}, opts, handler)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	stuck.Store("")
	first := instance(source.Journal(), 1)
	stop := run(t, first)
	if err := first.WaitFor(ctx, say("1")); err != nil {
		t.Fatal(err)
	}
	stop()
	stuck.Store("n-1 n-2")
	at := say("2")
	stop = run(t, instance(source.Journal(), 2))
	eventually(t, func() (two bool) {
		err := db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
			n, _, err := db.Keeper(tx).Get(ctx, "lanes/f/here", "n")
			two = string(n) == "2"
			return err
		})
		return two && err == nil
	})
	stop()
	late := &gated{source.Journal(), make(chan struct{}, 1), make(chan struct{})}
	one := instance(late, 1)
	run(t, one)
	<-late.reads // it knows where the lanes stand
	stuck.Store("n-1")
	stop = run(t, instance(source.Journal(), 4))
	eventually(t, func() bool { return read(t, db, "note/n-2") == "1;2;" })
	stop()
	stuck.Store("")
	close(late.open)
	if err := one.WaitFor(ctx, at); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if got, want := read(t, db, "note/"+s), "1;2;"; got != want {
			t.Errorf("%s is %q, want %q", s, got, want)
		}
	}
}

// TestLanesOfAnotherHistoryAreForgotten adopts a source that went back below what the
// lanes have applied.
func TestLanesOfAnotherHistoryAreForgotten(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	source := reopen(t, disk)
	ctx := patient(t)
	streams := []string{"n-a", "n-b", "n-c", "n-d", "n-e"}
	say := func(db *memory.DB, text string) {
		for _, s := range streams {
			appendNotes(t, db, s, text)
		}
	}
	say(source, "1")
	backup := disk.Clone()
	say(source, "2")
	say(source, "3")
	db := open(t)
	first, err := follow.New("f", db, []follow.Source{source.Journal()}, inLanes(4), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, first)
	_, head, _ := source.Journal().Bounds(ctx)
	for range 2 { // the first batch is applied without lanes
		if err := first.WaitFor(ctx, freehold.NewToken(head)); err != nil {
			t.Fatal(err)
		}
		say(source, "4")
		_, head, _ = source.Journal().Bounds(ctx)
	}
	if err := first.WaitFor(ctx, freehold.NewToken(head)); err != nil {
		t.Fatal(err)
	}
	stop()
	restored := reopen(t, backup)
	say(restored, "new")
	f, err := follow.New("f", db, []follow.Source{restored.Journal()}, inLanes(4), follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	eventually(t, func() bool { return f.Status(ctx)[0].State == follow.Diverged })
	if _, err := f.Adopt(ctx, "here"); err != nil {
		t.Fatal(err)
	}
	say(restored, "newer")
	_, head, _ = restored.Journal().Bounds(ctx)
	if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if got, want := read(t, db, "note/"+s), "1;2;3;4;4;new;newer;"; got != want {
			t.Errorf("%s is %q, want %q", s, got, want)
		}
	}
}

// TestALaneAheadOfTheFloorSkipsNothingOfAnotherHistory ends the process while one lane
// has applied its part of a batch and another has not, and puts the source back to
// between the floor and the first lane's mark.
func TestALaneAheadOfTheFloorSkipsNothingOfAnotherHistory(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	source := reopen(t, disk)
	ctx := patient(t)
	streams := []string{"n-a", "n-b", "n-c", "n-d", "n-e", "n-f"}
	say := func(db *memory.DB, text string) {
		for _, s := range streams {
			appendNotes(t, db, s, text)
		}
	}
	db := open(t)
	var stuck atomic.Bool
	handler := follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if stuck.Load() && r.Stream == "n-f" {
			return errors.New("not now")
		}
		return notes(ctx, tx, e, r)
	})
	opts := inLanes(4)
	opts.Attempts, opts.Pause, opts.MaxPause = 1<<20, time.Millisecond, time.Millisecond
	first, err := follow.New("f", db, []follow.Source{source.Journal()}, opts, handler)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, first)
	for _, text := range []string{"1", "2"} { // the first batch is applied without lanes
		say(source, text)
		_, head, _ := source.Journal().Bounds(ctx)
		if err := first.WaitFor(ctx, freehold.NewToken(head)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	stuck.Store(true)
	appendNotes(t, source, "n-f", "3") // which holds up the floor
	backup := disk.Clone()
	say(source, "4")
	say(source, "5")
	if first, err = follow.New("f", db, []follow.Source{source.Journal()}, opts, handler); err != nil {
		t.Fatal(err)
	}
	stop = run(t, first)
	ahead := func() (n int) {
		for _, s := range streams {
			if read(t, db, "note/"+s) == "1;2;4;5;" {
				n++
			}
		}
		return n
	}
	eventually(t, func() bool { return ahead() > 0 })
	stop()
	stuck.Store(false)

	restored := reopen(t, backup)
	for _, text := range []string{"new1", "new2", "new3"} { // beyond where the lane stands
		say(restored, text)
	}
	f, err := follow.New("f", db, []follow.Source{restored.Journal()}, opts, handler)
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	eventually(t, func() bool { return f.Status(ctx)[0].State == follow.Diverged })
	if lost, _, err := f.Lost(ctx, "here"); err != nil || lost.Mark.Position <= lost.Base.Position {
		t.Errorf("lost from %v to %v, %v: want what the lane has applied", lost.Base, lost.Mark, err)
	}
	if _, err := f.Keep(ctx, "here"); err != nil {
		t.Fatal(err)
	}
	_, head, _ := restored.Journal().Bounds(ctx)
	if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		got := read(t, db, "note/"+s)
		want := "new1;new2;new3;"
		if !strings.HasSuffix(got, want) || strings.Count(got, "new1") != 1 {
			t.Errorf("%s is %q, want it to end with %q, once", s, got, want)
		}
	}
}
