package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReference replays the tables.
func TestReference(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/reference/*.txt")
	if err != nil || len(files) != 11 {
		t.Fatalf("%d tables, want one for each of the 11 sections: %v", len(files), err)
	}
	var all []*refCase
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseReference(filepath.Base(file), string(text))
		if err != nil {
			t.Error(err)
		}
		all = append(all, cases...)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			replay(t, cases)
		})
	}
	same, differ, left := 0, 0, 0
	for _, c := range all {
		switch {
		case c.left != "":
			left++
		case c.ours != nil:
			differ++
		default:
			same++
		}
	}
	t.Logf("%d rows: %d the same, %d differ on purpose, %d not replayed", len(all), same, differ, left)
	t.Run("migrating", func(t *testing.T) { checkDocumented(t, all) })
}

// replay replays the rows of a table. Rows that send requests share one daemon for each configuration. Rows that
// start a daemon have their own directory and run in parallel.
func replay(t *testing.T, cases []*refCase) {
	shared := map[string]*refRun{}
	for _, c := range cases {
		if c.left != "" {
			continue
		}
		asks := func(what string) bool {
			return slices.ContainsFunc(c.steps, func(s refStep) bool { return s.what == what })
		}
		failed := func(t *testing.T, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s:%d: %s:\n\t%v", c.file, c.line, c.row, err)
			}
		}
		if !asks("send") && !asks("start") || asks("start") {
			t.Run(fmt.Sprintf("line %d", c.line), func(t *testing.T) {
				t.Parallel()
				failed(t, c.run(newRefRun(t, c.config)))
			})
			continue
		}
		w := shared[c.config]
		if w == nil {
			w = newRefRun(t, c.config)
			if err := w.start(c, ""); err != nil || !w.last.serves {
				t.Fatalf("%s:%d: the daemon: %v, %v", c.file, c.line, err, w.last)
			}
			shared[c.config] = w
		}
		failed(t, c.run(w))
	}
}

// checkDocumented compares the table of differences in docs/migrating.md with the rows. Each line of the table needs
// a row that differs. Each such row needs a line, or `doc: none` if no operator can notice the difference.
func checkDocumented(t *testing.T, cases []*refCase) {
	page, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "\n| | the original | here |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/migrating.md has no table of differences")
	}
	shown := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		if len(cells) < 3 {
			break
		}
		shown[strings.TrimPrefix(cells[0], "| ")] = false
	}
	for _, c := range cases {
		if c.doc == "" || c.doc == "none" {
			continue
		}
		if _, ok := shown[c.doc]; !ok {
			t.Errorf("%s:%d: docs/migrating.md has no line %q", c.file, c.line, c.doc)
			continue
		}
		shown[c.doc] = true
	}
	for name, by := range shown {
		if !by {
			t.Errorf("docs/migrating.md: no row of the tables shows the difference %q", name)
		}
	}
}

// TestReferenceRejectsInvalidFiles: a table with a mistake is an error.
func TestReferenceRejectsInvalidFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, says string }{
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: 404", "does not say why"},
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: same\nwhy: because", "does not differ"},
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: 404\nwhy: because", "names no line"},
		{"row: r\noriginal: 200\nours: same", "nothing is done"},
		{"row: r\nrun: true\nours: same", "answer is missing"},
		{"row: r\nrun: true\noriginal: nonsense", "nothing that can be expected"},
		{"row: r\nrun: true\noriginal: exit", "lacks what it needs"},
		{"row: r\nrum: true", "no key"},
		{"row: r\nrun: true\nnot replayed: never", "said not to be replayed"},
	} {
		if _, err := parseReference("x", c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.says)
		}
	}
	for _, c := range []struct{ text, says string }{
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: same", "want exit"},
		{"row: r\nrun: exit 3\noriginal: exit 3\nours: exit 4\nwhy: w\ndoc: none", "the same as the original's"},
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: exit 4\nwhy: w\ndoc: none", "want exit"},
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: exit 3\nwhy: w\ndoc: none", ""},
		{"row: r\nrun: exit 3\noriginal: exit 3\nours: same", ""},
	} {
		cases, err := parseReference("x", c.text)
		if err != nil {
			t.Fatal(err)
		}
		switch err := cases[0].run(newRefRun(t, "")); {
		case c.says == "" && err != nil, c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: got %v, want %q", c.text, err, c.says)
		}
	}
}
