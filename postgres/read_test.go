package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
)

// TestReadFindsEventsWhereverTheirNumbersAre reads what drew its numbers in a row, what
// drew them far apart, and says which event somebody has deleted.
func TestReadFindsEventsWhereverTheirNumbersAre(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := open(t, url)
	conn := connect(t, url)
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	write := func(n ...int) {
		t.Helper()
		if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n...)); err != nil {
			t.Fatal(err)
		}
	}
	read := func() ([]freehold.Recorded, error) {
		db.Journal().Forget() // read the store, not the memory of the newest
		return db.Journal().Read(t.Context(), freehold.Mark{Source: db.Journal().Name()}, 100)
	}
	write(1, 2, 3)
	write(4)
	for _, drawn := range []string{"1000", "1000000"} {
		exec("SELECT setval('freehold.event_seq_seq', " + drawn + ")")
		write(5, 6)
	}
	events, err := read()
	if err != nil || len(events) != 8 {
		t.Fatalf("%d events of 8, %v", len(events), err)
	}
	for i, r := range events {
		if r.At.Position != freehold.Position(i+1) || r.Version != freehold.Version(i+1) {
			t.Errorf("at %d stands position %d, version %d", i+1, r.At.Position, r.Version)
		}
	}
	exec("ALTER TABLE freehold.event DISABLE TRIGGER ALL")
	exec("DELETE FROM freehold.event WHERE version = 5")
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "position 5 is that of event 1001, which is not there") {
		t.Errorf("one event was deleted: %v", err)
	}
}

// TestVerifyFindsThatTheHeadIsAnotherOne: the next event would continue a chain that
// nobody else has.
func TestVerifyFindsThatTheHeadIsAnotherOne(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := open(t, url)
	if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, url).Exec(t.Context(), `UPDATE freehold.tick SET chain = set_byte(chain, 7, get_byte(chain, 7) # 1) WHERE position = 3`); err != nil {
		t.Fatal(err)
	}
	db = open(t, url)
	defer db.Close()
	if at, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); !errors.Is(err, journal.ErrAltered) || at.Position != 2 {
		t.Errorf("verify: up to %d, %v, want ErrAltered behind 2", at.Position, err)
	}
}
