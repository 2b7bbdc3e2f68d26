// Package terminal draws the lines of a command that is still at work, in place, and takes them away
// again.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"hacheck/internal/textfmt"
)

// What a terminal has that does not say how large it is.
const (
	defaultColumns = 80
	defaultRows    = 24
)

// Is tells a terminal from other devices: only a terminal has a line discipline.
func Is(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	return err == nil
}

// Block is some lines at the cursor of a terminal that are drawn again and again. Whatever else is printed
// there needs a Clear first. It is not safe for concurrent use.
type Block struct {
	w     io.Writer // nil: no terminal
	size  func() (columns, rows int)
	drawn int // lines that stand there
}

// NewBlock returns the block of w. Unless w is a terminal, it is not Live and draws nothing.
func NewBlock(w io.Writer) *Block {
	f, ok := w.(*os.File)
	if !ok || !Is(f) {
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

// Fixed returns a block on w, whatever w is, of a size that does not change. Tests look at what it draws.
func Fixed(w io.Writer, columns, rows int) *Block {
	return &Block{w: w, size: func() (int, int) { return columns, rows }}
}

// Live reports whether there is a terminal to draw on.
func (b *Block) Live() bool { return b.w != nil }

// Rows returns how many lines Draw has room for, at least one. The size is asked for anew each time,
// because windows change theirs.
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

// Draw replaces the block by these lines, each cut to the width of the terminal. Those that Rows has no
// room for are left out: what has scrolled away cannot be drawn over.
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
		cut[i] = fit(textfmt.OneLine(line), columns-1) // in the last column some terminals begin a new line
	}
	_, _ = io.WriteString(b.w, b.erase()+strings.Join(cut, "\r\n"))
	b.drawn = len(lines)
}

// Clear takes the block away. The next thing printed stands where it began.
func (b *Block) Clear() {
	if b.drawn > 0 {
		_, _ = io.WriteString(b.w, b.erase())
		b.drawn = 0
	}
}

// erase is what a terminal is told to forget the block, which the cursor is at the end of.
func (b *Block) erase() string {
	if b.drawn <= 1 {
		return "\r\x1b[K"
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", b.drawn-1)
}

// fit cuts a line to so many characters.
func fit(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	if width <= 3 {
		return string([]rune(line)[:max(width, 0)])
	}
	return string([]rune(line)[:width-3]) + "..."
}
