// Package saga runs durable processes over several services: they begin with an
// event, wait for others, have deadlines, and compensate.
//
// # Guarantees
//
// A step's effects, the process's state and its deadlines commit together with the
// mark of the event that caused them (G6): duplicates, crashes and restarts
// change nothing. A deadline fires once, also if the service was down when it was
// due; and it fires only if the process still has it. Compensations run in
// reverse order, each once. An instance that began under an older definition is
// finished by that definition's routes ([Old]) or by the present ones
// ([Options].Migrate), never by chance.
//
// # Ordering
//
// Events of one source reach a process in that source's order; between sources,
// and between events and deadlines, there is none, and handlers tolerate any. An
// event for an instance that has not begun waits in its stash and is handled
// directly after the beginning, in the order of arrival. An event for one that has
// ended is counted and not acted on. At a start, deadlines that have passed wait
// until the process has seen what its sources hold, at most [CatchUp]: who has
// answered in time is not punished for the service's own absence.
//
// # Several instances
//
// One instance of a service runs a process at a time; the lease for that saves work,
// and no more is asked of it. One that was stopped, or has lost its connection, may
// commit the transaction it is in after another one has taken over. That one reads
// the stored deadlines again after its start, whenever it was fenced, and each
// minute, so that a deadline set there fires too: about a minute late at worst, or
// later where there are so many live instances that reading them takes over half a
// second.
//
// # What stays
//
// A live instance is one record, with its state and what waits for it. When it ends,
// a small one takes its place and stays for ever: when it ended, how many events
// came afterwards, and the last of them; about 25 bytes beside the id, 100 with a
// late event. By it a second beginning of the same id is known, and an event that
// comes late is not stashed. Nothing removes these records, so a database grows by
// one for each instance. An id that never began leaves nothing.
//
// # Failure
//
// A handler's error is dealt with as package follow says: the event is parked with
// every later one of its instance, and can be retried. A deadline whose handler
// fails is tried again with growing pauses; other deadlines do not wait for it. An
// event stashed for an instance that does not begin within [Options].Stash is
// dropped, with a warning in the log.
package saga
