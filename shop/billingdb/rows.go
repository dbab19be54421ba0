package billingdb

import (
	"context"
	"fmt"
	"strings"

	"github.com/freehold-go/freehold/sqldb"
)

// statement stores rows: any number at once if the engine takes sets, in chunks if not.
type statement struct {
	types  []string       // of the columns
	set    string         // the text, for a slice for each column
	chunks map[int]string // the text, for a value for each column of so many rows
}

// chunks are how many rows a statement with a placeholder for each value may have: few
// different statements, so that each is prepared once. Larger ones gain nothing (docs/adr
// 16).
var chunks = [...]int{12, 4, 1}

// newStatement makes a statement of its text around the rows, a table whose columns are
// column1 and so on, as both databases name those of VALUES.
func newStatement(text func(rows string) string, types ...string) *statement {
	s := &statement{types: types, chunks: map[int]string{}}
	slices, names := make([]string, len(types)), make([]string, len(types))
	for c, t := range types {
		slices[c], names[c] = fmt.Sprintf("CAST($%d AS %s[])", c+1, t), fmt.Sprintf("column%d", c+1)
	}
	s.set = text("SELECT * FROM unnest(" + strings.Join(slices, ", ") + ") AS u (" + strings.Join(names, ", ") + ")")
	for _, n := range chunks {
		s.chunks[n] = text("VALUES " + values(n, types))
	}
	return s
}

// values is the text of n rows of placeholders, of which the first says what types the
// columns have.
func values(n int, types []string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(",\n\t")
		}
		for c, t := range types {
			if c == 0 {
				b.WriteByte('(')
			} else {
				b.WriteString(", ")
			}
			if i == 0 {
				fmt.Fprintf(&b, "CAST($%d AS %s)", c+1, t)
			} else {
				fmt.Fprintf(&b, "$%d", i*len(types)+c+1)
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}

// store runs a statement for all; row appends the values of one. done is told of each
// part of them, and how many rows the database has stored of it.
func store[E any](ctx context.Context, tx sqldb.Tx, s *statement, all []E, row func(args []any, one E) []any, done func(part []E, stored int64) error) error {
	if len(all) == 0 {
		return nil
	}
	args := make([]any, 0, len(all)*len(s.types))
	for _, one := range all {
		args = row(args, one)
	}
	run := func(part []E, text string, args []any) error {
		result, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		stored, err := result.RowsAffected()
		if err != nil {
			return err
		}
		return done(part, stored)
	}
	if sqldb.Sets(tx) {
		return run(all, s.set, columns(args, s.types))
	}
	for _, size := range chunks {
		for ; len(all) >= size; all, args = all[size:], args[size*len(s.types):] {
			if err := run(all[:size], s.chunks[size], args[:size*len(s.types)]); err != nil {
				return err
			}
		}
	}
	return nil
}

// columns turns the values of rows into a slice for each column.
func columns(args []any, types []string) []any {
	all := make([]any, len(types))
	for c, t := range types {
		switch t {
		case "TEXT":
			all[c] = column[string](args, c, len(types))
		case "BOOLEAN":
			all[c] = column[bool](args, c, len(types))
		default:
			all[c] = column[int64](args, c, len(types))
		}
	}
	return all
}

func column[V any](args []any, c, width int) []V {
	all := make([]V, 0, len(args)/width)
	for ; c < len(args); c += width {
		all = append(all, args[c].(V))
	}
	return all
}

// stored is for rows that nobody else can have stored.
func stored[E any]([]E, int64) error { return nil }
