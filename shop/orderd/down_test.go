package orderd_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/shop/orderd"
)

func TestDatabaseThatIsDownIsSaidSo(t *testing.T) {
	t.Parallel()
	s, err := orderd.New(t.Context(), orderd.Config{Data: t.TempDir(), Inventory: "http://127.0.0.1:1", Billing: "http://127.0.0.1:1", Relaxed: true, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.CloseDatabase(); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{"/orders": simple, "/orders/batch": order("k", "A"), "/returns/batch": order("k", "A"), "/orders/x/cancel": "", "/orders/x/return": ""} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v %s, want 503 with Retry-After", path, w.Code, w.Header(), w.Body)
		}
	}
}

// The participants may be away: orders are taken.
func TestOrdersAreTakenWhileTheOthersAreAway(t *testing.T) {
	t.Parallel()
	s, err := orderd.New(t.Context(), orderd.Config{Data: t.TempDir(), Inventory: "http://127.0.0.1:1", Billing: "http://127.0.0.1:1", Relaxed: true, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(simple)))
	if w.Code != http.StatusCreated {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestServiceThatCannotStartSaysWhyAndHoldsNothing(t *testing.T) {
	t.Parallel()
	cfg := orderd.Config{Data: t.TempDir(), Inventory: "nonsense", Billing: "http://127.0.0.1:1", Relaxed: true, Log: quiet}
	if _, err := orderd.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("bad feed URL: %v", err)
	}
	cfg.Inventory = cfg.Billing
	s, err := orderd.New(t.Context(), cfg) // the databases are free again
	if err != nil {
		t.Fatal(err)
	}
	second := cfg
	if other, err := orderd.New(t.Context(), second); err == nil {
		other.Close()
		t.Error("two services run on one data directory")
	}
	taken := cfg
	taken.Data, taken.Addr = t.TempDir(), s.Addr()
	if other, err := orderd.New(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "port") {
		other.Close()
		t.Errorf("a port in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
