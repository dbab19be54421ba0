package journal_test

import (
	"context"
	"encoding/hex"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// record is the event of docs/wire.md's first test vector.
func record() freehold.Recorded {
	return freehold.Recorded{
		ID: "0190163d8694739b93e1b9e2c4b1c8a0-0", Incarnation: "00112233445566ff", Stream: "order-1", Version: 1,
		Type: freehold.T("order.placed", 2), Time: time.UnixMicro(1_700_000_000_123_456).UTC(),
		Meta: freehold.Meta{Correlation: "c-1", Actor: "alice"}, Last: true,
		Raw: []byte(`{"order":"1"}`), Nonce: []byte("0123456789abcdef"),
	}
}

func TestDigestBytesNeverChange(t *testing.T) {
	t.Parallel()
	r := record()
	digest := journal.Digest(&r)
	if got, want := digest.String(), vectorDigest; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	chain := journal.Chain(freehold.Hash{}, 1, digest)
	if got, want := chain.String(), vectorChain; got != want {
		t.Errorf("chain %s, want %s", got, want)
	}
}

func TestDigestCoversEveryField(t *testing.T) {
	t.Parallel()
	base := record()
	was := journal.Digest(&base)
	changes := map[string]func(*freehold.Recorded){
		"id":          func(r *freehold.Recorded) { r.ID += "x" },
		"incarnation": func(r *freehold.Recorded) { r.Incarnation = "x" },
		"stream":      func(r *freehold.Recorded) { r.Stream = "order-2" },
		"version":     func(r *freehold.Recorded) { r.Version = 2 },
		"type":        func(r *freehold.Recorded) { r.Type.Name = "order.paid" },
		"schema":      func(r *freehold.Recorded) { r.Type.Version = 1 },
		"time":        func(r *freehold.Recorded) { r.Time = r.Time.Add(time.Microsecond) },
		"internal":    func(r *freehold.Recorded) { r.Internal = true },
		"last":        func(r *freehold.Recorded) { r.Last = false },
		"correlation": func(r *freehold.Recorded) { r.Meta.Correlation = "" },
		"causation":   func(r *freehold.Recorded) { r.Meta.Causation = "x" },
		"tenant":      func(r *freehold.Recorded) { r.Meta.Tenant = "x" },
		"actor":       func(r *freehold.Recorded) { r.Meta.Actor = "bob" },
		"trace":       func(r *freehold.Recorded) { r.Meta.TraceParent = "x" },
		"nonce":       func(r *freehold.Recorded) { r.Nonce = []byte("0123456789abcdeg") },
		"payload":     func(r *freehold.Recorded) { r.Raw = []byte(`{"order":"2"}`) },
		"field boundary": func(r *freehold.Recorded) {
			r.Meta.Correlation, r.Meta.Causation = "c-", "1"
		},
	}
	for name, change := range changes {
		r := record()
		change(&r)
		if journal.Digest(&r) == was {
			t.Errorf("%s: a change is not seen in the digest", name)
		}
	}
}

func TestFollowsRefusesWhatIsNotNext(t *testing.T) {
	t.Parallel()
	tail := journal.NewTail(freehold.Mark{Source: "order", Epoch: "e"}, "i", func(context.Context, freehold.StreamID) (freehold.Version, error) { return 0, nil })
	for range 3 {
		if _, err := tail.Append(t.Context(), "a-1", freehold.Any, []freehold.Recorded{record()}); err != nil {
			t.Fatal(err)
		}
		tail.Seal()
	}
	rs := tail.Pending(journal.Save{})
	place := freehold.Mark{Source: "order", Epoch: "e"}
	for i := range rs {
		if !journal.Follows(place, &rs[i]) {
			t.Fatalf("event %d does not follow its predecessor", i+1)
		}
		altered := rs[i]
		altered.Raw = []byte(`{"order":"9"}`)
		if journal.Follows(place, &altered) {
			t.Errorf("event %d: another payload is accepted", i+1)
		}
		for name, by := range map[string]int{"shorter": -1, "longer": 1} {
			all := append(append([]byte{}, rs[i].Nonce...), rs[i].Raw...)
			altered.Nonce, altered.Raw = all[:freehold.NonceSize+by], all[freehold.NonceSize+by:]
			if journal.Digest(&altered) != rs[i].Digest {
				t.Fatal("the digest tells where the nonce ends: this test is not needed any more")
			}
			if journal.Follows(place, &altered) {
				t.Errorf("event %d: a %s nonce, and payload as much less or more, is accepted", i+1, name)
			}
		}
		if i > 0 && journal.Follows(freehold.Mark{Source: "order", Epoch: "e", Position: place.Position}, &rs[i]) {
			t.Errorf("event %d: another history is accepted", i+1)
		}
		place = rs[i].At
	}
	if journal.Follows(place, &rs[2]) {
		t.Error("a duplicate is accepted")
	}
}

func TestTailRollbackRestoresVersions(t *testing.T) {
	t.Parallel()
	tail := journal.NewTail(freehold.Mark{Source: "order", Epoch: "e"}, "i", func(context.Context, freehold.StreamID) (freehold.Version, error) { return 0, nil })
	must := func(v freehold.Version, err error) freehold.Version {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	must(tail.Append(t.Context(), "a-1", freehold.NoStream, []freehold.Recorded{record()}))
	head := tail.Seal()
	save := tail.Save()
	must(tail.Append(t.Context(), "a-1", freehold.At(1), []freehold.Recorded{record(), record()}))
	must(tail.Append(t.Context(), "b-1", freehold.NoStream, []freehold.Recorded{record()}))
	tail.Seal()
	tail.Rollback(save)
	if got := tail.Head(); got != head {
		t.Errorf("head %v after rollback, want %v", got, head)
	}
	if v := must(tail.Version(t.Context(), "a-1")); v != 1 {
		t.Errorf("version of a-1 is %d after rollback, want 1", v)
	}
	if v := must(tail.Version(t.Context(), "b-1")); v != 0 {
		t.Errorf("version of b-1 is %d after rollback, want 0", v)
	}
	must(tail.Append(t.Context(), "b-1", freehold.NoStream, []freehold.Recorded{record()}))
}

// Metadata comes from headers that strangers write. Bytes that JSON cannot carry
// would give the event another digest in every other service.
func TestMetadataIsTextThatEveryReaderCanHave(t *testing.T) {
	t.Parallel()
	types, err := freehold.NewCatalog(freehold.JSON[happened]())
	if err != nil {
		t.Fatal(err)
	}
	ctx := freehold.WithMeta(t.Context(), freehold.Meta{Actor: "al\xffice", Tenant: "é"})
	drafts, err := journal.Draft(ctx, types, "tx", 0, journal.Now(), []freehold.Event{happened{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := drafts[0].Meta, (freehold.Meta{Actor: "al\uFFFDice", Tenant: "é"}); got != want {
		t.Errorf("meta %+q, want %+q", got, want)
	}
}

type happened struct{}

func (happened) EventType() freehold.Type { return freehold.T("it.happened", 1) }

func BenchmarkDigestAndChain(b *testing.B) {
	r := record()
	r.Raw = make([]byte, 230)
	prev := freehold.Hash{}
	for b.Loop() {
		prev = journal.Chain(prev, 1, journal.Digest(&r))
	}
	_ = hex.EncodeToString(prev[:])
}

const (
	vectorDigest = "8d2acab8b3f027bf938d77cffa5d809a57c11749585ca783acaf190291f68e51"
	vectorChain  = "9f63146d39d04c05c36086d01a8e9ef5b017bba92e73060d8185519ef6846cd1"
)
