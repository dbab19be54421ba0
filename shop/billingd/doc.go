// Package billingd is the Billing service: configuration, HTTP, and the wiring of
// storage, followers and payment provider. [New] builds it, Run serves it.
//
// # Guarantees
//
// Every command answers with a token that every read accepts (G8). A command
// repeated under its idempotency key changes nothing and gets the same answer;
// with another body it is refused. Calls to the payment provider are recorded
// before they are made, and their outcome after.
//
// # Ordering
//
// The follower of the Order service applies its events in their order. Calls for
// different orders run beside each other, those for one order one after another.
//
// # Failure
//
// Bad input is answered with a problem (RFC 9457) that names the field. While the
// database is unusable, answers are 503 with Retry-After. A provider that does not
// answer delays its own orders only.
package billingd
