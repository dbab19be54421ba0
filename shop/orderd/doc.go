// Package orderd is the Order service: configuration, HTTP, and the wiring of
// journal, checkout and read models. [New] builds it, Run serves it.
//
// # Guarantees
//
// Every command answers with a token that every read accepts (G8). A command
// repeated under its idempotency key changes nothing and gets the same id; with
// another body it is refused. The orders of a batch are placed in its order.
//
// # Ordering
//
// The checkout, the read model of orders and that of sales follow their journals
// each at its own pace; a token says how far a read must have come.
//
// # Failure
//
// Bad input is answered with a problem (RFC 9457) that names the field, and
// nothing of it is kept. While the database is unusable, or a read is behind its
// token, the answer is 503 with Retry-After. Other services may be away: orders are
// taken, and wait for them up to their deadline.
package orderd
