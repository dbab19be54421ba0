// Package retail reads the Online Retail file (UCI Machine Learning Repository,
// https://doi.org/10.24432/C5BW33), sends it through a running shop's public
// interfaces, and compares the shop's own books with the file's truth table.
//
// # Guarantees
//
// Every line of the file is either sent, or counted and written to the rejects
// with its number and reason. Everything is sent under a key made of the invoice
// number, so a replay that is interrupted and run again doubles nothing.
//
// # Ordering
//
// Orders are placed in the order of the invoices' first lines.
//
// # Failure
//
// A damaged or foreign file is refused with one error; an unreachable service is
// tried again for as long as the context lasts.
package retail
