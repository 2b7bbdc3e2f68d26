package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the configuration file at path. Keys that are not in the file have their defaults, and an empty file is
// valid. An error is of type Errors; Load returns the warnings also with an error.
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
	if err := l.finish(); err != nil {
		return nil, l.warnings, err
	}
	return c, l.warnings, nil
}

// readKeys reads the keys of the file into c.
func (l *loader) readKeys(c *Config, root *yaml.Node) {
	c.CacheTimeDown = -1 // unset: cache_time, its default, may come later in the file
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
		known := slices.IndexFunc(keys, func(key Key) bool { return key.Name == k.Value })
		shown := k.Value
		if known < 0 {
			shown = quoteKey(k.Value)
		}
		if first, ok := seen[k.Value]; ok {
			l.errorf(line, shown, "expected it once, got it again (first on line %d)", first)
			continue
		}
		seen[k.Value] = line
		if known < 0 {
			l.warnUnknownKey(line, k.Value)
			continue
		}
		key := &keys[known]
		if key.nested != nil && !isNull(v) {
			key.nested(l, c, root.Content[i+1], v)
			continue
		}
		l.setKey(c, key, root.Content[i+1], v)
	}
	if c.CacheTimeDown < 0 {
		c.CacheTimeDown = c.CacheTime
	}
	l.checkTLS(c, seen)
	l.countWarnings()
}

// countWarnings adds a warning with the number of those that were too many to be kept.
func (l *loader) countWarnings() {
	if l.moreWarn > 0 {
		l.warnings = append(l.warnings, Warning{File: l.file, Text: fmt.Sprintf("and %d more unknown keys", l.moreWarn)})
	}
}

// checkTLS reports keys of tls_listen of which others are missing. lines has the line of each key in the file.
func (l *loader) checkTLS(c *Config, lines map[string]int) {
	taken := "" // the service that has the address
	for _, s := range c.Services {
		if l := c.TLSListen; l != "" && !strings.HasSuffix(l, ":0") && (l == s.HTTPListen || l == s.BeaconListen || l == s.AgentListen) {
			taken = s.Name
		}
	}
	if taken != "" {
		l.errorf(lines["tls_listen"], "tls_listen", "expected an address of its own, got %s, which %s has", c.TLSListen, taken)
	}
	files := []struct{ key, value string }{{"tls_cert_file", c.TLSCertFile}, {"tls_key_file", c.TLSKeyFile}}
	for _, f := range files {
		if c.TLSListen != "" && f.value == "" {
			l.errorf(lines["tls_listen"], "tls_listen", "expected %s too", f.key)
		}
	}
	for _, f := range append(files, struct{ key, value string }{"tls_client_ca_file", c.TLSClientCAFile}) {
		if c.TLSListen == "" && f.value != "" {
			l.errorf(lines[f.key], f.key, "expected tls_listen too")
		}
	}
}

// setKey reads the value of one key. at is the node in the file, v the same node with an alias resolved.
func (l *loader) setKey(c *Config, key *Key, at, v *yaml.Node) {
	if isNull(v) && v.Anchor == "" && hasCoreTag(v) {
		if key.mayBeEmpty {
			return
		}
		l.errorf(at.Line, key.Name, "expected %s, got nothing", key.Want)
		return
	}
	wrong := []*yaml.Node{v}
	// "&x" alone is null with an anchor, and "!x" is null with a tag: probably a text without its quotes.
	if key.set != nil && hasCoreTag(v) && (!isNull(v) || v.Anchor == "") {
		wrong = key.set(c, v)
	}
	for _, w := range wrong {
		line, want, got := w.Line, key.Each, describe(w)
		if w == v {
			line = at.Line // the line of the alias, not of its anchor
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

// warnUnknown warns about a key that is not one of names, and suggests the most similar name.
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
