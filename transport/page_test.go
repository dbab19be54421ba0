package transport_test

import (
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// TestAPageArrivesAsItsEvents: what a page says of its events is what their lines say, up
// to the first that is no event.
func TestAPageArrivesAsItsEvents(t *testing.T) {
	t.Parallel()
	var page []byte
	var want []freehold.Recorded
	for i := range 5 {
		r := sealed(i%2 == 1)
		r.At.Position = freehold.Position(i + 1)
		r.Raw = []byte("line\nend") // which no line of JSON holds
		r.Digest = journal.Digest(&r)
		page = append(transport.AppendJSON(page, &r), '\n')
		want = append(want, r)
		last, err := transport.LastOfPage(page)
		if err != nil || last.At != r.At {
			t.Fatalf("the last is %v, %v, want %v", last.At, err, r.At)
		}
	}
	for _, behind := range []string{"", "{", "\n"} {
		got, err := transport.AppendPage(nil, append(page[:len(page):len(page)], behind...))
		if (err == nil) != (behind == "") || len(got) != len(want) {
			t.Fatalf("with %q behind it: %d events, %v, want %d", behind, len(got), err, len(want))
		}
		for i := range got {
			if got[i].At != want[i].At || got[i].Digest != want[i].Digest || !want[i].Internal && journal.Digest(&got[i]) != want[i].Digest {
				t.Errorf("event %d is %+v, want %+v", i, got[i], want[i])
			}
		}
	}
	if _, err := transport.LastOfPage(nil); err == nil {
		t.Error("an empty page has a last event")
	}
}
