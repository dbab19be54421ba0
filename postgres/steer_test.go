package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/sqldb"
)

// TestAClosureCannotSteerItsTransaction: a statement that would end the transaction, and
// leave half of it behind whatever the closure returns, is refused wherever it stands.
func TestAClosureCannotSteerItsTransaction(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Postgres(t))
	failed := errors.New("the closure has failed")
	for _, statement := range []string{"COMMIT", "-- now\nCOMMIT", "/* now */ COMMIT", "SELECT 1; COMMIT", "SELECT 1; /* ; */ END", "/* a /* b */ */ ROLLBACK", "SELECT ''; SET synchronous_commit = off"} {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, statement); err == nil || !strings.Contains(err.Error(), "inside a closure") {
				t.Errorf("%q: %v, want a refusal", statement, err)
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Errorf("%q: %v", statement, err)
		}
	}
	_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		for _, statement := range []string{"SELECT 'first; COMMIT'", "-- COMMIT\nSELECT 1", "DO $$ BEGIN PERFORM 1; END $$"} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
