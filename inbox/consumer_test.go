package inbox_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/memory"
)

// TestPythonConsumerAgreesOnEveryByte runs the consumer of docs/wire.md.
func TestPythonConsumerAgreesOnEveryByte(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		if strings.Contains(os.Getenv("FREEHOLD_REQUIRE"), "python") {
			t.Fatal(err)
		}
		t.Skip("SKIP SKIP SKIP: python3 is not installed: docs/consumer.py is not checked")
	}
	s := newSender(t, memory.NewDisk())
	for n := range 700 {
		s.place(t, n)
	}
	out, err := exec.Command(python, filepath.Join("..", "docs", "consumer.py"), s.URL+"/feed", "token").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 1400 || lines[0] != "1 freehold.placeholder -" || lines[1399] != "1400 order.placed order-699" {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
	raw, err := os.ReadFile(filepath.Join("..", "docs", "consumer.py"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(raw), "\n"); n > 50 {
		t.Errorf("the consumer has grown to %d lines", n)
	}
}
