package postgres_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/postgres"
)

// TestMetadataIsReadAsJSON compares what is read with what encoding/json reads, of
// metadata as it is written and as somebody may have changed it.
func TestMetadataIsReadAsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9:,"\\{} ]{0,6}`), rapid.String())
		raw, err := json.Marshal(freehold.Meta{Correlation: text.Draw(t, "correlation"), Causation: text.Draw(t, "causation"),
			Tenant: text.Draw(t, "tenant"), Actor: text.Draw(t, "actor"), TraceParent: text.Draw(t, "traceparent")})
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 2 && rapid.Bool().Draw(t, "changed") {
			at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
			raw = append(raw[:at:at], append([]byte(rapid.StringMatching(`[,:"{}x ]{0,2}`).Draw(t, "there")), raw[at+1:]...)...)
		}
		raw = bytes.ToValidUTF8(raw, nil) // PostgreSQL has no other text
		var want freehold.Meta
		wantErr := json.Unmarshal(raw, &want)
		got, err := postgres.ReadMeta(string(raw))
		if wantErr == nil && (err != nil || got != want) {
			t.Errorf("%s: got %+v, %v, want %+v", raw, got, err, want)
		}
	})
}
