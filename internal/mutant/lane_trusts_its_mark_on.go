//go:build mutant_lane_trusts_its_mark

package mutant

// LaneTrustsItsMark lets a lane skip what its mark covers, whether or not the source still
// has the history that led there.
const LaneTrustsItsMark = true
