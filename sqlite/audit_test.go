package sqlite_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqlite"
)

// TestADriverThatDoesNotSyncEveryCommitIsRefused opens files with settings under
// which a commit that was answered may be gone after a power cut, or under which
// what the schema forbids happens: what is read back decides, not what was asked.
func TestADriverThatDoesNotSyncEveryCommitIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pragma, want string }{
		{"synchronous(NORMAL)", "synchronous is 1, want 2"},
		{"synchronous(OFF)", "synchronous is 0, want 2"},
		{"journal_mode(DELETE)", "journal_mode is delete, want wal"},
		{"foreign_keys(0)", "foreign_keys is 0, want 1"},
		{"recursive_triggers(0)", "recursive_triggers is 0, want 1"},
	} {
		opts := &sqlite.Options{Log: slog.New(slog.DiscardHandler)}
		opts.Override(c.pragma)
		db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), "test", journaltest.Types(t), opts)
		if err == nil {
			t.Errorf("%s: opened", c.pragma)
			_ = db.Close()
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: refused with %q, want one line with %q", c.pragma, err, c.want)
		}
	}
}

// TestAuditStatesWhatWasReadBack: weaker settings are taken only when asked for, and
// said.
func TestAuditStatesWhatWasReadBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		opts sqlite.Options
		want []string
	}{
		{sqlite.Options{}, []string{"synchronous=2", "journal_mode=wal", "every commit is synced before it is answered"}},
		{sqlite.Options{Relaxed: true}, []string{"synchronous=0", "relaxed"}},
	} {
		db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), "test", journaltest.Types(t), &c.opts)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(db.Audit(), "; ")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("audit says %q, want %q", got, want)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
