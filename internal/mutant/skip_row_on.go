//go:build mutant_skip_row

package mutant

// SkipRow leaves out the second event of a page.
const SkipRow = true
