package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/freehold-go/freehold/shop/web"
)

// The shop starts on a machine without a network, and so do the pages that describe it.
func TestPagesOfAnInterfaceFetchNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	web.NewAPI(mux, "Test", "A test.")
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	get := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", url, resp.Status, err)
		}
		return string(body)
	}
	page := get(server.URL) // leads to the page
	found := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(found) < 3 {
		t.Fatalf("the page refers to %d files:\n%s", len(found), page)
	}
	for _, match := range found {
		if match[1][0] != '/' || match[1][1] == '/' {
			t.Errorf("the page refers to %s", match[1])
			continue
		}
		get(server.URL + match[1])
	}
	get(server.URL + "/openapi.json")
}
