package terminal

import (
	"strings"
	"testing"
)

func TestScreenText(t *testing.T) {
	t.Parallel()
	line := func(text string) Line { return Line{Text: text} }
	for _, test := range []struct {
		lines         []Line
		columns, rows int
		want          string
	}{
		{nil, 80, 24, "\x1b[H\x1b[J"},
		{[]Line{line("a"), {"b", true}}, 80, 24, "\x1b[Ha\x1b[K\r\n\x1b[7mb\x1b[0m\x1b[K\x1b[J"},
		{[]Line{line("abcdefghij")}, 10, 24, "\x1b[Habcdef...\x1b[K\x1b[J"},
		{[]Line{line("内核升级内核")}, 10, 24, "\x1b[H内核升...\x1b[K\x1b[J"}, // a wide character takes two columns
		{[]Line{line("a"), line("b"), line("c")}, 80, 3, "\x1b[Ha\x1b[K\r\nb\x1b[K\r\nc\x1b[K\x1b[J"},
		{[]Line{line("a"), line("b"), line("c")}, 80, 2, "\x1b[Ha\x1b[K\r\nand 2 more lines\x1b[K\x1b[J"},
		{[]Line{line("a"), line("b")}, 80, 1, "\x1b[Hand 2 more lines\x1b[K\x1b[J"},
		{[]Line{line("\x1b[2Jx")}, 80, 24, "\x1b[H [2Jx\x1b[K\x1b[J"},
	} {
		if got := screenText(test.lines, test.columns, test.rows); got != test.want {
			t.Errorf("%v at %d x %d is %q, want %q", test.lines, test.columns, test.rows, got, test.want)
		}
	}
	if s := NewScreen(strings.NewReader(""), &strings.Builder{}); s != nil {
		t.Error("a buffer is a screen")
	}
}
