// Package follow is the follower engine: it reads one or more sources in order and
// keeps its place where its effects are. Relays, inboxes, projections, sagas,
// calls to the outside world and cache invalidation are all followers.
//
// # Guarantees
//
// A follower made by [New] applies each event of its sources exactly once within
// an epoch (G4): the mark moves by compare-and-set in the transaction of the
// effects, so a crash, a duplicate or a second instance changes nothing. There
// is no time window, and the state does not grow with history. Behind events that no
// handler wants the mark moves with the next one that is wanted, or within 100 ms. An event that
// keeps failing is parked together with every later event of its key, in order,
// while other keys go on (G7); an event that kills the process is parked too.
//
// # Ordering
//
// Given two events of one source, A before B: A's handler has returned before
// B's is called, and if A's effects are visible to a transaction that sees B's,
// they were committed no later. Between two sources of one follower there is no
// order; handlers tolerate any. Batches of several sources that wait for a
// transaction at the same time share one. Parked events of a key are applied in their
// order before any later event of the key. With Options.Lanes all of this holds among
// the events of a key; between keys there is no order then, and a token waits until
// every lane has applied what it names.
//
// # Failure
//
// A handler's error rolls the whole batch back, and those of other sources that share
// its transaction, which then run alone; its events are tried again one by one, and
// only the failing one is tried repeatedly, with growing pauses, and then parked. Errors of the database or the source are no fault of the event:
// the follower waits and starts again from its stored mark. A source whose
// history is not the one that led to the mark is stopped with
// freehold.ErrDiverged while the follower's other sources go on; see
// [Follower.Adopt]. One that has cut events which the follower has not applied is
// stopped with freehold.ErrGone; see [Follower.Skip]. A follower of [Observe] begins
// again at the head then.
package follow
