//go:build mutant_drop_conflict_check

package mutant

// DropConflictCheck appends whatever the expected version.
const DropConflictCheck = true
