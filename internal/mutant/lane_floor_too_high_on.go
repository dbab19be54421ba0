//go:build mutant_lane_floor_too_high

package mutant

// LaneFloorTooHigh stores the end of a batch as the floor before all lanes have applied it.
const LaneFloorTooHigh = true
