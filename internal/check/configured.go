package check

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Spec is one check as somebody has configured it: a type and its options. The values are those of YAML:
// string, int, float64, bool, nil, []any, map[string]any. Where a file has them from is its reader's business.
type Spec struct {
	Type    string // a name or alias of a Type
	Options map[string]any
	Tags    []string
}

// Defaults are what a Spec leaves to the one who builds it.
type Defaults struct {
	Timeout time.Duration // of each check without a timeout of its own; 0: the type's, 10 s in most
	// Host is where checks go that name no host, though their type wants one; "": they have to name one.
	Host string
	// Scripts runs the scripts; nil: one of its own for each check, so that what they share is lost.
	Scripts *Scripts
	Options // what the URL protocols know, for types that fall back on it
}

// Configured is a check that has everything it needs to know. It is safe for concurrent use.
type Configured struct {
	Type    string // the Type's name, never an alias
	Name    string // for people: type, host and port, or the URL; no secret
	Tags    []string
	Timeout time.Duration // of all steps together
	// Steps are run in order; after a failure the rest is not run. The last one alone proves what all those
	// before it do, which are there to say how far a check got.
	Steps    []Step
	Endpoint Endpoint

	ports []uint16 // that a request may name to a script, besides those of other checks

	// What it was built from, for At.
	typ      *Type
	spec     Spec
	defaults Defaults
}

// At returns the same check with another host and port. Every error that it returns is an *OptionError or
// joins some: a type without these options cannot be asked elsewhere.
func (c *Configured) At(host string, port uint16) (*Configured, error) {
	s := c.spec
	s.Options = maps.Clone(s.Options)
	if s.Options == nil {
		s.Options = map[string]any{}
	}
	s.Options["host"], s.Options["port"] = host, int(port)
	return buildType(c.typ, s, c.defaults)
}

// Format writes the name alone, whatever the verb: passwords are among the options.
func (c Configured) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.Name) }

// Format writes the type alone, whatever the verb: passwords are among the options.
func (s Spec) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "check of type "+s.Type) }

// Step is one part of a check that can fail on its own, as conn-check lists them: "tcp:db:5432", then
// "postgres:db:5432". A step opens what it needs and leaves nothing open.
type Step struct {
	Name string
	Info string // what conn-check adds to the name where it says that a step begins: "user shop"; may be ""
	Run  Func   // Target is ignored but for Service and Port, which scripts are told, and Hops
}

// Endpoint is where a check goes, for firewall rules.
type Endpoint struct {
	Network string // "tcp", "udp"; "" when nothing is sent anywhere
	Host    string
	Port    uint16
}

// Type is one kind of configured check.
type Type struct {
	Name    string
	Aliases []string
	Doc     string // one sentence
	Options []Option

	build func(o *values, d Defaults) (*Configured, error)
}

// Option is one option of a Type.
type Option struct {
	Name     string
	Want     string // what a value has to be, in words: "a port from 1 to 65535"
	Default  string // as one would write it; "" is none
	Required bool
	Secret   bool // no message may show the value
	Doc      string
}

// OptionError says which option of a Spec is wrong. Its reader knows the line.
type OptionError struct {
	Option string // "type" for the type itself
	Err    error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

func (e *OptionError) Unwrap() error { return e.Err }

// Build returns the check that s describes. Every error that it returns is an *OptionError or joins some.
func Build(s Spec, d Defaults) (*Configured, error) {
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

// typeNamed returns the type with a name or alias, nil if there is none.
func typeNamed(name string) *Type {
	for i := range types {
		if types[i].Name == name || slices.Contains(types[i].Aliases, name) {
			return &types[i]
		}
	}
	return nil
}

// Types returns every type in the order of the documentation.
func Types() []Type { return slices.Clone(types) }

// Check runs the steps of c within its timeout. The result of the first that fails, or of the last, is
// the result of c.
func (c *Configured) Check(ctx context.Context, t Target) Result {
	return c.run(ctx, t, c.Steps)
}

// checkLast runs the last step alone, over a connection of its own as every check of a URL.
func (c *Configured) checkLast(ctx context.Context, t Target) Result {
	return c.run(ctx, t, c.Steps[len(c.Steps)-1:])
}

func (c *Configured) run(ctx context.Context, t Target, steps []Step) Result {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	began := time.Now()
	var r Result
	for _, s := range steps {
		if r = s.Run(ctx, t); r.Code != 200 {
			break
		}
	}
	r.Took = time.Since(began)
	return r
}
