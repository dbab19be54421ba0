package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
)

// TestAClosureWhoseFirstStatementFailsWritesNothing: the transaction begins with the first
// statement, so that what follows one that failed would be outside of any. (It fails
// before it is sent: a table is locked while it is prepared.)
func TestAClosureWhoseFirstStatementFailsWritesNothing(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	db := open(t, url+separator+"lock_timeout=50ms")
	conn := connect(t, url)
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`BEGIN`)
	exec(`LOCK TABLE freehold.stream IN ACCESS EXCLUSIVE MODE`)
	_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		if _, err := tx.Append(ctx, "a-1", freehold.NoStream, journaltest.Happened{N: 1}); err == nil {
			t.Error("a stream was locked although its table was")
		}
		exec(`ROLLBACK`)
		_, execErr := tx.ExecContext(ctx, `INSERT INTO state (key, value) VALUES ('k', 'v')`)
		_, appendErr := tx.Append(ctx, "b-1", freehold.NoStream, journaltest.Happened{N: 2})
		if execErr == nil || appendErr == nil {
			t.Errorf("statements behind one that failed: %v, %v", execErr, appendErr)
		}
		return nil // the errors are hidden
	})
	if err == nil {
		t.Error("the closure hides an error and is committed")
	}
	var rows, streams int
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM freehold.stream)`).Scan(&rows, &streams); err != nil {
		t.Fatal(err)
	}
	if rows != 0 || streams != 0 {
		t.Errorf("%d rows and %d streams were written", rows, streams)
	}
	if _, err := db.Append(t.Context(), happened("b-1", freehold.NoStream, 2)); err != nil {
		t.Error(err)
	}
}
