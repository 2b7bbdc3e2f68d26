package terminal

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"hacheck/internal/textfmt"
)

// Screen is a whole terminal that a command redraws until it ends. It uses the alternate screen, so that the text from
// before is there again after Leave. Its methods are not safe for concurrent use.
type Screen struct {
	out   *os.File
	in    *os.File      // nil if standard input is no terminal
	saved *unix.Termios // of in, while the screen is entered
}

// NewScreen returns a screen on out that takes keys from in. It returns nil if out is no terminal.
func NewScreen(in io.Reader, out io.Writer) *Screen {
	f, ok := out.(*os.File)
	if !ok || !IsTerminal(f) {
		return nil
	}
	s := &Screen{out: f}
	if keys, ok := in.(*os.File); ok && IsTerminal(keys) {
		s.in = keys
	}
	return s
}

// Enter switches to the alternate screen, hides the cursor, and makes keys arrive at once and without an echo. ^C and ^Z
// still send their signals.
func (s *Screen) Enter() {
	if s.in != nil {
		if old, err := unix.IoctlGetTermios(int(s.in.Fd()), getTermios); err == nil {
			s.saved = old
			raw := *old
			raw.Lflag &^= unix.ICANON | unix.ECHO
			raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
			_ = unix.IoctlSetTermios(int(s.in.Fd()), setTermios, &raw) // keys then need a line end
		}
	}
	_, _ = io.WriteString(s.out, "\x1b[?1049h\x1b[?25l")
}

// Leave restores what Enter has changed.
func (s *Screen) Leave() {
	_, _ = io.WriteString(s.out, "\x1b[?25h\x1b[?1049l")
	if s.saved != nil {
		_ = unix.IoctlSetTermios(int(s.in.Fd()), setTermios, s.saved) // there is no other way to restore it
		s.saved = nil
	}
}

// Keys returns the bytes that are typed, until standard input ends. Without a keyboard the channel is nil.
func (s *Screen) Keys() <-chan byte {
	if s.in == nil {
		return nil
	}
	keys := make(chan byte)
	go func() {
		var b [1]byte
		for {
			if n, err := s.in.Read(b[:]); err != nil || n == 0 {
				return
			}
			keys <- b[0]
		}
	}()
	return keys
}

// Line is a line of a screen. A marked line is in reverse video.
type Line struct {
	Text     string
	IsMarked bool
}

// Draw replaces the screen by lines. If there are more lines than rows, the last row says how many more. It reads the size
// each time, because windows are resized.
func (s *Screen) Draw(lines []Line) error {
	columns, rows := defaultColumns, defaultRows
	if size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		columns, rows = int(size.Col), int(size.Row)
	}
	_, err := io.WriteString(s.out, screenText(lines, columns, rows))
	return err
}

// screenText returns the control sequences that draw lines on a screen of that size.
func screenText(lines []Line, columns, rows int) string {
	if len(lines) > rows {
		more := len(lines) - max(rows-1, 0)
		lines = append(lines[:max(rows-1, 0):max(rows-1, 0)], Line{Text: "and " + textfmt.Count(more, "more line")})
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		text := textfmt.TruncateColumns(textfmt.OneLine(line.Text), columns-1) // some terminals begin a new line after the last column
		if line.IsMarked {
			text = "\x1b[7m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}
