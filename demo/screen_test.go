package main

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeTerminal interprets escape sequences and keeps the lines that a terminal shows.
type fakeTerminal struct {
	columns int
	lines   [][]rune
	y, x    int
	escapes []string
}

var escape = regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)

func (v *fakeTerminal) Write(p []byte) (int, error) {
	for s := string(p); s != ""; {
		if m := escape.FindStringSubmatch(s); m != nil {
			v.escape(m[1], m[2])
			s = s[len(m[0]):]
			continue
		}
		r := []rune(s)[0]
		s = s[len(string(r)):]
		switch r {
		case '\r':
			v.x = 0
		case '\n': // the kernel adds a carriage return for a terminal
			v.y, v.x = v.y+1, 0
		default:
			if v.x == v.columns {
				v.y, v.x = v.y+1, 0
			}
			v.at(r)
		}
	}
	return len(p), nil
}

func (v *fakeTerminal) escape(number, letter string) {
	n, _ := strconv.Atoi(number)
	switch letter {
	case "A":
		v.y -= n
	case "J":
		v.lines = v.lines[:min(len(v.lines), v.y+1)]
		fallthrough
	case "K":
		if v.y < len(v.lines) {
			v.lines[v.y] = v.lines[v.y][:min(len(v.lines[v.y]), v.x)]
		}
	default:
		v.escapes = append(v.escapes, number+letter)
	}
}

func (v *fakeTerminal) at(r rune) {
	for len(v.lines) <= v.y {
		v.lines = append(v.lines, nil)
	}
	for len(v.lines[v.y]) <= v.x {
		v.lines[v.y] = append(v.lines[v.y], ' ')
	}
	v.lines[v.y][v.x] = r
	v.x++
}

func (v *fakeTerminal) String() string {
	var b strings.Builder
	for _, l := range v.lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return b.String()
}

// TestScreen: printed lines stay, the block is redrawn below them, truncated to the size of the terminal.
func TestScreen(t *testing.T) {
	t.Parallel()
	terminal := &fakeTerminal{columns: 20}
	columns, rows := 20, 4
	s := &screen{w: terminal, live: true, color: true, size: func() (int, int) { return columns, rows }}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"print", func() { s.print(line{{"one", plain}}, line{{"two", bold}}) }, "one\ntwo\n"},
		{"draw", func() { s.draw(line{{"web1 ", plain}, {"UP", green}}, line{{"web2 DOWN", plain}}) }, "one\ntwo\nweb1 UP\nweb2 DOWN\n"},
		{"draw again", func() { s.draw(line{{"web1 DOWN", plain}}, line{{"web2 UP", plain}}) }, "one\ntwo\nweb1 DOWN\nweb2 UP\n"},
		{"print above", func() { s.print(line{{"three", plain}}) }, "one\ntwo\nthree\nweb1 DOWN\nweb2 UP\n"},
		{"as wide as it may be", func() { s.draw(line{{strings.Repeat("ä", 15), red}, {"123456", plain}}) }, "one\ntwo\nthree\näääääääääääääää1234\n"},
		{"as high as it may be", func() { s.draw(line{{"a", plain}}, line{{"b", plain}}, line{{"c", plain}}, line{{"d", plain}}) }, "one\ntwo\nthree\na\nb\nc\n"},
		{"control characters", func() { s.draw(line{{"a\x1b[2Jb\rc", plain}}) }, "one\ntwo\nthree\na [2Jb c\n"},
		{"settle", func() { s.finish(); s.print(line{{"four", plain}}) }, "one\ntwo\nthree\na [2Jb c\nfour\n"},
		{"nothing to settle", s.finish, "one\ntwo\nthree\na [2Jb c\nfour\n"},
		{"prose", func() { s.paragraph("# ", "some words that are longer than it") }, "one\ntwo\nthree\na [2Jb c\nfour\n# some words that\n# are longer than\n# it\n"},
		{"no size", func() {
			columns, rows = 0, 0
			s.draw(line{{strings.Repeat("x", 15), plain}})
		}, "one\ntwo\nthree\na [2Jb c\nfour\n# some words that\n# are longer than\n# it\nxxxxxxxxxxxxxxx\n"},
	} {
		step.do()
		if diff := cmp.Diff(step.want, terminal.String()); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if len(terminal.escapes) == 0 {
		t.Error("no colours")
	}
}

// TestScreenPlain: without a terminal only lines are written, and without colour no escape sequences for it.
func TestScreenPlain(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &screen{w: &out, size: func() (int, int) { return 20, 4 }}
	s.draw(line{{"block", red}})
	s.print(line{{"one", red}, {"  ", plain}})
	s.finish()
	if out.String() != "one\n" {
		t.Errorf("wrote %q", out.String())
	}
	terminal := &fakeTerminal{columns: 20}
	s = &screen{w: terminal, live: true, size: s.size}
	s.draw(line{{"block", red}})
	s.print(line{{"one", red}})
	if terminal.escapes != nil || terminal.String() != "one\nblock\n" {
		t.Errorf("drew %q with %q", terminal, terminal.escapes)
	}
}
