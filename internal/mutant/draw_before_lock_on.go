//go:build mutant_draw_before_lock

package mutant

// DrawBeforeLock draws the numbers of events on PostgreSQL when a transaction begins, before it locks its streams.
const DrawBeforeLock = true
