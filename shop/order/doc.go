// Package order is the Order service's domain: the order, its commands, and the
// checkout. It knows no database and no transport.
//
// # Guarantees
//
// An order ends: shipped or returned, rejected, or cancelled. It is confirmed only
// if Inventory holds its goods and Billing its money, shipped only when the amount
// has been captured, and no more comes back than went out. The same command again
// changes nothing.
//
// # Ordering
//
// Answers of Inventory and Billing may come in any order, twice, or after the end:
// the order's own state decides what they still do.
//
// # Failure
//
// A command that the state does not allow is [ErrState], a field that is wrong a
// [FieldError]. A participant that does not answer by the order's deadline ends the
// checkout with order.rejected; what the other one holds it gives back by its own
// state when it sees that.
package order
