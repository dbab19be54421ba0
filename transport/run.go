package transport

import (
	"errors"
	"strconv"

	"github.com/freehold-go/freehold"
)

// maxRun is how many internal events travel as one message at most.
const maxRun = 1024

// What the data of a run says of each event: its digest, its chain value, and a byte,
// which is 1 if the event is the last of its transaction and 0 otherwise.
const (
	hashSize = len(freehold.Hash{})
	runEntry = 2*hashSize + 1
)

// Run is how many of the events, from the first on, may travel as one message:
// internal ones, of which others see only that they were there. Their message is that
// of the last one, with RunHeader and the data that AppendRun makes. It is 1 for an
// event that has a message of its own.
func Run(events []freehold.Recorded) int {
	n := 1
	for n < min(len(events), maxRun) && events[0].Internal && events[n].Internal && events[n].Incarnation == events[0].Incarnation {
		n++
	}
	return n
}

// RunHeader calls set with the header that the message of several events has besides
// those of the last one.
func RunHeader(events []freehold.Recorded, set func(name, value string)) {
	set(headerPrefix+attrFirst, strconv.FormatInt(int64(events[0].At.Position), 10))
}

// AppendRun appends the data of the message of several events.
func AppendRun(b []byte, events []freehold.Recorded) []byte {
	for i := range events {
		r := &events[i]
		b = append(append(b, r.Digest[:]...), r.At.Chain[:]...)
		if r.Last {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// errRun says that a message is no run of placeholders.
var errRun = errors.New("transport: the data of a run is not that of its events")

// Append appends the event, or all of a run of placeholders, and makes d ready for the
// next; see [Decoder.Event].
func (d *Decoder) Append(events []freehold.Recorded, payload []byte) ([]freehold.Recorded, error) {
	first := d.first
	last, err := d.Event(payload)
	if err != nil {
		return events, err
	}
	if first == 0 || !last.Placeholder() {
		return append(events, last), nil
	}
	n := int(last.At.Position-first) + 1
	if first < 1 || n < 1 || n > maxRun || len(payload) != n*runEntry {
		return events, errRun
	}
	for at := first; at < last.At.Position; at++ {
		r := last
		r.At.Position = at
		r.ID = string(appendPlaceholderID(nil, r.At))
		copy(r.Digest[:], payload)
		copy(r.At.Chain[:], payload[hashSize:])
		r.Last = payload[runEntry-1] == 1
		events, payload = append(events, r), payload[runEntry:]
	}
	return append(events, last), nil // of which the headers say the same
}

// appendPlaceholderID appends the id of an internal event as others see it.
func appendPlaceholderID(b []byte, at freehold.Mark) []byte {
	return strconv.AppendInt(append(append(b, at.Epoch...), '-'), int64(at.Position), 10)
}
