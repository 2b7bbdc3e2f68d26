package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/textfmt"
)

const (
	// maxFile is the largest configuration file that is read, in bytes.
	maxFile = 1 << 20
	// maxReported bounds how many errors, and how many warnings, one file can cause: a file that is
	// something else altogether should not scroll its first error away.
	maxReported = 20
)

// Error is one thing that is wrong with a configuration file. Its text is
// "file:line: key: expected ..., got ...".
type Error struct {
	File string
	Line int    // counted from 1; 0 when the file as a whole is meant
	Key  string // "" when it is about no key
	Text string // "expected ..., got ..."; never the value of a secret
}

// Error implements error.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return textfmt.OneLine(s + ": " + e.Text)
}

// Errors are all the errors of one file, in the order of its lines. At most 20 are kept; a last one then
// says how many more there are.
type Errors []*Error

// Error implements error: one line each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Warning is a key that means nothing here. The daemon starts all the same, as the original did.
type Warning struct {
	File string
	Line int
	Key  string
	Text string // "unknown key" and, if one is near, the key that may have been meant
}

// String returns "file:line: key: text".
func (w Warning) String() string { return (&Error{w.File, w.Line, w.Key, w.Text}).Error() }

// Load reads the configuration file at path. What it does not mention has its default, and an empty file
// is right. The error is of type Errors; with an error there is no Config, but the warnings are there.
func Load(path string) (*Config, []Warning, error) {
	l := loader{file: path}
	data, err := read(path)
	if err != nil {
		return nil, nil, Errors{{File: path, Text: err.Error()}}
	}
	c := Default()
	if root := l.parse(data); root != nil {
		l.walk(c, root)
	}
	if len(l.errs) > 0 {
		return nil, l.warnings, l.errs
	}
	return c, l.warnings, nil
}

// read reads all of a configuration file, if it can be one.
func read(path string) ([]byte, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for a writer for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, bare(err)
	}
	defer func() { _ = f.Close() }()
	switch fi, err := f.Stat(); {
	case err != nil:
		return nil, bare(err)
	case fi.IsDir():
		return nil, errors.New("expected a file, got a directory")
	case !fi.Mode().IsRegular() && path != os.DevNull:
		// A pipe could not be read a second time, when SIGHUP asks for it.
		return nil, errors.New("expected a regular file, got a pipe, socket or device")
	}
	return readText(f)
}

// readText reads all of r, if it can be a file of ours.
func readText(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, bare(err)
	case len(data) > maxFile:
		return nil, errors.New("expected a configuration file of at most 1 MiB, got a larger one")
	case bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data):
		return nil, errors.New("expected UTF-8 text, got binary data")
	}
	return data, nil
}

// bare takes operation and path off an error of package os, as the caller names the file itself.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// loader reads one file.
type loader struct {
	file     string
	errs     Errors
	warnings []Warning
	moreErrs int
	moreWarn int
}

func (l *loader) errorf(line int, key, format string, args ...any) {
	if len(l.errs) < maxReported {
		l.errs = append(l.errs, &Error{l.file, line, key, fmt.Sprintf(format, args...)})
		return
	}
	l.moreErrs++
}

// countMore says how many errors there are beyond those kept. It comes last.
func (l *loader) countMore() {
	if l.moreErrs > 0 {
		l.errs = append(l.errs, &Error{File: l.file, Text: fmt.Sprintf("and %d more errors", l.moreErrs)})
	}
}

// parse returns the mapping at the top of the file, or nil when there is none, with or without an error.
func (l *loader) parse(data []byte) *yaml.Node {
	root := l.document(data)
	switch {
	case root == nil, isNull(root) && root.Anchor == "":
		return nil
	case root.Kind != yaml.MappingNode:
		l.errorf(root.Line, "", "expected lines of \"key: value\", got %s", kind(root))
		return nil
	case !coreTag(root):
		l.errorf(root.Line, "", "expected no tag, got %s", root.Tag)
		return nil
	}
	return root
}

// document returns what stands at the top of the only document of a file, or nil when there is nothing,
// with or without an error.
func (l *loader) document(data []byte) (root *yaml.Node) {
	defer func() {
		// The parser panics where it finds itself at fault. A reload must survive that too.
		if p := recover(); p != nil {
			l.errorf(0, "", "expected YAML, got something that its parser cannot read: %v", p)
			root = nil
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		l.syntax(data, err)
		return nil
	}
	switch err := d.Decode(&second); {
	case err == nil:
		l.errorf(second.Line, "", "expected one YAML document, got a second one after ---")
		return nil
	case !errors.Is(err, io.EOF):
		l.syntax(data, err)
		return nil
	}
	return target(doc.Content[0])
}

// syntax reports an error of the YAML parser. Its text is passed on except where it quotes the file: that
// may be a password with an asterisk in front.
func (l *loader) syntax(data []byte, err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if n, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok && rest != "" {
		if v, err := strconv.Atoi(n); err == nil {
			text, line = rest, v
			if countsFrom0(text) {
				line = min(line+1, 1+bytes.Count(data, []byte("\n")))
			}
		}
	}
	if name, ok := strings.CutPrefix(text, "unknown anchor '"); ok {
		name = strings.TrimSuffix(name, "' referenced")
		if i := bytes.Index(data, []byte("*"+name)); i >= 0 {
			line = 1 + bytes.Count(data[:i], []byte("\n"))
		}
		text = "an alias without its anchor (a value that begins with * needs quotes)"
	}
	if text == "found character that cannot start any token" {
		text += " (indent with blanks, not tabs; a value that begins with @, ` or % needs quotes)"
	}
	l.errorf(line, "", "expected YAML, got an error in it: %s", text)
}

// countsFrom0 knows the errors for which the parser gives the number of the line before: it counts from 0
// and, unlike its scanner, does not add the 1.
func countsFrom0(text string) bool {
	for _, begin := range []string{
		"did not find expected <", "did not find expected node content", "did not find expected key",
		"did not find expected '-' indicator", "did not find expected ',' or",
		"found undefined tag", "found duplicate", "found incompatible",
	} {
		if strings.HasPrefix(text, begin) {
			return true
		}
	}
	return false
}

// walk sets what the mapping says, key by key.
func (l *loader) walk(c *Config, root *yaml.Node) {
	c.CacheTimeDown = -1 // until the file sets it: cache_time may come after it
	seen := make(map[string]int)
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := target(root.Content[i]), target(root.Content[i+1])
		line := root.Content[i].Line
		switch {
		case k.Kind != yaml.ScalarNode || isNull(k):
			l.errorf(line, "", "expected the name of a setting, got %s", found(k))
			continue
		case k.Value == "<<" && k.Style == 0:
			l.errorf(line, "<<", "expected every setting to be written out, got a merge of others")
			continue
		}
		key := lookup(k.Value)
		shown := k.Value
		if key == nil {
			shown = short(k.Value)
		}
		if first, ok := seen[k.Value]; ok {
			l.errorf(line, shown, "expected it once, got it again (first on line %d)", first)
			continue
		}
		seen[k.Value] = line
		if key == nil {
			l.unknown(line, k.Value)
			continue
		}
		if key.nested != nil && !isNull(v) {
			key.nested(l, c, root.Content[i+1], v)
			continue
		}
		l.set(c, key, root.Content[i+1], v)
	}
	if c.CacheTimeDown < 0 {
		c.CacheTimeDown = c.CacheTime
	}
	slices.SortStableFunc(l.errs, byLine)
	l.countMore()
	if l.moreWarn > 0 {
		l.warnings = append(l.warnings, Warning{File: l.file, Text: fmt.Sprintf("and %d more unknown keys", l.moreWarn)})
	}
}

// set stores one value; at is where it stands in the file, v what it is once an alias is followed.
func (l *loader) set(c *Config, key *Key, at, v *yaml.Node) {
	if isNull(v) && v.Anchor == "" && coreTag(v) {
		if key.null {
			return
		}
		l.errorf(at.Line, key.Name, "expected %s, got nothing", key.Want)
		return
	}
	wrong := []*yaml.Node{v}
	// "&x" alone is null with an anchor, and "!x" null with a tag: more likely a text that lacks its quotes.
	if coreTag(v) && (!isNull(v) || v.Anchor == "") {
		wrong = key.set(c, v)
	}
	for _, w := range wrong {
		line, want, got := w.Line, key.Each, found(w)
		if w == v {
			line = at.Line // not where the anchor is
		}
		if want == "" || w == v && w.Kind != yaml.ScalarNode {
			want = key.Want
		}
		if key.secret {
			got = foundSecret(w)
		}
		l.errorf(line, key.Name, "expected %s, got %s", want, got)
	}
}

func (l *loader) unknown(line int, key string) {
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Name
	}
	l.unknownIn(line, key, names...)
}

// unknownIn warns of a key that is none of names.
func (l *loader) unknownIn(line int, key string, names ...string) {
	if len(l.warnings) >= maxReported {
		l.moreWarn++
		return
	}
	text := "unknown key"
	name, _, _ := strings.Cut(key, ":")
	if n := nearest(name, names); n != "" {
		text += "; did you mean " + n + "?"
	}
	l.warnings = append(l.warnings, Warning{l.file, line, short(key), text})
}

// target follows an alias. An alias stands for one node, never for a copy of many, so there is nothing
// that a file could blow up with them.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// coreTag reports whether n has no tag, or one that says only what it looks like. A tag of another
// program (!vault) announces a value that is not what stands there.
func coreTag(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle == 0 {
		return true
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!seq", "!!map":
		return true
	}
	return false
}

// found says in words what n is, and what it holds if that is a line at most.
func found(n *yaml.Node) string {
	switch {
	case !coreTag(n):
		return "a value with the tag " + word(n.Tag)
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	case n.ShortTag() == "!!str" || len(n.Value) > maxShown:
		return strconv.Quote(cut(n.Value))
	}
	return n.Value
}

// foundSecret is found for a value that must not be shown, nor any part of it.
func foundSecret(n *yaml.Node) string {
	switch {
	case !coreTag(n):
		return "a value with a tag (a text that begins with ! needs quotes)"
	case n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode:
		return found(n)
	case isNull(n) && n.Anchor != "":
		return "an anchor (a text that begins with & needs quotes)"
	case n.Value == "":
		return "an empty text"
	}
	return "something else"
}

// maxShown is how many bytes of a value or key a message shows.
const maxShown = 60

// cut returns s, or its beginning.
func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "..."
}

// short returns the key s as a message may show it: without what comes after a colon or the like. In
// {type: redis, password:x} the value belongs to the key, for want of a blank.
func short(s string) string {
	if i := strings.IndexAny(s, ":= \t\r\n"); i >= 0 {
		return strconv.Quote(cut(s[:i+1]) + "...")
	}
	return word(s)
}

// word returns s as a message may show it: quoted unless it is a plain word.
func word(s string) string {
	for _, r := range s {
		if r <= ' ' || r == ':' || r == '"' || !strconv.IsPrint(r) {
			return strconv.Quote(cut(s))
		}
	}
	if s == "" {
		return `""`
	}
	return cut(s)
}

func lookup(name string) *Key {
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i]
		}
	}
	return nil
}

// nearest returns the one of names that name is most likely a misspelling of, or "".
func nearest(name string, names []string) string {
	if len(name) > maxShown {
		return ""
	}
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	best, least := "", 1+len(name)/2
	for _, n := range names {
		if d := textfmt.EditDistance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}
