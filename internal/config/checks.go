package config

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// Check is one element of a list of checks in a YAML file, with its lines. Its options are not checked against its type
// yet; Build does that.
type Check struct {
	Spec check.Spec // type and tags are not among its options

	file  string
	line  int
	lines map[string]int  // by option
	wrong map[string]bool // options whose values have caused an error already
}

// String returns the type alone, because the options hold passwords.
func (c Check) String() string { return "check of type " + c.Spec.Type }

// GoString returns String, so that %#v shows no options.
func (c Check) GoString() string { return c.String() }

// Build returns the check, or Errors that name file and line.
func (c Check) Build(d check.Defaults) (*check.ConfiguredCheck, error) {
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

// LoadChecks reads a file that is a list of checks, as conn-check does, and builds the checks. path "-" is stdin. The
// file may be a pipe, of at most 1 MiB. An error is of type Errors and lists everything that is wrong with the file. A
// warning is an option that a type does not have, which conn-check ignores: programs write them into its files.
func LoadChecks(path string, stdin io.Reader, d check.Defaults) ([]*check.ConfiguredCheck, []Warning, error) {
	l, data, err := readOnce(path, stdin)
	if err != nil {
		return nil, nil, err
	}
	var checks []*check.ConfiguredCheck
	// An empty document ("---") has no line number.
	if root := l.document(data); root != nil && (!isNull(root) || root.Anchor != "") {
		for _, c := range l.checks(root) {
			l.dropUnknownOptions(&c)
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
	l.countWarnings()
	if err := l.finish(); err != nil {
		return nil, l.warnings, err
	}
	return checks, l.warnings, nil
}

// dropUnknownOptions takes the options that the type of c does not have out of c, with a warning for each.
func (l *loader) dropUnknownOptions(c *Check) {
	known := secretOptions(c.Spec.Type)
	if known == nil {
		return // Build says that there is no such type
	}
	names := append(slices.Sorted(maps.Keys(known)), "timeout", "tags")
	for _, name := range slices.Sorted(maps.Keys(c.Spec.Options)) {
		// A colon in a name is a space that is missing after it: the value would be lost.
		if !slices.Contains(names, name) && !strings.Contains(name, ":") {
			l.warnUnknown(c.lines[name], name, names...)
			delete(c.Spec.Options, name)
		}
	}
}

// checks reads a list of checks, which is a whole file or the value of a key. It reports errors and returns the checks
// without one.
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
	// Without a type the options cannot be checked; after d.stopped some of them are missing.
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

// secretOptions returns the options of a check type whose values must not be shown. Its keys are all options of the type.
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
