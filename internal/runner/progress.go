package runner

import (
	"fmt"
	"io"
	"strings"
	"time"

	"hacheck/internal/terminal"
)

const drawInterval = 200 * time.Millisecond // a short run ends before the line appears

// progress is how far a round is.
type progress struct {
	done, total, failed int
	running             []string // names of the running steps, sorted
}

// progressLine shows the progress on a terminal. It does nothing if standard error is no terminal.
type progressLine struct{ *terminal.Block }

func newProgressLine(stderr io.Writer) *progressLine { return &progressLine{terminal.NewBlock(stderr)} }

// ticks returns a channel that says when to draw, nil without a terminal. The caller must call stop.
func (l *progressLine) ticks() (tick <-chan time.Time, stop func()) {
	if !l.Live() {
		return nil, func() {}
	}
	t := time.NewTicker(drawInterval)
	return t.C, t.Stop
}

// drawRound draws the progress of a round that has run for elapsed.
func (l *progressLine) drawRound(p progress, elapsed time.Duration) {
	line := fmt.Sprintf("%.0f s: %d of %d done", elapsed.Seconds(), p.done, p.total)
	if p.failed > 0 {
		line += fmt.Sprintf(", %d failed", p.failed)
	}
	if len(p.running) > 0 {
		line += ", waiting for " + strings.Join(p.running, ", ")
	}
	l.Draw(line)
}
