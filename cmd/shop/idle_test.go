package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestAShopThatWaitsSaysWhatFor: Inventory's database was deleted, and the other services
// have applied what it held. Before that, there is nothing under way in it.
func TestAShopThatWaitsSaysWhatFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, _, _ := serving(t, dir)
	err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait())
	out, failed := exec.Command(binary(t), "verify", "--data", dir).CombinedOutput()
	if err != nil || failed != nil {
		t.Fatalf("%v, %v\n%s", err, failed, out)
	}
	if regexp.MustCompile(`[1-9][0-9]* orders`).Match(out) {
		t.Errorf("an audit of a shop without orders says\n%s", out)
	}
	if err := os.RemoveAll(filepath.Join(dir, "inventory.pebble")); err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	cmd = exec.Command(binary(t), "serve", "--data", dir, "--order-addr", "127.0.0.1:0", "--inventory-addr", "127.0.0.1:0", "--billing-addr", "127.0.0.1:0")
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { kill(cmd) })
	defer late.Stop()
	said := ""
	for lines := bufio.NewScanner(stderr); said == "" && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "shop: ") {
			said = lines.Text()
		}
	}
	if !strings.Contains(said, "waits until Inventory takes its catalogue") || !strings.Contains(said, "freehold adopt") || !strings.Contains(said, "operator.token") {
		t.Errorf("it does not say what it waits for, and what to do: %q", said)
	}
	err = cmd.Process.Signal(os.Interrupt)
	_, _ = io.Copy(io.Discard, stderr)
	if err = errors.Join(err, cmd.Wait()); err != nil || strings.Contains(stdout.String(), "ready") {
		t.Errorf("Ctrl-C: %v\n%s", err, &stdout)
	}
}
