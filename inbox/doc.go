// Package inbox is the receiving end between services: another service's journal
// as a source that a follower reads, by pulling its feed, or through a broker with
// the feed for what the broker lacks.
//
// # Guarantees
//
// A reader gets every event of the source once, in order, whatever the broker
// loses, doubles or reorders (G4, G5): positions and the chain show it, and the
// source's own feed repairs it. Memory is bounded.
//
// # Ordering
//
// That of the source's journal.
//
// # Failure
//
// An unreachable feed is an error that the follower retries for ever, and so is one
// that takes a question and says nothing for Options.Within. Only an
// answer of the feed says that the source went back in time
// (freehold.ErrDiverged) or has archived what is asked for (freehold.ErrGone).
package inbox
