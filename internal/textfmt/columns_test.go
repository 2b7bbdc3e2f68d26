package textfmt

import "testing"

func TestColumns(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"":             0,
		"web":          3,
		"äöü":          3,
		"内核":           4,
		"Ｗeb":          4,
		"e\u0301":      1, // a combining accent
		"a\u200db":     2, // a zero width joiner
		"\U0001f600 x": 4,
		"\xff":         1,
	} {
		if got := Columns(text); got != want {
			t.Errorf("%q takes %d columns, want %d", text, got, want)
		}
	}
}

func TestTruncateColumns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		line string
		most int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"abcdef", 5, "ab..."},
		{"内核升级", 8, "内核升级"},
		{"内核升级", 7, "内核..."},
		{"内核升级", 6, "内..."}, // half of a character cannot be drawn
		{"内核", 1, ""},
		{"ab", 0, ""},
		{"ab", -1, ""},
		{"ab\u0301c", 2, "ab\u0301"},
	} {
		if got := TruncateColumns(test.line, test.most); got != test.want {
			t.Errorf("%q cut to %d columns is %q, want %q", test.line, test.most, got, test.want)
		}
	}
}

// TestTableColumns: a wide character takes two columns.
func TestTableColumns(t *testing.T) {
	t.Parallel()
	const want = "ab    x\n中中  x\n"
	if got := Table([][]string{{"ab", "x"}, {"中中", "x"}}); got != want {
		t.Errorf("the table is %q, want %q", got, want)
	}
}
