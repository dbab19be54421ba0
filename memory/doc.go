// Package memory is the reference engine: a key-value database and its journal in
// the memory of one process. It is what the other engines are compared with, and
// what tests of handlers use.
//
// # Guarantees
//
// Those of every engine, except that nothing outlives its [Disk]. Restarts, kills
// and backups are the Disk's: opened again it holds what was committed, opened
// while it is open it is taken from its owner, and a clone is a backup.
//
// # Ordering
//
// One writer runs closures one after the other, each with a commit of its own.
//
// # Failure
//
// A closure that fails, panics or exits leaves nothing. A database that was closed
// or whose disk was taken answers everything with freehold.ErrClosed.
package memory
