package check_test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
)

func TestSplitCommand(t *testing.T) {
	for s, want := range map[string][]string{
		"/usr/local/bin/zk-check.sh --port 2191": {"/usr/local/bin/zk-check.sh", "--port", "2191"},
		" a\t b\nc ":                             {"a", "b", "c"},
		`a 'b  c' "d  e" f`:                      {"a", "b  c", "d  e", "f"},
		`a '' "" b`:                              {"a", "", "", "b"},
		`a'b'"c"d`:                               {"abcd"},
		`a 'it'\''s'`:                            {"a", "it's"},
		`a "say \"x\" \\ \$"`:                    {"a", `say "x" \ $`},
		`a "keep \n \'"`:                         {"a", `keep \n \'`},
		`a 'keep \\ "'`:                          {"a", `keep \\ "`},
		`a b\ c \" \\`:                           {"a", "b c", `"`, `\`},
		"a\\\nb \"c\\\nd\"":                      {"ab", "cd"},
		`a | b; c & d > e #f`:                    {"a", "|", "b;", "c", "&", "d", ">", "e", "#f"},
		`a $HOME ~ *.c {x}`:                      {"a", "$HOME", "~", "*.c", "{x}"},
		"ä 'ö ü'":                                {"ä", "ö ü"},
	} {
		got, err := check.SplitCommand(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	}
	for _, s := range []string{"", " \n", "''", `"" a`, "a 'b", `a "b`, `a "b\"`, `a \`, "a\x00b", "a 'b\x00c'"} {
		if got, err := check.SplitCommand(s); err == nil {
			t.Errorf("%q becomes %q, want an error", s, got)
		}
	}
}

// A shell splits a line of letters, blanks, quotes and backslashes into the same words.
func TestSplitCommandAsShell(t *testing.T) {
	const letters = "a b\t'\"\\'\"\\ é"
	sequence := uint32(1)
	for range 300 {
		var line strings.Builder
		for range 3 + sequence%12 {
			sequence = sequence*1664525 + 1013904223
			line.WriteByte(letters[sequence>>16%uint32(len(letters))])
		}
		words, err := check.SplitCommand("x " + line.String())
		shell := exec.Command("sh", "-c", `printf '%s\0' x `+line.String())
		out, shellErr := shell.Output()
		if err != nil || shellErr != nil {
			// A shell accepts a backslash at the end of the line. It refuses all other lines with errors too.
			if (err == nil) != (shellErr == nil) && !strings.HasSuffix(line.String(), `\`) {
				t.Errorf("%q: %v, the shell: %v", line.String(), err, shellErr)
			}
			continue
		}
		want := strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00")
		if !slices.Equal(words, want) {
			t.Errorf("%q becomes %q, the shell makes %q of it", line.String(), words, want)
		}
	}
}

func FuzzSplitCommand(f *testing.F) {
	f.Add(`a 'b c' "d \" e" \f`)
	f.Fuzz(func(t *testing.T, s string) {
		words, err := check.SplitCommand(s)
		if err != nil {
			if words != nil {
				t.Errorf("%q: words %q with an error", s, words)
			}
			return
		}
		// Quoted again they are the same words.
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		again, err := check.SplitCommand(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q becomes %q, and that %q (%v)", s, words, again, err)
		}
	})
}
