package billingdb

import (
	"database/sql"
	"fmt"
	"strings"
)

// rows returns a function that makes the text of a statement for a number of rows,
// once for each of the sizes of chunks.
func rows(text func(n int) string) func(n int) string {
	texts := map[int]string{}
	for _, n := range chunks {
		texts[n] = text(n)
	}
	return func(n int) string { return texts[n] }
}

// values is the text of n rows of placeholders, of which the first may say what
// types the columns have.
func values(n, columns int, types ...string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(",\n\t")
		}
		for c := range columns {
			switch {
			case c == 0:
				b.WriteByte('(')
			default:
				b.WriteString(", ")
			}
			if i == 0 && len(types) > 0 {
				fmt.Fprintf(&b, "CAST($%d AS %s)", c+1, types[c])
			} else {
				fmt.Fprintf(&b, "$%d", i*columns+c+1)
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}

func affected(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, fmt.Errorf("billingdb: store payments: %w", err)
	}
	return result.RowsAffected()
}
