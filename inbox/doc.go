// Package inbox is the receiving end between services: another service's journal
// as a source that a follower reads, by pulling its feed, or through a broker with
// the feed for what the broker lacks.
//
// # Guarantees
//
// A reader gets every event of the source once, in order, whatever the broker
// loses, doubles or reorders (G4, G5): positions and the chain show it, and the
// source's own feed repairs it. What is not as its digest says is not read; of an
// internal event there is only the digest. Memory is bounded by a number of events
// (Options.Window, half as many again at times, and the page a follower asks for), not
// of bytes: with events of a megabyte each, the window takes a gigabyte and more.
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
