package config

import (
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Key describes one key of the configuration file.
type Key struct {
	Name    string
	Default string // as written in the file; "" is none
	Want    string // the valid values: "a number of seconds from 0 to 86400"
	Each    string // the valid elements of a list; "" if the value is no list
	Doc     string // what the key does, one sentence without a full stop

	// mayBeEmpty: "key:" and "key: null" mean the default, which is none. It is false for a key whose default gives
	// access to clients: an empty value must not give access.
	mayBeEmpty bool
	secret     bool // no message may show the value
	// nested reads a value that is a mapping, and reports what is wrong with it; then set is nil.
	nested func(l *loader, c *Config, at, n *yaml.Node)
	// set stores the value and returns the nodes that are not as Want describes. The node is never an alias.
	set setter
}

// Keys returns every key of the configuration file, in the order of the documentation.
func Keys() []Key { return append([]Key(nil), keys...) }

// The bounds find typing errors, such as a cache_time in milliseconds or a port instead of a count.
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
		Doc: "how long a result is cached, from the end of its check; 0 caches none",
		set: value(seconds(0, day), func(c *Config) *time.Duration { return &c.CacheTime }),
	},
	{
		Name: "cache_time_down", Want: "a number of seconds from 0 to 86400",
		Doc:        "the same for results other than 200; without it cache_time applies to them too",
		mayBeEmpty: true,
		set:        value(seconds(0, day), func(c *Config) *time.Duration { return &c.CacheTimeDown }),
	},
	{
		Name: "cache_max_entries", Default: "100000", Want: "a whole number from 1 to 10000000",
		Doc: "how many results are cached at most; further results are served but not cached",
		set: value(wholeNumber[int](1, maxEntries), func(c *Config) *int { return &c.CacheMaxEntries }),
	},
	{
		Name: "cache_max_bytes", Default: "67108864", Want: "a whole number of bytes from 1 to 1099511627776",
		Doc: "how many bytes of results are cached at most",
		set: value(wholeNumber[int64](1, maxBytes), func(c *Config) *int64 { return &c.CacheMaxBytes }),
	},
	{
		Name: "healthcheck_timeout", Default: "10", Want: "a number of seconds from 0.001 to 3600",
		Doc: "how long a check may take, with its wait for a slot",
		set: value(seconds(0.001, maxTimeout), func(c *Config) *time.Duration { return &c.HealthcheckTimeout }),
	},
	{
		Name: "max_clients", Default: "512", Want: "a whole number from 1 to 100000",
		Doc: "how many checks run at once (slots), at most half of them for one target; further checks wait",
		set: value(wholeNumber[int](1, maxChecks), func(c *Config) *int { return &c.MaxClients }),
	},
	{
		Name: "check_host", Default: "127.0.0.1", Want: "an IP address or a host name, without a port",
		Doc: "the host to check when the balancer names none",
		set: value(textValue(isHost), func(c *Config) *string { return &c.CheckHost }),
	},
	{
		Name: "check_hosts_allowed", Default: "[]",
		Want:       "a list of networks and addresses ([] for none)",
		Each:       network,
		Doc:        "other hosts that a balancer may have checked; an address of this machine needs no permission",
		mayBeEmpty: true,
		set:        list(parseNetwork, nil, func(c *Config) *[]netip.Prefix { return &c.CheckHostsAllowed }),
	},
	{
		Name: "http_headers_to_copy", Default: "[Host]",
		Want: "a list of header names ([] for none)",
		Each: header,
		Doc:  "headers of the balancer's request that are passed to an http service",
		set:  list(headerName, strings.EqualFold, func(c *Config) *[]string { return &c.HTTPHeadersToCopy }),
	},
	{
		Name: "service_name_header", Want: header,
		Doc:        "the header that passes the name of the service to an http service",
		mayBeEmpty: true,
		set: value(textValue(func(s string) bool { return s == "" || isHeader(s) }),
			func(c *Config) *string { return &c.ServiceNameHeader }),
	},
	{
		Name: "tls_verify", Default: "false", Want: "true or false",
		Doc: "whether https checks verify the certificate",
		set: value(boolean, func(c *Config) *bool { return &c.TLSVerify }),
	},
	{
		Name: "allow_remote_spool_changes", Default: "false", Want: "true or false",
		Doc: "whether POST /spool/... may change overrides",
		set: value(boolean, func(c *Config) *bool { return &c.AllowRemoteSpoolChanges }),
	},
	{
		Name: "remote_spool_allowed", Default: "[127.0.0.0/8, \"::1\"]",
		Want: "a list of networks and addresses ([] for no client)",
		Each: network,
		Doc:  "the clients that may POST /spool/... without the token",
		set:  list(parseNetwork, nil, func(c *Config) *[]netip.Prefix { return &c.RemoteSpoolAllowed }),
	},
	{
		Name: "remote_spool_token", Want: "a token of visible ASCII characters without blanks",
		Doc:        "a client that sends it (Authorization: Bearer) may POST /spool/... from anywhere",
		mayBeEmpty: true, secret: true,
		set: value(secretValue(isToken), func(c *Config) *Secret { return &c.RemoteSpoolToken }),
	},
	{
		Name: "status_allowed", Default: "[0.0.0.0/0, \"::/0\"]",
		Want: "a list of networks and addresses ([] for this machine alone)",
		Each: network,
		Doc:  "the clients that may read the pages: /, /overview, /status, /recent, /balancers, /fleet, /metrics; by default every client",
		set:  list(parseNetwork, nil, func(c *Config) *[]netip.Prefix { return &c.StatusAllowed }),
	},
	{
		Name: "proxy_protocol_from", Default: "[]",
		Want:       "a list of networks and addresses ([] for none)",
		Each:       network,
		Doc:        "balancers whose PROXY line (v1, v2) names the client; from others it gets 400",
		mayBeEmpty: true,
		set:        list(parseNetwork, nil, func(c *Config) *[]netip.Prefix { return &c.ProxyProtocolFrom }),
	},
	{
		Name: "tls_listen", Want: "an IP address and a port, such as 0.0.0.0:3443 or \"[::]:3443\"", mayBeEmpty: true,
		Doc: "the address on which the daemon answers the same by TLS; needs tls_cert_file and tls_key_file",
		set: value(textValue(isListen), func(c *Config) *string { return &c.TLSListen }),
	},
	{
		Name: "tls_cert_file", Want: wantFile, mayBeEmpty: true,
		Doc: "the certificate of tls_listen in PEM, with its intermediates; read again when it changes",
		set: value(textValue(filepath.IsAbs), func(c *Config) *string { return &c.TLSCertFile }),
	},
	{
		Name: "tls_key_file", Want: wantFile, mayBeEmpty: true,
		Doc: "the private key of that certificate in PEM, without a passphrase",
		set: value(textValue(filepath.IsAbs), func(c *Config) *string { return &c.TLSKeyFile }),
	},
	{
		Name: "tls_client_ca_file", Want: wantFile, mayBeEmpty: true,
		Doc: "authorities in PEM; a client of tls_listen then needs a certificate of one of them",
		set: value(textValue(filepath.IsAbs), func(c *Config) *string { return &c.TLSClientCAFile }),
	},
	{
		Name: "metrics_per_service", Default: "false", Want: "true or false",
		Doc: "whether /metrics also has figures for each service",
		set: value(boolean, func(c *Config) *bool { return &c.MetricsPerService }),
	},
	{
		Name: "mysql_username", Want: "a user name", mayBeEmpty: true,
		Doc: "login of the mysql check",
		set: value(textValue(isAny), func(c *Config) *string { return &c.MySQLUsername }),
	},
	{
		Name: "mysql_password", Want: "a password", mayBeEmpty: true, secret: true,
		Doc: "password of the mysql check",
		set: value(secretValue(isAny), func(c *Config) *Secret { return &c.MySQLPassword }),
	},
	{
		Name: "redis_username", Want: "a user name", mayBeEmpty: true,
		Doc: "login of the redis and sentinel checks; without it the password alone is sent",
		set: value(textValue(isAny), func(c *Config) *string { return &c.RedisUsername }),
	},
	{
		Name: "redis_password", Want: "a password", mayBeEmpty: true, secret: true,
		Doc: "password of the redis and sentinel checks",
		set: value(secretValue(isAny), func(c *Config) *Secret { return &c.RedisPassword }),
	},
	{
		Name: "services", Want: "a mapping of service names to checks and listeners (docs/checks.md)", mayBeEmpty: true,
		Doc:    "checks that make up /checks/<service>/0/, and listeners of their own",
		nested: (*loader).services,
	},
	{
		Name: "fleet", Want: "a mapping with the members of etcd and more (docs/fleet.md)", mayBeEmpty: true,
		Doc:    "coordinates the hosts through etcd: how many may be out at once, and overrides for many hosts",
		nested: (*loader).fleet,
	},
	{
		Name: "log_path", Default: "stderr", Want: "stdout, stderr or the absolute path of a file",
		Doc: "where the log goes; a file is created with mode 0640 and opened again after it was rotated",
		set: value(textValue(isLogPath), func(c *Config) *string { return &c.LogPath }),
	},
	{
		Name: "log_format", Default: "text", Want: "text or json",
		Doc: "the format of a log line",
		set: value(textValue(func(s string) bool { return s == "text" || s == "json" }),
			func(c *Config) *string { return &c.LogFormat }),
	},
	{
		Name: "rlimit_nofile", Want: "a whole number from 1 to 1073741824, or max",
		Doc:        "how many files and connections may be open at once; max is the hard limit",
		mayBeEmpty: true,
		set:        value(fileLimit, func(c *Config) *int64 { return &c.RlimitNoFile }),
	},
}
