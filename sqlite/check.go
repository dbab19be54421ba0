package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	lib "modernc.org/sqlite"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// SQLite's primary result codes that concern the disk.
const (
	codeIOErr   = 10
	codeCorrupt = 11
	codeFull    = 13
	codeNotADB  = 26
)

func code(err error) int {
	var e *lib.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// ofDisk reports whether what is in memory can no longer be trusted.
func ofDisk(err error) bool {
	c := code(err)
	return c == codeIOErr || c == codeFull || c == codeCorrupt
}

// hint says what to do about an error of the file.
func hint(err error) error {
	switch code(err) {
	case codeCorrupt, codeNotADB:
		return fmt.Errorf("%w: the file is damaged: restore it from a backup", err)
	case codeFull:
		return fmt.Errorf("%w: the disk is full: free some space and start again", err)
	case codeIOErr:
		return fmt.Errorf("%w: the disk does not read or write: look at the system's log", err)
	}
	return err
}

// smallFile is up to which size the structure of the whole file is checked when it
// is opened.
const smallFile = 256 << 20

// auditSettings reads the settings back that durability and insert-only tables rest
// on.
func (db *DB) auditSettings(ctx context.Context, relaxed bool) error {
	read := func(pragma string) (string, error) {
		var v string
		if err := db.writer.conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&v); err != nil {
			return "", fmt.Errorf("sqlite: %s: read %s back: %w", db.path, pragma, hint(err))
		}
		return v, nil
	}
	want := []struct{ pragma, value string }{{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"}, {"recursive_triggers", "1"}}
	for _, w := range want {
		got, err := read(w.pragma)
		if err != nil {
			return err
		}
		if got != w.value && !(relaxed && w.pragma == "synchronous") {
			return fmt.Errorf("sqlite: %s: %s is %s, want %s: the file system may not allow it: use a local disk, or Options.Relaxed", db.path, w.pragma, got, w.value)
		}
		db.audit = append(db.audit, fmt.Sprintf("%s=%s", w.pragma, got))
	}
	if relaxed {
		db.audit = append(db.audit, "relaxed: a power cut may lose the last transactions")
	} else {
		db.audit = append(db.audit, "every commit is synced before it is answered")
	}
	if info, err := os.Stat(db.path); err == nil && info.Size() > 0 && info.Size() <= smallFile {
		result, err := read("quick_check(1)")
		if err != nil {
			return err
		}
		if result != "ok" {
			return fmt.Errorf("sqlite: %s is damaged: %s: restore it from a backup", db.path, result)
		}
	}
	return nil
}

// prepareSchema creates the journal's tables in a new file, or checks that they
// are those of this journal and this program.
func (db *DB) prepareSchema(ctx context.Context) error {
	var tables int
	err := db.writer.conn.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE name = 'freehold_journal'`).Scan(&tables)
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	if tables == 0 {
		return db.inTx(ctx, func() error {
			if _, err := db.writer.conn.ExecContext(ctx, schema); err != nil {
				return err
			}
			_, err := db.writer.conn.ExecContext(ctx, `INSERT INTO freehold_journal (one, source, epoch, version, listed) VALUES (1, $1, $2, $3, 0)`,
				db.name, journal.NewEpoch(), schemaVersion)
			return err
		})
	}
	var source freehold.Source
	var version int
	if err := db.writer.conn.QueryRowContext(ctx, `SELECT source, version FROM freehold_journal`).Scan(&source, &version); err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	if source != db.name {
		return fmt.Errorf("sqlite: %s holds the journal of %q, not of %q: give another path", db.path, source, db.name)
	}
	if version > schemaVersion {
		return fmt.Errorf("sqlite: %s has schema %d, this program knows %d: update the program", db.path, version, schemaVersion)
	}
	return nil
}

// refuseDeferrable refuses constraints that are checked at commit: one closure's
// violation would fail its neighbours.
func (db *DB) refuseDeferrable(ctx context.Context) error {
	rows, err := db.writer.conn.QueryContext(ctx, `SELECT name, sql FROM sqlite_master WHERE sql LIKE '%DEFERRED%'`)
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		words := strings.Join(strings.Fields(strings.ToUpper(text)), " ")
		if strings.Contains(words, "INITIALLY DEFERRED") {
			return fmt.Errorf("sqlite: table %s has a DEFERRABLE INITIALLY DEFERRED constraint: it is checked at a commit that callers share: make it immediate", name)
		}
	}
	return rows.Err()
}

// migrate applies the service's migrations that have not been applied yet.
func (db *DB) migrate(ctx context.Context, migrations fs.FS) error {
	names, err := fs.Glob(migrations, "*.sql") // sorted
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(text)
		var applied []byte
		err = db.writer.conn.QueryRowContext(ctx, `SELECT digest FROM freehold_migration WHERE name = $1`, name).Scan(&applied)
		switch {
		case err == nil && string(applied) == string(digest[:]):
			continue
		case err == nil:
			return fmt.Errorf("sqlite: migration %s was applied to %s with another text: add a new migration instead of changing it", name, db.path)
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
		}
		err = db.inTx(ctx, func() error {
			if _, err := db.writer.conn.ExecContext(ctx, string(text)); err != nil {
				return err
			}
			_, err := db.writer.conn.ExecContext(ctx, `INSERT INTO freehold_migration (name, digest, time) VALUES ($1, $2, $3)`,
				name, digest[:], journal.Now().UnixMicro())
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

// inTx runs fn in a transaction of the writer's connection while the writer does
// not run.
func (db *DB) inTx(ctx context.Context, fn func() error) error {
	if _, err := db.writer.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	err := fn()
	if err == nil {
		_, err = db.writer.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = db.writer.conn.ExecContext(ctx, "ROLLBACK") // of no effect if the transaction is over
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	return nil
}
