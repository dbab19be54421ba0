//go:build mutant_lane_skips_by_floor

package mutant

// LaneSkipsByFloor lets a lane apply what stands above the floor, whatever its own mark.
const LaneSkipsByFloor = true
