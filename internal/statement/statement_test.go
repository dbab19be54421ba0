package statement_test

import (
	"strings"
	"testing"

	"github.com/freehold-go/freehold/internal/statement"
)

func TestWordsWithWhichStatementsBegin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query, sqlite, postgres string // "" where it is no query of that dialect
	}{
		{"", "-", "-"},
		{"commit", "COMMIT", "COMMIT"},
		{" select 1;;\n\tcommit ;", "SELECT COMMIT", "SELECT COMMIT"},
		{"-- name: Place :exec\nINSERT INTO a VALUES ('x; commit')", "INSERT", "INSERT"},
		{"/* ; */ COMMIT /* ; SELECT */", "COMMIT", "COMMIT"},
		{"SELECT 1; /* ; */ COMMIT", "SELECT COMMIT", "SELECT COMMIT"},
		{"/* a /* b */ COMMIT", "COMMIT", "-"},
		{"/* a /* b */ */ COMMIT", "", "COMMIT"},
		{"\ufeffCOMMIT", "COMMIT", ""},
		{"SELECT 'it''s; end', \"a;\"\"end\" FROM a", "SELECT", "SELECT"},
		{"SELECT `a; end`, [b; end] FROM a", "SELECT", ""},
		{"SELECT a[1]; COMMIT", "", "SELECT COMMIT"},
		{"SELECT $1, 2e5; END", "SELECT END", "SELECT END"},
		{"DO $$ BEGIN COMMIT; END $$; SELECT 1", "", "DO SELECT"},
		{"DO $a1$ ; $$ ; $a1$; COMMIT", "", "DO COMMIT"},
		{`SELECT E'\'; commit', e'a''\'; end', 'b\'; COMMIT`, "", "SELECT COMMIT"},
		{`SELECT 'b\'; COMMIT`, "SELECT COMMIT", "SELECT COMMIT"},
		{"(SELECT 1); END", "END", "END"},
		{"CREATE TABLE trigger_end (a TEXT); END", "CREATE END", "CREATE END"},
		{"CREATE TEMP TRIGGER a DELETE ON b BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM c; /* x */ END; COMMIT", "CREATE COMMIT", ""},
		{"CREATE TRIGGER a AFTER DELETE ON b EXECUTE FUNCTION f(); COMMIT", "", "CREATE COMMIT"},
		{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; COMMIT", "", "CREATE COMMIT"},
		{"SELECT 'open; COMMIT", "SELECT", "SELECT"},
	} {
		for name, d := range map[string]struct {
			words statement.Dialect
			want  string
		}{"SQLite": {statement.SQLite, c.sqlite}, "PostgreSQL": {statement.PostgreSQL, c.postgres}} {
			if got := strings.Join(d.words.Words(c.query), " "); d.want != "" && got != strings.Trim(d.want, "-") {
				t.Errorf("%s: %q begins with %q, want %q", name, c.query, got, d.want)
			}
		}
	}
}
