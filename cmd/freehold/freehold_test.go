package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
)

type noted struct {
	Text string `json:"text"`
}

func (noted) EventType() freehold.Type { return freehold.T("test.noted", 1) }

// TestOperatorSeesAndActs runs the program against a service with a follower that
// has parked an event: what it prints, as text and as JSON, and what it does.
func TestOperatorSeesAndActs(t *testing.T) {
	t.Parallel()
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
	relay := &partable{Relay: outbox.New(db.Journal(), nil, nil)}
	h.Go("relay", relay)
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
	if err := f.WaitFor(t.Context(), tok); !errors.Is(err, follow.ErrParked) { // its transaction has a parked event
		t.Fatal(err)
	}

	at := operatorOf(t, h.URL())
	operate := at.run

	says(t, operate(0, "streams"), "note-1", "3", "note-2")
	says(t, operate(0, "streams", "note-1"), "good", "bad", "behind it")
	says(t, operate(1, "streams", "note-7"), "no stream note-7")
	says(t, operate(0, "streams", "--json"), `"note-2"`)
	says(t, operate(0, "lag"), "reader", "notes", "running")
	says(t, operate(0, "lag", "--json"), `"reader"`)
	says(t, operate(0, "parked", "list"), "note-1", "it is bad")
	says(t, operate(0, "parked", "list", "--json"), `it is bad"`)
	says(t, operate(0, "parked", "list", "reader"), "note-1", "it is bad")
	says(t, operate(0, "parked", "reader"), "note-1", "it is bad")
	if got := operate(0, "parked", "list", "relay"); got != "" {
		t.Errorf("parked by the relay: %s", got)
	}
	says(t, operate(1, "parked", "list", "nobody"), `notes has no follower "nobody": it has reader, relay`)
	says(t, operate(0, "verify"), "notes: 4 events verified")
	says(t, operate(1, "parked", "retry", "reader", "notes", "note-1"), "it is bad")
	says(t, operate(1, "parked", "retry", "reader", "notes", "note-7"), "note-7")
	says(t, operate(1, "parked", "retry", "nobody", "notes", "note-1"), `no follower "nobody": it has reader, relay`)
	close(healed)
	operate(0, "parked", "retry", "reader", "notes", "note-1")
	if got := operate(0, "parked", "list", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("parked after all was applied: %s", got)
	}
	says(t, operate(1, "adopt", "reader", "notes"), "nothing to adopt")
	for _, choice := range []string{"keep", "skip"} {
		relay.parted.Store(false)
		says(t, operate(1, choice, "relay", "notes"), "409", "not stopped by notes: nothing to "+choice)
		relay.parted.Store(true)
		says(t, operate(1, choice, "relay", "notes"), "409", "relay has no effects of its own to "+choice, "freehold adopt relay notes")
		says(t, operate(1, choice, "relay", "elsewhere"), "409", "not stopped by elsewhere: nothing to "+choice)
	}

	wrong, missing, nobody := at, at, at
	wrong.tokenFile, missing.tokenFile, nobody.url = filepath.Join(t.TempDir(), "wrong"), "missing", "http://127.0.0.1:1"
	if err := os.WriteFile(wrong.tokenFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, wrong.run(1, "lag"), "401", "operator's token")
	says(t, missing.run(1, "lag"), "give its --token-file")
	says(t, nobody.run(1, "lag"), "is the service running")
	says(t, operate(2, "--nonsense"), "unknown flag --nonsense")
	says(t, operate(2, "nonsense"), "see freehold --help")
}

// partable is a relay without a broker, which holds what its journal does not if a test
// says so.
type partable struct {
	*outbox.Relay
	parted atomic.Bool
}

func (*partable) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (*partable) Seen(_ context.Context, s freehold.Source) (follow.Seen, error) {
	return follow.Seen{Follower: "relay", Mark: freehold.Mark{Source: s}}, nil
}
func (r *partable) Status(context.Context) []follow.Status {
	st := follow.Status{Follower: "relay", Source: "notes", State: follow.Running}
	if r.parted.Load() {
		st.State = follow.Diverged
	}
	return []follow.Status{st}
}

const token = "0123456789abcdef0123456789abcdef"

// program is the program, built once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(dir, "freehold")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

var dir string // of what all tests share

func TestMain(m *testing.M) {
	var err error
	if dir, err = os.MkdirTemp("", "freehold-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// operator uses the program on a service.
type operator struct {
	t              *testing.T
	url, tokenFile string
}

func operatorOf(t *testing.T, url string) operator {
	t.Helper()
	o := operator{t, url, filepath.Join(t.TempDir(), "token")}
	if err := os.WriteFile(o.tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// run runs the program, which must end with a status, and returns what it prints: JSON
// if it was asked for that, and one line where the command line was wrong.
func (o operator) run(status int, args ...string) string {
	o.t.Helper()
	got, stdout, stderr := o.try(args...)
	if got != status || status == 0 && stderr != "" || status == 2 && strings.Count(stderr, "\n") != 1 {
		o.t.Errorf("freehold %v: exit status %d, want %d\n%s%s", args, got, status, stdout, stderr)
	}
	if args[len(args)-1] == "--json" && stderr == "" && !json.Valid([]byte(stdout)) {
		o.t.Errorf("freehold %v does not print JSON: %s", args, stdout)
	}
	return stdout + stderr
}

func (o operator) try(args ...string) (status int, stdout, stderr string) {
	o.t.Helper()
	path, err := program()
	if err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--url", o.url, "--token-file", o.tokenFile)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the status tells
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func says(t *testing.T, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
}
