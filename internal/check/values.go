package check

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

// values reads the options of one Spec for a Type's build. Its methods return the option's value, or the
// default when the option is not given, and remember what is wrong; build looks at nothing but the values,
// and buildType returns the errors, all of them.
type values struct {
	spec Spec
	typ  *Type
	errs []error
}

// buildType reads s as a spec of type t.
func buildType(t *Type, s Spec, d Defaults) (*Configured, error) {
	if d.Host != "" && s.Options["host"] == nil && slices.ContainsFunc(t.Options, func(opt Option) bool { return opt.Name == "host" && opt.Required }) {
		s.Options = maps.Clone(s.Options)
		if s.Options == nil {
			s.Options = map[string]any{}
		}
		s.Options["host"] = d.Host
	}
	o := &values{spec: s, typ: t}
	known := []string{"type", "tags", "timeout"}
	for _, opt := range t.Options {
		if !slices.Contains(known, opt.Name) {
			known = append(known, opt.Name)
		}
		if v, given := s.Options[opt.Name]; opt.Required && (!given || v == nil) {
			o.wrong(opt.Name, "is required: "+opt.Want)
		}
	}
	for _, name := range sortedKeys(s.Options) {
		if !slices.Contains(known, name) {
			o.wrong(name, fmt.Sprintf("no such option of %s; it has %s", t.Name, strings.Join(known[1:], ", ")))
		}
	}
	timeout := o.seconds("timeout", d.Timeout)
	if timeout == 0 {
		timeout = defaultTimeout
	}
	c, err := t.build(o, d)
	if err != nil {
		o.errs = append(o.errs, err)
	}
	if len(o.errs) > 0 {
		return nil, errors.Join(o.errs...)
	}
	c.Type, c.Tags = t.Name, s.Tags
	c.typ, c.spec, c.defaults = t, s, d
	if c.Timeout == 0 || o.given("timeout") || d.Timeout > 0 {
		c.Timeout = timeout
	}
	return c, nil
}

// defaultTimeout is conn-check's, for a check that names none.
const defaultTimeout = 10 * time.Second

// maxTimeout is the longest timeout of a check.
const maxTimeout = time.Hour

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// option returns the description of an option; build must not ask for one that its Type does not list.
func (o *values) option(name string) Option {
	for _, opt := range o.typ.Options {
		if opt.Name == name {
			return opt
		}
	}
	if name == "timeout" {
		return Option{Name: name, Want: "a number of seconds above 0 and up to 3600"}
	}
	panic("check: type " + o.typ.Name + " has no option " + name)
}

func (o *values) given(name string) bool { return o.spec.Options[name] != nil }

func (o *values) wrong(name, what string) {
	o.errs = append(o.errs, &OptionError{name, errors.New(what)})
}

// unexpected remembers that an option's value is not what it has to be. A secret is not shown.
func (o *values) unexpected(name string, v any) {
	opt := o.option(name)
	got := fmt.Sprintf("%v", v)
	switch v := v.(type) {
	case string:
		got = fmt.Sprintf("%q", cutTo(v, 60))
	case []any:
		got = "a list"
	case map[string]any:
		got = "a mapping"
	}
	if opt.Secret {
		got = "something else (not shown)"
	}
	o.wrong(name, "expected "+opt.Want+", got "+got)
}

func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// text returns a string. Numbers are taken as they would be written: "password: 1234" is one in YAML.
func (o *values) text(name, def string) string {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return def
	case string:
		return v
	case int, float64:
		return fmt.Sprint(v)
	default:
		o.unexpected(name, v)
		return def
	}
}

// secret is text that cannot print itself.
func (o *values) secret(name string) Secret { return Secret(o.text(name, "")) }

// host returns an address without brackets, or a name; "" when none is given.
func (o *values) host(name string) string {
	s := o.text(name, "")
	if _, err := netip.ParseAddr(s); err == nil || s == "" {
		return s
	}
	if len(s) > 253 || strings.ContainsAny(s, " /:@?#[]%\\\x00\r\n\t") {
		o.unexpected(name, s)
	}
	return s
}

// port returns a port from 1 to 65535; 0 only where def is 0 and none is given.
func (o *values) port(name string, def uint16) uint16 {
	n := o.whole(name, int(def), 1, 65535)
	return uint16(n)
}

func (o *values) whole(name string, def, least, most int) int {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return def
	case int:
		if v >= least && v <= most {
			return v
		}
		o.unexpected(name, v)
	default:
		o.unexpected(name, v)
	}
	return def
}

// ports returns a list of ports from 1 to 65535, nil when there is none.
func (o *values) ports(name string) (ports []uint16) {
	for _, v := range o.list(name) {
		n, ok := v.(int)
		if !ok || n < 1 || n > math.MaxUint16 {
			o.unexpected(name, o.spec.Options[name])
			return nil
		}
		ports = append(ports, uint16(n))
	}
	return ports
}

// flag returns a boolean. A string is none: "false" in quotes must never come out true.
func (o *values) flag(name string, def bool) bool {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return def
	case bool:
		return v
	default:
		o.unexpected(name, v)
		return def
	}
}

// seconds returns a duration above 0 and up to an hour.
func (o *values) seconds(name string, def time.Duration) time.Duration {
	var f float64
	switch v := o.spec.Options[name].(type) {
	case nil:
		return def
	case int:
		f = float64(v)
	case float64:
		f = v
	default:
		o.unexpected(name, v)
		return def
	}
	if math.IsNaN(f) || f <= 0 || f > maxTimeout.Seconds() {
		o.unexpected(name, f)
		return def
	}
	return time.Duration(f * float64(time.Second))
}

// list returns the elements of a list, nil when there is none.
func (o *values) list(name string) []any {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		o.unexpected(name, v)
		return nil
	}
}

// mapping returns a mapping, nil when there is none.
func (o *values) mapping(name string) map[string]any {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return nil
	case map[string]any:
		return v
	default:
		o.unexpected(name, v)
		return nil
	}
}
