package runner

import "testing"

func TestPattern(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "tcp:a:1", true},
		{"**", "x", true},
		{"tcp:a:1", "tcp:a:1", true},
		{"tcp:a:1", "tcp:a:12", false},
		{"tcp:a", "tcp:a:1", false},
		{"tcp:*", "tcp:a:1", true},
		{"tcp:*", "tcp:", true},
		{"tcp:*", "xtcp:", false},
		{"*:1", "tcp:a:1", true},
		{"*:1", "tcp:a:11", false},
		{"*a*a", "a", false},
		{"*a*a", "aba", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "acb", false},
		{"a*ab", "ab", false},
		{"a*ab*b", "aabb", true},
		{"t.p:*", "tcp:a", false},
		{"[t]cp:*", "tcp:a", false},
		{"tcp:?:1", "tcp:a:1", false},
		{"a*", "a\nb", true},
	} {
		if got := pattern(test.pattern).match(test.name); got != test.want {
			t.Errorf("pattern %q matches %q: %v, want %v", test.pattern, test.name, got, test.want)
		}
	}
}

// naiveMatch is pattern.match in its simplest form.
func naiveMatch(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		return naiveMatch(p[1:], s) || s != "" && naiveMatch(p, s[1:])
	}
	return s != "" && s[0] == p[0] && naiveMatch(p[1:], s[1:])
}

func FuzzPattern(f *testing.F) {
	f.Add("tcp:*:80", "tcp:a:80")
	f.Add("a*ab*b", "aabb")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 16 {
			_ = pattern(p).match(s)
			return
		}
		if got, want := pattern(p).match(s), naiveMatch(p, s); got != want {
			t.Errorf("pattern %q, name %q: %v, want %v", p, s, got, want)
		}
	})
}
