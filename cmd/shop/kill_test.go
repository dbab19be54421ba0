package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold/internal/fault"
)

// year makes a small file in the Online Retail form: sales, returns, corrections
// of stock and of the ledger.
func year(t *testing.T) string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString(columns)
	for i := range 150 {
		invoice, sign := fmt.Sprint(536365+i), ""
		switch {
		case i%11 == 7:
			invoice, sign = "C"+invoice, "-"
		case i%37 == 20:
			fmt.Fprintf(&b, "A%s,B,Adjust bad debt,1,%d/%d/2011 8:26,-%d.%03d,,United Kingdom\n", invoice, 1+i/15, 1+i%28, r.IntN(50), r.IntN(1000))
			continue
		}
		for range 1 + r.IntN(4) {
			price := fmt.Sprintf("%d.%03d", r.IntN(9), 1+r.IntN(999))
			if i%23 == 5 {
				price = "0"
			}
			fmt.Fprintf(&b, "%s,%d,PRODUCT,%s%d,%d/%d/2011 8:%02d,%s,%d,%s\n", invoice, 22000+r.IntN(30), sign, 1+r.IntN(20), 1+i/15, 1+i%28, i%60,
				price, 17000+r.IntN(20), []string{"United Kingdom", "EIRE", "France"}[r.IntN(3)])
		}
	}
	path := filepath.Join(t.TempDir(), "year.csv")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKilledAtEveryPointTheBooksAreTheSame kills the whole shop with SIGKILL at
// every named point between a command and its last effect, twice, in the middle of
// a replay that is then taken up again. It ends with the figures of a replay that
// nobody disturbed.
func TestKilledAtEveryPointTheBooksAreTheSame(t *testing.T) {
	t.Parallel()
	file := year(t)
	replay := func(t *testing.T, data, point string) (map[string]any, bool) {
		t.Helper()
		cmd := exec.Command(binary(t), "replay", file, "--stock", "unlimited", "--data", data, "--json", "--log", "error")
		cmd.Env = append(os.Environ(), fault.Env+"="+point)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			return nil, false
		}
		var figures map[string]any
		if jsonErr := json.Unmarshal(stdout.Bytes(), &figures); err != nil || jsonErr != nil {
			t.Fatalf("%v, %v\n%s%s", err, jsonErr, &stdout, &stderr)
		}
		for _, measured := range []string{"seconds", "orders_per_second"} {
			delete(figures, measured)
		}
		delete(figures["audit"].(map[string]any), "checks") // one for each opening, too
		return figures, true
	}
	want, _ := replay(t, t.TempDir(), "")
	if want["net"] == "0.000" || want["returns_value"] == "0.000" || want["ledger_adjustments"] == "0.000" || want["rejected_rows"] != 0.0 {
		t.Fatalf("the replay does not do enough: %v", want)
	}
	slots := make(chan struct{}, 2)
	for _, point := range []string{
		"follow.apply.before", "follow.apply.after", "sqlite.commit.before", "sqlite.commit.after", "pebble.commit.before", "pebble.commit.after", "pebble.sync.after",
		"outbox.publish.before", "outbox.publish.after", "intent.call.before", "intent.call.after", "intent.record.before", "intent.record.after", "billing.call.before", "billing.call.after",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			data := t.TempDir()
			second := 15
			if strings.HasPrefix(point, "intent.record") {
				second = 2 // many outcomes are recorded together
			}
			for _, nth := range []int{1, second} {
				if _, ended := replay(t, data, fmt.Sprintf("%s:%d", point, nth)); ended {
					t.Fatalf("%s does not come %d times", point, nth)
				}
			}
			got, ended := replay(t, data, "")
			if diff := cmp.Diff(want, got); diff != "" || !ended {
				t.Errorf("the figures differ:\n%s", diff)
			}
			out, err := exec.Command(binary(t), "verify", "--data", data).CombinedOutput()
			if err != nil || !strings.Contains(string(out), " 0 violations") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
