package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Each row of the tables in testdata/reference has the observed behaviour of the original, and that of this hacheck if it
// differs on purpose. testdata/reference/README describes the format.

// refCase is one row.
type refCase struct {
	file   string
	line   int
	row    string
	config string // lines of the configuration file
	steps  []refStep
	// original and ours are the expected results of the last step; ours is nil if it is the same.
	original, ours []refTerm
	why, doc, left string
}

// refStep is one step of a row. Its line has words and quoted strings.
type refStep struct {
	what, text string
	words      []refWord
}

type refWord struct {
	text   string
	quoted bool
}

// refTerm is one expectation, such as `body "^$"`.
type refTerm struct {
	word string
	args []string
}

func (t refTerm) String() string { return strings.TrimSpace(fmt.Sprintf("%s %q", t.word, t.args)) }

// refTerms has the words of expectations and the number of strings after each. Numbers are HTTP codes.
var refTerms = map[string]int{
	"body": 1, "header": 1, "noheader": 1, "closed": 0, // of an HTTP answer; closed: not a byte
	"quick": 0, "late": 0, // before or after half of healthcheck_timeout
	"exit": 1, "out": 1, "err": 1, // of a command, or of a daemon that has ended
	"serves": 0, "log": 1, // of a daemon that runs
	"file": 2, "nofile": 1, // in the spool directory afterwards
	"upstream": 1, "noupstream": 0, "asked": 1, // the last request to the service, no request, the number of requests
	"never": 0, // never happens here: the original hangs or loses something
}

// refWords splits a line into words and Go strings.
func refWords(s string) ([]refWord, error) {
	var words []refWord
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		if s[0] == '"' || s[0] == '`' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			u, err := strconv.Unquote(q)
			if err != nil {
				return nil, err
			}
			words, s = append(words, refWord{u, true}), s[len(q):]
			continue
		}
		var w string
		w, s, _ = strings.Cut(s, " ")
		words = append(words, refWord{w, false})
	}
	return words, nil
}

func parseTerms(s string) ([]refTerm, error) {
	words, err := refWords(s)
	if err != nil {
		return nil, err
	}
	terms := []refTerm{}
	for len(words) > 0 {
		t := refTerm{word: words[0].text}
		n, known := refTerms[t.word]
		if _, err := strconv.Atoi(t.word); err != nil && (!known || words[0].quoted) || len(words) <= n {
			return nil, fmt.Errorf("%q is nothing that can be expected, or lacks what it needs", t.word)
		}
		for _, w := range words[1 : 1+n] {
			t.args = append(t.args, w.text)
		}
		words, terms = words[1+n:], append(terms, t)
	}
	if len(terms) == 0 {
		return nil, errors.New("nothing is expected")
	}
	return terms, nil
}

// parseReference reads one table.
func parseReference(file, text string) ([]*refCase, error) {
	var cases []*refCase
	var c *refCase
	config := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		bad := func(err error) ([]*refCase, error) { return nil, fmt.Errorf("%s:%d: %w", file, n, err) }
		if !ok || c == nil && key != "row" && key != "configs" {
			return bad(fmt.Errorf("%q is no key of a row", key))
		}
		var err error
		switch key {
		case "configs": // for all rows that follow
			config = strings.ReplaceAll(value, ` \n `, "\n")
		case "row":
			c = &refCase{file: file, line: n, row: value, config: config}
			cases = append(cases, c)
		case "config":
			c.config += "\n" + value
		case "original":
			c.original, err = parseTerms(value)
		case "ours":
			if value != "same" {
				c.ours, err = parseTerms(value)
			}
		case "why":
			c.why = value
		case "doc":
			c.doc = value
		case "not replayed":
			c.left = value
		case "run", "shell", "start":
			c.steps = append(c.steps, refStep{what: key, text: value})
		case "send", "file", "signal":
			s := refStep{what: key, text: value}
			s.words, err = refWords(value)
			c.steps = append(c.steps, s)
		default:
			err = fmt.Errorf("%q is no key of a row", key)
		}
		if err != nil {
			return bad(err)
		}
	}
	for _, c := range cases {
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, c.line, c.row, err)
		}
	}
	return cases, nil
}

var refTestName = regexp.MustCompile(`\bTest[A-Z]\w*`)

// testExists reports whether a package has a test of that name.
func testExists(name string) bool {
	files, _ := filepath.Glob("../*/*/*_test.go")
	here, _ := filepath.Glob("*_test.go")
	return slices.ContainsFunc(append(files, here...), func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T)"))
	})
}

// validate returns an error if a row lacks something or has too much.
func (c *refCase) validate() error {
	switch {
	case c.left != "":
		for _, name := range refTestName.FindAllString(c.left, -1) {
			if !testExists(name) {
				return fmt.Errorf("there is no %s", name)
			}
		}
		if c.steps != nil || c.original != nil || c.ours != nil {
			return errors.New("it is said not to be replayed, and has what it needs to be")
		}
		return nil
	case c.steps == nil:
		return errors.New("nothing is done")
	case c.original == nil:
		return errors.New("the original's answer is missing")
	case c.ours != nil && c.why == "":
		return errors.New("it differs, and does not say why")
	case c.ours == nil && c.why != "":
		return errors.New("it says why, and does not differ")
	case c.ours != nil && c.doc == "":
		return errors.New("it differs, and names no line of docs/migrating.md (or none)")
	}
	return nil
}
