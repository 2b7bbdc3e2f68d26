package config

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parse returns the mapping that is the file. It returns nil for an empty file, and after it has reported an error.
func (l *loader) parse(data []byte) *yaml.Node {
	root := l.document(data)
	switch {
	case root == nil, isNull(root) && root.Anchor == "":
		return nil
	case root.Kind != yaml.MappingNode:
		l.errorf(root.Line, "", "expected lines of \"key: value\", got %s", describeKind(root))
		return nil
	case !hasCoreTag(root):
		l.errorf(root.Line, "", "expected no tag, got %s", root.Tag)
		return nil
	}
	return root
}

// document returns the top node of the only document in a file. It returns nil for an empty file, and after it has
// reported an error.
func (l *loader) document(data []byte) (root *yaml.Node) {
	defer func() {
		// The parser panics on some errors of its own. A reload must survive that.
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
		l.syntaxError(data, err)
		return nil
	}
	switch err := d.Decode(&second); {
	case err == nil:
		l.errorf(second.Line, "", "expected one YAML document, got a second one after ---")
		return nil
	case !errors.Is(err, io.EOF):
		l.syntaxError(data, err)
		return nil
	}
	return resolveAlias(doc.Content[0])
}

// syntaxError reports an error of the YAML parser with its text, unless the text quotes the file: the quote may be a
// password that begins with an asterisk.
func (l *loader) syntaxError(data []byte, err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if n, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok && rest != "" {
		if v, err := strconv.Atoi(n); err == nil {
			text, line = rest, v
			if isLineBefore(text) {
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

// isLineBefore reports whether the parser gives the number of the line before in an error with that text. The parser
// counts lines from 0 and, unlike its scanner, does not add 1.
func isLineBefore(text string) bool {
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

// resolveAlias returns the node that an alias refers to, and any other node as it is. It copies nothing, so aliases
// cannot make a file large.
func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// hasCoreTag reports whether n has no tag or a tag of plain YAML. A value with a tag of another program (!vault) is not
// what it looks like. The tags of Python's texts, numbers and tuples are plain too: yaml.dump of Python 2 writes them,
// with which programs make files for conn-check.
func hasCoreTag(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle == 0 {
		return true
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!seq", "!!map",
		"!!python/str", "!!python/unicode", "!!python/int", "!!python/long", "!!python/tuple":
		return true
	}
	return false
}
