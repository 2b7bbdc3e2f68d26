package config

import (
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Key describes one key of the configuration file.
type Key struct {
	Name    string
	Default string // as one would write it in the file; "" is none
	Want    string // what a value has to be, in words: "a number of seconds from 0 to 86400"
	Each    string // what each element of a list has to be; "" when it is no list
	Doc     string // what it is for, one sentence without a full stop

	// null: "key:" and "key: null" mean the default, which is none. A key whose default lets somebody in does not
	// have it: nothing behind the colon must not read as permission.
	null bool
	// secret: no message may show the value.
	secret bool
	// nested reads a value that is a mapping of its own, and reports what is wrong with it; set is nil then.
	nested func(l *loader, c *Config, at, n *yaml.Node)
	// set stores the value and returns the nodes that are not what Want says. It is never given an alias.
	set func(c *Config, n *yaml.Node) (wrong []*yaml.Node)
}

// Keys returns every key of the configuration file in the order of the documentation.
func Keys() []Key { return append([]Key(nil), keys...) }

// The bounds say "this is a slip" (a cache_time in milliseconds, a port in the place of a count) rather
// than protect anything.
const (
	day         = 24 * 60 * 60
	maxTimeout  = 60 * 60
	maxEntries  = 10_000_000
	maxBytes    = 1 << 40
	maxChecks   = 100_000
	maxFiles    = 1 << 30 // the largest nr_open of Linux, rounded up
	maxListed   = 10_000  // elements of a list
	maxHostName = 253
	maxHeader   = 200
)

const (
	network = "a network such as 10.0.0.0/8 or an address such as 10.1.2.3"
	header  = "a header name, and none that frames the message, as Content-Length does"
)

var keys = []Key{
	{
		Name: "cache_time", Default: "15", Want: "a number of seconds from 0 to 86400",
		Doc: "how long a result is kept, from the end of its check; 0 keeps none",
		set: seconds(0, day, func(c *Config) *time.Duration { return &c.CacheTime }),
	},
	{
		Name: "cache_time_down", Want: "a number of seconds from 0 to 86400",
		Doc:  "the same for results other than 200; without it cache_time holds for them too",
		null: true,
		set:  seconds(0, day, func(c *Config) *time.Duration { return &c.CacheTimeDown }),
	},
	{
		Name: "cache_max_entries", Default: "100000", Want: "a whole number from 1 to 10000000",
		Doc: "how many results are kept at most; further ones are served, but not kept",
		set: whole(1, maxEntries, func(c *Config, v int64) { c.CacheMaxEntries = int(v) }),
	},
	{
		Name: "cache_max_bytes", Default: "67108864", Want: "a whole number of bytes from 1 to 1099511627776",
		Doc: "how many bytes of answers are kept at most",
		set: whole(1, maxBytes, func(c *Config, v int64) { c.CacheMaxBytes = v }),
	},
	{
		Name: "healthcheck_timeout", Default: "10", Want: "a number of seconds from 0.001 to 3600",
		Doc: "how long a check may take, waiting for its turn included",
		set: seconds(0.001, maxTimeout, func(c *Config) *time.Duration { return &c.HealthcheckTimeout }),
	},
	{
		Name: "max_clients", Default: "512", Want: "a whole number from 1 to 100000",
		Doc: "how many checks run at once, half of them at most for one target; a further one waits",
		set: whole(1, maxChecks, func(c *Config, v int64) { c.MaxClients = int(v) }),
	},
	{
		Name: "check_host", Default: "127.0.0.1", Want: "an IP address or a host name, without a port",
		Doc: "the host that is asked when the balancer names none",
		set: text(isHost, func(c *Config) *string { return &c.CheckHost }),
	},
	{
		Name: "check_hosts_allowed", Default: "[]",
		Want: "a list of networks and addresses ([] for none)",
		Each: network,
		Doc:  "other hosts that a balancer may have checked; an address of this machine needs no permission",
		null: true,
		set:  prefixes(func(c *Config) *[]netip.Prefix { return &c.CheckHostsAllowed }),
	},
	{
		Name: "http_headers_to_copy", Default: "[Host]",
		Want: "a list of header names ([] for none)",
		Each: header,
		Doc:  "headers of the balancer's request that an http service is sent too",
		set:  headers,
	},
	{
		Name: "service_name_header", Want: header,
		Doc:  "the header that tells an http service under which name it is checked",
		null: true,
		set: text(func(s string) bool { return s == "" || isHeader(s) },
			func(c *Config) *string { return &c.ServiceNameHeader }),
	},
	{
		Name: "tls_verify", Default: "false", Want: "true or false",
		Doc: "whether https checks verify the certificate",
		set: boolean(func(c *Config) *bool { return &c.TLSVerify }),
	},
	{
		Name: "allow_remote_spool_changes", Default: "false", Want: "true or false",
		Doc: "whether POST /spool/... may change overrides",
		set: boolean(func(c *Config) *bool { return &c.AllowRemoteSpoolChanges }),
	},
	{
		Name: "remote_spool_allowed", Default: "[127.0.0.0/8, \"::1\"]",
		Want: "a list of networks and addresses ([] for nobody)",
		Each: network,
		Doc:  "who may POST /spool/... without the token",
		set:  prefixes(func(c *Config) *[]netip.Prefix { return &c.RemoteSpoolAllowed }),
	},
	{
		Name: "remote_spool_token", Want: "a token of visible ASCII characters without blanks",
		Doc:  "who shows it (Authorization: Bearer) may POST /spool/... from anywhere",
		null: true, secret: true,
		set: secret(isToken, func(c *Config) *Secret { return &c.RemoteSpoolToken }),
	},
	{
		Name: "status_allowed", Default: "[0.0.0.0/0, \"::/0\"]",
		Want: "a list of networks and addresses ([] for this machine alone)",
		Each: network,
		Doc:  "who may see what is no check: the page, /status, /recent, /balancers, /metrics; by default everybody",
		set:  prefixes(func(c *Config) *[]netip.Prefix { return &c.StatusAllowed }),
	},
	{
		Name: "metrics_per_service", Default: "false", Want: "true or false",
		Doc: "whether /metrics has figures for each service as well",
		set: boolean(func(c *Config) *bool { return &c.MetricsPerService }),
	},
	{
		Name: "mysql_username", Want: "a user name", null: true,
		Doc: "login of the mysql check",
		set: text(isAny, func(c *Config) *string { return &c.MySQLUsername }),
	},
	{
		Name: "mysql_password", Want: "a password", null: true, secret: true,
		Doc: "password of the mysql check",
		set: secret(isAny, func(c *Config) *Secret { return &c.MySQLPassword }),
	},
	{
		Name: "redis_username", Want: "a user name", null: true,
		Doc: "login of the redis and sentinel checks; without it the password alone is sent",
		set: text(isAny, func(c *Config) *string { return &c.RedisUsername }),
	},
	{
		Name: "redis_password", Want: "a password", null: true, secret: true,
		Doc: "password of the redis and sentinel checks",
		set: secret(isAny, func(c *Config) *Secret { return &c.RedisPassword }),
	},
	{
		Name: "services", Want: "a mapping of service names to checks and listeners (docs/checks.md)", null: true,
		Doc:    "checks that make up /checks/<service>/0/, and listeners of their own",
		nested: (*loader).services,
	},
	{
		Name: "log_path", Default: "stderr", Want: "stdout, stderr or the absolute path of a file",
		Doc: "where the log goes; a file is made with mode 0640, and opened again after it was rotated",
		set: text(isLogPath, func(c *Config) *string { return &c.LogPath }),
	},
	{
		Name: "log_format", Default: "text", Want: "text or json",
		Doc: "how a line of the log looks",
		set: text(func(s string) bool { return s == "text" || s == "json" },
			func(c *Config) *string { return &c.LogFormat }),
	},
	{
		Name: "rlimit_nofile", Want: "a whole number from 1 to 1073741824, or max",
		Doc:  "how many files and connections may be open at once; max is the hard limit",
		null: true,
		set:  rlimit,
	},
}

// isNumber reports whether s is a decimal number, as "15", "1.5", ".5", "1e3" or "1_000". YAML 1.1 knows
// more (0x10, 010 for 8, 1:30 for 90, .inf, .nan), but nobody who writes 010 into a configuration can be
// trusted to mean 8.
func isNumber(s string) bool {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(s), "e")
	whole, fraction, hasFraction := strings.Cut(mantissa, ".")
	switch {
	case whole == "" && (!hasFraction || fraction == ""), strings.HasPrefix(whole, "_"), strings.HasPrefix(fraction, "_"):
		return false
	case len(whole) > 1 && whole[0] == '0':
		return false
	}
	if hasExponent {
		if exponent != "" && (exponent[0] == '-' || exponent[0] == '+') {
			exponent = exponent[1:]
		}
		if exponent == "" || !only(exponent, digits) {
			return false
		}
	}
	return only(whole, digits+"_") && only(fraction, digits+"_")
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// only reports whether s consists of bytes of set, all of them ASCII.
func only(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return true
}

func decimal(n *yaml.Node) (float64, bool) {
	s := strings.TrimSpace(n.Value)
	if n.Kind != yaml.ScalarNode || !isNumber(s) {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return v, err == nil
}

func seconds(least, most float64, field func(*Config) *time.Duration) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		v, ok := decimal(n)
		if !ok || v < least || v > most {
			return []*yaml.Node{n}
		}
		*field(c) = time.Duration(math.Round(v * float64(time.Second)))
		return nil
	}
}

func wholeIn(n *yaml.Node, least, most int64) (int64, bool) {
	v, ok := decimal(n)
	// The bounds are far below 2^53, so a float64 holds every number between them exactly.
	return int64(v), ok && v == math.Trunc(v) && v >= float64(least) && v <= float64(most)
}

func whole(least, most int64, store func(*Config, int64)) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		v, ok := wholeIn(n, least, most)
		if !ok {
			return []*yaml.Node{n}
		}
		store(c, v)
		return nil
	}
}

func rlimit(c *Config, n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Value == "max" {
		c.RlimitNoFile = RlimitMax
		return nil
	}
	v, ok := wholeIn(n, 1, maxFiles)
	if !ok {
		return []*yaml.Node{n}
	}
	c.RlimitNoFile = v
	return nil
}

// boolean takes the words of YAML 1.1, quoted or not: the original took the string "false" for true.
func boolean(field func(*Config) *bool) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind == yaml.ScalarNode {
			switch strings.ToLower(n.Value) {
			case "true", "yes", "on", "y":
				*field(c) = true
				return nil
			case "false", "no", "off", "n":
				*field(c) = false
				return nil
			}
		}
		return []*yaml.Node{n}
	}
}

// text takes a scalar as it is written, so that a password of 0123 or yes needs no quotes.
func text(valid func(string) bool, field func(*Config) *string) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind != yaml.ScalarNode || !valid(n.Value) {
			return []*yaml.Node{n}
		}
		*field(c) = n.Value
		return nil
	}
}

func secret(valid func(string) bool, field func(*Config) *Secret) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind != yaml.ScalarNode || !valid(n.Value) {
			return []*yaml.Node{n}
		}
		*field(c) = NewSecret(n.Value)
		return nil
	}
}

// elements returns the elements of a list; a single value is a list of one.
func elements(n *yaml.Node) ([]*yaml.Node, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && !isNull(n):
		return []*yaml.Node{n}, true
	case n.Kind == yaml.SequenceNode && len(n.Content) <= maxListed:
		list := make([]*yaml.Node, len(n.Content))
		for i, e := range n.Content {
			list[i] = target(e)
		}
		return list, true
	}
	return nil, false
}

func headers(c *Config, n *yaml.Node) (wrong []*yaml.Node) {
	list, ok := elements(n)
	if !ok {
		return []*yaml.Node{n}
	}
	names := make([]string, 0, len(list))
	for _, e := range list {
		if e.Kind != yaml.ScalarNode || isNull(e) || !isHeader(e.Value) { // "null" and "~" would be names, too
			wrong = append(wrong, e)
			continue
		}
		if !containsFold(names, e.Value) {
			names = append(names, e.Value)
		}
	}
	c.HTTPHeadersToCopy = names
	return wrong
}

func containsFold(list []string, s string) bool {
	for _, l := range list {
		if strings.EqualFold(l, s) {
			return true
		}
	}
	return false
}

func prefixes(field func(*Config) *[]netip.Prefix) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) (wrong []*yaml.Node) {
		list, ok := elements(n)
		if !ok {
			return []*yaml.Node{n}
		}
		nets := make([]netip.Prefix, 0, len(list))
		for _, e := range list {
			p, ok := prefix(e)
			if !ok {
				wrong = append(wrong, e)
				continue
			}
			nets = append(nets, p)
		}
		*field(c) = nets
		return wrong
	}
}

// prefix takes a network or a bare address. IPv4 in IPv6 form is made plain IPv4, as the addresses are
// that it will be compared with; a network larger than all of IPv4 in that form stays what it is.
func prefix(n *yaml.Node) (netip.Prefix, bool) {
	if n.Kind != yaml.ScalarNode {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(n.Value); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(n.Value)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// framing are the headers that belong to one connection or to how a message is cut; sent on as they came
// they would break the request to the service.
var framing = map[string]bool{
	"connection": true, "content-length": true, "expect": true, "keep-alive": true, "proxy-connection": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
}

func isAny(string) bool { return true }

// isHeader follows RFC 9110 section 5.6.2.
func isHeader(s string) bool {
	return s != "" && len(s) <= maxHeader && only(s, digits+letters+"!#$%&'*+-.^_`|~") && !framing[strings.ToLower(s)]
}

func isToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// isHost refuses what looks like an IPv4 address and is none (10.0.0.256, 127.1): some resolver would
// make something of it.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, l := range labels {
		if l == "" || l[0] == '-' || l[len(l)-1] == '-' || !only(l, digits+letters+"-_") {
			return false
		}
	}
	return len(s) <= maxHostName && !only(labels[len(labels)-1], digits)
}

func isLogPath(s string) bool {
	if s == "stdout" || s == "stderr" {
		return true
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return filepath.IsAbs(s) && !strings.HasSuffix(s, "/")
}
