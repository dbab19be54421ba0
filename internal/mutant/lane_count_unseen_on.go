//go:build mutant_lane_count_unseen

package mutant

// LaneCountUnseen lets who changes the number of lanes, or stores their floor, not look whether somebody else has changed the number.
const LaneCountUnseen = true
