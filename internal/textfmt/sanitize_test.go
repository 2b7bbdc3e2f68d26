package textfmt

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// forbidden is the list of harmful characters as a reader of Unicode's charts would write it, by which the tests
// hold the code.
var forbidden = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x00, 0x1f, 1},
		{0x7f, 0x9f, 1},
		{0xad, 0xad, 1},
		{0x61c, 0x61c, 1},
		{0x180e, 0x180e, 1},
		{0x200b, 0x200f, 1},
		{0x2028, 0x202e, 1},
		{0x2060, 0x206f, 1},
		{0xfdd0, 0xfdef, 1},
		{0xfeff, 0xfeff, 1},
		{0xfff0, 0xfffb, 1},
		{0xfffe, 0xffff, 1},
	},
	R32: []unicode.Range32{
		{0x1d173, 0x1d17a, 1},
		{0x1fffe, 0x1ffff, 1},
		{0xe0000, 0xe00ff, 1},
		{0x10fffe, 0x10ffff, 1},
	},
}

// TestHarmfulCharacters goes through all of Unicode: what is forbidden is replaced, and what a person writes is not.
func TestHarmfulCharacters(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		in := "a" + string(r) + "b"
		got := OneLine(in)
		switch {
		case unicode.Is(forbidden, r) || unicode.Is(unicode.Cf, r):
			if got != "a b" {
				t.Errorf("%U: OneLine gives %q", r, got)
			}
			if quoted := strconv.Quote(in); strings.ContainsRune(quoted, r) {
				t.Errorf("%U: strconv.Quote leaves it as it is, so quoted texts show it", r)
			}
		case unicode.IsPrint(r) || unicode.Is(unicode.Zs, r):
			if got != in {
				t.Errorf("%U: OneLine gives %q", r, got)
			}
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                  "",
		" kernel  upgrade ": " kernel  upgrade ",
		"äöü 漢字 \u3000 e\u0301 \U0001f44d":               "äöü 漢字 \u3000 e\u0301 \U0001f44d",
		"a\tb\x1b[31m\r\nc\u2028d\u202ee\u2066\x00\xffä": "a b [31m  c d e  \ufffdä",
		"\u009b2J\u200f\u061c\U000e0041":                 " 2J   ",
		"\U0001f468\u200d\U0001f469":                     "\U0001f468 \U0001f469", // a joined emoji
		"\ufffd\xc3":                                     "\ufffd\ufffd",
		"\xed\xa0\x80":                                   "\ufffd\ufffd\ufffd", // a surrogate
	} {
		if got := OneLine(in); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := Lines("a\tb\nc\x1bd\u2028"), "a\tb\nc d "; got != want {
		t.Errorf("Lines gives %q, want %q", got, want)
	}
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"":                       {"", ""},
		" a  b ":                 {"a  b", "a  b"},
		"a\r\nb\x00\x1b[1mc\x7f": {"a  b  [1mc", "a  b  [1mc"},
		"\xff\xfea\xc3":          {"\ufffd\ufffda\ufffd", "a"},
		"1234567890":             {"1234567890", "1234567890"},
		"12345678901":            {"1234567890", "1234567890..."},
		"123456789é":             {"123456789", "123456789..."},
		"1234567890\r\n \n":      {"1234567890", "1234567890"},
		"\u202e123\u200f456":     {"123 456", "123 456"},
	} {
		if got := Truncate(in, 10); got != want[0] {
			t.Errorf("Begin(%q) = %q, want %q", in, got, want[0])
		}
		if got := Excerpt(in, 10); got != want[1] {
			t.Errorf("Excerpt(%q) = %q, want %q", in, got, want[1])
		}
	}
}

func TestEscapeJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a":"b"}`:                       `{"a":"b"}`,
		"{\n  \"ä\": \"漢\"\n}":            "{\n  \"ä\": \"漢\"\n}",
		"\"\u009b\u202e\x7f\U000e0041ä\"": `"\u009b\u202e\u007f\udb40\udc41ä"`,
		"\"\\\\\u202e\"":                  `"\\\u202e"`,
		"\"\xff\"":                        `"\ufffd"`,
	} {
		if got := string(EscapeJSON([]byte(in))); got != want {
			t.Errorf("EscapeJSON(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzText holds all the functions to what they promise, whatever the text.
func FuzzText(f *testing.F) {
	f.Add("a\tb\x1b[31m\xff\u2028\u202e\u200d\U000e0041", 5)
	f.Add("123456789é\u00ad", 10)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		safe := func(what, out, allowed string) {
			t.Helper()
			bad := func(r rune) bool {
				return (unicode.Is(forbidden, r) || unicode.Is(unicode.Cf, r)) && !strings.ContainsRune(allowed, r)
			}
			if !utf8.ValidString(out) || strings.ContainsFunc(out, bad) {
				t.Fatalf("%s of %q is %q", what, s, out)
			}
		}
		line := OneLine(s)
		safe("OneLine", line, "")
		if utf8.RuneCountInString(line) != utf8.RuneCountInString(s) || OneLine(line) != line {
			t.Fatalf("OneLine(%q) = %q: another length, or not the same when done again", s, line)
		}
		lines := Lines(s)
		safe("Lines", lines, "\n\t")
		if OneLine(lines) != line || Lines(lines) != lines {
			t.Fatalf("Lines(%q) = %q", s, lines)
		}
		limit = min(max(limit, 0), 1<<10)
		short, excerpt := Truncate(s, limit), Excerpt(s, limit)
		safe("Begin", short, "")
		safe("Excerpt", excerpt, "")
		if len(short) > limit || len(excerpt) > limit+3 || strings.Trim(short, " ") != short || Truncate(short, limit) != short {
			t.Fatalf("of %q at most %d bytes are %q and %q", s, limit, short, excerpt)
		}
		if again := Excerpt([]byte(s), limit); again != excerpt {
			t.Fatalf("bytes of %q become %q, the string %q", s, again, excerpt)
		}

		plain, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := EscapeJSON(plain)
		safe("EscapeJSON", string(escaped), "")
		var before, after string
		if json.Unmarshal(plain, &before) != nil || json.Unmarshal(escaped, &after) != nil || before != after {
			t.Fatalf("the JSON of %q reads %q before and %q after EscapeJSON", s, before, after)
		}
	})
}
