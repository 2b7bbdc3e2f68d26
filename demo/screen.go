package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// paragraphColumns is the greatest width of the texts between the commands.
const paragraphColumns = 92

// style is the parameter of the escape sequence that sets the style of a text.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// span is a text of one style, line the spans of one line.
type (
	span struct {
		text  string
		style style
	}
	line []span
)

// screen is the output of the demo. On a terminal it ends with a block of lines that is redrawn in place; printed lines
// go above it. It is not safe for concurrent use.
type screen struct {
	w     io.Writer
	live  bool // the output is a terminal
	color bool
	size  func() (columns, rows int)
	block []line // the lines of the block
	shown string // the block as it was written
	err   error  // the first write error; nothing is written after it
}

// newScreen returns the screen of f. It draws only on a terminal that can move its cursor. It uses colours only if
// NO_COLOR (no-color.org) is not set.
func newScreen(f *os.File) *screen {
	s := &screen{w: f, size: func() (columns, rows int) {
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0
		}
		return int(size.Col), int(size.Row)
	}}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) // fails if f is no terminal
	s.live = err == nil && os.Getenv("TERM") != "dumb"
	s.color = s.live && os.Getenv("NO_COLOR") == ""
	return s
}

// print writes permanent lines, above the block if there is one.
func (s *screen) print(lines ...line) {
	var b strings.Builder
	b.WriteString(s.erase())
	for _, l := range lines {
		b.WriteString(s.render(l) + "\n")
	}
	block := s.block
	s.block, s.shown = nil, ""
	s.write(b.String())
	if block != nil {
		s.draw(block...)
	}
}

// paragraph prints a text, wrapped into lines that begin with prefix.
func (s *screen) paragraph(prefix, text string) {
	columns := paragraphColumns
	if n, _ := s.size(); s.live && n > 0 {
		columns = min(columns, n-1)
	}
	l := prefix
	for word := range strings.FieldsSeq(text) {
		if len(l) > len(prefix) && utf8.RuneCountInString(l)+utf8.RuneCountInString(word) > columns {
			s.print(line{{strings.TrimRight(l, " "), dim}})
			l = prefix
		}
		l += word + " "
	}
	s.print(line{{strings.TrimRight(l, " "), dim}})
}

// draw replaces the block. It truncates the lines to the width of the terminal and omits the last lines if the terminal
// has not enough rows, because lines that have scrolled away cannot be redrawn.
func (s *screen) draw(lines ...line) {
	if !s.live {
		return
	}
	columns, rows := s.size()
	if columns <= 0 || rows <= 0 { // the size is unknown
		columns, rows = 80, 24
	}
	lines = lines[:min(len(lines), max(rows-1, 1))]
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(s.render(truncate(l, columns-1)) + "\x1b[K") // some terminals wrap after the last column
	}
	if b.String() == s.shown {
		return
	}
	s.write(s.home() + b.String() + "\x1b[J")
	s.block, s.shown = lines, b.String()
}

// finish makes the block permanent.
func (s *screen) finish() {
	if s.block != nil {
		s.write("\r\n")
		s.block, s.shown = nil, ""
	}
}

// home returns the escape sequence that moves the cursor to the beginning of the block.
func (s *screen) home() string {
	switch n := len(s.block); n {
	case 0:
		return ""
	case 1:
		return "\r"
	default:
		return fmt.Sprintf("\r\x1b[%dA", n-1)
	}
}

// erase returns the escape sequence that erases the block.
func (s *screen) erase() string {
	if s.block == nil {
		return ""
	}
	return s.home() + "\x1b[J"
}

func (s *screen) write(text string) {
	if s.err == nil {
		_, s.err = io.WriteString(s.w, text)
	}
}

// render returns l with its escape sequences. It replaces control characters, which would move the cursor.
func (s *screen) render(l line) string {
	var b strings.Builder
	for _, p := range l {
		text := strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return ' '
			}
			return r
		}, p.text)
		if s.color && p.style != plain && text != "" {
			text = "\x1b[" + string(p.style) + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	if s.color {
		return b.String()
	}
	return strings.TrimRight(b.String(), " ")
}

// truncate returns the first columns of a line.
func truncate(l line, columns int) line {
	var short line
	for _, p := range l {
		if n := utf8.RuneCountInString(p.text); n > columns {
			p.text = string([]rune(p.text)[:max(columns, 0)])
			return append(short, p)
		}
		columns -= utf8.RuneCountInString(p.text)
		short = append(short, p)
	}
	return short
}
