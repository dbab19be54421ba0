//go:build mutant_fork_unseen

package mutant

// ForkUnseen records a fork whatever others have recorded since the caller looked.
const ForkUnseen = true
