package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
	"hacheck/internal/config"
)

const (
	checksPage = "../../docs/checks.md"
	loginsPage = "../../docs/checks-logins.md" // internal/check holds this one to the code
)

// onChecksPage are the types that checks.md describes: all but those with a page of their own.
func onChecksPage(t *testing.T) (types []check.Type) {
	t.Helper()
	logins, err := os.ReadFile(loginsPage)
	if err != nil {
		t.Fatal(err)
	}
	headings := ""
	for line := range strings.Lines(string(logins)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			headings += " " + strings.NewReplacer(",", " ", "(", " ", ")", " ", "\n", " ").Replace(heading) + " "
		}
	}
	for _, typ := range check.Types() {
		if !strings.Contains(headings, " "+typ.Name+" ") {
			types = append(types, typ)
		}
	}
	return types
}

// yamlBlocks are the examples of a page.
func yamlBlocks(t *testing.T, page string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(text), "```") {
		if block, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// Every example of a configured check can be built, and every type has one.
func TestChecksPageExamples(t *testing.T) {
	seen := map[string]bool{}
	for _, block := range yamlBlocks(t, checksPage) {
		var checks []map[string]any
		if strings.HasPrefix(block, "services:") {
			var file struct {
				Services map[string]struct{ Checks []map[string]any }
			}
			if err := yaml.Unmarshal([]byte(block), &file); err != nil {
				t.Errorf("%v in\n%s", err, block)
			}
			for _, s := range file.Services {
				checks = append(checks, s.Checks...)
			}
		} else if err := yaml.Unmarshal([]byte(block), &checks); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
		if len(checks) == 0 {
			t.Errorf("no check in\n%s", block)
		}
		for _, options := range checks {
			name := fmt.Sprint(options["type"])
			delete(options, "type")
			c, err := check.Build(check.Spec{Type: name, Options: options}, check.Defaults{Host: "127.0.0.1"})
			if err != nil {
				t.Errorf("%v in\n%s", err, block)
				continue
			}
			seen[c.Type] = true
		}
	}
	for _, typ := range onChecksPage(t) {
		if !seen[typ.Name] {
			t.Errorf("docs/checks.md has no example of %s", typ.Name)
		}
	}
}

// The page has a section for each type, with each of its names, and a row for each option with its default.
func TestChecksPageOptions(t *testing.T) {
	text, err := os.ReadFile(checksPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range onChecksPage(t) {
		_, section, ok := strings.Cut(string(text), "\n### `"+typ.Name+"`")
		if !ok {
			t.Errorf("docs/checks.md has no section of %s", typ.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		heading, _, _ := strings.Cut(section, "\n")
		for _, alias := range typ.Aliases {
			if !strings.Contains(heading, "`"+alias+"`") {
				t.Errorf("the section of %s does not name its alias %s", typ.Name, alias)
			}
		}
		var rows []string
		for _, o := range typ.Options {
			given := "`" + o.Default + "`"
			switch {
			case o.Required:
				given = "required"
			case o.Default == "":
				given = ""
			}
			row := strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | ", o.Name, given), "|  |", "| |")
			rows = append(rows, row)
			if !strings.Contains(section, "\n"+row) {
				t.Errorf("the section of %s has no row %q", typ.Name, row)
			}
		}
		for line := range strings.Lines(section) {
			if strings.HasPrefix(line, "| `") && !slices.ContainsFunc(rows, func(row string) bool { return strings.HasPrefix(line, row) }) {
				t.Errorf("the section of %s has a row that is no option: %s", typ.Name, line)
			}
		}
	}
}

// TestEveryKeyIsDocumented: every key of the configuration is on a page, and every protocol of check URLs is in one row of
// the table of docs/checks.md.
func TestEveryKeyIsDocumented(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%q, %v", pages, err)
	}
	var all strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	named := func(s string) *regexp.Regexp {
		return regexp.MustCompile("`[^`\n]*\\b" + regexp.QuoteMeta(s) + "\\b[^`\n]*`")
	}
	for _, k := range config.Keys() {
		if !named(k.Name).MatchString(all.String()) && !strings.Contains(all.String(), "\n"+k.Name+":") {
			t.Errorf("no page has %s", k.Name)
		}
	}
	page, err := os.ReadFile(checksPage)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| protocol | healthy")
	table, _, _ = strings.Cut(table, "\n\n")
	var protocols strings.Builder
	for line := range strings.Lines(table) {
		if column, _, ok := strings.Cut(strings.TrimPrefix(line, "|"), "|"); ok && strings.HasPrefix(line, "| `") {
			protocols.WriteString(column)
		}
	}
	for name := range check.All(check.Options{}) {
		if n := strings.Count(protocols.String(), "`"+name+"`"); n != 1 {
			t.Errorf("the table of check URLs has %d rows about %s, want 1", n, name)
		}
	}
}
