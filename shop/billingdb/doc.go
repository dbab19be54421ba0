// Package billingdb is the storage of the Billing service on a relational
// database: payments, documents and the ledger, on SQLite and PostgreSQL alike.
//
// # Guarantees
//
// Each handler changes the payment, the documents, the ledger and the journal in
// the one transaction that it is given. Invoices, credit notes, ledger entries and
// adjustments are rows that can only be inserted: the database refuses everything
// else. Document numbers are drawn in the transaction that issues the document and
// have no holes in their series. Each fact has a business key (order and step,
// order and return, id of the adjustment), so one that arrives again changes
// nothing.
//
// # Ordering
//
// None is needed between the sources; within one, events arrive in order. Ledger
// entries are numbered 1, 2, 3 in the order in which they were posted.
//
// # Failure
//
// An error rolls the transaction back as a whole. An event that contradicts the
// books, such as a capture above what was authorised, is an error each time, and
// is parked by the follower.
package billingdb
