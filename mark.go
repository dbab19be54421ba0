package freehold

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Source is a journal's name as others see it: the service's name, or
// "service/shard". It consists of letters, digits, "/", "_" and ".".
type Source string

// Validate reports whether s can name a source.
func (s Source) Validate() error {
	if s == "" || len(s) > 64 {
		return fmt.Errorf("freehold: source %.40q: want 1 to 64 bytes", string(s))
	}
	for i := range len(s) {
		b := s[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		digit := b >= '0' && b <= '9'
		if !letter && !digit && b != '/' && b != '_' && b != '.' {
			return fmt.Errorf("freehold: source %.40q: byte %q: want letters, digits, dots, slashes and underscores", string(s), b)
		}
	}
	return nil
}

// Epoch identifies one history of a journal. It changes when the journal has gone
// back in time: a fork. A journal's first epoch is 16 hexadecimal digits; behind a
// fork it is other ones, a dot, and the number of the fork.
type Epoch string

// Forked reports whether the epoch began with a fork: what was numbered or handed out
// before may be unknown to the journal.
func (e Epoch) Forked() bool { return strings.IndexByte(string(e), '.') >= 0 }

// Position is the place of an event in its journal, from 1, without holes.
// Position 0 is the place before the first event.
type Position int64

// Hash is a SHA-256 value. Its text form is lower-case hexadecimal.
type Hash [sha256.Size]byte

// String gives the hash as hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the hash as hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("freehold: hash of %d digits, want %d", len(text), 2*len(h))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("freehold: hash: %w", err)
	}
	return nil
}

// Mark is a place in a source's history: everything up to Position, whose chain
// value is Chain. Equal position and chain means equal history. The zero mark of
// a source is the place before its first event.
type Mark struct {
	Source   Source   `json:"source"`
	Epoch    Epoch    `json:"epoch"`
	Position Position `json:"position"`
	Chain    Hash     `json:"chain"`
}

// String gives "order:9f86d081:42".
func (m Mark) String() string { return fmt.Sprintf("%s:%s:%d", m.Source, m.Epoch, m.Position) }
