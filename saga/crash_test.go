package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

func streamID(id string) freehold.StreamID { return freehold.StreamID(id) }

// counting is a database that counts transactions and lets some go wrong.
type counting struct {
	*memory.DB
	updates atomic.Int64
	fate    func(n int64) (fails, unknown bool)
}

func (c *counting) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	n := c.updates.Add(1)
	fails, unknown := false, false
	if c.fate != nil {
		fails, unknown = c.fate(n)
	}
	tok, err := c.DB.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		if err := fn(ctx, tx); err != nil || !fails {
			return err
		}
		return errors.New("rolled back on purpose")
	})
	if unknown && (err == nil || fails) {
		err = freehold.ErrUnknown
	}
	return tok, err
}

// Each fault schedule of followers leaves what an undisturbed run leaves: a step's
// effects, its state and the mark are one transaction.
func TestStepsUnderEveryFaultSchedule(t *testing.T) {
	t.Parallel()
	var given []freehold.Write
	for i, e := range []freehold.Event{Stock{"1"}, Begun{"1"}, Begun{"2"}, Paid{"2"}, Paid{"1"}, Cancelled{"2"}, Stock{"2"}, Begun{"1"}, Paid{"3"}} {
		given = append(given, freehold.Write{Stream: freehold.Stream("in", fmt.Sprint(i)), Expect: freehold.NoStream, Events: []freehold.Event{e}})
	}
	var db *memory.DB
	followtest.Run(t, followtest.Case[kv.Tx]{
		Types: types(t), Given: given,
		Open: func(t testing.TB) follow.DB[kv.Tx] {
			db = open(t, nil)
			t.Cleanup(func() { db.Close() })
			return db
		},
		Routes: func() []follow.Route[kv.Tx] {
			script, err := followtest.NewScript("given", types(t), given)
			if err != nil {
				t.Fatal(err)
			}
			p, err := saga.New("checkout", 1, db, []follow.Source{script}, nil, checkout()...)
			if err != nil {
				t.Fatal(err)
			}
			return p.Routes()
		},
		Digest: func(ctx context.Context, tx kv.Tx) (string, error) {
			var all []string
			for _, stream := range []freehold.StreamID{"out-1", "out-2", "undo-1", "undo-2"} {
				for r, err := range tx.Events(ctx, stream, 0) {
					if err != nil {
						return "", err
					}
					all = append(all, string(stream)+" "+r.Type.Name)
				}
			}
			for _, space := range []string{"saga/checkout", "saga/checkout/ended"} {
				for item, err := range db.Keeper(tx).Scan(ctx, space, "") {
					if err != nil {
						return "", err
					}
					late := strings.Count(string(item.Value), `"late":1`)
					all = append(all, fmt.Sprint(space, " ", item.Key, " late ", late))
				}
			}
			return strings.Join(all, "\n"), nil
		},
	})
}

// Whatever happens in whatever order, wherever the process stops, dies, or a
// commit goes wrong: each instance ends once, confirmed with no compensation, or
// rejected with one for each participant that had agreed before.
func TestSagasEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // a bubble has no test deadline
			disk := memory.NewDisk()
			db := open(rt, disk)
			fates := rapid.SliceOfN(rapid.IntRange(0, 11), 1, 10).Draw(rt, "commits")
			fate := func(n int64) (fails, unknown bool) {
				bad := n%7 < 3 // some in a row, so that all gets done in the end
				switch fates[int(n)%len(fates)] {
				case 0:
					return bad, false
				case 1:
					return bad, bad
				case 2:
					return false, bad
				}
				return false, false
			}
			start := func() (p *process, stop func()) {
				return runVersion(rt, &counting{DB: db, fate: fate}, 1, &saga.Options{Options: follow.Options{Attempts: 1000, Starts: 1000}}, []follow.Source{db.Journal()}, checkout()...)
			}
			_, stop := start()
			ids := []string{"1", "2", "3"}
			begun := map[string]bool{}
			for range rapid.IntRange(1, 25).Draw(rt, "happenings") {
				id := rapid.SampledFrom(ids).Draw(rt, "id")
				switch rapid.IntRange(0, 8).Draw(rt, "what") {
				case 0, 1:
					happen(rt, db, Begun{id})
					begun[id] = true
				case 2:
					happen(rt, db, Stock{id})
				case 3:
					happen(rt, db, Paid{id})
				case 4:
					happen(rt, db, Cancelled{id})
				case 5:
					time.Sleep(time.Duration(rapid.IntRange(1, 40).Draw(rt, "seconds")) * time.Second)
				case 6:
					synctest.Wait()
				case 7:
					stop()
					_, stop = start()
				case 8: // what the disk holds now is all that is left
					left := disk.Clone()
					stop()
					db.Close()
					disk = left
					db = open(rt, disk)
					_, stop = start()
				}
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			stop()
			p, stop := start()
			synctest.Wait()
			for _, id := range ids {
				check(rt, db, p, id, begun[id])
			}
			stop()
			db.Close()
		})
	})
}

func check(t tester, db *memory.DB, p *process, id string, begun bool) {
	t.Helper()
	got := strings.Split(outcome(t, db, id), " Undone")
	i := instance(t, p, id)
	switch {
	case !begun && (got[0] != "" || !i.Ended.IsZero()):
		t.Errorf("%s has not begun and ends with %q", id, got)
	case !begun:
	case i.Ended.IsZero():
		t.Errorf("%s does not end: %+v", id, i)
	case got[0] == "Confirmed{"+id+"}" && len(got) == 1:
	case strings.HasPrefix(got[0], "Rejected{"+id+" "):
		slices.Sort(got[1:])
		if len(slices.Compact(got[1:])) != len(got)-1 {
			t.Errorf("%s is compensated twice: %q", id, got)
		}
	default:
		t.Errorf("%s ends with %q", id, got)
	}
	if p.Pending() != len(waitingIn(t, db)) {
		t.Errorf("%d deadlines in memory, %d stored", p.Pending(), len(waitingIn(t, db)))
	}
}

// waitingIn lists the live instances, which after all deadlines are stashes only.
func waitingIn(t tester, db *memory.DB) (ids []string) {
	t.Helper()
	err := db.View(context.Background(), func(ctx context.Context, tx kv.Tx) error {
		for item, err := range db.Keeper(tx).Scan(ctx, "saga/checkout", "") {
			if err != nil {
				return err
			}
			ids = append(ids, item.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
