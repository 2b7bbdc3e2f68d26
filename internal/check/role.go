package check

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Role is a state that a database can be wanted in. HAProxy sends writes to the primary and reads to replicas that
// keep up; a check with a role answers 200 only where the server has it.
type Role struct {
	Name    string
	Aliases []string
	Doc     string   // when the check is healthy, in one sentence
	Params  []string // the parameters it takes, of those in roleParams
	// MinLag is the shortest lag that its server can tell, for servers that measure it in time alone; 0: any lag, also a
	// size.
	MinLag time.Duration
}

// roleParams are the parameters of roles, in a URL ("replica?lag=10s") or as options of a configured check.
var roleParams = []Option{
	{Name: "lag", Want: "a duration like 10s, of at most 24h, or for postgres also a size like 16MB", Doc: "how far a replica may be behind"},
	{Name: "alone", Want: "a duration like 5m, of at most 24h", Default: "5m", Doc: "for how long a replica whose source is away is healthy"},
	{Name: "donor", Want: "ok", Doc: "a node that feeds another one is healthy too"},
	{Name: "writable", Want: "true or false", Default: "false", Doc: "and it takes writes"},
}

// defaultAlone is how long a replica whose source is away stays healthy: otherwise all readers go out together with the
// primary.
const defaultAlone = 5 * time.Minute

// wantedRole is a role with its parameters. The zero value wants none: the check is the one without a role.
type wantedRole struct {
	name     string
	lag      time.Duration // 0: any
	lagBytes int64         // 0: any
	alone    time.Duration
	aloneSet bool // alone is given
	donorOK  bool
	writable bool
}

// roleNames returns the names of roles, separated by commas.
func roleNames(roles []Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.Name
	}
	return strings.Join(names, ", ")
}

// roleOptions returns the option role of a type with these roles, and the parameters that they take.
func roleOptions(roles []Role) []Option {
	options := []Option{{Name: "role", Want: "one of " + roleNames(roles), Default: roles[0].Name, Doc: "what the server has to be"}}
	for _, p := range roleParams {
		if slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(r.Params, p.Name) }) {
			options = append(options, p)
		}
	}
	return options
}

// role reads the options of roleOptions. The first of the roles is the default.
func (o *optionReader) role() wantedRole {
	text := o.text("role", o.typ.Roles[0].Name)
	params := url.Values{}
	for _, p := range roleParams {
		if !o.hasOption(p.Name) {
			continue
		}
		if v, set := o.written(p.Name); set {
			params.Set(p.Name, v)
		}
	}
	if name, query, ok := strings.Cut(text, "?"); ok && len(params) == 0 {
		var err error
		if params, err = url.ParseQuery(query); err != nil {
			o.addValueError("role", text)
		}
		text = name
	}
	w, err := newWantedRole(o.typ.Roles, text, params)
	if err != nil {
		o.addError("role", err.Error())
	}
	return w
}

// newWantedRole returns the role of a name and its parameters.
func newWantedRole(roles []Role, name string, params url.Values) (wantedRole, error) {
	i := slices.IndexFunc(roles, func(r Role) bool { return r.Name == name || slices.Contains(r.Aliases, name) })
	if i < 0 {
		return wantedRole{}, fmt.Errorf("no such role %q; there are %s", cutTo(name, 60), roleNames(roles))
	}
	w := wantedRole{name: roles[i].Name, alone: defaultAlone}
	for _, p := range slices.Sorted(maps.Keys(params)) {
		if !slices.Contains(roles[i].Params, p) {
			takes := "none"
			if len(roles[i].Params) > 0 {
				takes = strings.Join(roles[i].Params, ", ")
			}
			return wantedRole{}, fmt.Errorf("no such parameter %q of the role %s; it takes %s", cutTo(p, 60), w.name, takes)
		}
		if len(params[p]) != 1 || !w.set(p, params.Get(p)) {
			want := roleParams[slices.IndexFunc(roleParams, func(o Option) bool { return o.Name == p })].Want
			return wantedRole{}, fmt.Errorf("%s of the role %s: expected %s once, got %q", p, w.name, want, cutTo(strings.Join(params[p], ","), 60))
		}
	}
	if least := roles[i].MinLag; params.Has("lag") && w.lag < least {
		return wantedRole{}, fmt.Errorf("lag of the role %s: expected a duration of at least %v, got %q", w.name, least, cutTo(params.Get("lag"), 60))
	}
	return w, nil
}

// set sets a parameter. It returns false for a value that the parameter does not take.
func (w *wantedRole) set(param, value string) (ok bool) {
	switch param {
	case "lag":
		if w.lag, ok = parseRoleTime(value); !ok {
			w.lagBytes, ok = parseSize(value)
		}
	case "alone":
		w.alone, ok = parseRoleTime(value)
		w.aloneSet = true
	case "donor":
		w.donorOK = value == "ok" || value == "true"
		ok = w.donorOK
	case "writable":
		w.writable = value != "false" && value != "0"
		ok = slices.Contains([]string{"", "true", "false", "1", "0", "ok"}, value)
	}
	return ok
}

// parseRoleTime returns a duration above 0 and up to 24 hours, "10s". A number alone has no unit and is none.
func parseRoleTime(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0 && d <= 24*time.Hour
}

// parseSize returns a size above 0 in bytes: "16MB" is 16 times 2^20 bytes, as in PostgreSQL's settings.
func parseSize(s string) (int64, bool) {
	units := map[string]int64{"B": 1, "kB": 1 << 10, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
	digits := strings.TrimRight(s, "BkKMG")
	n, err := strconv.ParseInt(digits, 10, 32)
	unit, known := units[s[len(digits):]]
	return n * unit, err == nil && known && n > 0
}

// withRoles returns a protocol whose check URLs may name a role in their last part. The URL without one and the URL with
// one are different checks; headers reach none of them.
func withRoles(e entry) entry {
	canonical := e.Canonical
	e.Roles = true
	e.Canonical = func(t Target) Target {
		t.Header, t.URI = nil, canonicalRole(t.URI)
		if canonical != nil {
			t = canonical(t)
		}
		return t
	}
	return e
}

// canonicalRole returns the URI of a check URL with a role in one spelling, without slashes around it.
func canonicalRole(uri string) string { return strings.Trim(uri, "/") }

// roleInURL returns the options that the last part of a URL sets: the role and its parameters replace those of the
// configured check altogether, those that it does not set are nil. It returns an empty map if the URL names no role.
func roleInURL(typ *Type, uri string) (map[string]any, error) {
	name, query, _ := strings.Cut(canonicalRole(uri), "?")
	name = strings.Trim(name, "/")
	if name == "" || typ.Roles == nil {
		return map[string]any{}, nil // a query alone, which balancers add to make URLs unique, names no role
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the parameters of the role %s cannot be read: %w", cutTo(name, 60), err)
	}
	if _, err := newWantedRole(typ.Roles, name, params); err != nil {
		return nil, err
	}
	options := map[string]any{"role": name}
	for _, p := range roleParams {
		options[p.Name] = nil
		if params.Has(p.Name) {
			options[p.Name] = params.Get(p.Name)
		}
	}
	for name := range options {
		if _, ok := typ.option(name); !ok {
			delete(options, name)
		}
	}
	return options, nil
}
