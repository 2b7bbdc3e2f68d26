package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// The protocols of this file take their options from the first check of their type that is configured for the service.
// Host and port come from the request.

// configuredOnly returns a protocol that needs such a check and answers 500 without one.
func configuredOnly(o Options, name string, typ *Type) entry { return typedProtocol(o, name, typ, nil) }

// configuredOrDefault returns a protocol that asks with the default options if there is no such check. It then
// verifies certificates as https does.
func configuredOrDefault(o Options, name string, typ *Type) entry {
	return configuredOr(o, name, typ, typ)
}

// configuredOr returns a protocol that asks as fallback, a variant of typ, with the default options if there is no such
// check.
func configuredOr(o Options, name string, typ, fallback *Type) entry {
	options := map[string]any{}
	if _, ok := typ.option(noVerifyOption.Name); ok && !o.TLSVerify {
		options[noVerifyOption.Name] = true
	}
	e := typedProtocol(o, name, typ, &ConfiguredCheck{
		typ: fallback, spec: Spec{Type: typ.Name, Options: options},
		defaults: Defaults{Timeout: maxTimeout, Options: o}, // healthcheck_timeout is shorter
	})
	canonical := e.Canonical
	e.Canonical = func(t Target) Target {
		if firstOfType(o.Services[t.Service], typ) == nil {
			t.Service = "" // all services share the default
		}
		if canonical != nil {
			t = canonical(t)
		}
		return t
	}
	return e
}

// typedProtocol returns a protocol of this file. fallback is the check of services that have none; nil: there is none.
func typedProtocol(o Options, name string, typ *Type, fallback *ConfiguredCheck) entry {
	check := func(ctx context.Context, t Target) Result {
		c := cmp.Or(firstOfType(o.Services[t.Service], typ), fallback)
		if c == nil {
			return notConfigured(t.Service, "No check of type "+name+" is", typ.example(name, t.Port))
		}
		options, err := roleInURL(typ, t.URI)
		if err != nil {
			return result(400, ReasonConfig, err, "The role in the URL of %s is wrong: %s", name, excerpt(err.Error(), 300))
		}
		options["host"], options["port"] = t.Host, int(t.Port)
		if host := nameInHost(hostHeader(t.Header)); typ == &tlsType && host != "" && c.spec.Options["server_name"] == nil {
			options["server_name"] = host // as https: a server that answers by name refuses a handshake without one
		}
		at, err := c.withOptions(options)
		if err != nil {
			return result(500, ReasonConfig, err, "The check of type %s that is configured for %s cannot be asked here: %s", name, excerpt(t.Service, 200), excerpt(err.Error(), 300))
		}
		return at.Check(ctx, t)
	}
	e := entry{Protocol{
		Name: name, PerService: true, ForwardsHops: forwardsHops(typ.Name),
		Check: func(ctx context.Context, t Target) Result {
			return withDuration(func() Result { return check(ctx, t) })
		},
	}, typ}
	if typ.Roles != nil {
		return withRoles(e)
	}
	return e
}

// firstOfType returns the first check of a type, nil if there is none.
func firstOfType(checks []*ConfiguredCheck, typ *Type) *ConfiguredCheck {
	for _, c := range checks {
		if c.Type == typ.Name {
			return c
		}
	}
	return nil
}

// example returns a check with the required options, for the operator to complete.
func (t *Type) example(name string, port uint16) string {
	text := "{type: " + name
	for _, o := range t.Options {
		switch {
		case o.Name == "port" && port != 0:
			text += fmt.Sprintf(", port: %d", port)
		case o.Required && o.Name != "host" || slices.Contains(t.usual, o.Name):
			text += ", " + o.Name + ": ..."
		}
	}
	return text + "}"
}
