package runner

import (
	"fmt"
	"io"
	"strings"
	"time"

	"hacheck/internal/terminal"
)

const drawInterval = 200 * time.Millisecond // short runs end before the first line flickers up

// progressLine is the line on a terminal that says how far a run is. Without a terminal it does nothing.
type progressLine struct{ *terminal.Block }

func newProgressLine(stderr io.Writer) *progressLine { return &progressLine{terminal.NewBlock(stderr)} }

// ticks returns when to draw, a channel that never delivers if never.
func (p *progressLine) ticks() (tick <-chan time.Time, release func()) {
	if !p.Live() {
		return nil, func() {}
	}
	t := time.NewTicker(drawInterval)
	return t.C, t.Stop
}

// drawRound draws how far a round is.
func (p *progressLine) drawRound(s progress, since time.Duration) {
	line := fmt.Sprintf("%.0f s: %d of %d done", since.Seconds(), s.done, s.total)
	if s.failed > 0 {
		line += fmt.Sprintf(", %d failed", s.failed)
	}
	if len(s.running) > 0 {
		line += ", waiting for " + strings.Join(s.running, ", ")
	}
	p.Draw(line)
}
