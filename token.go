package freehold

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Token says what a reader must have seen: for each source, an epoch and a
// position. The zero Token asks for nothing. Its text form, which is safe in
// headers and URLs, is "source:epoch:position" joined by commas.
type Token struct{ places []place }

type place struct {
	source   Source
	epoch    Epoch
	position Position
}

// NewToken returns the token that is satisfied at all the marks.
func NewToken(marks ...Mark) Token {
	var t Token
	for _, m := range marks {
		t = t.with(place{m.Source, m.Epoch, m.Position})
	}
	return t
}

// ParseToken reads the text form. The empty string is the zero Token.
func ParseToken(s string) (Token, error) {
	var t Token
	if s == "" {
		return t, nil
	}
	if len(s) > 4096 {
		return t, fmt.Errorf("freehold: token of %d bytes, want at most 4096", len(s))
	}
	for part := range strings.SplitSeq(s, ",") {
		f := strings.Split(part, ":")
		if len(f) != 3 || f[1] == "" {
			return Token{}, fmt.Errorf("freehold: token part %.60q: want source:epoch:position", part)
		}
		n, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || n < 0 {
			return Token{}, fmt.Errorf("freehold: token part %.60q: position is not a number from 0", part)
		}
		if err := Source(f[0]).Validate(); err != nil {
			return Token{}, err
		}
		t = t.with(place{Source(f[0]), Epoch(f[1]), Position(n)})
	}
	return t, nil
}

// String gives the text form, sources sorted.
func (t Token) String() string {
	var b strings.Builder
	for i, p := range t.places {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s:%d", p.source, p.epoch, p.position)
	}
	return b.String()
}

// Merge returns a token that asks for what t and all others ask for. Where two
// name one source and epoch, the higher position stands; where the epochs
// differ both stay, so that neither history is forgotten.
func (t Token) Merge(others ...Token) Token {
	for _, o := range others {
		for _, p := range o.places {
			t = t.with(p)
		}
	}
	return t
}

// Of returns what t asks of a source, as marks without a chain value: none, one,
// or one for each epoch.
func (t Token) Of(s Source) []Mark {
	var marks []Mark
	for _, p := range t.places {
		if p.source == s {
			marks = append(marks, Mark{Source: p.source, Epoch: p.epoch, Position: p.position})
		}
	}
	return marks
}

// Sources lists the sources that t names, sorted.
func (t Token) Sources() []Source {
	var sources []Source
	for _, p := range t.places {
		if len(sources) == 0 || sources[len(sources)-1] != p.source {
			sources = append(sources, p.source)
		}
	}
	return sources
}

func (t Token) with(p place) Token {
	places := slices.Clone(t.places)
	i, found := slices.BinarySearchFunc(places, p, func(a, b place) int {
		if c := strings.Compare(string(a.source), string(b.source)); c != 0 {
			return c
		}
		return strings.Compare(string(a.epoch), string(b.epoch))
	})
	if found {
		places[i].position = max(places[i].position, p.position)
	} else {
		places = slices.Insert(places, i, p)
	}
	return Token{places}
}
