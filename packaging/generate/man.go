package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"hacheck/internal/check"
	"hacheck/internal/config"
)

// manPages returns the pages of the manual by their path.
func manPages(pages []*page, texts, version, date string) (map[string]string, error) {
	files := map[string]string{}
	var all []string
	for _, p := range pages {
		all = append(all, p.dashed()+"("+p.section+")")
	}
	all = append(all, "hacheck.yaml(5)")
	sort.Strings(all)
	head := func(title, section string) string {
		return fmt.Sprintf(".\\\" Written by packaging/generate from what the command says of itself.\n.TH %s %s %s %q %q\n",
			strings.ToUpper(title), section, date, "hacheck "+version, "Health checks")
	}
	also := func(self string) string {
		var b strings.Builder
		b.WriteString(".SH SEE ALSO\n")
		first := true
		for _, name := range all {
			if name == self {
				continue
			}
			if !first {
				b.WriteString(",\n")
			}
			first = false
			title, section, _ := strings.Cut(name, "(")
			b.WriteString(`.BR \%` + strings.ReplaceAll(title, "-", `\-`) + " (" + section)
		}
		return b.String() + "\n"
	}
	extra := func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(texts, name))
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return string(b), err
	}
	for _, p := range pages {
		name := p.dashed() + "." + p.section
		own, err := extra(name)
		if err != nil {
			return nil, err
		}
		if own == "" && p.name != "hacheck" && p.section == "1" && !strings.Contains(p.name, " ") {
			if own, err = extra("operator.1"); err != nil { // what haup and its like have in common
				return nil, err
			}
		}
		files["man/man"+p.section+"/"+name] = head(p.dashed(), p.section) + p.roff() + own + also(p.dashed()+"("+p.section+")")
	}
	own, err := extra("hacheck.yaml.5")
	if err != nil {
		return nil, err
	}
	files["man/man5/hacheck.yaml.5"] = head("hacheck.yaml", "5") + configRoff(own) + also("hacheck.yaml(5)")
	return files, nil
}

// roff is the page from NAME to what --help has last.
func (p *page) roff() string {
	var b strings.Builder
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", escape(p.dashed()), escape(p.brief()))
	for i, u := range p.usage {
		if i > 0 {
			b.WriteString(".br\n")
		}
		rest := strings.TrimPrefix(u, p.name)
		if rest == u {
			fmt.Fprintf(&b, "%s\n", escapeLine(u))
			continue
		}
		fmt.Fprintf(&b, "\\fB%s\\fR%s\n", escape(p.name), escape(rest))
	}
	b.WriteString(".SH DESCRIPTION\n")
	for i, a := range p.about {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(fill(a))
	}
	if len(p.options) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, o := range p.options {
		b.WriteString(".TP\n" + o.roff() + "\n" + escapeLine(o.text) + "\n")
	}
	for _, s := range p.sections {
		if s.title == "Keys of the configuration file" {
			continue // hacheck.yaml(5) has them
		}
		if s.title != "" {
			fmt.Fprintf(&b, ".SH %s\n", strings.ToUpper(s.title))
		} else {
			b.WriteString(".PP\n")
		}
		if s.plain {
			b.WriteString(fill(strings.Join(s.lines, "\n")))
			continue
		}
		b.WriteString(verbatim(s.lines))
	}
	return b.String()
}

func (o option) roff() string {
	var names []string
	value := ""
	if o.value != "" {
		value = `\fI` + escape(o.value) + `\fR`
	}
	if o.short != "" {
		n := `\fB\-` + escape(o.short) + `\fR`
		if value != "" && !o.optional {
			n += " " + value
		}
		names = append(names, n)
	}
	n := `\fB\-\-` + escape(o.long) + `\fR`
	switch {
	case value != "" && o.optional:
		n += "[=" + value + "]"
	case value != "":
		n += "=" + value
	}
	return strings.Join(append(names, n), ", ")
}

// configRoff is hacheck.yaml(5); text are the sections that follow the keys.
func configRoff(text string) string {
	var b strings.Builder
	b.WriteString(`.SH NAME
hacheck.yaml \- configuration file of hacheck
.SH SYNOPSIS
.I /etc/hacheck.yaml
.SH DESCRIPTION
A mapping in YAML. All keys are optional.
A wrong value or a key that is there twice keeps hacheck from starting, with exit status 2 and file, line, key and what was expected;
a key that it does not know is a warning.
.PP
.EX
hacheck \-\-check\-config \-\-config\-file /etc/hacheck.yaml
.EE
.PP
says what is wrong and starts nothing.
.B systemctl reload hacheck
has the file read again.
It fails for a wrong file, the journal says why, and the old configuration stays in force.
.SH KEYS
`)
	for _, k := range config.Keys() {
		b.WriteString(keyRoff(k))
	}
	b.WriteString(".SH FLEET\nThe mapping\n.B fleet\nhas these keys:\n")
	for _, k := range config.FleetKeys() {
		b.WriteString(keyRoff(k))
	}
	b.WriteString(text)
	b.WriteString(".SH CHECKS\nThe types of check and their options, in addition to\n.BR type .\n")
	for _, t := range check.Types() {
		names := append([]string{t.Name}, t.Aliases...)
		fmt.Fprintf(&b, ".SS %s\nHealthy when %s.\n", escape(strings.Join(names, ", ")), escape(t.Doc))
		for _, o := range t.Options {
			given := "Default: " + o.Default + "."
			switch {
			case o.Required:
				given = "Required."
			case o.Default == "":
				given = "Default: none."
			}
			fmt.Fprintf(&b, ".TP\n.B %s\n%s: %s.\n%s\n", escape(o.Name), escapeLine(sentence(o.Doc)), escape(o.Want), escapeLine(given))
		}
	}
	return b.String()
}

// keyRoff is the paragraph about one key of the configuration.
func keyRoff(k config.Key) string {
	given := k.Default
	if given == "" {
		given = "none"
	}
	return fmt.Sprintf(".TP\n.B %s\n%s.\n%s.\nDefault: %s.\n", escape(k.Name), escapeLine(sentence(k.Doc)), escapeLine(sentence(k.Want)), escape(given))
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func fill(text string) string {
	var b strings.Builder
	for l := range strings.SplitSeq(text, "\n") {
		b.WriteString(escapeLine(strings.TrimSpace(l)) + "\n")
	}
	return b.String()
}

func verbatim(lines []string) string {
	var b strings.Builder
	b.WriteString(".EX\n")
	for _, l := range lines {
		b.WriteString(escapeLine(l) + "\n")
	}
	return b.String() + ".EE\n"
}

// escape has text mean itself: a "-" can be copied into a shell, a "'" is no typographic quote.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`).Replace(s)
}

// escapeLine is escape for the beginning of a line, where "." would be a request.
func escapeLine(s string) string {
	s = escape(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
