package journal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freehold-go/freehold"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Digest is SHA-256 over a zero byte, the header fields in a fixed order, each
// behind its length (4 bytes, big-endian; numbers as decimal text), the nonce,
// and the payload as stored. The layout can never change; docs/wire.md has it
// with test vectors.
func Digest(r *freehold.Recorded) freehold.Hash {
	p := buffers.Get().(*[]byte)
	b := append((*p)[:0], 0x00)
	b = field(b, r.ID)
	b = field(b, r.Incarnation)
	b = field(b, string(r.Stream))
	b = number(b, int64(r.Version))
	b = field(b, r.Type.Name)
	b = number(b, int64(r.Type.Version))
	b = number(b, r.Time.UnixMicro())
	var flags int64
	if r.Internal {
		flags |= 1
	}
	if r.Last {
		flags |= 2
	}
	b = number(b, flags)
	b = field(b, r.Meta.Correlation)
	b = field(b, r.Meta.Causation)
	b = field(b, r.Meta.Tenant)
	b = field(b, r.Meta.Actor)
	b = field(b, r.Meta.TraceParent)
	b = append(b, r.Nonce...)
	b = append(b, r.Raw...)
	h := sha256.Sum256(b)
	*p = b
	buffers.Put(p)
	return h
}

func field(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func number(b []byte, n int64) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	b = binary.BigEndian.AppendUint32(b, uint32(len(d)))
	return append(b, d...)
}

// Chain is the chain value at position n: SHA-256 over the byte 1, the chain value
// before it, n as 8 bytes big-endian, and the event's digest. Before position 1
// it is 32 zero bytes.
func Chain(prev freehold.Hash, n freehold.Position, digest freehold.Hash) freehold.Hash {
	var b [1 + 32 + 8 + 32]byte
	b[0] = 0x01
	copy(b[1:], prev[:])
	binary.BigEndian.PutUint64(b[33:], uint64(n))
	copy(b[41:], digest[:])
	return sha256.Sum256(b[:])
}

// Follows reports whether r is the next event after the mark: position, chain
// value, and, unless it is a placeholder, its bytes. Whoever reads another service's
// events checks this of each, and so does [Journal.Verify]; followers of what was
// checked, and of their own service's journal, check position and chain only.
func Follows(after freehold.Mark, r *freehold.Recorded) bool { return next(after, r) && Intact(r) }

func next(after freehold.Mark, r *freehold.Recorded) bool {
	return r.At.Position == after.Position+1 && r.At.Chain == Chain(after.Chain, r.At.Position, r.Digest)
}

// Intact reports whether an event's bytes are those that its digest was made of. A
// placeholder has none, and nothing to find fault with.
func Intact(r *freehold.Recorded) bool { return r.Placeholder() || sealed(r) }

// sealed reports whether nonce and payload are those of the digest, which does not tell
// where the one ends and the other begins: the nonce's length does.
func sealed(r *freehold.Recorded) bool {
	return len(r.Nonce) == freehold.NonceSize && r.Digest == Digest(r)
}

// Draft turns events into records that have everything but a place: stream,
// version, position, digest and chain are given by the writer. The id of event i
// is the transaction's id, "-", and first+i.
func Draft(ctx context.Context, types *freehold.Catalog, txID string, first int, now time.Time, events []freehold.Event) ([]freehold.Recorded, error) {
	if len(events) == 0 {
		return nil, nil
	}
	meta := readable(freehold.MetaOf(ctx))
	drafts := make([]freehold.Recorded, len(events))
	const size = freehold.NonceSize
	nonces := make([]byte, size*len(events))
	rand.Read(nonces) // never fails, see crypto/rand
	for i, e := range events {
		raw, internal, err := types.Encode(e)
		if err != nil {
			return nil, err
		}
		drafts[i] = freehold.Recorded{
			ID: txID + "-" + strconv.Itoa(first+i), Type: e.EventType(), Time: now, Meta: meta,
			Internal: internal, Raw: raw, Nonce: nonces[i*size : (i+1)*size : (i+1)*size],
		}
	}
	return drafts, nil
}

// readable makes metadata text that JSON can carry: other services compute the
// digest over what they get.
func readable(m freehold.Meta) freehold.Meta {
	for _, s := range [...]*string{&m.Correlation, &m.Causation, &m.Tenant, &m.Actor, &m.TraceParent} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	return m
}

func init() { uuid.EnableRandPool() }

// NewID returns an id for a transaction: a UUID of version 7 in 32 hexadecimal
// digits, so that ids sort by time.
func NewID() string {
	id := uuid.Must(uuid.NewV7())
	return hex.EncodeToString(id[:])
}

// NewEpoch returns a random id for an epoch or an incarnation: 16 hexadecimal digits.
func NewEpoch() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Now is the time of a transaction that starts now: microseconds, UTC.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
