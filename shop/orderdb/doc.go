// Package orderdb is the Order service's storage: the event-sourced write side in
// its journal, and the read models of orders and of what was sold, in a key-value
// database.
//
// # Guarantees
//
// An order is placed once under its id, and a command repeated under its key
// changes nothing. A read model is what its routes make of the journals up to its
// marks, which commit with it; it can be thrown away and is built again. Amounts
// are exact.
//
// # Ordering
//
// Orders of one [Placement] stand in the journal in the order given. The read model
// of orders follows Order's journal alone; that of sales adds up what three
// journals say, in any order between them.
//
// # Failure
//
// A key used for another command is order.ErrOtherBody. A sum that would overflow
// is an error, and its event is parked.
package orderdb
