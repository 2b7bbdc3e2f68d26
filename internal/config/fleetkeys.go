package config

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// fleetKey is a key of the section fleet.
type fleetKey struct {
	Key
	read func(f *Fleet, n *yaml.Node) (wrong *yaml.Node) // stores the value; returns what is wrong in it, or nil
}

// FleetKeys returns every key of the section fleet, in the order of the documentation.
func FleetKeys() []Key {
	list := make([]Key, len(fleetKeys))
	for i := range fleetKeys {
		list[i] = fleetKeys[i].Key
	}
	return list
}

const (
	serviceChars = "letters, digits, '.', '_' and '-'"
	wantFile     = "the absolute path of a file"
	wantBool     = "true or false"
)

var fleetKeys = []fleetKey{
	{
		Key{
			Name: "etcd", Want: "a list of URLs with a port, such as https://etcd1:2379, all with https or all with http",
			Doc: "the members of etcd; the only key that has to be there",
		},
		func(f *Fleet, n *yaml.Node) *yaml.Node {
			wrong := fleetList(n, maxEndpoints, isEndpoint, &f.Endpoints)
			return wrongUnless(wrong != nil || len(f.Endpoints) > 0, n, wrong)
		},
	},
	{
		Key{
			Name: "prefix", Default: "/hacheck/", Want: "a text such as /hacheck/, with a slash at both ends",
			Doc: "all keys of the fleet begin with it; two fleets in one etcd need two of them",
		},
		fleetText(isPrefix, func(f *Fleet) *string { return &f.Prefix }),
	},
	{
		Key{
			Name: "host", Default: "the host name", Want: "a name of " + serviceChars + ", and not localhost",
			Doc: "the name of this host, which no other host of the fleet has",
		},
		fleetText(isFleetHost, func(f *Fleet) *string { return &f.Host }),
	},
	{
		Key{
			Name: "groups", Default: "[]", Want: "a list of up to 20 names of " + serviceChars + ", 300 bytes in all",
			Doc: "groups of hosts that this host belongs to; operators address them with --group",
		},
		func(f *Fleet, n *yaml.Node) *yaml.Node {
			wrong := fleetList(n, maxGroups, isService, &f.Groups)
			return wrongUnless(len(strings.Join(f.Groups, "")) <= maxGroupBytes, n, wrong)
		},
	},
	{
		Key{
			Name: "member", Default: "{}", Want: "a mapping of service names to true or false, as in {web: true}",
			Doc: "services of which this host is always (true) or never (false) a member, whatever balancers ask",
		},
		fleetMember,
	},
	{
		Key{
			Name: "lease", Default: "15", Want: "a whole number of seconds from 5 to 300",
			Doc: "a host that is silent for that long is absent, and counts as out",
		},
		func(f *Fleet, n *yaml.Node) *yaml.Node {
			sec, ok := parseWhole(n, 5, maxLease)
			f.Lease = time.Duration(sec) * time.Second
			return wrongUnless(ok, n, nil)
		},
	},
	{
		Key{
			Name: "start_wait", Default: "3", Want: "a number of seconds from 0 to 60",
			Doc: "how long the start waits for etcd before it goes on with the local copy",
		},
		func(f *Fleet, n *yaml.Node) *yaml.Node {
			wait, ok := seconds(0, maxStartWait)(n)
			f.StartWait = wait
			return wrongUnless(ok, n, nil)
		},
	},
	{
		Key{
			Name: "operators", Default: "[]", Want: "a list of groups of users",
			Doc: "members of these groups may do what otherwise only root may do: scopes, budgets, forget, release, leave and join",
		},
		func(f *Fleet, n *yaml.Node) *yaml.Node { return fleetList(n, maxListed, isGroup, &f.Operators) },
	},
	{
		Key{Name: "username", Want: "a user name", Doc: "login to etcd, together with password_file"},
		fleetText(isGroup, func(f *Fleet) *string { return &f.Username }),
	},
	{
		Key{
			Name: "password_file", Want: wantFile,
			Doc: "file whose first line is the password; read for each connection",
		},
		fleetText(isFile, func(f *Fleet) *string { return &f.PasswordFile }),
	},
	{
		Key{Name: "ca_file", Want: wantFile, Doc: "certificates (PEM) that sign those of etcd; without it those of the system"},
		fleetText(isFile, func(f *Fleet) *string { return &f.CAFile }),
	},
	{
		Key{Name: "cert_file", Want: wantFile, Doc: "certificate (PEM) of this host, together with key_file; read for each connection"},
		fleetText(isFile, func(f *Fleet) *string { return &f.CertFile }),
	},
	{
		Key{Name: "key_file", Want: wantFile, Doc: "key (PEM) of cert_file"},
		fleetText(isFile, func(f *Fleet) *string { return &f.KeyFile }),
	},
	{
		Key{
			Name: "state_dir", Default: DefaultStateDir, Want: "the absolute path of a directory",
			Doc: "where the local copy of the overrides of the fleet is",
		},
		fleetText(isFile, func(f *Fleet) *string { return &f.StateDir }),
	},
	{
		Key{
			Name: "fleet_lock", Default: "false", Want: wantBool,
			Doc: "whether loopback serves the FleetLock protocol, /v1/pre-reboot and /v1/steady-state",
		},
		fleetBoolean(func(f *Fleet) *bool { return &f.FleetLock }),
	},
	{
		Key{
			Name: "insecure", Default: "false", Want: wantBool,
			Doc: "whether the password may go over http to another machine, where others can read it",
		},
		fleetBoolean(func(f *Fleet) *bool { return &f.Insecure }),
	},
}

func isEndpoint(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+u.Host != s {
		return false
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || !isHost(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func isPrefix(s string) bool {
	return len(s) <= maxPrefix && len(s) > 2 && s[0] == '/' && path.Clean(s)+"/" == s && consistsOf(s, letters+digits+"._-/")
}

// isFleetHost reports whether s can name a host of a fleet. Machines without a name of their own are called localhost or
// (none).
func isFleetHost(s string) bool {
	first, _, _ := strings.Cut(strings.ToLower(s), ".")
	return isService(s) && first != "localhost"
}

// isGroup reports whether s can be the name of a user or of a group of users. Some directories have names with blanks.
func isGroup(s string) bool {
	return s != "" && len(s) <= maxServiceName && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' })
}

func isFile(s string) bool { return isLogPath(s) && s[0] == '/' }

// wrongUnless returns wrong if ok, otherwise n.
func wrongUnless(ok bool, n, wrong *yaml.Node) *yaml.Node {
	if !ok {
		return n
	}
	return wrong
}

// fleetList stores the elements of a list of up to limit elements, each once. It returns the first wrong element, or n if
// n is no such list.
func fleetList(n *yaml.Node, limit int, isValid func(string) bool, field *[]string) *yaml.Node {
	elements, ok := listElements(n)
	if !ok || len(elements) > limit {
		return n
	}
	for _, e := range elements {
		if e.Kind != yaml.ScalarNode || isNull(e) || !hasCoreTag(e) || !isValid(e.Value) {
			return e
		}
		if !slices.Contains(*field, e.Value) {
			*field = append(*field, e.Value)
		}
	}
	return nil
}

func fleetText(isValid func(string) bool, field func(*Fleet) *string) func(*Fleet, *yaml.Node) *yaml.Node {
	return func(f *Fleet, n *yaml.Node) *yaml.Node {
		text, ok := textValue(isValid)(n)
		*field(f) = text
		return wrongUnless(ok, n, nil)
	}
}

func fleetBoolean(field func(*Fleet) *bool) func(*Fleet, *yaml.Node) *yaml.Node {
	return func(f *Fleet, n *yaml.Node) *yaml.Node {
		is, ok := boolean(n)
		*field(f) = is
		return wrongUnless(ok, n, nil)
	}
}

// fleetMember stores the mapping of services. A merge or a repeated name is wrong.
func fleetMember(f *Fleet, n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxServices {
		return n
	}
	f.Member = make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, v := resolveAlias(n.Content[i]), resolveAlias(n.Content[i+1])
		if _, twice := f.Member[name.Value]; twice || name.Kind != yaml.ScalarNode || !isService(name.Value) || name.Value == "all" {
			return name
		}
		is, ok := boolean(v)
		if !ok || !hasCoreTag(v) {
			return v
		}
		f.Member[name.Value] = is
	}
	return nil
}
