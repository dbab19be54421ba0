// Package journal is the append-only log in a service's own database: encoding,
// digests and the chain, reading in order, and verification, over a [Store] that
// each engine implements. It also holds what the engines with one writer share:
// the [Tail], which gives out positions and versions.
//
// # Guarantees
//
// Positions run 1, 2, 3 without holes (G2), each event's chain value covers
// everything before it (G12), and a reader never sees an event that a power cut
// could take back: the head is the durable head.
//
// # Ordering
//
// Pages end at a transaction boundary: the last event of a page that
// [Journal.Read] returns has Last set.
//
// # Failure
//
// Read errors are returned as the engine gave them, wrapped with the position.
// [Journal.Verify] names the first event whose bytes, chain value or place in its
// stream is not what it was when it was written. It finds any change by someone
// who cannot also rewrite the marks of the journal's consumers.
package journal
