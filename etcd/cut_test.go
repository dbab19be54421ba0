package etcd_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
)

// said appends events to one of a few streams, one commit each.
func said(t *testing.T, db *etcd.DB, from, upto int) {
	t.Helper()
	for n := from; n < upto; n++ {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: freehold.Stream("a", strconv.Itoa(n%7)), Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: n}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// cutChild is set to a URL for the process that is killed while it cuts.
const cutChild = "FREEHOLD_ETCD_TEST_CUT_CHILD"

func cutUntilKilled(url string) error {
	types, err := freehold.NewCatalog(freehold.JSON[journaltest.Happened]())
	if err != nil {
		return err
	}
	db, err := etcd.Open(context.Background(), url, "test", types, &etcd.Options{Retain: time.Nanosecond, Log: quiet})
	if err != nil {
		return err
	}
	_, err = db.Cut(context.Background())
	return errors.Join(err, errors.New("not killed"))
}

// TestKilledBetweenTheStepsOfACut kills a process at each step of a cut, also of its
// second part, and looks into what it has left.
func TestKilledBetweenTheStepsOfACut(t *testing.T) {
	t.Parallel()
	for _, point := range []string{
		"etcd.cut.before", "etcd.commit.before", "etcd.commit.after", "etcd.cut.moved",
		"etcd.cut.streams", "etcd.cut.streams:2", "etcd.cut.events", "etcd.cut.events:2",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			const events, needed = 60, 45
			url := testdb.Etcd(t)
			db := open(t, url)
			said(t, db, 0, events)
			all, err := db.Journal().Read(t.Context(), freehold.Mark{Source: "test"}, events)
			if err != nil || len(all) != events {
				t.Fatal(len(all), err)
			}
			if err := db.Journal().Register(t.Context(), "other/f", all[needed-1].At); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), cutChild+"="+url, fault.Env+"="+point)
			if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("the child ended by itself: %v: %s", err, out)
			}
			check := func(db *etcd.DB, when string) freehold.Mark {
				t.Helper()
				first, head, err := db.Journal().Fresh(t.Context())
				if err != nil || first.Position != 0 && first != all[needed-1].At || head != all[events-1].At {
					t.Fatalf("%s: from %v to %v, %v", when, first, head, err)
				}
				rs, err := db.Journal().Read(t.Context(), first, events)
				if err != nil || len(rs) != events-int(first.Position) || rs[0].At.Position != first.Position+1 {
					t.Errorf("%s: %d events behind %d, %v", when, len(rs), first.Position, err)
				}
				if at, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil || at != head {
					t.Errorf("%s: verified to %v, %v", when, at, err)
				}
				return first
			}
			check(db, "the other opening")
			fresh := open(t, url)
			check(fresh, "a new opening")
			said(t, fresh, events, events+1)
			if _, err := db.CutNow(t.Context(), time.Nanosecond); err != nil {
				t.Fatal(err)
			}
			if first, _, _ := db.Journal().Bounds(t.Context()); first != all[needed-1].At {
				t.Errorf("cut to its end: begins at %v, want %v", first, all[needed-1].At)
			}
			wantSwept(t, url, needed, 7)
		})
	}
}

// wantSwept counts what is stored below a place: no event, and one entry of each stream.
func wantSwept(t *testing.T, url string, first freehold.Position, streams int) {
	t.Helper()
	client, prefix := raw(t, url)
	events, err := client.Get(t.Context(), prefix+"e", clientv3.WithRange(string(binary.BigEndian.AppendUint64([]byte(prefix+"e"), uint64(first)+1))), clientv3.WithCountOnly())
	if err != nil || events.Count != 0 {
		t.Errorf("%d commits are left below %d, %v", events.Count, first, err)
	}
	entries, err := client.Get(t.Context(), prefix+"s", clientv3.WithRange(prefix+"t"))
	if err != nil {
		t.Fatal(err)
	}
	below := 0
	for _, kv := range entries.Kvs {
		if binary.BigEndian.Uint64(kv.Value) <= uint64(first) {
			below++
		}
	}
	if below != streams {
		t.Errorf("%d entries of streams are left below %d, want %d", below, first, streams)
	}
}

// TestCutWhileOthersWriteAndFollow lets two openings write, a third one cut again and
// again, and a follower in another service read the feed.
func TestCutWhileOthersWriteAndFollow(t *testing.T) {
	t.Parallel()
	const bursts, burst = 10, 15
	const each = bursts * burst
	url := testdb.Etcd(t)
	cutting, types := open(t, url), journaltest.Types(t)
	serving, err := etcd.Open(t.Context(), url, "test", types, etcd.Options{Log: quiet}.Telling())
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Close()
	server := httptest.NewServer(outbox.Feed(serving.Journal()))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	source, err := inbox.Remote("test", server.URL+"/feed", types, &inbox.Options{Consumer: "other", Tell: time.Millisecond, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	there, err := memory.Open(ctx, "other", types, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	f, err := follow.New("f", there, []follow.Source{source}, &follow.Options{Batch: 8, Log: quiet}, follow.On(func(ctx context.Context, tx kv.Tx, e journaltest.Happened, _ freehold.Recorded) error {
		_, err := tx.Add(ctx, "seen/"+strconv.Itoa(e.N), 1, 0)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	// The first cut must find the consumer, else it is free to take everything.
	if err := cutting.Journal().Register(ctx, "other/f", freehold.Mark{Source: "test"}); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	var running, writing sync.WaitGroup
	running.Go(func() { _ = source.Run(run) })
	running.Go(func() { _ = f.Run(run) })
	var moved atomic.Int64 // how often the journal was cut
	for i := range 2 {
		db := open(t, url)
		writing.Go(func() {
			for n := range bursts {
				seen := moved.Load()
				said(t, db, i*each+n*burst, i*each+(n+1)*burst)
				for moved.Load() == seen && ctx.Err() == nil {
					time.Sleep(time.Millisecond) // a cut comes between any two bursts
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	was := freehold.Position(0)
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		first, err := cutting.CutNow(ctx, time.Nanosecond)
		if err != nil {
			t.Fatalf("%d cuts, at %d of %d: %v: %+v", moved.Load(), was, 2*each, err, f.Status(ctx))
		}
		if first.Position > was {
			was = first.Position
			moved.Add(1)
		}
	}
	_, head, err := cutting.Journal().Fresh(ctx)
	if err == nil {
		err = f.WaitFor(ctx, freehold.NewToken(head))
	}
	if err != nil {
		t.Fatalf("%v: %+v", err, f.Status(ctx))
	}
	stop()
	running.Wait()
	_ = there.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		for n := range 2 * each {
			if v, _, _ := tx.Get(ctx, "seen/"+strconv.Itoa(n)); string(v) != "1" {
				t.Errorf("event %d was applied %q times", n, v)
			}
		}
		return nil
	})
	if at, err := cutting.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil || at != head {
		t.Errorf("verified to %v, %v, the head is %v", at, err, head)
	}
	if moved.Load() < bursts {
		t.Errorf("only %d cuts", moved.Load())
	}
	t.Logf("%d cuts, the last at %d of %d", moved.Load(), was, head.Position)
}

// TestFeedRefusesReadersBelowTheCut asks the feed of a journal that was cut.
func TestFeedRefusesReadersBelowTheCut(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Etcd(t))
	said(t, db, 0, 5)
	server := httptest.NewServer(outbox.Feed(db.Journal()))
	defer server.Close()
	get := func(query string) (int, string) {
		t.Helper()
		resp, err := http.Get(server.URL + "/feed" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body strings.Builder
		_ = resp.Write(&body)
		return resp.StatusCode, body.String()
	}
	if status, body := get("?after=2&consumer=other/f"); status != http.StatusOK {
		t.Fatal(status, body)
	}
	if first, err := db.CutNow(t.Context(), time.Nanosecond); err != nil || first.Position != 2 {
		t.Fatalf("a consumer has told that it is at 2: cut at %v, %v", first, err)
	}
	for query, want := range map[string]int{"?after=0": 410, "?after=1": 410, "?after=1&consumer=other/g": 410, "?after=0&consumer=other/g": 410, "?after=2": 200, "?after=5": 200, "?limit=0": 200, "?consumer=bad": 400} {
		status, body := get(query)
		if status != want || want == 410 && !strings.Contains(body, `"first":2`) {
			t.Errorf("%s: %d, want %d: %s", query, status, want, body)
		}
	}
}

// TestEventSourcedJournalsAreNotCut asks for a cut where streams are the state.
func TestEventSourcedJournalsAreNotCut(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Etcd(t))
	said(t, db, 0, 3)
	if _, err := db.Cut(t.Context()); err == nil || !strings.Contains(err.Error(), "keeps all events") {
		t.Errorf("without Retain: %v", err)
	}
	db.KeepWhole("aggregates of category a are its streams")
	if first, err := db.CutNow(t.Context(), time.Nanosecond); err == nil || !strings.Contains(err.Error(), "aggregates") || first.Position != 0 {
		t.Errorf("with aggregates: cut at %d, %v", first.Position, err)
	}
}

// TestYoungEventsAreKept cuts a journal whose events are younger than what is retained.
func TestYoungEventsAreKept(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Etcd(t))
	said(t, db, 0, 3)
	if first, err := db.CutNow(t.Context(), time.Hour); err != nil || first.Position != 0 {
		t.Errorf("cut at %d, %v", first.Position, err)
	}
	for url, ok := range map[string]bool{"retain=168h": true, "retain=0": true, "retain=-1h": false, "retain=week": false} {
		at := testdb.Etcd(t) + "&" + url
		db, err := etcd.Open(t.Context(), at, "test", journaltest.Types(t), &etcd.Options{Log: quiet})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "retain=") {
			t.Errorf("%s: %v", url, err)
		}
		if err == nil {
			_ = db.Close()
		}
	}
}
