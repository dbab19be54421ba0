// Package postgres is the distributed relational engine: a service's tables and its
// journal in one PostgreSQL database, of version 14 or later.
//
// # Guarantees
//
// State, events and marks commit in one transaction (G1). Writers do not wait for
// each other unless they write, or have conditions on, the same streams. Positions
// have no holes and agree with what transactions have read (G2), whatever
// transactions are slow, rolled back or killed. The settings that durability rests
// on are read back when the database is opened (G11). A program with a pool and
// transactions of its own keeps them ([Attach], [DB.Join]).
//
// # Ordering
//
// Events are inserted at the end of their transaction, when it holds the locks of
// all its streams and has read what it will read. One sequencer at a time gives
// positions to what has become visible between two snapshots: an idea of PgQ
// (2007), see docs/adr. Any instance may be the sequencer; passes are fenced by a
// primary key, so that two at once do no harm. A commit of the instance that is makes
// such a pass itself, in its own transaction, if no other one is being made (docs/adr
// 18): its caller waits for one sync of the disk.
//
// Statements are planned to find rows by an index (plan.go, docs/adr 17). A report that
// joins whole tables names what it wants: SET LOCAL enable_hashjoin = on, or the same as
// a parameter of the URL.
//
// # Failure
//
// A closure runs again if PostgreSQL ends its transaction for a deadlock or a lost
// race, or if the pass that its commit carried fails. If the connection is lost during
// a commit, the transaction's id is looked up on another one; only if nobody can tell
// within a few seconds is the outcome freehold.ErrUnknown. A sequencer that is lost is
// replaced by another instance's within about a second. Instances tell each other of
// commits by NOTIFY; if one dies before it has told, its last events have their
// positions half a second later.
package postgres
