package pebble_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

// childDir is set for the process that is killed: its data directory.
const childDir = "FREEHOLD_PEBBLE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child writes without an end and prints what it was told and what it has seen:
// "told <stream>" and "seen <position> <chain>".
func child(dir string) error {
	types, err := freehold.NewCatalog(freehold.JSON[journaltest.Happened]())
	if err != nil {
		return err
	}
	ctx := context.Background()
	db, err := pebble.Open(ctx, dir, "test", types, &pebble.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	_, head, err := db.Journal().Bounds(ctx)
	if err != nil {
		return err
	}
	failed := make(chan error, 16)
	for c := range 8 {
		go func() {
			for i := 0; ; i++ {
				stream := freehold.Stream("c", fmt.Sprintf("%d.%d.%d", head.Position, c, i))
				_, err := db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
					if _, err := tx.Add(ctx, "count", 2, 0); err != nil {
						return err
					}
					_, err := tx.Append(ctx, stream, freehold.NoStream, journaltest.Happened{N: i}, journaltest.Happened{N: i + 1})
					return err
				})
				if err != nil {
					failed <- err
					return
				}
				say("told %s", stream)
			}
		}()
	}
	go func() {
		at := freehold.Mark{Source: "test"}
		for {
			rs, err := db.Journal().Read(ctx, at, 64)
			if err == nil && len(rs) == 0 {
				err = db.Journal().Wait(ctx, at)
			}
			if err != nil {
				failed <- err
				return
			}
			if len(rs) > 0 {
				at = rs[len(rs)-1].At
				say("seen %d %s", at.Position, at.Chain)
			}
		}
	}()
	return <-failed
}

// TestKilledProcessLosesNothingToldOrSeen kills a writing process with SIGKILL,
// between any two instructions and at each named point, and looks into what it has
// left.
func TestKilledProcessLosesNothingToldOrSeen(t *testing.T) {
	t.Parallel()
	points := []string{"", "", "pebble.commit.before:40", "pebble.commit.after:40", "pebble.sync.after:25"}
	dir := t.TempDir()
	told := map[string]bool{}
	for round, point := range points {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, fault.Env+"="+point)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen := freehold.Mark{}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			words := strings.Fields(lines.Text())
			switch {
			case len(words) == 2 && words[0] == "told":
				told[words[1]] = true
			case len(words) == 3 && words[0] == "seen":
				p, err := strconv.ParseInt(words[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				var chain freehold.Hash
				if chain.UnmarshalText([]byte(words[2])) == nil { // the kill may have cut the line
					seen = freehold.Mark{Position: freehold.Position(p), Chain: chain}
				}
			case len(words) > 0 && words[0] == "error:":
				t.Fatal(lines.Text())
			}
			if point == "" && n == 200+100*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		db, err := open(t, dir, "test")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for stream := range told {
			n := 0
			for _, err := range db.Events(t.Context(), freehold.StreamID(stream), 0) {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n != 2 {
				t.Errorf("round %d: %s was told and has %d events, want 2", round, stream, n)
			}
		}
		if seen.Position == 0 {
			t.Errorf("round %d: the child saw nothing", round)
		} else if at, err := db.Journal().At(t.Context(), seen.Position); err != nil || at.Chain != seen.Chain {
			t.Errorf("round %d: position %d was seen and is now %v, %v", round, seen.Position, at, err)
		}
		err = db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			v, _, err := tx.Get(ctx, "count")
			if string(v) != strconv.FormatInt(int64(head.Position), 10) {
				t.Errorf("round %d: count is %s with %d events", round, v, head.Position)
			}
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Error(err)
		}
	}
	if len(told) < 200 {
		t.Errorf("only %d transactions were told", len(told))
	}
}

// TestSecondProcessIsRefused starts a process on a directory that this one has open.
func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := open(t, dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), "is open in another process: stop it first") {
		t.Errorf("the second process: %v, %s", err, out)
	}
}
