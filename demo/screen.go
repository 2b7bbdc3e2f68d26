package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// paragraphColumns is the width of the texts between the commands, where there is room.
const paragraphColumns = 92

// style is how a text stands out, as a terminal is told.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// span is a text of one style, line what stands on one line.
type (
	span struct {
		text  string
		style style
	}
	line []span
)

// screen is where the demo is watched. On a terminal it has a block of lines at its end that is drawn again and
// again in place; what is printed goes above it. It is not safe for concurrent use.
type screen struct {
	w     io.Writer
	live  bool // there is a terminal to draw on
	color bool
	size  func() (columns, rows int)
	block []line // that stands there
	shown string // as it was written
	err   error  // the first of writing, after which nothing is written
}

// newScreen returns the screen of f. It draws only on a terminal that can move its cursor, and in colour only where
// NO_COLOR (no-color.org) is not set.
func newScreen(f *os.File) *screen {
	s := &screen{w: f, size: func() (columns, rows int) {
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0
		}
		return int(size.Col), int(size.Row)
	}}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) // which nothing but a terminal has
	s.live = err == nil && os.Getenv("TERM") != "dumb"
	s.color = s.live && os.Getenv("NO_COLOR") == ""
	return s
}

// print writes lines that stay, above the block if there is one.
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

// paragraph prints a text broken into lines that fit, each behind the prefix.
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

// draw replaces the block, each line cut to the terminal's width, and without the last ones if they are more than
// it has room for: what has scrolled away cannot be drawn over.
func (s *screen) draw(lines ...line) {
	if !s.live {
		return
	}
	columns, rows := s.size()
	if columns <= 0 || rows <= 0 { // it does not say
		columns, rows = 80, 24
	}
	lines = lines[:min(len(lines), max(rows-1, 1))]
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(s.render(truncate(l, columns-1)) + "\x1b[K") // in the last column some terminals begin a new line
	}
	if b.String() == s.shown {
		return
	}
	s.write(s.home() + b.String() + "\x1b[J")
	s.block, s.shown = lines, b.String()
}

// finish leaves the block as it is for good.
func (s *screen) finish() {
	if s.block != nil {
		s.write("\r\n")
		s.block, s.shown = nil, ""
	}
}

// home moves the cursor to the beginning of the block.
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

// erase takes the block away.
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

// render turns a line into what is written. Control characters, which commands do not print, would move the cursor.
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

// truncate returns as much of a line as fits.
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
