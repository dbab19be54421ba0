//go:build mutant_answer_before_commit

package mutant

// AnswerBeforeCommit answers a caller's error before the outcome of the group's commit is known.
const AnswerBeforeCommit = true
