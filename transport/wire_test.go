package transport_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

func sealed(internal bool) freehold.Recorded {
	r := freehold.Recorded{
		ID: "0190163d8694739b93e1b9e2c4b1c8a0-0", Incarnation: "00112233445566ff", Stream: "order-1", Version: 3,
		Type: freehold.T("order.placed", 2), Time: time.UnixMicro(1_700_000_000_120_000).UTC(),
		Meta: freehold.Meta{Correlation: `a "quoted" \ text`, Causation: "é\n", Tenant: "t", Actor: "<me>", TraceParent: "00-1-2-01"},
		Last: true, Internal: internal, Raw: []byte(`{"order": "1","x":"<&>"}`), Nonce: []byte("0123456789abcdef"),
	}
	r.Digest = journal.Digest(&r)
	r.At = freehold.Mark{Source: "order", Epoch: "ffee", Position: 42, Chain: journal.Chain(freehold.Hash{7}, 42, r.Digest)}
	return r
}

func TestEventSurvivesTheWireToTheByte(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{`{"order": "1","x":"<&>"}`, "not json", ""} {
		want := sealed(false)
		want.Raw = []byte(payload)
		want.Digest = journal.Digest(&want)
		got, err := transport.ParseJSON(transport.AppendJSON(nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(freehold.Recorded{})); diff != "" {
			t.Errorf("payload %q (-sent +received):\n%s", payload, diff)
		}
		if journal.Digest(&got) != want.Digest {
			t.Errorf("payload %q: the digest does not hold on the other side", payload)
		}
	}
}

func TestInternalEventTravelsAsAnEmptyPlaceholder(t *testing.T) {
	t.Parallel()
	r := sealed(true)
	line := transport.AppendJSON(nil, &r)
	for _, secret := range []string{"order-1", "order.placed", "0190163d", "me", "traceparent", "30313233"} {
		if strings.Contains(string(line), secret) {
			t.Errorf("the placeholder tells %q: %s", secret, line)
		}
	}
	got, err := transport.ParseJSON(line)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Placeholder() || got.At != r.At || got.Digest != r.Digest || got.Incarnation != r.Incarnation || !got.Last {
		t.Errorf("placeholder arrives as %+v", got)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "{", "[]", `{"id":"x"}`, `{"type":"a","sequence":"x"}`} {
		if _, err := transport.ParseJSON([]byte(line)); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestPlainEventTakesTheShortWayToTheSameResult(t *testing.T) {
	t.Parallel()
	want := plain()
	line := transport.AppendJSON(nil, &want)
	got, err := transport.ParseJSON(append(line, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(freehold.Recorded{})); diff != "" {
		t.Errorf("(-sent +received):\n%s", diff)
	}
	got, err = transport.ParseJSON([]byte(strings.Replace(string(line), `"data":`, ` "data": `, 1))) // the long way
	if err != nil {
		t.Fatal(err)
	}
	if journal.Digest(&got) != want.Digest {
		t.Error("the digest does not hold with blanks between the fields")
	}
}

// plain is an event as services write it: no character needs an escape.
func plain() freehold.Recorded {
	r := sealed(false)
	r.Meta = freehold.Meta{Correlation: "0190163d8694739b93e1b9e2c4b1c8a0-0", Causation: "0190163d8694739b93e1b9e2c4b1c8a0-1"}
	r.Digest = journal.Digest(&r)
	return r
}

func BenchmarkJSON(b *testing.B) {
	r := plain()
	var line []byte
	for b.Loop() {
		line = transport.AppendJSON(line[:0], &r)
		if _, err := transport.ParseJSON(line); err != nil {
			b.Fatal(err)
		}
	}
}
