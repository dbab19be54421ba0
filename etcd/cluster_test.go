package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
)

// TestProcessesThatRaceLoseNothing lets three openings write to one journal at the
// same time, and a fourth one follow it.
func TestProcessesThatRaceLoseNothing(t *testing.T) {
	t.Parallel()
	const each = 150
	url := testdb.Etcd(t)
	reader := open(t, url)
	seen := make(chan freehold.Position, 1)
	go func() {
		at := freehold.Mark{Source: "test"}
		for at.Position < 3*each {
			rs, err := reader.Journal().Read(t.Context(), at, 64)
			if err == nil && len(rs) == 0 {
				err = reader.Journal().Wait(t.Context(), at)
			}
			if err != nil {
				t.Error(err)
				break
			}
			for _, r := range rs {
				if r.At.Position != at.Position+1 {
					t.Errorf("position %d behind %d", r.At.Position, at.Position)
				}
				at = r.At
			}
		}
		seen <- at.Position
	}()
	var all sync.WaitGroup
	var next atomic.Int64
	for range 3 {
		db := open(t, url)
		for range 5 {
			all.Go(func() {
				for range each / 5 {
					if _, err := db.Update(t.Context(), add(int(next.Add(1)))); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	if got := <-seen; got != 3*each {
		t.Errorf("the reader has seen %d events, want %d", got, 3*each)
	}
	wantEvents(t, reader, 3*each)
}

// TestMembersAreKilledUnderLoad kills one member after the other, the leader among
// them, and starts each again, while two openings write.
func TestMembersAreKilledUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	c := start(t, 3)
	url := c.prefixed()
	var all sync.WaitGroup
	var next, told, unknown atomic.Int64
	var streams sync.Map
	done := make(chan struct{})
	for range 2 {
		db := open(t, url)
		for range 4 {
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					n := int(next.Add(1))
					switch _, err := db.Update(t.Context(), add(n)); {
					case err == nil:
						told.Add(1)
						streams.Store(n, true)
					case errors.Is(err, freehold.ErrUnknown):
						unknown.Add(1)
					case !errors.Is(err, freehold.ErrUnavailable):
						t.Errorf("update %d: %v", n, err)
					}
				}
			})
		}
	}
	progress := func(what string) {
		t.Helper()
		was := told.Load()
		for until := time.Now().Add(time.Minute); told.Load() < was+20; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s: no progress in a minute", what)
			}
		}
	}
	for i := range 3 {
		progress("all members run")
		c.Kill(i)
		progress(fmt.Sprintf("member %d is away", i))
		if err := errors.Join(c.Start(i), c.Ready()); err != nil {
			t.Fatal(err)
		}
	}
	progress("all members run again")
	close(done)
	all.Wait()
	db := open(t, url)
	head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil {
		t.Error(err)
	}
	if n := int64(head.Position); n < told.Load() || n > told.Load()+unknown.Load() {
		t.Errorf("%d events, %d were acknowledged and %d unknown", n, told.Load(), unknown.Load())
	}
	streams.Range(func(n, _ any) bool {
		for _, err := range db.Events(t.Context(), freehold.Stream("a", fmt.Sprint(n)), 0) {
			if err == nil {
				return true
			}
		}
		t.Errorf("update %d was acknowledged and is gone", n)
		return true
	})
	wantEvents(t, db, int(head.Position))
	t.Logf("%d acknowledged, %d unknown", told.Load(), unknown.Load())
}

// TestWithoutAMajorityNothingIsWrittenAndItGoesOnByItself takes two of three members
// away and brings them back.
func TestWithoutAMajorityNothingIsWrittenAndItGoesOnByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	c := start(t, 3)
	url := c.prefixed()
	db, err := etcd.Open(t.Context(), url, "test", journaltest.Types(t), etcd.Options{Log: quiet}.Through((&wire{}).call, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Update(t.Context(), add(0)); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	c.Kill(1)
	_, err = db.Update(t.Context(), add(1))
	if !errors.Is(err, freehold.ErrUnknown) && !errors.Is(err, freehold.ErrUnavailable) {
		t.Errorf("without a majority: %v, want ErrUnknown or ErrUnavailable", err)
	}
	if _, err := db.Update(t.Context(), add(2)); !errors.Is(err, freehold.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the next one: %v, want one line of ErrUnavailable", err)
	}
	if other, err := etcd.Open(t.Context(), url, "test", journaltest.Types(t), &etcd.Options{Log: quiet}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("opened without a majority, or not refused in one line: %v", err)
		if err == nil {
			_ = other.Close()
		}
	}
	if err := errors.Join(c.Start(0), c.Start(1), c.Ready()); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; {
		if _, err = db.Update(t.Context(), add(3)); err == nil || time.Now().After(until) {
			break
		}
	}
	if err != nil {
		t.Fatalf("with a majority again: %v", err)
	}
	head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil || head.Position < 2 || head.Position > 3 {
		t.Errorf("%d events, %v, want those that were told, and perhaps the unknown one", head.Position, err)
	}
	wantEvents(t, db, int(head.Position))
}

// TestWritingStopsBeforeTheQuota fills a small cluster under load.
func TestWritingStopsBeforeTheQuota(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	c := start(t, 1, "--quota-backend-bytes", fmt.Sprint(64<<20))
	url := c.prefixed()
	db := open(t, url)
	value := make([]byte, 16<<10)
	var err error
	for i := 0; err == nil; i++ {
		if i > 20_000 {
			t.Fatal("the quota of 64 MiB is never met")
		}
		_, err = db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			return tx.Put(ctx, fmt.Sprint(i), value)
		})
		time.Sleep(4 * time.Millisecond) // about 4 MiB/s
	}
	if !errors.Is(err, freehold.ErrUnavailable) || !strings.Contains(err.Error(), "is written before") {
		t.Errorf("near the quota: %v", err)
	}
	client, _ := raw(t, url)
	if alarms, err := client.AlarmList(t.Context()); err != nil || len(alarms.Alarms) > 0 {
		t.Errorf("the members have alarms: %v, %v", alarms, err)
	}
	if err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error { _, _, err := tx.Get(ctx, "0"); return err }); err != nil {
		t.Errorf("reading: %v", err)
	}
	t.Logf("stopped at %+v", db.Size())
}

// childURL is set for the process that is killed.
const childURL = "FREEHOLD_ETCD_TEST_CHILD"

// child writes without an end and prints what it was told: "told <stream>".
func child(url string) error {
	types, err := freehold.NewCatalog(freehold.JSON[journaltest.Happened]())
	if err != nil {
		return err
	}
	ctx := context.Background()
	db, err := etcd.Open(ctx, url, "test", types, &etcd.Options{Log: quiet})
	if err != nil {
		return err
	}
	var out sync.Mutex
	failed := make(chan error, 8)
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				id := os.Getpid()*1_000_000 + i*100_000 + n
				if _, err := db.Update(ctx, add(id)); err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Printf("told a-%d\n", id)
				out.Unlock()
			}
		}()
	}
	return <-failed
}

// TestKilledWriterLosesNothingTold kills a writing process with SIGKILL, between any
// two instructions and around its commits, and looks into what it has left.
func TestKilledWriterLosesNothingTold(t *testing.T) {
	t.Parallel()
	url := testdb.Etcd(t)
	told := map[freehold.StreamID]bool{}
	for round, point := range []string{"", "etcd.commit.before:30", "etcd.commit.after:30"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childURL+"="+url, fault.Env+"="+point)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			words := strings.Fields(lines.Text())
			if len(words) > 0 && words[0] == "error:" {
				t.Fatal(lines.Text())
			}
			if len(words) == 2 && words[0] == "told" {
				told[freehold.StreamID(words[1])] = true
			}
			if point == "" && n == 150 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		db := open(t, url)
		head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		there := map[freehold.StreamID]bool{}
		for at := (freehold.Mark{Source: "test"}); at.Position < head.Position; {
			rs, err := db.Journal().Read(t.Context(), at, 256)
			if err != nil || len(rs) == 0 {
				t.Fatalf("round %d: behind %d: %v", round, at.Position, err)
			}
			for _, r := range rs {
				there[r.Stream], at = true, r.At
			}
		}
		for s := range told {
			// The kill may have cut the last line.
			if !there[s] {
				t.Errorf("round %d: %s was told and is gone", round, s)
			}
		}
		wantEvents(t, db, int(head.Position))
	}
	if len(told) < 150 {
		t.Errorf("only %d transactions were told", len(told))
	}
}
