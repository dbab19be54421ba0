package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

type noted struct {
	Text string `json:"text"`
}

func (noted) EventType() freehold.Type { return freehold.T("test.noted", 1) }

// TestOperatorSeesAndActs runs the program against a service with a follower that
// has parked an event: what it prints, as text and as JSON, and what it does.
func TestOperatorSeesAndActs(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "wrong"), []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "freehold")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	types, err := freehold.NewCatalog(freehold.JSON[noted]())
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	db, err := memory.Open(t.Context(), "notes", types, &memory.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New("notes", db.Journal(), &host.Options{Token: token, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	h.Own(db)
	healed := make(chan struct{}) // closed when the cause of the failure has gone
	f, err := follow.New("reader", db, []follow.Source{db.Journal()}, &follow.Options{Attempts: 1, Log: quiet},
		follow.On(func(_ context.Context, _ kv.Tx, e noted, _ freehold.Recorded) error {
			select {
			case <-healed:
				return nil
			default:
			}
			if e.Text == "bad" {
				return errors.New("it is bad")
			}
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	h.Go("reader", f)
	running, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(running) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	tok, err := db.Append(t.Context(), freehold.Write{Stream: "note-1", Expect: freehold.NoStream, Events: []freehold.Event{noted{"good"}, noted{"bad"}, noted{"behind it"}}},
		freehold.Write{Stream: "note-2", Expect: freehold.NoStream, Events: []freehold.Event{noted{"other"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitFor(t.Context(), tok); err != nil {
		t.Fatal(err)
	}

	call := func(status int, url, tokenFile string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, append(args, "--url", url, "--token-file", tokenFile)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the status tells
		got := cmd.ProcessState.ExitCode()
		if got != status || status == 0 && stderr.Len() > 0 || status == 2 && strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("freehold %v: exit status %d, want %d\n%s%s", args, got, status, &stdout, &stderr)
		}
		return stdout.String() + stderr.String()
	}
	says := func(got string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("it does not say %q:\n%s", want, got)
			}
		}
	}
	operate := func(status int, args ...string) string {
		t.Helper()
		out := call(status, h.URL(), tokenFile, args...)
		if last := args[len(args)-1]; last == "--json" && !json.Valid([]byte(out)) {
			t.Errorf("freehold %v does not print JSON: %s", args, out)
		}
		return out
	}

	says(operate(0, "streams"), "note-1", "3", "note-2")
	says(operate(0, "streams", "note-1"), "good", "bad", "behind it")
	says(operate(0, "streams", "--json"), `"note-2"`)
	says(operate(0, "lag"), "reader", "notes", "running")
	says(operate(0, "lag", "--json"), `"reader"`)
	says(operate(0, "parked", "list"), "note-1", "it is bad")
	says(operate(0, "parked", "list", "--json"), `it is bad"`)
	says(operate(0, "verify"), "notes: 4 events verified")
	says(operate(1, "parked", "retry", "reader", "notes", "note-1"), "it is bad")
	says(operate(1, "parked", "retry", "reader", "notes", "note-7"), "note-7")
	says(operate(1, "parked", "retry", "nobody", "notes", "note-1"), "nobody")
	close(healed)
	operate(0, "parked", "retry", "reader", "notes", "note-1")
	if got := operate(0, "parked", "list", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("parked after all was applied: %s", got)
	}
	says(operate(1, "adopt", "reader", "notes"), "nothing to adopt")

	says(call(1, h.URL(), filepath.Join(dir, "wrong"), "lag"), "401", "operator's token")
	says(call(1, h.URL(), filepath.Join(dir, "missing"), "lag"), "give its --token-file")
	says(call(1, "http://127.0.0.1:1", tokenFile, "lag"), "is the service running")
	says(operate(2, "--nonsense"), "unknown flag --nonsense")
	says(operate(2, "nonsense"), "see freehold --help")
}
