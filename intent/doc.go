// Package intent makes calls to the outside world. An intent is an event in the
// service's own journal, usually an internal one; the call is made after it has
// been committed and outside any transaction, and its outcome is recorded in one.
//
// # Guarantees
//
// Every intent is called until it has a definite outcome, and its outcome is
// recorded once, in one transaction with the caller's place. Each attempt carries
// the same key, derived from the event, so that the other side can recognise it:
// the process may die between the call and the record, and then the call is made
// again. Of the intents of one stream at most one is under way, and the next call
// is made after the outcome before it has been recorded; only an instance that has
// lost its lease and does not know yet may call beside the next one, under the same
// key. Nothing is written before a call: the intent in the journal is enough.
//
// # Ordering
//
// Intents of one stream are called in their order, those of different streams in
// any. Outcomes that are ready at the same time share a transaction.
//
// # Failure
//
// A call that returns an error or panics has an unknown outcome: it is repeated
// with growing pauses and a higher attempt number, so that it can ask first what
// became of the one before. A record that fails is repeated in the same way. Both
// hold up their own stream only, until as many intents are open as
// [Options].Open says; then the caller reads no further. A second caller of the
// same name on the same database makes the first end with freehold.ErrFenced.
package intent
