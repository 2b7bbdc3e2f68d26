package runner

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	drawEvery = 200 * time.Millisecond // short runs end before the first line flickers up
	lineWidth = 79                     // of the narrowest terminal there is
)

// progress is the line on a terminal that says how far a run is. Without a terminal it does nothing.
type progress struct {
	w     io.Writer // nil: no terminal
	drawn bool
}

func newProgress(stderr io.Writer) *progress {
	if f, ok := stderr.(*os.File); ok && isTerminal(f) {
		return &progress{w: f}
	}
	return &progress{}
}

// ticks returns when to draw, a channel that never delivers if never.
func (p *progress) ticks() (tick <-chan time.Time, release func()) {
	if p.w == nil {
		return nil, func() {}
	}
	t := time.NewTicker(drawEvery)
	return t.C, t.Stop
}

// round draws how far a round is.
func (p *progress) round(s state, since time.Duration) {
	line := fmt.Sprintf("%.0f s: %d of %d done", since.Seconds(), s.done, s.total)
	if s.failed > 0 {
		line += fmt.Sprintf(", %d failed", s.failed)
	}
	if len(s.running) > 0 {
		line += ", waiting for " + strings.Join(s.running, ", ")
	}
	p.draw(line)
}

// draw replaces the line.
func (p *progress) draw(line string) {
	if p.w == nil {
		return
	}
	if utf8.RuneCountInString(line) > lineWidth {
		line = string([]rune(line)[:lineWidth-3]) + "..."
	}
	_, _ = io.WriteString(p.w, "\r\x1b[K"+line)
	p.drawn = true
}

// clear takes the line away.
func (p *progress) clear() {
	if p.drawn {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
