package journaltest

import "encoding/json"

// upcast turns {"number": n} of version 1 into {"n": n}.
func upcast(raw json.RawMessage) (json.RawMessage, error) {
	var old struct {
		Number int `json:"number"`
	}
	if err := json.Unmarshal(raw, &old); err != nil {
		return nil, err
	}
	return json.Marshal(Happened{N: old.Number})
}
