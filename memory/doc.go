// Package memory is the reference engine: a key-value database and its journal in
// the memory of one process. It is what property tests compare the other engines
// with, and what tests of handlers use.
//
// # Guarantees
//
// Those of every engine, except that nothing outlives its [Disk].
//
// # Ordering
//
// One writer runs closures one after the other.
//
// # Failure
//
// A closure that fails, panics or exits leaves nothing.
package memory
