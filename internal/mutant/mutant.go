// Package mutant plants bugs. Each constant is false unless the program is built
// with the tag of its name in snake case behind "mutant_" (mutant_skip_row), so
// that the compiler removes it; with the tag a named suite must turn red. See
// CONTRIBUTING.md for the table of tags and suites.
package mutant
