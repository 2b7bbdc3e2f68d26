package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/textfmt"
)

// describe says in words what n is, and what it holds if that is a line at most.
func describe(n *yaml.Node) string {
	switch {
	case !hasCoreTag(n):
		return "a value with the tag " + quoteWord(n.Tag)
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	case n.ShortTag() == "!!str" || len(n.Value) > maxShown:
		return strconv.Quote(truncate(n.Value))
	}
	return n.Value
}

// describeSecret is found for a value that must not be shown, nor any part of it.
func describeSecret(n *yaml.Node) string {
	switch {
	case !hasCoreTag(n):
		return "a value with a tag (a text that begins with ! needs quotes)"
	case n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode:
		return describe(n)
	case isNull(n) && n.Anchor != "":
		return "an anchor (a text that begins with & needs quotes)"
	case n.Value == "":
		return "an empty text"
	}
	return "something else"
}

// describeKind says in words what n is, and nothing of what it holds: it stands where a check should, so nobody
// knows whether it is a secret.
func describeKind(n *yaml.Node) string {
	switch {
	case !hasCoreTag(n):
		return "a value with a tag"
	case n.Kind == yaml.ScalarNode && !isNull(n) && n.Style == 0 && strings.Contains(n.Value, ":"):
		return "a single value (a colon needs a blank after it)"
	case n.Kind == yaml.ScalarNode && !isNull(n):
		return "a single value"
	}
	return describe(n)
}

// maxShown is how many bytes of a value or key a message shows.
const maxShown = 60

// truncate returns s, or its beginning.
func truncate(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "..."
}

// quoteKey returns the key s as a message may show it: without what comes after a colon or the like. In
// {type: redis, password:x} the value belongs to the key, for want of a blank.
func quoteKey(s string) string {
	if i := strings.IndexAny(s, ":= \t\r\n"); i >= 0 {
		return strconv.Quote(truncate(s[:i+1]) + "...")
	}
	return quoteWord(s)
}

// quoteWord returns s as a message may show it: quoted unless it is a plain word.
func quoteWord(s string) string {
	for _, r := range s {
		if r <= ' ' || r == ':' || r == '"' || !strconv.IsPrint(r) {
			return strconv.Quote(truncate(s))
		}
	}
	if s == "" {
		return `""`
	}
	return truncate(s)
}

// nearestName returns the one of names that name is most likely a misspelling of, or "".
func nearestName(name string, names []string) string {
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
