package host_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/freehold-go/freehold/host"
)

// TestProcessesThatStartTogetherShareOneToken keeps services with one token file from
// refusing each other because each has made a token of its own.
func TestProcessesThatStartTogetherShareOneToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	var tokens [16]string
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range tokens {
		all.Go(func() {
			<-begin
			var err error
			if tokens[i], err = host.Token(path); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	all.Wait()
	for _, token := range tokens {
		if len(token) < 32 || token != tokens[0] {
			t.Errorf("%q and %q", token, tokens[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}
