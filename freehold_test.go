package freehold_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
)

type noted struct {
	Text string `json:"text"`
}

func (noted) EventType() freehold.Type { return freehold.T("test.noted", 3) }

func rename(from, to string) func(json.RawMessage) (json.RawMessage, error) {
	return func(raw json.RawMessage) (json.RawMessage, error) {
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		m[to] = m[from]
		delete(m, from)
		return json.Marshal(m)
	}
}

func TestOldVersionsAreUpcastStepByStep(t *testing.T) {
	t.Parallel()
	c, err := freehold.NewCatalog(freehold.JSON[noted](), freehold.Upcast(freehold.T("test.noted", 1), rename("a", "b")), freehold.Upcast(freehold.T("test.noted", 2), rename("b", "text")))
	if err != nil {
		t.Fatal(err)
	}
	for version, raw := range map[int]string{1: `{"a":"x"}`, 2: `{"b":"x"}`, 3: `{"text":"x"}`} {
		if e, err := c.Decode(freehold.T("test.noted", version), []byte(raw)); err != nil || e != (noted{"x"}) {
			t.Errorf("version %d decodes to %v, %v", version, e, err)
		}
	}
	if _, err := c.Decode(freehold.T("test.noted", 4), []byte(`{}`)); !errors.Is(err, freehold.ErrUnknownType) {
		t.Errorf("a newer version: %v, want ErrUnknownType", err)
	}
}

func TestCatalogRefusesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, defs := range map[string][]freehold.Def{
		"defined twice":        {freehold.JSON[noted](), freehold.JSON[noted]()},
		"upcast without end":   {freehold.Upcast(freehold.T("test.noted", 1), rename("a", "b"))},
		"upcast with a hole":   {freehold.JSON[noted](), freehold.Upcast(freehold.T("test.noted", 1), rename("a", "b"))},
		"upcast from the last": {freehold.JSON[noted](), freehold.Upcast(freehold.T("test.noted", 3), rename("a", "b"))},
	} {
		if _, err := freehold.NewCatalog(defs...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCatalogTakesOnlyNamesThatABrokerCarries(t *testing.T) {
	t.Parallel()
	up := func(name string) freehold.Def { return freehold.Upcast(freehold.T(name, 1), rename("a", "b")) }
	for _, name := range []string{"", "with blank", "tab\t", "line\n", "nul\x00", "no\u00a0break", "bad\xffutf", "any.*", "rest.>", "two..dots", ".before", "behind.", "freehold.placeholder", strings.Repeat("x", freehold.MaxTypeLen+1)} {
		if _, err := freehold.NewCatalog(up(name)); err == nil || strings.Contains(err.Error(), "leads to no defined version") {
			t.Errorf("%q: %v, want a refusal of the name", name, err)
		}
	}
	for _, name := range []string{"order", "order.placed", "shop/order.sold-out_2", "größe.geändert", "$SYS", strings.Repeat("x", freehold.MaxTypeLen)} {
		if err := freehold.T(name, 1).Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestACodecThatGivesNothingIsRefused(t *testing.T) {
	t.Parallel()
	for _, raw := range [][]byte{nil, {}} {
		c, err := freehold.NewCatalog(freehold.Coded(freehold.Codec[noted]{Internal: true,
			Encode: func(noted) ([]byte, error) { return raw, nil }, Decode: func([]byte) (noted, error) { return noted{}, nil }}))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Encode(noted{}); err == nil {
			t.Error("an event without a payload was encoded")
		}
	}
}

func TestTokenText(t *testing.T) {
	t.Parallel()
	a := freehold.Mark{Source: "order", Epoch: "e1", Position: 7}
	b := freehold.Mark{Source: "billing/eu", Epoch: "e2", Position: 3}
	tok := freehold.NewToken(a, b)
	if got, want := tok.String(), "billing/eu:e2:3,order:e1:7"; got != want {
		t.Errorf("token %q, want %q", got, want)
	}
	parsed, err := freehold.ParseToken(tok.String())
	if err != nil || parsed.String() != tok.String() {
		t.Errorf("parsed %q, %v", parsed, err)
	}
	higher := a
	higher.Position = 9
	if got := tok.Merge(freehold.NewToken(higher)).Of("order"); len(got) != 1 || got[0].Position != 9 {
		t.Errorf("merged to %v", got)
	}
	other := a
	other.Epoch = "e9"
	if got := tok.Merge(freehold.NewToken(other)).Of("order"); len(got) != 2 {
		t.Errorf("two epochs merged to %v", got)
	}
	for _, bad := range []string{"x", "a:b", "a:b:c", "a:b:-1", "a::1", ":e:1", "a b:e:1", "a:e:99999999999999999999"} {
		if _, err := freehold.ParseToken(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestExpectations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e      freehold.Expect
		actual freehold.Version
		met    bool
	}{{freehold.NoStream, 0, true}, {freehold.NoStream, 1, false}, {freehold.Any, 0, true}, {freehold.Any, 5, true}, {freehold.Exists, 0, false}, {freehold.Exists, 1, true}, {freehold.At(3), 3, true}, {freehold.At(3), 4, false}} {
		if c.e.Met(c.actual) != c.met {
			t.Errorf("%v at version %d: met is %v", c.e, c.actual, !c.met)
		}
	}
}
