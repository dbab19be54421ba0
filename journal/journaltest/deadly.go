package journaltest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/freehold-go/freehold"
)

const deadlyEvent = 3

// ownProcess names the place that the process which is killed works on.
const ownProcess = "FREEHOLD_JOURNALTEST_PLACE"

// deadly: an event whose handler kills the process is set aside after a few starts,
// because each start on it is counted before its handler is called; the events
// before and behind it are applied once.
func (s suite[T]) deadly(t *testing.T, _ DB[T]) {
	setup := place(t)
	if own := os.Getenv(ownProcess); own != "" {
		setup.Place = own
		s.die(t, setup)
		return
	}
	db := s.Open(t, setup)
	for n := range 6 {
		mustAppend(t, db, write(freehold.Stream("a", fmt.Sprint(n)), freehold.NoStream, happened(n)))
	}
	deaths := 0
	if s.Vanishes {
		for dead := true; dead; deaths++ {
			if deaths == 10 {
				t.Fatal("an event that kills the process is tried for ever")
			}
			dead = s.vanish(t, db)
			db = s.Open(t, setup)
		}
	} else {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for s.kills(t, setup) {
			if deaths++; deaths == 10 {
				t.Fatal("an event that kills the process is tried for ever")
			}
		}
		db = s.Open(t, setup)
	}
	if deaths < 2 {
		t.Errorf("the process died %d times: the run did not do enough", deaths)
	}
	for n := range 6 {
		want := fmt.Sprint(n) + ";"
		if n == deadlyEvent {
			want = ""
		}
		if got := s.applied(t, db, "a-"+fmt.Sprint(n)); got != want {
			t.Errorf("event %d left %q, want %q", n, got, want)
		}
	}
	f := follower(t, db, db.Journal(), quietly(), s.apply)
	parked, err := f.Parked(t.Context(), 10)
	if err != nil || len(parked) != 1 || number(t, parked[0].Event) != deadlyEvent || !strings.Contains(parked[0].Error, "the process ended") {
		t.Errorf("parked: %+v, %v", parked, err)
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// kills runs this subtest in a process of its own and reports whether that was
// killed.
func (s suite[T]) kills(t *testing.T, setup Setup) bool {
	t.Helper()
	var path []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		path = append(path, "^"+regexp.QuoteMeta(part)+"$")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+strings.Join(path, "/"), "-test.v")
	cmd.Env = append(os.Environ(), ownProcess+"="+setup.Place)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "went past it") {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed: %v\n%s", err, out)
	}
	return true
}

// die follows with a handler that kills this process.
func (s suite[T]) die(t *testing.T, setup Setup) {
	db := s.Open(t, setup)
	opts := quietly()
	opts.Starts = 2
	f := follower(t, db, db.Journal(), opts, func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
		if e.N == deadlyEvent {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return s.apply(ctx, tx, e, r)
	})
	stop := running(t, f)
	if err := s.caughtUp(t, db, f); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log("went past it")
}

// vanish follows with a handler that never returns, and reports whether it came to
// that. Opening the place again then takes it away, as if the process had died.
func (s suite[T]) vanish(t *testing.T, db DB[T]) bool {
	t.Helper()
	opts := quietly()
	opts.Starts = 2
	entered := make(chan struct{}, 1)
	f := follower(t, db, db.Journal(), opts, func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
		if e.N == deadlyEvent {
			entered <- struct{}{}
			<-t.Context().Done()
			return errNo
		}
		return s.apply(ctx, tx, e, r)
	})
	ctx, cancel := context.WithCancel(patiently(t))
	defer cancel()
	done, passed := make(chan struct{}), make(chan error, 1)
	go func() { defer close(done); _ = f.Run(ctx) }() // its database is taken away
	go func() { passed <- s.caughtUp(t, db, f) }()
	select {
	case <-entered:
		return true
	case err := <-passed:
		cancel()
		<-done
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
}
