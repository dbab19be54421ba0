//go:build !mutant_snapshot_in_memory

package mutant

// SnapshotInMemory keeps the snapshot of a pass in the sequencer's memory, whatever becomes of the pass.
const SnapshotInMemory = false
