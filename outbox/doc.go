// Package outbox is the sending end between services: the feed that serves a
// journal to whoever asks, and the relay that publishes it to a broker.
//
// # Guarantees
//
// Neither keeps anything of its own: the feed reads the journal, and the relay
// asks the broker what it last holds and goes on behind it. So nothing is lost
// when a request, a process or the broker dies between a commit and its
// publication (G5), and nothing beyond the durable head leaves the service.
//
// # Ordering
//
// Events leave in the order of their positions. The broker is asked to take an
// event only behind its predecessor, so a second relay cannot interleave.
//
// # Failure
//
// Any error stops the relay's pipeline; it reads the broker's tail again and goes
// on, for ever, with growing pauses. A tail that the journal does not hold means
// that the journal itself went back in time: the relay stops and says so.
package outbox
