package transport_test

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// hidden makes n internal events, in transactions of two.
func hidden(n int) []freehold.Recorded {
	at := freehold.Mark{Source: "order", Epoch: "0123456789abcdef", Position: 40}
	all := make([]freehold.Recorded, n)
	for i := range all {
		all[i] = freehold.Recorded{ID: strconv.Itoa(i), Incarnation: "fedcba9876543210", Internal: true, Last: i%2 == 1, Raw: []byte("{}"), Nonce: []byte("0123456789abcdef")}
		all[i].Digest = journal.Digest(&all[i])
		at.Position++
		at.Chain = journal.Chain(at.Chain, at.Position, all[i].Digest)
		all[i].At = at
	}
	return all
}

// headers are those of a run's message.
func headers(run []freehold.Recorded) map[string]string {
	all := map[string]string{}
	set := func(name, value string) { all[name] = value }
	transport.Headers(&run[len(run)-1], set)
	if len(run) > 1 {
		transport.RunHeader(run, set)
	}
	return all
}

func decoded(headers map[string]string, data []byte) ([]freehold.Recorded, error) {
	var d transport.Decoder
	for name, value := range headers {
		d.Header(name, value)
	}
	return d.Append(nil, data)
}

func TestARunArrivesAsItsPlaceholders(t *testing.T) {
	t.Parallel()
	events := hidden(7)
	var alone []freehold.Recorded
	for i := range events {
		one, err := decoded(headers(events[i:i+1]), nil)
		if err != nil {
			t.Fatal(err)
		}
		alone = append(alone, one...)
	}
	together, err := decoded(headers(events), transport.AppendRun(nil, events))
	if diff := cmp.Diff(alone, together, cmpopts.IgnoreUnexported(freehold.Recorded{})); diff != "" || err != nil {
		t.Errorf("one by one and together (-one +run): %v\n%s", err, diff)
	}
}

func TestARunEndsWhereAnEventIsNotLikeItsFirst(t *testing.T) {
	t.Parallel()
	events := hidden(2000)
	if n := transport.Run(events); n != 1024 {
		t.Errorf("a run of %d", n)
	}
	events[3].Incarnation = "another"
	events[5].Internal = false
	for from, want := range []int{3, 2, 1, 1, 1, 1} {
		if n := transport.Run(events[from:]); n != want {
			t.Errorf("from %d on a run of %d, want %d", from, n, want)
		}
	}
}

func TestARunThatDoesNotAddUpIsRefused(t *testing.T) {
	t.Parallel()
	events := hidden(3)
	data := transport.AppendRun(nil, events)
	for first, part := range map[string][]byte{
		"41": data[1:], "42": data, "40": data, "-9223372036854775808": data, "44": nil, "x": data, "": data,
	} {
		all := headers(events)
		all["ce-first"] = first
		if got, err := decoded(all, part); err == nil {
			t.Errorf("from %q on with %d bytes: %v", first, len(part), got)
		}
	}
}
