// Package etcd is the replicated key-value engine: a service's values and its
// journal under one prefix of an etcd cluster, which agrees on every commit before
// it answers.
//
// # Guarantees
//
// What closures write, the events they append and the marks of followers are one
// etcd transaction: all of it, or nothing (G1). Every transaction of every process
// writes the journal's head and is accepted only if the head is still the one that
// it was computed from, so nothing that it has read can have changed: transactions
// are serialisable, and positions have no holes (G2). A commit is answered when a
// majority of the members has it on disk. What durability rests on is read back at
// the opening as far as members tell it (G11).
//
// # Ordering
//
// Each process has one writer, which runs queued closures one after the other and
// commits them together. Any number of processes may write; who loses the race for
// the head runs its closures again on the new one. So does whoever has taken a stream
// for new which is not: streams that are expected to be new are not asked for. Events
// carry the incarnation that the head names, which is that of the process that opened
// the journal last.
//
// # Failure
//
// No caller is answered before the outcome of the commit. If the connection is lost
// during one, the process's own key, which every commit writes, tells whether it was
// done; a new commit is not tried before that is known, and only if nobody can tell
// within ten seconds is the outcome freehold.ErrUnknown. Without a quorum writes wait
// and fail with what is missing. Near the quota of the servers writing stops with an
// error that says so, before the servers refuse everything.
//
// # Retention
//
// The members' room is bounded, so the journal of a service whose state is not its
// events should be: with Options.Retain (retain=168h in the URL) events are removed that
// are older and that no follower needs any more, see [DB.Cut]. Followers in other
// services count if they tell how far they are (inbox.Options.Consumer, or consumer= in
// the feed's query). One that has never told does not: before a new consumer is added,
// retain must reach back to the first event that it needs, or its first read fails with
// what it has lost, and nothing is delivered to it, unless an operator lets it begin
// behind that (freehold skip FOLLOWER SOURCE at the consumer). The place at which the
// journal begins keeps its chain value, so what is left can be verified; readers below
// it get freehold.ErrGone. DB.Size is the
// room in use. Members give removed keys back when they compact.
//
// # Keys
//
// Behind the prefix stands the kind of a key; numbers are 8 bytes, big-endian.
//
//	'j'                          the journal: format, source, epoch (JSON); format 2 from its
//	                             first fork or cut on
//	'h'                          its head: position, chain, incarnation, epoch, and first
//	                             place if it was cut (JSON), behind the digits of its format
//	                             from 2 on, so that older programs refuse to write
//	'i' number                   an incarnation (JSON), from 0
//	'l'                          who holds the lease
//	'w' incarnation              the last commit of the process that opened it
//	'e' position                 the events of a commit up to that position, each behind
//	                             its length as uvarint, as package pebble stores them
//	's' stream 0x00 version      positions of the events of a commit in a stream, up to that version
//	'm' follower 0x00 source     a mark; of the journal itself, also of consumers ("consumer:" name)
//	'k' space 0x00 key           what followers keep
//	'd' key                      the service's own values
package etcd
