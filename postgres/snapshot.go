package postgres

import (
	"slices"
	"strconv"
	"strings"
)

// snapshot is a pg_snapshot: what is below max and not open has ended.
type snapshot struct {
	max  uint64
	open []uint64 // below max, ascending
}

func parseSnapshot(text string) (s snapshot, ok bool) {
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return s, false
	}
	var err error
	if s.max, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
		return s, false
	}
	for part := range strings.SplitSeq(fields[2], ",") {
		if part == "" {
			continue
		}
		xid, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return s, false
		}
		s.open = append(s.open, xid)
	}
	return s, slices.IsSorted(s.open)
}

func (s snapshot) ended(xid uint64) bool {
	_, open := slices.BinarySearch(s.open, xid)
	return xid < s.max && !open
}

// mostEnded is of how many transactions it is found out whether they have ended.
const mostEnded = 1024

// othersEnded reports whether a transaction may have ended between two snapshots, of any
// database of the server, except those that are known. If none has, nothing new is to be seen.
func othersEnded(base, now string, known ...uint64) bool {
	from, ok := parseSnapshot(base)
	to, also := parseSnapshot(now)
	if !ok || !also || to.max < from.max || to.max-from.max > mostEnded || len(from.open) > mostEnded {
		return true
	}
	for _, xid := range from.open {
		if to.ended(xid) && !slices.Contains(known, xid) {
			return true
		}
	}
	for xid := from.max; xid < to.max; xid++ {
		if to.ended(xid) && !slices.Contains(known, xid) {
			return true
		}
	}
	return false
}
