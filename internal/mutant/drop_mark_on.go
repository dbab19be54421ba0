//go:build mutant_drop_mark

package mutant

// DropMark reports a follower's mark on PostgreSQL as moved, and does not move it.
const DropMark = true
