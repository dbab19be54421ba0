package transport_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

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

func TestHeadersCarryAnyEventToTheByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		want := sealed(rapid.Bool().Draw(t, "internal"))
		want.Last = rapid.Bool().Draw(t, "last")
		want.Version = freehold.Version(rapid.Int64Range(1, 1<<62).Draw(t, "version"))
		want.At.Position = freehold.Position(rapid.Int64Range(1, 1<<62).Draw(t, "position"))
		want.Time = time.UnixMicro(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "time")).UTC()
		want.Meta = freehold.Meta{Correlation: text.Draw(t, "correlation"), Causation: text.Draw(t, "causation"), Tenant: text.Draw(t, "tenant"), Actor: text.Draw(t, "actor"), TraceParent: text.Draw(t, "trace")}
		want.Raw = rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.SampledFrom([][]byte{[]byte(`{"a":[1,"}"]}`), []byte(` {"a":1}`), []byte("{}\t"), []byte(`7`), []byte(`[1] `)})).Draw(t, "raw")
		want.Digest = journal.Digest(&want)
		headers := map[string]string{}
		transport.Headers(&want, func(name, _ string) {
			name, ok := strings.CutPrefix(name, "ce-")
			if !ok {
				t.Fatalf("header %q: CloudEvents wants ce- in front", name)
			}
			for _, c := range name {
				if c < 'a' || c > 'z' {
					t.Fatalf("attribute %q: CloudEvents wants lower-case letters and digits", name)
				}
			}
			if len(name) > 20 {
				t.Fatalf("attribute %q is longer than 20", name)
			}
		})
		transport.Headers(&want, func(name, value string) { headers[name] = value })
		var d transport.Decoder
		for name, value := range headers {
			if strings.ContainsAny(value, "\r\n\x00 ") {
				t.Fatalf("header %s: %q", name, value)
			}
			d.Header(name, value)
		}
		got, err := d.Event(want.Raw)
		if err != nil {
			t.Fatal(err)
		}
		line, err := transport.ParseJSON(transport.AppendJSON(nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		for way, got := range map[string]freehold.Recorded{"headers": got, "line": line} {
			if got.At != want.At || got.Digest != want.Digest || got.Last != want.Last || got.Incarnation != want.Incarnation || got.Internal != want.Internal {
				t.Fatalf("%s: %+v, want %+v", way, got, want)
			}
			if !want.Internal && journal.Digest(&got) != want.Digest {
				t.Fatalf("%s: the digest does not hold: %+v, want %+v", way, got, want)
			}
		}
	})
}

func TestEventWithoutAnAttributeIsRefused(t *testing.T) {
	t.Parallel()
	for _, internal := range []bool{false, true} {
		r := sealed(internal)
		optional := map[string]bool{"ce-specversion": true, "ce-lastoftx": true, "ce-correlationid": true, "ce-causationid": true, "ce-tenant": true, "ce-actor": true, "ce-traceparent": true}
		var names []string
		transport.Headers(&r, func(name, _ string) { names = append(names, name) })
		for _, left := range names {
			var d transport.Decoder
			transport.Headers(&r, func(name, value string) {
				if name != left {
					d.Header(name, value)
				}
			})
			if _, err := d.Event([]byte("{}")); (err == nil) != optional[left] {
				t.Errorf("internal %v without %s: %v", internal, left, err)
			}
		}
	}
}

// The digest is of nonce and payload without a boundary: whoever sends on could move it.
func TestEventWhoseNonceHasAnotherLengthIsRefused(t *testing.T) {
	t.Parallel()
	for _, by := range []int{-16, -1, 1} {
		r := sealed(false)
		all := append(append([]byte{}, r.Nonce...), r.Raw...)
		r.Nonce, r.Raw = all[:freehold.NonceSize+by], all[freehold.NonceSize+by:]
		if journal.Digest(&r) != r.Digest {
			t.Fatal("the digest is another one")
		}
		if _, err := transport.ParseJSON(transport.AppendJSON(nil, &r)); err == nil || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("line, nonce of %d bytes: %v", len(r.Nonce), err)
		}
		var d transport.Decoder
		transport.Headers(&r, d.Header)
		if _, err := d.Event(r.Raw); err == nil || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("headers, nonce of %d bytes: %v", len(r.Nonce), err)
		}
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

func BenchmarkAppendJSON(b *testing.B) {
	r := plain()
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = transport.AppendJSON(line[:0], &r)
	}
}

func BenchmarkParseJSON(b *testing.B) {
	r := plain()
	line := transport.AppendJSON(nil, &r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := transport.ParseJSON(line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHeaders(b *testing.B) {
	r := plain()
	b.ReportAllocs()
	for b.Loop() {
		transport.Headers(&r, func(string, string) {})
	}
}
