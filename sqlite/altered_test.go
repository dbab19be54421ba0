package sqlite_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// TestVerifyNamesTheRowThatWasAltered: whoever owns the file can drop the triggers.
func TestVerifyNamesTheRowThatWasAltered(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]string{
		"payload":                    `payload = replace(payload, 'text', 'test')`,
		"from payload to nonce":      `nonce = CAST(nonce || CAST(substr(payload, 1, 1) AS BLOB) AS BLOB), payload = substr(payload, 2)`,
		"without payload":            `payload = ''`,
		"internal":                   `internal = 1`,
		"internal, without payload":  `internal = 1, payload = ''`,
		"nonce without its end":      `nonce = substr(nonce, 1, 15)`,
		"digest of another event":    `digest = (SELECT digest FROM freehold_event WHERE position = 2)`,
		"everything but the payload": `payload = (SELECT payload FROM freehold_event WHERE position = 2)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), "test", journaltest.Types(t), &sqlite.Options{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for i := range 5 {
				w := freehold.Write{Stream: "a-1", Expect: freehold.At(freehold.Version(i)), Events: []freehold.Event{journaltest.Happened{N: i, Text: "text"}}}
				if _, err := db.Append(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			_, err = db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `DROP TRIGGER freehold_event_no_update`)
				if err == nil {
					_, err = tx.ExecContext(ctx, `UPDATE freehold_event SET `+set+` WHERE position = 3`)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if at, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); !errors.Is(err, journal.ErrAltered) || at.Position != 2 {
				t.Errorf("verify: up to %d, %v, want ErrAltered behind 2", at.Position, err)
			}
		})
	}
}
