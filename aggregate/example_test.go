package aggregate_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/memory"
)

// Opened and Withdrawn are the events of an account.
type (
	Opened    struct{ Balance int }
	Withdrawn struct{ Amount int }
)

func (Opened) EventType() freehold.Type    { return freehold.T("account.opened", 1) }
func (Withdrawn) EventType() freehold.Type { return freehold.T("account.withdrawn", 1) }

// Account is a plain value; its methods decide and change nothing.
type Account struct{ Balance int }

// Evolve returns the account after an event.
func (a Account) Evolve(e freehold.Event) Account {
	switch e := e.(type) {
	case Opened:
		a.Balance = e.Balance
	case Withdrawn:
		a.Balance -= e.Amount
	}
	return a
}

// Withdraw is a command.
func Withdraw(amount int) func(Account) ([]freehold.Event, error) {
	return func(a Account) ([]freehold.Event, error) {
		if a.Balance < amount {
			return nil, errors.New("not enough money")
		}
		return []freehold.Event{Withdrawn{amount}}, nil
	}
}

func Example() {
	ctx := context.Background()
	types, err := freehold.NewCatalog(freehold.JSON[Opened](), freehold.JSON[Withdrawn]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "bank", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()

	accounts := aggregate.New[Account]("account", db, nil)
	_, _, err = accounts.Do(ctx, "ann", func(Account) ([]freehold.Event, error) {
		return []freehold.Event{Opened{100}}, nil
	}, aggregate.Create)
	fmt.Println("opened:", err)

	a, _, err := accounts.Do(ctx, "ann", Withdraw(70))
	fmt.Println("balance:", a.Balance, err)

	_, _, err = accounts.Do(ctx, "ann", Withdraw(70))
	fmt.Println("again:", err)

	// Output:
	// opened: <nil>
	// balance: 30 <nil>
	// again: not enough money
}
