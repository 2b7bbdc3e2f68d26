// Package terminal draws the progress lines of a command that runs for a while: in place, until it erases them.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"hacheck/internal/textfmt"
)

// The size of a terminal that does not tell its size.
const (
	defaultColumns = 80
	defaultRows    = 24
)

// IsTerminal reports whether f is a terminal. Other devices have no line discipline.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	return err == nil
}

// Block is a group of lines at the cursor of a terminal, which Draw replaces. Call Clear before other output to the
// terminal. It is not safe for concurrent use.
type Block struct {
	w     io.Writer // nil: no terminal
	size  func() (columns, rows int)
	drawn int // lines on the terminal
}

// NewBlock returns a block on w. If w is no terminal, the block is not Live and draws nothing.
func NewBlock(w io.Writer) *Block {
	f, ok := w.(*os.File)
	if !ok || !IsTerminal(f) {
		return &Block{}
	}
	return &Block{w: f, size: func() (columns, rows int) {
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0
		}
		return int(size.Col), int(size.Row)
	}}
}

// NewFixedBlock returns a block on any writer, of a fixed size, for tests.
func NewFixedBlock(w io.Writer, columns, rows int) *Block {
	return &Block{w: w, size: func() (int, int) { return columns, rows }}
}

// Live reports whether there is a terminal to draw on.
func (b *Block) Live() bool { return b.w != nil }

// Rows returns how many lines Draw can show, at least one. It reads the size each time, because windows are resized.
func (b *Block) Rows() int {
	if b.w == nil {
		return 1
	}
	_, rows := b.size()
	if rows <= 0 {
		rows = defaultRows
	}
	return max(rows-1, 1)
}

// Draw replaces the block by lines, each cut to the width of the terminal. It shows the first Rows lines only: lines that
// have scrolled away cannot be replaced.
func (b *Block) Draw(lines ...string) {
	if b.w == nil {
		return
	}
	columns, _ := b.size()
	if columns <= 0 {
		columns = defaultColumns
	}
	lines = lines[:min(len(lines), b.Rows())]
	cut := make([]string, len(lines))
	for i, line := range lines {
		cut[i] = textfmt.TruncateColumns(textfmt.OneLine(line), columns-1) // some terminals begin a new line after the last column
	}
	_, _ = io.WriteString(b.w, b.eraseSequence()+strings.Join(cut, "\r\n"))
	b.drawn = len(lines)
}

// Clear erases the block. The next output begins where the block began.
func (b *Block) Clear() {
	if b.drawn > 0 {
		_, _ = io.WriteString(b.w, b.eraseSequence())
		b.drawn = 0
	}
}

// eraseSequence returns the control sequence that erases the block. The cursor is at the end of the block.
func (b *Block) eraseSequence() string {
	if b.drawn <= 1 {
		return "\r\x1b[K"
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", b.drawn-1)
}
