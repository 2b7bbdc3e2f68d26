package runner

import (
	"fmt"
	"io"
	"strings"
	"time"

	"hacheck/internal/terminal"
)

const drawEvery = 200 * time.Millisecond // short runs end before the first line flickers up

// progress is the line on a terminal that says how far a run is. Without a terminal it does nothing.
type progress struct{ *terminal.Block }

func newProgress(stderr io.Writer) *progress { return &progress{terminal.NewBlock(stderr)} }

// ticks returns when to draw, a channel that never delivers if never.
func (p *progress) ticks() (tick <-chan time.Time, release func()) {
	if !p.Live() {
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
	p.Draw(line)
}
