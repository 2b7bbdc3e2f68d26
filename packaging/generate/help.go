package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// page is what a command says of itself.
type page struct {
	name        string // "hacheck run"
	section     string // of the manual
	usage       []string
	subcommands []string
	about       []string // paragraphs before the options
	options     []option
	sections    []section // what follows the options
}

// option is one option. Of long and short one may be empty, and value is when it takes none.
type option struct {
	short, long string
	value       string // as the help names it: FILE
	optional    bool   // the value may be left out; it is given behind "=" only
	text        string // one line
	repeat      bool   // it may be given more than once
}

// section is a part of a help text with a heading, or a paragraph without one.
type section struct {
	title string
	lines []string
	plain bool // lines are one paragraph to be filled, else they are shown as they are
}

// dashed is the page's name as a file's: hacheck-run.
func (p *page) dashed() string { return strings.ReplaceAll(p.name, " ", "-") }

var (
	// optionLine is how pflag begins an option. What is behind two blanks is its text.
	optionLine = regexp.MustCompile(`^ {2}(?:-(\S), |    )--([a-z0-9][a-z0-9-]*)(\[=[^\]]*\])?(?: (\S+?)(\[=[^\]]*\])?)?(?: {2,}(\S.*))?$`)
	// headed is a paragraph that says in its first words what it is about.
	headed = regexp.MustCompile(`^([A-Z][a-z]+(?: [a-z]+){0,2}): (\S.*)$`)
	word   = regexp.MustCompile(`^[a-z]+$`)
)

// parse reads a help text. It is strict: an option that is not understood would be missing from the page.
func parse(name, text string) (*page, error) {
	p := &page{name: name}
	seen := false // the options
	for block := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		lines := strings.Split(strings.Trim(block, "\n"), "\n")
		first := lines[0]
		switch {
		case strings.HasPrefix(first, "Usage: "):
			for _, l := range lines {
				p.addUsage(strings.TrimSpace(strings.TrimPrefix(l, "Usage: ")))
			}
		case first == "Options:":
			seen = true
			if err := p.addOptions(lines[1:]); err != nil {
				return nil, err
			}
		case strings.HasSuffix(first, ":") && len(lines) > 1 && strings.HasPrefix(lines[1], "  "):
			p.sections = append(p.sections, section{title: strings.TrimSuffix(first, ":"), lines: unindent(lines[1:])})
		case headed.MatchString(first):
			m := headed.FindStringSubmatch(first)
			p.sections = append(p.sections, section{title: m[1], lines: append([]string{m[2]}, lines[1:]...), plain: true})
		case strings.HasPrefix(first, "  "):
			p.sections = append(p.sections, section{lines: unindent(lines)})
		case seen:
			p.sections = append(p.sections, section{lines: lines, plain: true})
		default:
			p.about = append(p.about, strings.Join(lines, "\n"))
		}
	}
	if len(p.usage) == 0 || len(p.about) == 0 {
		return nil, errors.New("it has no line that begins with \"Usage: \", or no paragraph that says what the command does")
	}
	return p, nil
}

// addUsage takes a line such as "hacheck run [options] FILE". One that goes on with lower-case words names
// subcommands.
func (p *page) addUsage(line string) {
	p.usage = append(p.usage, line)
	rest, ok := strings.CutPrefix(line, p.name+" ")
	if !ok {
		return
	}
	next, _, _ := strings.Cut(rest, " ")
	for w := range strings.SplitSeq(next, "|") {
		if !word.MatchString(w) {
			return
		}
	}
	p.subcommands = append(p.subcommands, strings.Split(next, "|")...)
}

func (p *page) addOptions(lines []string) error {
	for _, l := range lines {
		m := optionLine.FindStringSubmatch(l)
		switch {
		case m != nil:
			o := option{short: m[1], long: m[2], value: m[4], optional: m[3] != "" || m[5] != "", text: m[6]}
			if o.value == "" && o.optional { // --wait[=5m] of a value without a name
				o.value = "VALUE"
			}
			p.options = append(p.options, o)
		case strings.HasPrefix(l, "      ") && len(p.options) > 0:
			o := &p.options[len(p.options)-1]
			o.text = strings.TrimSpace(o.text + " " + strings.TrimSpace(l))
		default:
			return fmt.Errorf("option not understood: %q", l)
		}
	}
	for i := range p.options {
		o := &p.options[i]
		o.repeat = strings.Contains(o.text, "again") || strings.Contains(o.text, "repeat for more")
	}
	return nil
}

// unindent takes away the blanks that all lines begin with.
func unindent(lines []string) []string {
	least := -1
	for _, l := range lines {
		if n := len(l) - len(strings.TrimLeft(l, " ")); l != "" && (least < 0 || n < least) {
			least = n
		}
	}
	var out []string
	for _, l := range lines {
		out = append(out, l[min(max(least, 0), len(l)):])
	}
	return out
}

// brief is what the command does in a few words: the beginning of its first sentence.
func (p *page) brief() string {
	s := strings.TrimPrefix(strings.ReplaceAll(p.about[0], "\n", " "), p.name+" ")
	for _, end := range []string{". ", ": ", ", "} {
		s, _, _ = strings.Cut(s, end)
	}
	s = strings.TrimSuffix(s, ".")
	return strings.ToLower(s[:1]) + s[1:]
}
