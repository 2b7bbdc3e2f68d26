package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/cmdline"
)

// describe returns a description of n for a message: the value of a scalar, the kind of another node.
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

// describeSecret returns a description of n that shows no part of its value.
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

// describeKind returns the kind of n and no part of its value, which may be a secret in the wrong place.
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

// truncate returns s, or its first maxShown bytes and "...".
func truncate(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "..."
}

// quoteKey returns the key s for a message, without the text after a colon or "=". In {type: redis, password:x} the
// password is part of the key, because the blank is missing.
func quoteKey(s string) string {
	if i := strings.IndexAny(s, ":= \t\r\n"); i >= 0 {
		return strconv.Quote(truncate(s[:i+1]) + "...")
	}
	return quoteWord(s)
}

// quoteWord returns s for a message: quoted unless it is a plain word.
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

// nearestName returns the one of names that is most similar to name, or "" if none is similar.
func nearestName(name string, names []string) string {
	if len(name) > maxShown {
		return ""
	}
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	return cmdline.Closest(name, names, len(name)/2)
}
