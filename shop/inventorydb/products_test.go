package inventorydb_test

import (
	"context"
	"errors"
	"testing"

	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/inventorydb"
)

func TestKeyOfADefinitionIsKeptOnlyWithWhatItDid(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		rolledBack := errors.New("rolled back")
		under := func(digest string, end error) (first bool, err error) {
			_, err = s.db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) (err error) {
				if first, err = inventorydb.FirstUnder(ctx, tx, "d", digest); err != nil || !first {
					return err
				}
				return errors.Join(s.store.Define(ctx, tx, inventorydb.Product{SKU: "A"}, 5), end)
			})
			return first, err
		}
		if _, err := under("one", rolledBack); !errors.Is(err, rolledBack) {
			t.Error(err)
		}
		for _, want := range []bool{true, false} {
			if first, err := under("one", nil); first != want || err != nil {
				t.Errorf("first %v, %v, want %v", first, err, want)
			}
		}
		if _, err := under("two", nil); !errors.Is(err, inventorydb.ErrOtherBody) {
			t.Errorf("another body: %v", err)
		}
		if got := s.stock("A"); got.Free != 5 || got.Received != 5 {
			t.Errorf("stock %+v, want 5 that came once", got)
		}
	})
}
