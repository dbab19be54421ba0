package freehold_test

import (
	"encoding/json"
	"fmt"

	"github.com/freehold-go/freehold"
)

// Renamed is an event, in its second version.
type Renamed struct {
	First, Last string
}

func (Renamed) EventType() freehold.Type { return freehold.T("person.renamed", 2) }

// A catalog reads what older programs have written: each step is one version up.
func ExampleUpcast() {
	types, err := freehold.NewCatalog(freehold.JSON[Renamed](),
		freehold.Upcast(freehold.T("person.renamed", 1), func(raw json.RawMessage) (json.RawMessage, error) {
			var old struct{ Name string }
			if err := json.Unmarshal(raw, &old); err != nil {
				return nil, err
			}
			return json.Marshal(Renamed{Last: old.Name})
		}))
	if err != nil {
		panic(err)
	}
	e, err := types.Decode(freehold.T("person.renamed", 1), []byte(`{"Name": "Lovelace"}`))
	fmt.Printf("%+v %v\n", e, err)
	// Output: {First: Last:Lovelace} <nil>
}

// A token says what a reader must have seen. Merged tokens ask for all of it.
func ExampleToken_Merge() {
	a, _ := freehold.ParseToken("order:9f86d081:42")
	b, _ := freehold.ParseToken("billing:60303ae2:7,order:9f86d081:40")
	fmt.Println(a.Merge(b))
	// Output: billing:60303ae2:7,order:9f86d081:42
}
