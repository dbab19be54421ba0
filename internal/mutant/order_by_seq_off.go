//go:build !mutant_order_by_seq

package mutant

// OrderBySeq gives positions on PostgreSQL in the order of the numbers that events drew, and of nothing else.
const OrderBySeq = false
