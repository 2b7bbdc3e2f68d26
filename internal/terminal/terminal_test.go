package terminal

import (
	"os"
	"strings"
	"testing"
)

func TestBlock(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	columns, rows := 10, 3
	b := &Block{w: &out, size: func() (int, int) { return columns, rows }}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{b.Clear, ""}, // there is nothing yet
		{func() { b.Draw("one") }, "\r\x1b[Kone"},
		{func() { b.Draw("äöüäöüäöü", "äöüäöüäöüä") }, "\r\x1b[Käöüäöüäöü\r\näöüäöü..."},
		{func() { b.Draw("a", "b", "c", "d") }, "\r\x1b[1A\x1b[Ja\r\nb"}, // what does not fit would scroll away
		{func() { columns, rows = 0, 0 }, ""},
		{func() { b.Draw(strings.Repeat("x", 80)) }, "\r\x1b[1A\x1b[J" + strings.Repeat("x", 76) + "..."},
		{func() { columns = 3 }, ""},
		{func() { b.Draw("abc") }, "\r\x1b[Kab"},
		{b.Clear, "\r\x1b[K"},
		{b.Clear, ""},
	} {
		out.Reset()
		step.do()
		if out.String() != step.want {
			t.Errorf("drew %q, want %q", out.String(), step.want)
		}
	}
}

func TestNoTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out strings.Builder
	for _, b := range []*Block{NewBlock(null), NewBlock(&out)} {
		b.Draw("a")
		b.Clear()
		if b.Live() || b.Rows() != 1 || out.Len() > 0 {
			t.Errorf("something that is no terminal is drawn on: %q", &out)
		}
	}
	if b := NewFixedBlock(&out, 80, 24); !b.Live() || b.Rows() != 23 {
		t.Errorf("a block of 24 rows is live: %v, and has room for %d lines", b.Live(), b.Rows())
	}
}
