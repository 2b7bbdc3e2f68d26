package config

import (
	"errors"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// Check is one element of a list of checks in a YAML file: what it says, and where it says it. It has been
// read, but not yet been held against its type; Build does that.
type Check struct {
	Spec check.Spec // type and tags are not among its options

	file  string
	line  int
	lines map[string]int  // by option
	wrong map[string]bool // options about whose values an error has been reported already
}

// String names the type alone: passwords are among the options.
func (c Check) String() string { return "check of type " + c.Spec.Type }

// GoString is String, so that %#v shows no more.
func (c Check) GoString() string { return c.String() }

// Build returns the check, or what is wrong with it as Errors that name file and line.
func (c Check) Build(d check.Defaults) (*check.Configured, error) {
	built, err := check.Build(c.Spec, d)
	if err == nil {
		return built, nil
	}
	var errs Errors
	for _, err := range splitJoined(err) {
		e := &Error{File: c.file, Line: c.line, Text: err.Error()}
		var option *check.OptionError
		if errors.As(err, &option) {
			if c.wrong[option.Option] {
				continue
			}
			e.Key, e.Text = quoteKey(option.Option), option.Err.Error()
			if line, ok := c.lines[option.Option]; ok {
				e.Line = line
			}
		}
		errs = append(errs, e)
	}
	slices.SortStableFunc(errs, byLine)
	return nil, errs
}

// LoadChecks reads a file that is a list of checks, as conn-check's is, and builds them; a path of "-" is
// stdin. It may be a pipe, but not larger than 1 MiB. The error is of type Errors, all that is wrong with
// the file, and then there are no checks.
func LoadChecks(path string, stdin io.Reader, d check.Defaults) ([]*check.Configured, error) {
	l, data, err := readPipe(path, stdin)
	if err != nil {
		return nil, err
	}
	var checks []*check.Configured
	// A document of nothing ("---") has no line of its own.
	if root := l.document(data); root != nil && (!isNull(root) || root.Anchor != "") {
		for _, c := range l.checks(root) {
			built, err := c.Build(d)
			var errs Errors
			if errors.As(err, &errs) {
				for _, e := range errs {
					l.errorf(e.Line, e.Key, "%s", e.Text)
				}
			}
			checks = append(checks, built)
		}
	} else if len(l.errs) == 0 {
		l.errorf(0, "", "expected a list of checks, got an empty file")
	}
	if len(l.errs) == 0 {
		return checks, nil
	}
	slices.SortStableFunc(l.errs, byLine)
	l.reportMore()
	return nil, l.errs
}

// checks reads a list of checks, the top of a file or the value of a key. What is wrong it reports, and
// returns the rest.
func (l *loader) checks(n *yaml.Node) []Check {
	if n.Kind != yaml.SequenceNode || !hasCoreTag(n) {
		l.errorf(n.Line, "", "expected a list of checks (lines of \"- type: ...\"), got %s", describeKind(n))
		return nil
	}
	var checks []Check
	d := decoder{loader: l}
	for _, at := range n.Content {
		if c, ok := d.check(at); ok {
			checks = append(checks, c)
		}
		if d.stopped {
			break
		}
	}
	return checks
}

// check reads one element of a list of checks.
func (d *decoder) check(at *yaml.Node) (Check, bool) {
	n := resolveAlias(at)
	if n.Kind != yaml.MappingNode || !hasCoreTag(n) {
		d.errorf(at.Line, "", "expected a check such as {type: tcp, host: localhost, port: 80}, got %s", describeKind(n))
		return Check{}, false
	}
	c := Check{
		Spec: check.Spec{Options: map[string]any{}},
		file: d.file, line: at.Line, lines: map[string]int{}, wrong: map[string]bool{},
	}
	entries := d.entries(n, 0)
	if len(entries) > maxOptions {
		d.errorf(at.Line, "", "expected at most %d options of a check, got %d", maxOptions, len(entries))
		return Check{}, false
	}
	typed := false
	for _, e := range entries {
		if e.name == "type" {
			typed = true
			if c.Spec.Type = d.typeName(e); c.Spec.Type == "" {
				c.wrong["type"] = true
			}
		}
	}
	if !typed {
		d.errorf(at.Line, "type", "is required: the name of a check type")
		c.wrong["type"] = true
	}
	secrets := secretOptions(c.Spec.Type)
	for _, e := range entries {
		c.lines[e.name] = e.line
		switch e.name {
		case "type":
		case "tags":
			c.Spec.Tags = d.tags(e)
		default:
			before := len(d.errs) + d.moreErrs
			v := d.value(e, e.at, secrets[e.name], 1)
			c.wrong[e.name] = len(d.errs)+d.moreErrs > before
			c.Spec.Options[e.name] = v
		}
	}
	// Without a type there is nothing to hold the options against, and half of them are as good as none.
	return c, !c.wrong["type"] && !d.stopped
}

func (d *decoder) typeName(e entry) string {
	v := resolveAlias(e.at)
	if v.Kind != yaml.ScalarNode || v.Value == "" || len(v.Value) > maxShown || isNull(v) || !hasCoreTag(v) {
		d.errorf(e.line, e.name, "expected the name of a check type, got %s", describe(v))
		return ""
	}
	return v.Value
}

func (d *decoder) tags(e entry) []string {
	const want = "expected a list of words, got %s"
	list, ok := listElements(resolveAlias(e.at))
	if isNull(resolveAlias(e.at)) {
		return nil
	}
	if !ok || !hasCoreTag(resolveAlias(e.at)) {
		d.errorf(e.line, e.name, want, describe(resolveAlias(e.at)))
		return nil
	}
	var tags []string
	for _, t := range list {
		if t.Kind != yaml.ScalarNode || isNull(t) || !hasCoreTag(t) || t.Value == "" {
			d.errorf(t.Line, e.name, want, describe(t))
			continue
		}
		tags = append(tags, t.Value)
	}
	return tags
}

// secretOptions returns which options of a type, named as in a file, must not be shown.
func secretOptions(typ string) map[string]bool {
	for _, t := range check.Types() {
		if t.Name != typ && !slices.Contains(t.Aliases, typ) {
			continue
		}
		secrets := map[string]bool{}
		for _, o := range t.Options {
			secrets[o.Name] = o.Secret
		}
		return secrets
	}
	return nil
}
