package config

import (
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Fleet is the configuration of the fleet: where its etcd is, and what this host is in it.
type Fleet struct {
	Endpoints []string        // etcd: the URLs of its members; at least one, all http or all https
	Prefix    string          // prefix of all keys, default /hacheck/; it begins and ends with a slash
	Host      string          // host: the name of this host in the fleet, default the host name
	Groups    []string        // groups by which operators address several hosts; default none
	Member    map[string]bool // member: services of which this host is always, or never, a member; default none
	Lease     time.Duration   // lease, default 15 s
	StartWait time.Duration   // start_wait, default 3 s
	Operators []string        // operators: groups of users, default none

	Username     string // username, default none
	PasswordFile string // password_file, default none; there is none without a username
	CAFile       string // ca_file, default none: the certificates of the system
	CertFile     string // cert_file, default none
	KeyFile      string // key_file, default none; there is one if there is a cert_file

	StateDir  string // state_dir, default /var/lib/hacheck
	FleetLock bool   // fleet_lock, default false
	Insecure  bool   // insecure, default false: no password over http to another machine
}

// DefaultStateDir is the default of state_dir. The systemd unit makes it.
const DefaultStateDir = "/var/lib/hacheck"

const (
	maxEndpoints  = 100
	maxPrefix     = 200
	maxGroups     = 20
	maxGroupBytes = 300 // of all names together: the groups are part of every state that is stored
	maxLease      = 300
	maxStartWait  = 60 // systemd gives a start 90 s
)

// fleet reads the value of the key fleet.
func (l *loader) fleet(c *Config, at, n *yaml.Node) {
	if n.Kind != yaml.MappingNode || !hasCoreTag(n) {
		l.errorf(at.Line, "fleet", "expected a mapping, as in {etcd: [https://etcd1:2379]}, got %s", describeKind(n))
		return
	}
	f := &Fleet{Prefix: "/hacheck/", Lease: 15 * time.Second, StartWait: 3 * time.Second, StateDir: DefaultStateDir}
	lines := map[string]int{} // of the keys that are there
	d := decoder{loader: l}
	errs := len(l.errs) + l.moreErrs
	for _, e := range d.entries(n, 0) {
		i := slices.IndexFunc(fleetKeys, func(k fleetKey) bool { return k.Name == e.name })
		if i < 0 {
			l.warnUnknown(e.line, e.name, fleetKeyNames()...)
			continue
		}
		lines[e.name] = e.line
		v := resolveAlias(e.at)
		wrong := v
		if hasCoreTag(v) && !isNull(v) {
			wrong = fleetKeys[i].read(f, v)
		}
		if wrong != nil {
			l.errorf(e.line, "fleet: "+e.name, "expected %s, got %s", fleetKeys[i].Want, describeFleetValue(e.name, wrong))
		}
	}
	if len(l.errs)+l.moreErrs == errs { // every value is valid, so they can be compared
		l.checkFleet(f, at.Line, lines)
	}
	c.Fleet = f
}

func fleetKeyNames() (names []string) {
	for _, k := range fleetKeys {
		names = append(names, k.Name)
	}
	return names
}

// describeFleetValue returns a description of a wrong value. A URL may have a password in it.
func describeFleetValue(key string, n *yaml.Node) string {
	if key == "etcd" && n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "@") {
		return "a URL with a login (use username and password_file)"
	}
	return describe(n)
}

// checkFleet reports settings that exclude each other or need each other. line is the line of the section, lines has the
// line of each key.
func (l *loader) checkFleet(f *Fleet, line int, lines map[string]int) {
	wrong := func(key, format string, args ...any) {
		at, ok := lines[key]
		if !ok {
			at = line
		}
		l.errorf(at, "fleet: "+key, format, args...)
	}
	if len(f.Endpoints) == 0 {
		wrong("etcd", "expected the members of etcd, as in [https://etcd1:2379], got nothing")
		return
	}
	if f.Host == "" {
		name, err := os.Hostname()
		if err != nil || !isFleetHost(name) {
			wrong("host", "expected a name of this host, because its host name (%s) names no host", quoteWord(name))
		}
		f.Host = name
	}
	for _, pair := range [][2]string{{"username", "password_file"}, {"cert_file", "key_file"}} {
		for i, key := range pair {
			other := pair[1-i]
			if _, ok := lines[key]; ok && lines[other] == 0 {
				wrong(key, "expected %s beside it, got %s alone", other, key)
			}
		}
	}
	isHTTPS := strings.HasPrefix(f.Endpoints[0], "https:")
	for _, key := range []string{"ca_file", "cert_file"} {
		if _, ok := lines[key]; ok && !isHTTPS {
			wrong(key, "expected no certificates with http://, got some; does etcd want https://?")
		}
	}
	for _, e := range f.Endpoints {
		if strings.HasPrefix(e, "https:") != isHTTPS {
			wrong("etcd", "expected https:// for all or http:// for all, got both")
			return
		}
		if f.PasswordFile != "" && !isHTTPS && !f.Insecure && !isLoopback(e) {
			wrong("password_file", "expected https:// in etcd, because the password would cross the network in clear to %s (insecure: true allows that)", e)
			return
		}
	}
}

// isLoopback reports whether the URL of a member is on this machine.
func isLoopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}
