package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the configuration file at path. What it does not mention has its default, and an empty file
// is right. The error is of type Errors; with an error there is no Config, but the warnings are there.
func Load(path string) (*Config, []Warning, error) {
	l := loader{file: path}
	data, err := readFile(path)
	if err != nil {
		return nil, nil, Errors{{File: path, Text: err.Error()}}
	}
	c := Default()
	if root := l.parse(data); root != nil {
		l.readKeys(c, root)
	}
	if len(l.errs) > 0 {
		return nil, l.warnings, l.errs
	}
	return c, l.warnings, nil
}

// readKeys sets what the mapping says, key by key.
func (l *loader) readKeys(c *Config, root *yaml.Node) {
	c.CacheTimeDown = -1 // until the file sets it: cache_time may come after it
	seen := make(map[string]int)
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := resolveAlias(root.Content[i]), resolveAlias(root.Content[i+1])
		line := root.Content[i].Line
		switch {
		case k.Kind != yaml.ScalarNode || isNull(k):
			l.errorf(line, "", "expected the name of a setting, got %s", describe(k))
			continue
		case k.Value == "<<" && k.Style == 0:
			l.errorf(line, "<<", "expected every setting to be written out, got a merge of others")
			continue
		}
		key := findKey(k.Value)
		shown := k.Value
		if key == nil {
			shown = quoteKey(k.Value)
		}
		if first, ok := seen[k.Value]; ok {
			l.errorf(line, shown, "expected it once, got it again (first on line %d)", first)
			continue
		}
		seen[k.Value] = line
		if key == nil {
			l.warnUnknownKey(line, k.Value)
			continue
		}
		if key.nested != nil && !isNull(v) {
			key.nested(l, c, root.Content[i+1], v)
			continue
		}
		l.setKey(c, key, root.Content[i+1], v)
	}
	if c.CacheTimeDown < 0 {
		c.CacheTimeDown = c.CacheTime
	}
	slices.SortStableFunc(l.errs, byLine)
	l.reportMore()
	if l.moreWarn > 0 {
		l.warnings = append(l.warnings, Warning{File: l.file, Text: fmt.Sprintf("and %d more unknown keys", l.moreWarn)})
	}
}

// setKey stores one value; at is where it stands in the file, v what it is once an alias is followed.
func (l *loader) setKey(c *Config, key *Key, at, v *yaml.Node) {
	if isNull(v) && v.Anchor == "" && hasCoreTag(v) {
		if key.mayBeEmpty {
			return
		}
		l.errorf(at.Line, key.Name, "expected %s, got nothing", key.Want)
		return
	}
	wrong := []*yaml.Node{v}
	// "&x" alone is null with an anchor, and "!x" null with a tag: more likely a text that lacks its quotes.
	if hasCoreTag(v) && (!isNull(v) || v.Anchor == "") {
		wrong = key.set(c, v)
	}
	for _, w := range wrong {
		line, want, got := w.Line, key.Each, describe(w)
		if w == v {
			line = at.Line // not where the anchor is
		}
		if want == "" || w == v && w.Kind != yaml.ScalarNode {
			want = key.Want
		}
		if key.secret {
			got = describeSecret(w)
		}
		l.errorf(line, key.Name, "expected %s, got %s", want, got)
	}
}

func (l *loader) warnUnknownKey(line int, key string) {
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Name
	}
	l.warnUnknown(line, key, names...)
}

// warnUnknown warns of a key that is none of names.
func (l *loader) warnUnknown(line int, key string, names ...string) {
	if len(l.warnings) >= maxReported {
		l.moreWarn++
		return
	}
	text := "unknown key"
	name, _, _ := strings.Cut(key, ":")
	if n := nearestName(name, names); n != "" {
		text += "; did you mean " + n + "?"
	}
	l.warnings = append(l.warnings, Warning{l.file, line, quoteKey(key), text})
}

func findKey(name string) *Key {
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i]
		}
	}
	return nil
}
