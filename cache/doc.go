// Package cache is a read-through cache in the process, versioned by position: a
// journal tells it what has changed, and where.
//
// # Guarantees
//
// Every entry carries the place in the journal at which it was read, and an
// invalidation the place of the event that caused it, so the two can arrive in any
// order: a slow fill never hides a newer invalidation (G9). A read with a token gets
// an entry that surely reflects it, or reads anew. Staleness is bounded by the lag of
// the follower that feeds [Cache.Apply], and measured.
//
// # Ordering
//
// Invalidations are applied in journal order by one follower. A fill's place must be
// read in the same snapshot as its content, on the same node, and not after it; one
// that is older than it could be is safe.
//
// # Failure
//
// Until the follower runs, and where the cache cannot know whether a fill is newer
// than an invalidation that it has forgotten, fills are used and not kept. When the
// journal's epoch changes, or events were missed, everything is dropped. A load that
// fails is given to those who waited for it and not kept.
package cache
