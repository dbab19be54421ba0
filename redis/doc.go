// Package redis keeps what can be built again in Redis: read models with the marks of
// their followers, and the second level of a cache. It never holds what a service
// owns: Redis may be asked to forget at any failover.
//
// # Guarantees
//
// What a closure writes, and the mark of its follower, is one script: all of it, or
// nothing (G1). The script is refused if anybody has committed since the closure's
// first read, and if the mark is not, to the byte, the one that the follower goes on
// from; so two instances never both apply an event. All reads of a View or of an
// Update are at one commit, whatever is written meanwhile, and so are the mark and the
// values. Each store's keys share one hash tag, so that it works in a cluster.
//
// A store that was emptied, failed over or restored to an older state heals from the
// journal, without a restart: within Options.Watch, or at the first read or write,
// its followers read their marks again and go on from there. Meanwhile a read with a
// token waits, or gets freehold.ErrBehind; it never shows less than its token asks
// for. A read without a token shows what is there.
//
// # Ordering
//
// Scans go by key, bytewise. Within a process the closures of a store run one after
// the other; between processes a commit that has lost a race runs its closure again.
//
// # Failure
//
// When the server cannot be reached, or refuses, the error is
// freehold.ErrUnavailable and the followers wait. A commit whose answer is lost is sent
// again, and is done once; where another commit may stand on it, or the server is
// gone, the error is freehold.ErrUnknown, and the mark tells. A View that reads for longer
// than Options.Keep ends with freehold.ErrBehind. A server that may drop single keys
// when its memory is full (any maxmemory-policy but noeviction) would leave a read
// model that only looks whole: it is refused, as is a replica (G11).
//
// The second level of a cache may be on any server: unreachable, emptied or evicting,
// it is a miss, never an error and never older than what the process has seen.
//
// # Keys
//
// A store named orders under the prefix shop has six keys, shop:{orders}:values and so
// on:
//
//	values   hash: field to 15 digits of the number of its commit, "+" or "-" for a
//	         deleted one, and the value
//	index    sorted set of the fields, for scans in key order
//	meta     hash: number (n) and random id of the newest commit, and the horizon
//	young    hash: what was replaced lately, by number and field, and each commit's
//	         predecessor, by number
//	old      the same, one generation back
//	dead     sorted set of the deleted fields, by the number of the commit
//
// A field is "m" follower 0x00 source for a mark, "k" space 0x00 key for what
// followers keep, and "d" key for values.
package redis
