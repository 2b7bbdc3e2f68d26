package spool

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// All is the service name whose override covers every service on the host.
const All = "all"

// MaxName is the longest service name and the longest file name of an override, in bytes.
const MaxName = 200

// ErrAllInstance is the error of Key.Check for an instance of All that is correct otherwise. `hadown all -P 80` would
// read as if it covered port 80 of every service, which it does not.
var ErrAllInstance = errors.New("all covers every service and has no instances")

// Key names what an override is about: a whole service, its instance at a port of this machine (Port), or its instance
// on a given host (Host and Port). There is no Host without Port.
type Key struct {
	Service string
	Host    string // as CanonicalHost gives it, a name when a foreign tool wrote one; "" when not given
	Port    uint16 // 0 when the override is about the whole service
}

// ValidService reports whether s can name a service: one to MaxName letters, digits, '.', '_' and '-',
// and neither "." nor "..", which would be directories.
func ValidService(s string) bool {
	return len(s) <= MaxName && s != "." && s != ".." && isWord(s)
}

// isWord reports whether s is made of one or more of [.a-zA-Z0-9_-].
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != ""
}

// CanonicalHost returns the spelling of host that keys use: an IP address without brackets, in the text of netip.Addr,
// an IPv4 address never in IPv6 form; localhost is 127.0.0.1. It returns any other text unchanged.
func CanonicalHost(host string) string {
	text := host
	if n := len(text); n > 2 && text[0] == '[' && text[n-1] == ']' {
		text = text[1 : n-1]
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return addr.Unmap().String()
	}
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1"
	}
	return host
}

// isAddr reports whether host is an IP address without a zone. A zone has a meaning on one machine only.
func isAddr(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == ""
}

// ParseKey reads the name of a spool file: service, service:port or service:host:port. The service ends at the first
// colon and the port begins after the last, so that an IPv6 host may have brackets but needs none. ParseKey is the
// inverse of Name, but several names may mean one key, because an address has several spellings. The error says what is
// wrong with the name.
func ParseKey(name string) (Key, error) {
	if len(name) > MaxName {
		return Key{}, fmt.Errorf("name of %d bytes is longer than %d", len(name), MaxName)
	}
	service, rest, instance := strings.Cut(name, ":")
	if !ValidService(service) {
		return Key{}, fmt.Errorf("%q is no service name", service)
	}
	k := Key{Service: service}
	if !instance {
		return k, nil
	}
	port := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		port = rest[i+1:]
		k.Host = CanonicalHost(rest[:i])
		if !isAddr(k.Host) && !isWord(k.Host) {
			return Key{}, fmt.Errorf("%q is neither an IP address nor a host name", rest[:i])
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Key{}, fmt.Errorf("%q is no port from 1 to 65535", port)
	}
	k.Port = uint16(n)
	if name := k.Name(); len(name) > MaxName { // an address can be longer in canonical text
		return Key{}, fmt.Errorf("name %q is longer than %d bytes", name, MaxName)
	}
	return k, nil
}

// Name returns the file name of k, as the original tools write it: service, service:port or service:host:port, with the
// host in its canonical text.
func (k Key) Name() string {
	if k.Port == 0 {
		return k.Service
	}
	port := strconv.FormatUint(uint64(k.Port), 10)
	if k.Host == "" {
		return k.Service + ":" + port
	}
	return k.Service + ":" + CanonicalHost(k.Host) + ":" + port
}

// Label returns k as the lines of hastatus and hashowdowned have it, in the original's format: an instance without a
// host has an empty host field. Everything else shows Name.
func (k Key) Label() string {
	if k.Port == 0 {
		return k.Service
	}
	return k.Service + ":" + k.Host + ":" + strconv.FormatUint(uint64(k.Port), 10)
}

// Check returns an error if no command may write k: the service name or the IP address is invalid, a host has no port,
// the name is longer than MaxName bytes, or, checked last, k is an instance of All (ErrAllInstance).
func (k Key) Check() error {
	switch {
	case k.Service == "":
		return errors.New("empty service name")
	case len(k.Service) > MaxName:
		return fmt.Errorf("service name of %d bytes is longer than %d", len(k.Service), MaxName)
	case !ValidService(k.Service):
		return fmt.Errorf("%q is no service name: use letters, digits, '.', '_' and '-'", k.Service)
	case k.Host != "" && k.Port == 0:
		return fmt.Errorf("host %q without a port", k.Host)
	case k.Host != "" && !isAddr(CanonicalHost(k.Host)):
		return fmt.Errorf("%q is no IP address", k.Host)
	}
	if name := k.Name(); len(name) > MaxName {
		return fmt.Errorf("name %q is longer than %d bytes", name, MaxName)
	}
	if k.Service == All && k.Port != 0 {
		return ErrAllInstance
	}
	return nil
}

// canonical returns k with its host in canonical text. Equal keys are then equal values.
func (k Key) canonical() Key {
	if k.Host != "" {
		k.Host = CanonicalHost(k.Host)
	}
	return k
}

// Covers reports whether an override of k decides about other: All covers everything, a service covers all its
// instances, and `service:port` covers the instance at every address of this machine. local says that other.Host is
// one of those; an empty other.Host always is. Hosts are compared in their canonical text.
//
// An instance of All covers only itself: see ErrAllInstance.
func (k Key) Covers(other Key, local bool) bool {
	switch {
	case k == Key{Service: All}:
		return true
	case k.Service != other.Service:
		return false
	case k.Port == 0:
		return true
	case k.Port != other.Port:
		return false
	case k.Host == "":
		return local || other.Host == ""
	default:
		return k.Host == other.Host || CanonicalHost(k.Host) == CanonicalHost(other.Host)
	}
}

// CoveringKeys returns the keys that cover k: All, the service, `service:port` where k.Host is an address of this
// machine (local) or empty, and k itself. The widest comes first, k last.
func (k Key) CoveringKeys(local bool) []Key {
	list := append(make([]Key, 0, 4), Key{Service: All})
	if k.Service != All {
		list = append(list, Key{Service: k.Service})
	}
	if k.Port == 0 {
		return list
	}
	if local && k.Host != "" {
		list = append(list, Key{Service: k.Service, Port: k.Port})
	}
	return append(list, k)
}

// Above returns the wider keys that keep k down even when k itself is lifted: the service, then All. It leaves out
// k, and `service:port` above an instance of a host.
func (k Key) Above() []Key {
	var list []Key
	if k.Port != 0 {
		list = append(list, Key{Service: k.Service})
	}
	if k.Service != All {
		list = append(list, Key{Service: All})
	}
	return list
}

// hasOneName reports whether only a file called k.Name() can be about k. A key with a host has several names.
func (k Key) hasOneName() bool { return k.Port == 0 }
