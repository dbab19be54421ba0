package journaltest

import (
	"encoding/json"
	"testing"

	"github.com/freehold-go/freehold"
)

// Happened is the event of the suite.
type Happened struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

// EventType is "test.happened", version 2.
func (Happened) EventType() freehold.Type { return freehold.T("test.happened", 2) }

// Secret is an internal event.
type Secret struct {
	N int `json:"n"`
}

// EventType is "test.secret", version 1.
func (Secret) EventType() freehold.Type { return freehold.T("test.secret", 1) }

// happenedOnce is Happened as it was in version 1.
type happenedOnce struct {
	Number int `json:"number"`
}

func (happenedOnce) EventType() freehold.Type { return freehold.T("test.happened", 1) }

// unlisted is in no catalog but that of the subtest that stores it.
type unlisted struct{}

func (unlisted) EventType() freehold.Type { return freehold.T("test.unlisted", 1) }

// Types is the catalog of the suite's events.
func Types(t testing.TB) *freehold.Catalog {
	t.Helper()
	return catalog(t, freehold.JSON[Happened](), freehold.Internal[Secret](), freehold.Upcast(freehold.T("test.happened", 1), upcast))
}

func catalog(t testing.TB, defs ...freehold.Def) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(defs...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// upcast turns {"number": n} of version 1 into {"n": n}.
func upcast(raw json.RawMessage) (json.RawMessage, error) {
	var old happenedOnce
	if err := json.Unmarshal(raw, &old); err != nil {
		return nil, err
	}
	return json.Marshal(Happened{N: old.Number})
}

func happened(n int) freehold.Event { return Happened{N: n} }

// number is the N of a decoded event.
func number(t testing.TB, r freehold.Recorded) int {
	t.Helper()
	e, err := r.Decode()
	if err != nil {
		t.Fatal(err)
	}
	switch e := e.(type) {
	case Happened:
		return e.N
	case Secret:
		return e.N
	default:
		t.Fatalf("position %d decodes to %T", r.At.Position, e)
		return 0
	}
}
