//go:build mutant_take_before_asked

package mutant

// TakeBeforeAsked takes commands before those who follow the journal were asked where they stand.
const TakeBeforeAsked = true
