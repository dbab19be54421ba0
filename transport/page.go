package transport

import (
	"bytes"

	"github.com/freehold-go/freehold"
)

// PageType is the content type of a page: events as the lines that AppendJSON makes, each
// with a line end. The feed answers with pages, and a message of a broker may be one.
const PageType = "application/x-ndjson"

// AppendPage appends the events of a page; if one cannot be read, those before it.
func AppendPage(events []freehold.Recorded, page []byte) ([]freehold.Recorded, error) {
	for line := range bytes.Lines(page) {
		r, err := ParseJSON(line)
		if err != nil {
			return events, err
		}
		events = append(events, r)
	}
	return events, nil
}

// LastOfPage returns the last event of a page.
func LastOfPage(page []byte) (freehold.Recorded, error) {
	page = bytes.TrimSuffix(page, []byte("\n"))
	return ParseJSON(page[bytes.LastIndexByte(page, '\n')+1:])
}
