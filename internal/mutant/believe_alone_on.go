//go:build mutant_believe_alone

package mutant

// BelieveAlone lets a commit that carries a pass believe that nobody else has committed anything.
const BelieveAlone = true
