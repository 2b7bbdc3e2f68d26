package config

import (
	"cmp"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

const (
	// maxNodes bounds what the aliases of one list of checks can expand to: some ten thousand checks, more
	// than a file of 1 MiB has room for without them.
	maxNodes = 200_000
	// maxOptions bounds the options of one check; no type has a quarter of that.
	maxOptions = 100
	// maxDepth bounds how deep lists and mappings go. No option needs more than three levels; an alias
	// that contains itself has no end.
	maxDepth = 20
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
	for _, err := range flatten(err) {
		e := &Error{File: c.file, Line: c.line, Text: err.Error()}
		var option *check.OptionError
		if errors.As(err, &option) {
			if c.wrong[option.Option] {
				continue
			}
			e.Key, e.Text = short(option.Option), option.Err.Error()
			if line, ok := c.lines[option.Option]; ok {
				e.Line = line
			}
		}
		errs = append(errs, e)
	}
	slices.SortStableFunc(errs, byLine)
	return nil, errs
}

func byLine(a, b *Error) int { return cmp.Compare(a.Line, b.Line) }

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, flatten(err)...)
	}
	return all
}

// LoadChecks reads a file that is a list of checks, as conn-check's is, and builds them; a path of "-" is
// stdin. It may be a pipe, but not larger than 1 MiB. The error is of type Errors, all that is wrong with
// the file, and then there are no checks.
func LoadChecks(path string, stdin io.Reader, d check.Defaults) ([]*check.Configured, error) {
	l, data, err := readOnce(path, stdin)
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
	l.countMore()
	return nil, l.errs
}

// readOnce reads a file that nobody will read a second time, so that it may be a pipe, or stdin.
func readOnce(path string, stdin io.Reader) (*loader, []byte, error) {
	l, r := &loader{file: path}, stdin
	fail := func(err error) (*loader, []byte, error) {
		return nil, nil, Errors{{File: l.file, Text: err.Error()}}
	}
	if path == "-" {
		l.file = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return fail(bare(err))
		}
		defer func() { _ = f.Close() }()
		if fi, err := f.Stat(); err == nil && fi.IsDir() {
			return fail(errors.New("expected a file, got a directory"))
		}
		r = f
	}
	data, err := readText(r)
	if err != nil {
		return fail(err)
	}
	return l, data, nil
}

// checks reads a list of checks, the top of a file or the value of a key. What is wrong it reports, and
// returns the rest.
func (l *loader) checks(n *yaml.Node) []Check {
	if n.Kind != yaml.SequenceNode || !coreTag(n) {
		l.errorf(n.Line, "", "expected a list of checks (lines of \"- type: ...\"), got %s", kind(n))
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

// kind says in words what n is, and nothing of what it holds: it stands where a check should, so nobody
// knows whether it is a secret.
func kind(n *yaml.Node) string {
	switch {
	case !coreTag(n):
		return "a value with a tag"
	case n.Kind == yaml.ScalarNode && !isNull(n) && n.Style == 0 && strings.Contains(n.Value, ":"):
		return "a single value (a colon needs a blank after it)"
	case n.Kind == yaml.ScalarNode && !isNull(n):
		return "a single value"
	}
	return found(n)
}

// decoder makes plain Go values of YAML nodes: string, int, float64, bool, nil, []any, map[string]any.
type decoder struct {
	*loader
	nodes   int
	stopped bool // too many values; said once
}

// entry is one "name: value" of a mapping.
type entry struct {
	name string
	line int
	at   *yaml.Node // the value as it stands in the file, possibly an alias
}

// check reads one element of a list of checks.
func (d *decoder) check(at *yaml.Node) (Check, bool) {
	n := target(at)
	if n.Kind != yaml.MappingNode || !coreTag(n) {
		d.errorf(at.Line, "", "expected a check such as {type: tcp, host: localhost, port: 80}, got %s", kind(n))
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
	v := target(e.at)
	if v.Kind != yaml.ScalarNode || v.Value == "" || len(v.Value) > maxShown || isNull(v) || !coreTag(v) {
		d.errorf(e.line, e.name, "expected the name of a check type, got %s", found(v))
		return ""
	}
	return v.Value
}

func (d *decoder) tags(e entry) []string {
	const want = "expected a list of words, got %s"
	list, ok := elements(target(e.at))
	if isNull(target(e.at)) {
		return nil
	}
	if !ok || !coreTag(target(e.at)) {
		d.errorf(e.line, e.name, want, found(target(e.at)))
		return nil
	}
	var tags []string
	for _, t := range list {
		if t.Kind != yaml.ScalarNode || isNull(t) || !coreTag(t) || t.Value == "" {
			d.errorf(t.Line, e.name, want, found(t))
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

// entries returns the entries of a mapping, those that "<<" merges into it included: what is written out
// wins over what is merged, and of merged mappings the first.
func (d *decoder) entries(n *yaml.Node, depth int) []entry {
	// The entries count here already: "<<" repeats them without a look at their values.
	if !d.enter(n, len(n.Content)/2, depth) {
		return nil
	}
	var list, merged []entry
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, at := target(n.Content[i]), n.Content[i+1]
		line := n.Content[i].Line
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 {
			merged = append(merged, d.merge(line, target(at), depth)...)
			continue
		}
		if k.Kind != yaml.ScalarNode || isNull(k) || !coreTag(k) {
			d.errorf(line, "", "expected a name before the colon, got %s", kind(k))
			continue
		}
		if first, ok := seen[k.Value]; ok {
			d.errorf(line, short(k.Value), "expected it once, got it again (first on line %d)", first)
			continue
		}
		seen[k.Value] = line
		list = append(list, entry{k.Value, line, at})
	}
	for _, e := range merged {
		if _, ok := seen[e.name]; !ok {
			seen[e.name] = e.line
			list = append(list, e)
		}
	}
	return list
}

// merge returns the entries that "<<: n" stands for; n is a mapping or a list of them.
func (d *decoder) merge(line int, n *yaml.Node, depth int) []entry {
	mappings := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		mappings = n.Content
	}
	var list []entry
	for _, m := range mappings {
		m = target(m)
		if m.Kind != yaml.MappingNode || !coreTag(m) {
			d.errorf(line, "<<", "expected a mapping to merge, got %s", kind(m))
			continue
		}
		list = append(list, d.entries(m, depth+1)...)
	}
	return list
}

// enter counts values, and is false where there are too many or they nest too deep.
func (d *decoder) enter(n *yaml.Node, values, depth int) bool {
	if d.stopped {
		return false
	}
	if depth > maxDepth {
		d.errorf(n.Line, "", "expected at most %d levels of lists and mappings, got more", maxDepth)
		d.stopped = true
		return false
	}
	if d.nodes += values; d.nodes > maxNodes {
		d.errorf(n.Line, "", "expected at most %d values, got aliases that stand for more", maxNodes)
		d.stopped = true
		return false
	}
	return true
}

// value decodes one value, of the option e or inside it. The text of a secret is taken as it is written, so
// that a password of 0123 or yes needs no quotes.
func (d *decoder) value(e entry, at *yaml.Node, secret bool, depth int) any {
	n := target(at)
	line := at.Line
	if !d.enter(at, 1, depth) {
		return nil
	}
	switch {
	case !coreTag(n), isNull(n) && n.Anchor != "":
		// "!x" is a tag and "&x" an anchor: more likely texts that lack their quotes.
		d.errorf(line, short(e.name), "expected a plain value, got %s", foundSecret(n))
	case n.Kind == yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, at := range n.Content {
			list = append(list, d.value(e, at, secret, depth+1))
		}
		return list
	case n.Kind == yaml.MappingNode:
		m := make(map[string]any)
		for _, inner := range d.entries(n, depth) {
			m[inner.name] = d.value(e, inner.at, secret, depth+1)
		}
		return m
	case isNull(n):
	case secret:
		return n.Value
	default:
		return scalar(n)
	}
	return nil
}

// scalar returns what a scalar is. YAML 1.1 takes 010 for 8, 1:30 for 90 and 0x10 for 16; nobody who writes
// that into a file of checks means it, so they stay what is written.
func scalar(n *yaml.Node) any {
	tag := ""
	if n.Style&yaml.TaggedStyle != 0 {
		tag = n.ShortTag()
	} else if n.Style != 0 {
		return n.Value // quoted or a block
	}
	if tag == "" || tag == "!!bool" {
		// The words of YAML 1.1 but for y and n, as the original's parser had it.
		switch strings.ToLower(n.Value) {
		case "true", "yes", "on":
			return true
		case "false", "no", "off":
			return false
		}
	}
	if tag == "" || tag == "!!int" || tag == "!!float" {
		if i, err := strconv.Atoi(n.Value); err == nil && strconv.Itoa(i) == n.Value {
			return i
		}
		if f, ok := decimal(n); ok && strings.ContainsAny(n.Value, ".eE") && !math.IsInf(f, 0) {
			return f
		}
	}
	return n.Value
}
