package aggregate_test

import (
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
)

// TestTheStateInMemoryIsTheOneThatIsRead decides on pointers to events, which Evolve does
// not know: what is read from the stream are values.
func TestTheStateInMemoryIsTheOneThatIsRead(t *testing.T) {
	t.Parallel()
	db := setup(t)
	repo := aggregate.New[Shelf]("shelf", db, nil)
	decide := func(Shelf) ([]freehold.Event, error) { return []freehold.Event{&Added{N: 3}}, nil }
	if state, _, err := repo.Do(t.Context(), "a", decide); err == nil && state.Left != 3 {
		t.Errorf("3 were added, and the next command decides on %+v", state)
	}
	inMemory, _, err := repo.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	stored, _, err := aggregate.New[Shelf]("shelf", db, nil).Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if inMemory.Left != stored.Left {
		t.Errorf("the state in memory is %+v, the stream says %+v", inMemory, stored)
	}
	if _, _, err := repo.Do(t.Context(), "a", func(Shelf) ([]freehold.Event, error) { return []freehold.Event{nil}, nil }); err == nil {
		t.Error("an event that is nil was recorded")
	}
}
