// Package aggregate runs event-sourced aggregates: a plain value that evolves with
// its events, and commands that decide on new ones.
//
//	accounts := aggregate.New[Account]("account", db, nil)
//	_, token, err := accounts.Do(ctx, id, func(a Account) ([]freehold.Event, error) {
//		return a.Withdraw(amount)
//	})
//
// # Guarantees
//
// A decision is recorded only if it was made on the stream's newest state (G3):
// on a conflict the state is read again and the command decides anew, a bounded
// number of times. States in memory and snapshots are only a start for reading:
// the tail of the stream is read for every decision. A command that decides on no
// events writes nothing, and its token covers what it has seen.
//
// # Ordering
//
// Events of one aggregate stand in its stream in the order of its decisions.
// Commands of one [Repo] on one aggregate decide one after the other, so that they
// conflict only with other processes and with transactions of handlers.
//
// # Failure
//
// An error of the decision is returned as it is, and nothing is written. After too
// many conflicts the *freehold.Conflict is returned: the aggregate is written to
// by many processes at once; try later. freehold.ErrUnknown means that the events
// may have been written: the command must be repeated under the same key, and
// must recognise in the state that it has been executed. A snapshot that is
// damaged, of another schema or of another history is left out of account.
package aggregate
