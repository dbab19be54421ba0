package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows long work: a bar on a terminal, a line every few seconds
// otherwise. It writes to standard error.
type progress struct {
	bar  *progressbar.ProgressBar
	last time.Time
	text string
}

// newProgress shows work of a size, -1 if it is unknown.
func newProgress(size int64) *progress {
	p := &progress{}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return p
}

// at shows how much is done.
func (p *progress) at(n int64, format string, args ...any) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf(format, args...))
		_ = p.bar.Set64(n) // display only
		return
	}
	p.line(fmt.Sprintf(format, args...))
}

// say shows what is being done.
func (p *progress) say(text string) {
	if p.bar != nil {
		p.bar.Describe(text)
		return
	}
	p.line(text)
}

func (p *progress) line(text string) {
	if text == p.text || time.Since(p.last) < 2*time.Second {
		return
	}
	p.last, p.text = time.Now(), text
	fmt.Fprintln(os.Stderr, text)
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish() // display only
	}
}
