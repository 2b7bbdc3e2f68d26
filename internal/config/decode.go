package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxNodes bounds the values of one list of checks, with aliases expanded: some ten thousand checks, more than a
	// file of 1 MiB holds without aliases.
	maxNodes = 200_000
	// maxOptions bounds the options of one check. No type has a quarter of that.
	maxOptions = 100
	// maxDepth bounds the levels of lists and mappings. No option needs more than three; an alias that contains itself
	// has endless levels.
	maxDepth = 20
)

// decoder converts YAML nodes to Go values: string, int, float64, bool, nil, []any, map[string]any.
type decoder struct {
	*loader
	nodes   int
	stopped bool // too many values or levels, which was reported
}

// entry is one "name: value" of a mapping.
type entry struct {
	name string
	line int
	at   *yaml.Node // the value; it may be an alias
}

// entries returns the entries of a mapping, including those that "<<" merges into it. An entry of the mapping itself
// replaces a merged entry of the same name; among merged entries the first one stays.
func (d *decoder) entries(n *yaml.Node, depth int) []entry {
	// The entries count here, because "<<" repeats them without decoding their values.
	if !d.withinLimits(n, len(n.Content)/2, depth) {
		return nil
	}
	var list, merged []entry
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, at := resolveAlias(n.Content[i]), n.Content[i+1]
		line := n.Content[i].Line
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 {
			merged = append(merged, d.merge(line, resolveAlias(at), depth)...)
			continue
		}
		if k.Kind != yaml.ScalarNode || isNull(k) || !hasCoreTag(k) {
			d.errorf(line, "", "expected a name before the colon, got %s", describeKind(k))
			continue
		}
		if first, ok := seen[k.Value]; ok {
			d.errorf(line, quoteKey(k.Value), "expected it once, got it again (first on line %d)", first)
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

// merge returns the entries of "<<: n"; n is a mapping or a list of mappings.
func (d *decoder) merge(line int, n *yaml.Node, depth int) []entry {
	mappings := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		mappings = n.Content
	}
	var list []entry
	for _, m := range mappings {
		m = resolveAlias(m)
		if m.Kind != yaml.MappingNode || !hasCoreTag(m) {
			d.errorf(line, "<<", "expected a mapping to merge, got %s", describeKind(m))
			continue
		}
		list = append(list, d.entries(m, depth+1)...)
	}
	return list
}

// withinLimits counts values. It returns false if there are too many values or levels.
func (d *decoder) withinLimits(n *yaml.Node, values, depth int) bool {
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

// value decodes a value of the option e, or a value inside it. A secret is a string as it is written, so that a password
// of 0123 or yes needs no quotes.
func (d *decoder) value(e entry, at *yaml.Node, secret bool, depth int) any {
	n := resolveAlias(at)
	line := at.Line
	if !d.withinLimits(at, 1, depth) {
		return nil
	}
	switch {
	case !hasCoreTag(n), isNull(n) && n.Anchor != "":
		// "!x" is a tag and "&x" is an anchor: probably texts without their quotes.
		d.errorf(line, quoteKey(e.name), "expected a plain value, got %s", describeSecret(n))
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
		return decodeScalar(n)
	}
	return nil
}

// decodeScalar converts a scalar to a Go value. YAML 1.1 reads 010 as 8, 1:30 as 90 and 0x10 as 16; here they are
// strings, because the author of a list of checks rarely means these numbers. A number that would be printed in another
// way than it is written (1.10, 1e3) is a string too: bytes, names and versions are often such texts. Options that take
// a number take it from a string.
func decodeScalar(n *yaml.Node) any {
	tag := ""
	if n.Style&yaml.TaggedStyle != 0 {
		tag = n.ShortTag()
	} else if n.Style != 0 {
		return n.Value // quoted or a block
	}
	if tag == "" || tag == "!!bool" {
		// The words of YAML 1.1 except y and n, as in the parser of the original.
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
		if f, ok := parseDecimal(n); ok && strings.ContainsAny(n.Value, ".e") && fmt.Sprint(f) == n.Value {
			return f
		}
	}
	return n.Value
}
