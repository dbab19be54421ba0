package sqlite

import "testing"

func TestPlaceholdersInOrderAreQuestionMarks(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		`INSERT INTO t VALUES ($1, $2), ($3, $4)`: `INSERT INTO t VALUES (?, ?), (?, ?)`,
		`SELECT $1`:                           `SELECT ?`,
		`SELECT 1`:                            `SELECT 1`,
		``:                                    ``,
		`SELECT a$1, '$1', "$1", [$1] = $1`:   `SELECT a$1, '$1', "$1", [$1] = ?`,
		`SELECT 'it''s $1', $1`:               `SELECT 'it''s $1', ?`,
		"SELECT $1 -- and $2\n, /* $3; */ $2": "SELECT ? -- and $2\n, /* $3; */ ?",
		`SELECT 7$1`:                          `SELECT 7$1`,
		`SELECT é$1, $1`:                      `SELECT é$1, ?`,
	} {
		if got := positional(query); got != want {
			t.Errorf("%q becomes %q, want %q", query, got, want)
		}
	}
}

func TestOtherPlaceholdersStay(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		`SELECT $1, $1`, `SELECT $2, $1`, `SELECT $1, $3`, `SELECT $01`, `SELECT $0`, `SELECT $1a`, `SELECT $1é`, `SELECT $1, ?`, `SELECT ?1, $2`,
		`SELECT $1, :a`, `SELECT @a, $1`, `SELECT $a`, `SELECT $1; SELECT $2`, `SELECT $1;`, `SELECT '$1`, `SELECT "$1`, `SELECT [$1`, `SELECT /* $1`, `SELECT -- $1`,
		`SELECT $1::a`, `SELECT $1(a)`, `SELECT $1$2`,
	} {
		if got := positional(query); got != query {
			t.Errorf("%q becomes %q", query, got)
		}
	}
}
