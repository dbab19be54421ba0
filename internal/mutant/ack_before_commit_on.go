//go:build mutant_ack_before_commit

package mutant

// AckBeforeCommit answers success before the commit is durable.
const AckBeforeCommit = true
