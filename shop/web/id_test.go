package web_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/freehold-go/freehold/shop/web"
)

// TestIDStandsForItsKey: the same key is the same thing, and no two keys are, not
// even those of one moment. A key with a time gives its id the time.
func TestIDStandsForItsKey(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	var moment string
	for _, key := range []string{
		"536365", "536366", "",
		"019aafe1-0b1c-7000-8000-000000000001", "019aafe1-0b1c-7000-8000-000000000002",
		"019aafe1-0b1c-4000-8000-000000000001", // random, although it looks like the others
		web.NewKey(), web.NewKey(),
	} {
		id := web.ID("order", key)
		if again := web.ID("order", key); again != id {
			t.Errorf("%q is %s and %s", key, id, again)
		}
		if other := web.ID("return", key); other == id {
			t.Errorf("%q of order and of return is %s", key, id)
		}
		if before, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %s", before, key, id)
		}
		seen[id] = key
		parsed, err := uuid.Parse(id)
		if err != nil {
			t.Errorf("%q: %v", key, err)
		}
		k, err := uuid.Parse(key)
		timed := err == nil && k.Version() == 7
		if timed != (parsed.Version() == 8) || timed && id[:13] != key[:13] {
			t.Errorf("%q is %s", key, id)
		}
		if timed {
			if moment > id[:13] {
				t.Errorf("%s stands before an older one", id)
			}
			moment = id[:13]
		}
	}
}
