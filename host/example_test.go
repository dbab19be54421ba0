package host_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/memory"
)

// A host serves a service's journal, health and metrics beside its own pages, runs
// its followers, and stops everything in good order.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	types, err := freehold.NewCatalog()
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "greeter", types, nil)
	if err != nil {
		panic(err)
	}
	service, err := host.New("greeter", db.Journal(), &host.Options{Token: "the operator's secret", Audit: db.Audit()})
	if err != nil {
		panic(err)
	}
	service.Own(db)
	service.Handle("GET /hello", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	ended := make(chan error)
	go func() { ended <- service.Run(ctx) }()
	for _, path := range []string{"/hello", "/healthz", "/feed"} {
		res, err := http.Get(service.URL() + path)
		if err != nil {
			panic(err)
		}
		res.Body.Close()
		fmt.Println(path, res.StatusCode)
	}
	stop()
	fmt.Println(<-ended)
	// Output:
	// /hello 200
	// /healthz 200
	// /feed 401
	// <nil>
}
