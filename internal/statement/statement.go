// Package statement reads of SQL what engines must know: with which word each statement
// of a query begins, whatever strings and comments hold.
package statement

import (
	"strings"
	"unicode/utf8"
)

// Dialect is what engines do not have in common.
type Dialect struct {
	Nested  bool   // comments nest
	Dollars bool   // $tag$ quotes, and E'' has backslashes
	Quotes  string // what else quotes a name: a backtick, a square bracket
	Space   string // what else is a blank
}

// The dialects.
var (
	SQLite     = Dialect{Quotes: "`[", Space: "\ufeff"}
	PostgreSQL = Dialect{Nested: true, Dollars: true}
)

// Words returns the first word of each statement of a query, in upper case. The body of a
// trigger, or of a function that begins with BEGIN ATOMIC, is part of its statement.
func (d Dialect) Words(query string) (all []string) {
	s := scanner{Dialect: d, query: query}
	var first, before string // words of the statement: its first, and the last one
	begins, body := true, false
	for {
		word, end, ok := s.next()
		switch {
		case !ok:
			return all
		case end:
			begins = true
			if !body {
				first, before = "", ""
			}
		case body:
			body = !begins || word != "END"
			begins = false
		case begins:
			begins = false
			if first, before = word, word; word != "" {
				all = append(all, word)
			}
		case first == "CREATE" && (word == "TRIGGER" && (before == "CREATE" || before == "TEMP" || before == "TEMPORARY") && !d.Dollars || word == "ATOMIC" && before == "BEGIN" && d.Dollars):
			body = true
		default:
			before = word
		}
	}
}

type scanner struct {
	Dialect
	query string
	at    int
}

// next returns the next token: a word in upper case, the end of a statement, or
// something else, which has no word.
func (s *scanner) next() (word string, end, ok bool) {
	for s.at < len(s.query) {
		rest := s.query[s.at:]
		c := rest[0]
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case c <= ' ' || strings.ContainsRune(s.Space, r) && r != utf8.RuneError:
			s.at += size
			continue
		case strings.HasPrefix(rest, "--"):
			s.skip(rest, 2, "\n")
			continue
		case strings.HasPrefix(rest, "/*"):
			s.comment()
			continue
		case c == ';':
			s.at++
			return "", true, true
		case c == '\'' || c == '"' || strings.IndexByte(s.Quotes, c) >= 0:
			s.quoted(false)
			return "", false, true
		case c == '$' && s.Dollars:
			s.dollars()
			return "", false, true
		case letter(c):
			n := 1
			for n < len(rest) && (letter(rest[n]) || rest[n] >= '0' && rest[n] <= '9' || rest[n] == '$') {
				n++
			}
			s.at += n
			word = strings.ToUpper(rest[:n])
			if s.Dollars && word == "E" && s.at < len(s.query) && s.query[s.at] == '\'' {
				s.quoted(true)
				return "", false, true
			}
			return word, false, true
		default:
			s.at++
			for s.at < len(s.query) && c >= '0' && c <= '9' && (letter(s.query[s.at]) || s.query[s.at] >= '0' && s.query[s.at] <= '9') {
				s.at++ // of a number
			}
			return "", false, true
		}
	}
	return "", false, false
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

// skip goes behind the next mark, or to the end.
func (s *scanner) skip(rest string, from int, mark string) {
	if i := strings.Index(rest[from:], mark); i >= 0 {
		s.at += from + i + len(mark)
		return
	}
	s.at = len(s.query)
}

func (s *scanner) comment() {
	for depth := 0; s.at < len(s.query); {
		switch rest := s.query[s.at:]; {
		case strings.HasPrefix(rest, "/*") && (depth == 0 || s.Nested):
			depth++
			s.at += 2
		case strings.HasPrefix(rest, "*/"):
			s.at += 2
			if depth--; depth == 0 {
				return
			}
		default:
			s.at++
		}
	}
}

// quoted goes behind a string or a quoted name. Two quotes in a row are two of them,
// which makes no difference here.
func (s *scanner) quoted(backslashes bool) {
	quote := s.query[s.at]
	if quote == '[' {
		quote = ']'
	}
	for s.at++; s.at < len(s.query); s.at++ {
		switch c := s.query[s.at]; {
		case c == '\\' && backslashes:
			s.at++
		case c == quote && backslashes && s.at+1 < len(s.query) && s.query[s.at+1] == quote:
			s.at++ // the string goes on, and so do its backslashes
		case c == quote:
			s.at++
			return
		}
	}
	s.at = len(s.query)
}

// dollars goes behind a string in dollar quotes, or behind a lone dollar.
func (s *scanner) dollars() {
	rest := s.query[s.at:]
	n := 1
	for n < len(rest) && (letter(rest[n]) || n > 1 && rest[n] >= '0' && rest[n] <= '9') {
		n++
	}
	if n < len(rest) && rest[n] == '$' {
		s.skip(rest, n+1, rest[:n+1])
		return
	}
	s.at++
}
