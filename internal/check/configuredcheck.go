package check

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Type is one kind of configured check.
type Type struct {
	Name    string
	Aliases []string
	Doc     string // one sentence
	Options []Option
	Roles   []Role // what a server can be asked to be, the default first; nil for most types

	usual []string // the options that an example has in addition to the required ones
	build func(o *optionReader, d Defaults) (*ConfiguredCheck, error)
}

// option returns the description of an option, and false if the type has none of that name.
func (t *Type) option(name string) (Option, bool) {
	i := slices.IndexFunc(t.Options, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return Option{}, false
	}
	return t.Options[i], true
}

// typeNamed returns the type with a name or alias, nil if there is none.
func typeNamed(name string) *Type {
	for _, t := range types {
		if t.Name == name || slices.Contains(t.Aliases, name) {
			return t
		}
	}
	return nil
}

// Spec is one check as a file configures it: a type and its options. The values are those of YAML: string, int,
// float64, bool, nil, []any, map[string]any.
type Spec struct {
	Type    string // a name or alias of a Type
	Options map[string]any
	Tags    []string
}

// Format writes the type alone, whatever the verb, because the options contain passwords.
func (s Spec) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "check of type "+s.Type) }

// with returns a copy of s with these options added or replaced, and without those that are nil.
func (s Spec) with(options map[string]any) Spec {
	all := make(map[string]any, len(s.Options)+len(options))
	maps.Copy(all, s.Options)
	maps.Copy(all, options)
	for name, value := range options {
		if value == nil {
			delete(all, name)
		}
	}
	s.Options = all
	return s
}

// Defaults are the values for what a Spec leaves out.
type Defaults struct {
	Timeout time.Duration // of each check without a timeout of its own; 0: the type's, 10 s for most
	// Host is the host of checks that name none although their type requires one; "": they must name one.
	Host string
	// Scripts runs the scripts; nil: each check has a runner of its own, so checks do not share runs.
	Scripts *Scripts
	Options // those of the URL protocols, for types that fall back on them

	roots *x509.CertPool // those of ca_file, if they have been read
}

// ConfiguredCheck is a check with everything it needs to run. It is safe for concurrent use.
type ConfiguredCheck struct {
	Type    string // the Type's name, never an alias
	Name    string // for people: type, host and port, or the URL; contains no secret
	Tags    []string
	Timeout time.Duration // of all steps together
	// Steps are run in order until one fails, over one connection. The earlier steps only show how far a check got: the
	// last one alone proves as much as all of them.
	Steps    []Step
	Endpoint Endpoint

	socket   string // path of the Unix socket to connect to; "" for Endpoint
	preamble string // what is sent as soon as the connection is open: a PROXY line

	ports []uint16 // the port of a request is passed to a script if it is one of these, or one of another check's

	// What it was built from, for WithAddress.
	typ      *Type
	spec     Spec
	defaults Defaults
}

// Endpoint is where a check connects to, for firewall rules.
type Endpoint struct {
	Network string // "tcp", "udp"; "" when nothing is sent anywhere
	Host    string
	Port    uint16
}

// OptionError says which option of a Spec is wrong. The caller adds the line of the file.
type OptionError struct {
	Option string // "type" for the type itself
	Err    error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

func (e *OptionError) Unwrap() error { return e.Err }

// Build returns the check that s describes. Its error is an *OptionError or joins several.
func Build(s Spec, d Defaults) (*ConfiguredCheck, error) {
	t := typeNamed(s.Type)
	if t == nil {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = t.Name
		}
		return nil, &OptionError{"type", fmt.Errorf("expected one of %s, got %q", strings.Join(names, ", "), s.Type)}
	}
	return buildType(t, s, d)
}

// buildType returns the check that s, of type t, describes.
func buildType(t *Type, s Spec, d Defaults) (*ConfiguredCheck, error) {
	if host, ok := t.option("host"); ok && host.Required && d.Host != "" && s.Options["host"] == nil {
		s = s.with(map[string]any{"host": d.Host})
	}
	o := &optionReader{spec: s, typ: t, roots: d.roots}
	o.checkNames()
	timeout := o.seconds("timeout", 0)
	c, err := t.build(o, d)
	if err != nil {
		o.errs = append(o.errs, err)
	}
	if len(o.errs) > 0 {
		return nil, errors.Join(o.errs...)
	}
	c.Type, c.Tags = t.Name, s.Tags
	d.roots = o.roots
	c.typ, c.spec, c.defaults = t, s, d
	c.Timeout = configuredTimeout(timeout, d.Timeout, c.Timeout)
	return c, nil
}

// WithAddress returns the same check with another host and port. Its error is an *OptionError or joins several: a check of a
// type without these options can only be asked where its configuration says.
func (c *ConfiguredCheck) WithAddress(host string, port uint16) (*ConfiguredCheck, error) {
	return c.withOptions(map[string]any{"host": host, "port": int(port)})
}

// withOptions returns the same check with these options added or replaced. nil takes an option away.
func (c *ConfiguredCheck) withOptions(options map[string]any) (*ConfiguredCheck, error) {
	return buildType(c.typ, c.spec.with(options), c.defaults)
}

// Format writes the name alone, whatever the verb, because the options contain passwords.
func (c ConfiguredCheck) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.Name) }

// Check runs the steps of c within its timeout. It returns the result of the first step that fails, or of the last.
func (c *ConfiguredCheck) Check(ctx context.Context, t Target) Result {
	return withDuration(func() Result { return Timeout(c.Timeout)(c.runSteps)(ctx, t) })
}

func (c *ConfiguredCheck) runSteps(ctx context.Context, t Target) (r Result) {
	a := c.Begin(ctx, t)
	defer a.End()
	for _, s := range c.Steps {
		if r = a.Run(s); r.Code != 200 {
			break
		}
	}
	return r
}
