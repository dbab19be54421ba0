//go:build mutant_overtake_drain

package mutant

// OvertakeDrain lets a commit on PostgreSQL give its events positions before those of others that were committed earlier and did not fit into its pass.
const OvertakeDrain = true
