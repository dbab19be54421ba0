// Package billing is the domain of the Billing service: what a payment is and how
// it moves, what is posted to the ledger, which documents are issued, and how a
// payment provider is called. It is pure: it touches no database and no network
// itself.
//
// # Guarantees
//
// A payment has at most one call to the provider in flight, and the next one is
// asked for only behind a definite answer. Whatever the order in which events and
// answers arrive, and however often, an order is charged once or not at all: what
// was authorised is captured or voided, what was captured of a cancelled order is
// refunded. Every capture has one invoice; a credit note exists only for an
// invoice, or for a return without an order. A ledger entry is both of its sides
// in one value, so the ledger cannot be out of balance.
//
// # Ordering
//
// None is asked of the callers: [Payment] collects facts, and what to do next is a
// function of the facts, not of the order in which they came.
//
// # Failure
//
// A provider that refuses is an outcome. One that does not answer is
// [ErrUnknown]: the operation may or may not have happened. It is resolved by
// asking with the same key, never by another operation; see [Perform].
package billing
