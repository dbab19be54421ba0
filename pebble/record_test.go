package pebble

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
)

func sample() freehold.Recorded {
	return freehold.Recorded{
		ID: "0190163d8694739b93e1b9e2c4b1c8a0-0", Incarnation: "00112233445566ff", Stream: "order-1", Version: 300,
		At:   freehold.Mark{Source: "test", Epoch: "e", Position: 7, Chain: freehold.Hash{0xcc, 31: 0xee}},
		Type: freehold.T("order.placed", 2), Time: time.UnixMicro(1_700_000_000_123_456).UTC(),
		Meta: freehold.Meta{Correlation: "c-1", Actor: "alice"}, Internal: true, Last: true,
		Raw: []byte(`{"order":"1"}`), Nonce: []byte("0123456789abcdef"), Digest: freehold.Hash{0xdd, 31: 0xdf},
	}
}

func TestRecordBytesNeverChange(t *testing.T) {
	t.Parallel()
	r := sample()
	if got := hex.EncodeToString(record.Append(nil, &r)); got != recordBytes {
		t.Errorf("record %s\nwant   %s", got, recordBytes)
	}
	m := freehold.Mark{Source: "there", Epoch: "9f86d081", Position: 258, Chain: freehold.Hash{1, 31: 2}}
	if got := hex.EncodeToString(record.AppendMark(nil, m)); got != markBytes {
		t.Errorf("mark %s\nwant %s", got, markBytes)
	}
	if got, want := hex.EncodeToString(appendStream(nil, "order-1", 258)), "736f726465722d31000000000000000102"; got != want {
		t.Errorf("stream key %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(numbered(kindEvent, 258)), "650000000000000102"; got != want {
		t.Errorf("event key %s, want %s", got, want)
	}
}

func TestRecordComesBackAsItWas(t *testing.T) {
	t.Parallel()
	plain := sample()
	plain.Meta, plain.Internal, plain.Last, plain.Version, plain.Raw, plain.Nonce = freehold.Meta{}, false, false, 1, []byte{}, []byte{}
	for _, want := range []freehold.Recorded{sample(), plain} {
		got := freehold.Recorded{At: freehold.Mark{Source: "test", Epoch: "e"}}
		if err := decodeEvent(numbered(kindEvent, 7), record.Append(nil, &want), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(freehold.Recorded{})); diff != "" {
			t.Error(diff)
		}
	}
	want := freehold.Mark{Source: "there", Epoch: "9f86d081", Position: 258, Chain: freehold.Hash{1, 31: 2}}
	got := freehold.Mark{Source: "there"}
	if err := record.DecodeMark(record.AppendMark(nil, want), &got); err != nil || got != want {
		t.Errorf("mark %v, %v, want %v", got, err, want)
	}
}

// TestDamagedRecordsAreErrors decodes every beginning of a record, and every record
// with one byte changed: no panic, and no beginning is taken for the whole.
func TestDamagedRecordsAreErrors(t *testing.T) {
	t.Parallel()
	r := sample()
	whole := record.Append(nil, &r)
	header := len(whole) - len(r.Raw) - len(r.Nonce)
	for n := range header {
		var got freehold.Recorded
		if err := decodeEvent(numbered(kindEvent, 7), whole[:n], &got); err == nil {
			t.Errorf("the first %d bytes decode", n)
		}
	}
	for i := range whole {
		for _, b := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			changed := append([]byte{}, whole...)
			changed[i] = b
			var got freehold.Recorded
			_ = decodeEvent(numbered(kindEvent, 7), changed, &got) // the chain finds what this cannot
		}
	}
}

const (
	recordBytes = "0107ac020200060a2418202240dd000000000000000000000000000000000000000000000000000000000000dfcc000000000000000000000000000000000000000000000000000000000000ee2230313930313633643836393437333962393365316239653263346231633861302d301030303131323233333434353536366666076f726465722d310c6f726465722e706c6163656403632d31000005616c6963650010303132333435363738396162636465667b226f72646572223a2231227d"
	markBytes   = "01000000000000010201000000000000000000000000000000000000000000000000000000000000023966383664303831"
)
