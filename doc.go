// Package freehold is the vocabulary that every other package of the toolkit
// shares: events and their types, streams and versions, positions and marks,
// tokens, and the transaction in which state, events and checkpoints commit
// together. It imports only the standard library.
//
// # Guarantees
//
// A [Tx] is one transaction of one service's own database. What a closure
// writes through it, the events it appends and the mark of the follower that
// runs it commit together or not at all (G1). Positions of a journal run
// 1, 2, 3 without holes (G2); a [Conflict] carries the stream's actual version
// (G3); a [Token] lets any reader wait for what a command did (G8).
//
// # Ordering
//
// Given two events A and B of one journal, A at a lower [Position] than B:
// no reader sees B before A. If A and B belong to one stream, A has the lower
// [Version]. If they were appended by one transaction, nothing stands between
// them. If the transaction of B read what the transaction of A wrote, A has the
// lower position. Between journals there is no order at all.
//
// # Failure
//
// A write ends in one of three ways: committed (nil), not committed (any other
// error), or unknown ([ErrUnknown]): the connection or the disk failed while the
// commit was under way. A caller that gets ErrUnknown must repeat the command
// under the same business key, never invent a second one.
package freehold
