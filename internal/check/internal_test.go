package check

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Every line of the list of protocols names something, and no two lines name the same.
func TestProtocolNames(t *testing.T) {
	names := map[string]bool{}
	for _, e := range protocols(Options{}) {
		if e.Name == "" && e.Type == nil {
			t.Error("a line with neither a protocol of check URLs nor a type")
		}
		if e.Name != "" && names[e.Name] {
			t.Errorf("two protocols are called %q", e.Name)
		}
		names[e.Name] = true
	}
}

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonAnswered; r <= ReasonForbidden; r++ {
		name := r.String()
		if name == "" || name == "unknown" || seen[name] {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[name] = true
	}
	if got := (ReasonForbidden + 1).String(); got != "unknown" {
		t.Errorf("a reason that is none is called %q", got)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		" a  b ":                  "a  b",
		"a\r\nb\x00\x1b[1mc\x7f":  "a  b  [1mc",
		"\xff\xfea\xc3":           "a",
		"é\u0085\u2028x":          "é  x",
		"1234567890":              "1234567890",
		"12345678901":             "1234567890...",
		"123456789é":              "123456789...",
		strings.Repeat("\n", 100): "",
		"1234567890\r\n \n":       "1234567890",
	} {
		if got := excerpt(in, 10); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\r\nb\xff\u2028é", 5)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 1<<10 {
			return
		}
		got := excerpt(s, limit)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || len(got) > limit+3 || strings.TrimLeft(got, " ") != got {
			t.Errorf("%q limited to %d becomes %q", s, limit, got)
		}
		if again := excerpt([]byte(s), limit); again != got {
			t.Errorf("bytes of %q become %q, the string %q", s, again, got)
		}
	})
}
