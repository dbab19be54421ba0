package sqlite

import (
	"strconv"
	"strings"
)

// positional writes the placeholders of a statement as question marks, if they are
// $1, $2 and so on, each once and in order: then both mean the same. To SQLite, $7 is
// a name, and it looks through all names before it each time a value is bound: that was
// half of what a statement of many rows took. Any other statement is returned as it is.
func positional(query string) string {
	var b strings.Builder
	rest := query
	for n := 1; ; n++ {
		at := nextParameter(rest)
		if at == len(rest) {
			if b.Len() == 0 {
				return query
			}
			b.WriteString(rest)
			return b.String()
		}
		name := "$" + strconv.Itoa(n)
		after, found := strings.CutPrefix(rest[at:], name)
		if !found || after != "" && (inWord(after[0]) || after[0] == '$' || after[0] == '(') {
			return query
		}
		b.WriteString(rest[:at])
		b.WriteByte('?')
		rest = after
	}
}

// nextParameter is where the next placeholder of a statement begins, or a second
// statement, which counts its own. Without any it is where the text ends.
func nextParameter(sql string) int {
	for i := 0; i < len(sql); i++ {
		switch c := sql[i]; {
		case c == '\'' || c == '"' || c == '`':
			i += 1 + length(sql[i+1:], string(c)) // a doubled quote begins the next string
		case c == '[':
			i += length(sql[i:], "]")
		case strings.HasPrefix(sql[i:], "--"):
			i += length(sql[i:], "\n")
		case strings.HasPrefix(sql[i:], "/*"):
			i += 2 + length(sql[i+2:], "*/") + 1
		case inWord(c):
			for i+1 < len(sql) && (inWord(sql[i+1]) || sql[i+1] == '$') {
				i++
			}
		case c == '?' || c == '$' || c == ':' || c == '@' || c == '#' || c == ';':
			return i
		}
	}
	return len(sql)
}

// length is how much of a text there is in front of its end.
func length(sql, end string) int {
	if n := strings.Index(sql, end); n >= 0 {
		return n
	}
	return len(sql)
}

// inWord reports whether names and numbers contain c.
func inWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}
