//go:build !mutant_drop_duplicate_check

package mutant

// DropDuplicateCheck applies an event that is at or below the mark again.
const DropDuplicateCheck = false
