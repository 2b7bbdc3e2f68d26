package admin

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// target is one service, or one instance of a service, on the command line.
type target struct {
	key     spool.Key   // of the override that the command writes
	aliases []spool.Key // other keys for the same target
	label   string      // in messages: svc, svc:port or svc:host:port
}

// keys returns the keys of all overrides that are about exactly this target.
func (t target) keys() []spool.Key { return append([]spool.Key{t.key}, t.aliases...) }

// loopback is the host that keys leave out: the original tools write none for it, and the original daemon looks up
// none.
const loopback = "127.0.0.1"

func newTarget(writes bool, name, host string, port uint16) (target, error) {
	t := target{key: spool.Key{Service: name, Port: port}, label: name}
	if host != "" {
		ip, err := parseHost(host)
		if err != nil {
			return t, err
		}
		if writes && (ip == "0.0.0.0" || ip == "::") { // the daemon takes these for no host
			return t, fmt.Errorf("option -H, --service-host: no instance is at %s, that would change nothing; leave -H away for port %d on this machine", ip, port)
		}
		if ip == loopback {
			t.aliases = []spool.Key{{Service: name, Host: ip, Port: port}}
		} else {
			t.key.Host = ip
		}
		host = ip
	}
	if port != 0 {
		t.label = spool.Key{Service: name, Host: host, Port: port}.Name()
	}
	if service, _, found := strings.Cut(name, ":"); found && spool.ValidService(service) && !strings.Contains(name, "/") { // no URL
		return t, fmt.Errorf("%q is no service name, it has a colon%s", textfmt.OneLine(name), instanceHint(name, writes))
	}
	err := t.key.Check()
	if errors.Is(err, spool.ErrAllInstance) {
		if !writes {
			return t, nil // the original tools may have written one: haup and hastatus accept it
		}
		err = fmt.Errorf("%w; name all, or one service with -P %d", err, port)
	}
	return t, err
}

// line returns the target as the originals print it: svc, svc::port or svc:host:port.
func (t target) line() string {
	if t.key.Port != 0 && t.label == t.key.Name() {
		return t.key.Label()
	}
	return t.label
}

// anyInstanceHint is the hint for a name whose port or address cannot be read.
const anyInstanceHint = "; one instance is written SERVICE -P PORT, or SERVICE -P PORT -H IP"

// instanceHint says how to name the instance that name stands for. The operator has typed what hashowdowned prints, or
// the name of a spool file.
func instanceHint(name string, writes bool) string {
	k, err := spool.ParseKey(name)
	if service, text, found := strings.Cut(name, "::"); err != nil && found { // hashowdowned prints svc::port
		k.Service, k.Host = service, ""
		k.Port, err = parsePort(text)
	}
	if err != nil {
		return anyInstanceHint
	}
	if k.Service == spool.All {
		hint := fmt.Sprintf("; all has no instances: name all, or one service with -P %d", k.Port)
		if !writes { // the original tools may have written one
			hint += fmt.Sprintf("; all -P %d is only for a file %s of another tool", k.Port, k.Name())
		}
		return hint
	}
	if _, err := newTarget(writes, k.Service, k.Host, k.Port); err != nil {
		return anyInstanceHint // such as a host name, which only other tools write
	}
	hint := fmt.Sprintf("; one instance is written %s -P %d", k.Service, k.Port)
	if k.Host != "" {
		hint += " -H " + k.Host
	}
	return hint
}

// parseHost reads the address of an instance and returns its canonical form.
func parseHost(s string) (string, error) {
	host := spool.CanonicalHost(s)
	if ip, err := netip.ParseAddr(host); err != nil || ip.Zone() != "" {
		return "", fmt.Errorf("option -H, --service-host: invalid value %q: want the IP address of the instance", s)
	}
	return host, nil
}
