//go:build !mutant_mark_outside_tx

package mutant

// MarkOutsideTx writes a follower's mark in a transaction of its own.
const MarkOutsideTx = false
