// Package projection builds read models: query data that a follower derives from
// journals, by version, with read-your-writes.
//
// # Namespaces
//
// Each version of a read model has a namespace of its own, such as "orders_v3",
// made of its name and version, so that a new version can be built beside the old
// one in the same database. It consists of letters, digits and underscores: in a
// key-value database it is a prefix of keys, kv.NewTable[Order](ns + "/"); in a
// relational one a prefix of table names, "CREATE TABLE orders_v3_line (...)",
// which migrations create and handlers write as ns + "_line".
//
// # Guarantees
//
// A read model holds exactly what its handlers make of the events up to its mark,
// which is stored with it in the transaction of the effects. A read that is given
// a token sees at least what the token names, on one snapshot, or is told that it
// could not (G8).
//
// # Ordering
//
// That of package follow: events of one source in their order, none between
// sources. A read that has seen an event's effect sees those of all earlier events
// of its source.
//
// # Failure
//
// A read whose token is not reached within [Options].Wait returns
// freehold.ErrBehind and runs nothing: the caller may try again, or read without
// the token and accept older data. If the event that the token names is parked the
// error is follow.ErrParked, and if the token is of a history that was given up it
// is freehold.ErrHistoryLost; waiting would not help. What a token asks of
// sources that the read model does not follow is not waited for. Handlers that
// fail are dealt with as package follow says.
package projection
