package freehold

import (
	"fmt"
	"strings"
)

// StreamID names the events of one entity. The part before the first "-" is its
// category: "order-7f3a" is the stream of the order 7f3a.
type StreamID string

// Stream joins a category and an id: Stream("order", "7f3a") is "order-7f3a".
// The category must not contain a "-"; see [StreamID.Validate].
func Stream(category, id string) StreamID { return StreamID(category + "-" + id) }

// Category is the part before the first "-", or all of it where there is none.
func (s StreamID) Category() string {
	category, _, _ := strings.Cut(string(s), "-")
	return category
}

// ID is the part behind the first "-", or empty where there is none.
func (s StreamID) ID() string {
	_, id, _ := strings.Cut(string(s), "-")
	return id
}

// MaxStreamLen is the longest stream id that a journal accepts, in bytes.
const MaxStreamLen = 255

// Validate reports whether a journal accepts the id: 1 to [MaxStreamLen] bytes of
// printable ASCII without blanks, not starting with "-".
func (s StreamID) Validate() error {
	if s == "" || len(s) > MaxStreamLen || s[0] == '-' {
		return fmt.Errorf("freehold: stream id %.40q: want category-id of 1 to %d bytes", string(s), MaxStreamLen)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("freehold: stream id %.40q: byte %d is not printable ASCII", string(s), i)
		}
	}
	return nil
}

// Version is the place of an event in its stream, from 1. A stream without
// events has version 0.
type Version int64

// Expect states what a writer believes about a stream: a version from [At], or
// one of [NoStream], [Any] and [Exists].
type Expect int64

const (
	// NoStream expects that the stream has no events.
	NoStream Expect = 0
	// Any expects nothing.
	Any Expect = -1
	// Exists expects at least one event.
	Exists Expect = -2
)

// At expects exactly version v; At(0) is [NoStream].
func At(v Version) Expect { return Expect(v) }

// Met reports whether a stream at version actual is what e expects.
func (e Expect) Met(actual Version) bool {
	switch e {
	case Any:
		return true
	case Exists:
		return actual > 0
	default:
		return Version(e) == actual
	}
}

// String gives "no stream", "any", "exists" or "version n".
func (e Expect) String() string {
	switch e {
	case NoStream:
		return "no stream"
	case Any:
		return "any"
	case Exists:
		return "exists"
	default:
		return fmt.Sprintf("version %d", int64(e))
	}
}

// Conflict is the error of a write whose expectation did not hold. Nothing of
// the transaction was written. Match it with errors.As to *Conflict.
type Conflict struct {
	Stream   StreamID
	Expected Expect
	Actual   Version // the stream's committed version, 0 where it has no events
}

// Error tells what was expected and what was found.
func (c *Conflict) Error() string {
	return fmt.Sprintf("freehold: stream %s: expected %v, is at version %d: read it again and decide anew", c.Stream, c.Expected, c.Actual)
}

// Write is one stream's part of an atomic append. Without events it is a
// condition: the expectation is checked and nothing is written to the stream.
type Write struct {
	Stream StreamID
	Expect Expect
	Events []Event
}
