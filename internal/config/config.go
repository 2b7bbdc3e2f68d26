// Package config reads the configuration file of the daemon, and the files of checks and firewall rules of the runner.
// It returns plain values; the packages daemon and runner turn them into options of the other packages.
//
// The configuration file is a YAML mapping; keys.go has the table of its keys. Load reports every wrong value at once,
// each with file, line, key, what was expected and what was found. An unknown key is a Warning, because the original
// ignored it.
package config

import (
	"net/netip"
	"time"
)

// Config holds every setting of the configuration file. Default returns the defaults.
//
// A list of networks gives access to the clients in these networks. An empty or nil list gives access to no client, so
// that a missing list gives none.
type Config struct {
	CacheTime          time.Duration // cache_time, seconds, default 15; 0 caches nothing
	CacheTimeDown      time.Duration // cache_time_down, seconds, default cache_time
	CacheMaxEntries    int           // cache_max_entries, default 100,000
	CacheMaxBytes      int64         // cache_max_bytes, default 64 MiB
	HealthcheckTimeout time.Duration // healthcheck_timeout, seconds, default 10
	MaxClients         int           // max_clients, default 512

	CheckHost         string         // check_host, default 127.0.0.1; an address or a name
	CheckHostsAllowed []netip.Prefix // check_hosts_allowed, default none; masked, IPv4 never in IPv6 form
	HTTPHeadersToCopy []string       // http_headers_to_copy, default [Host]; as written, each a valid name
	ServiceNameHeader string         // service_name_header, default "" (none)
	TLSVerify         bool           // tls_verify, default false

	AllowRemoteSpoolChanges bool           // allow_remote_spool_changes, default false
	RemoteSpoolAllowed      []netip.Prefix // remote_spool_allowed, default loopback
	RemoteSpoolToken        Secret         // remote_spool_token, default none

	MySQLUsername string // mysql_username, default none
	MySQLPassword Secret // mysql_password, default none
	RedisUsername string // redis_username, default none
	RedisPassword Secret // redis_password, default none

	StatusAllowed     []netip.Prefix // status_allowed, default all networks; this machine always has access
	ProxyProtocolFrom []netip.Prefix // proxy_protocol_from, default none
	MetricsPerService bool           // metrics_per_service, default false

	TLSListen       string // tls_listen, an address and a port; default "" (none)
	TLSCertFile     string // tls_cert_file, an absolute path; required with tls_listen
	TLSKeyFile      string // tls_key_file, an absolute path; required with tls_listen
	TLSClientCAFile string // tls_client_ca_file, an absolute path; default "" (clients need no certificate)

	Services []Service // services, in the file's order; default none
	Fleet    *Fleet    // fleet, default nil: this host is in no fleet

	LogPath      string // log_path: stdout, stderr (default) or the absolute path of a file
	LogFormat    string // log_format: text (default) or json
	RlimitNoFile int64  // rlimit_nofile: 0 (default) leaves the limit, RlimitMax raises it to the hard limit
}

// RlimitMax is the value of RlimitNoFile for "max".
const RlimitMax = -1

// allNetworks returns the networks that hold every address, of IPv4 and of IPv6.
func allNetworks() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		CacheTime:          15 * time.Second,
		CacheTimeDown:      15 * time.Second,
		CacheMaxEntries:    100_000,
		CacheMaxBytes:      64 << 20,
		HealthcheckTimeout: 10 * time.Second,
		MaxClients:         512,
		CheckHost:          "127.0.0.1",
		CheckHostsAllowed:  []netip.Prefix{},
		HTTPHeadersToCopy:  []string{"Host"},
		RemoteSpoolAllowed: []netip.Prefix{
			netip.MustParsePrefix("127.0.0.0/8"),
			netip.MustParsePrefix("::1/128"),
		},
		StatusAllowed:     allNetworks(),
		ProxyProtocolFrom: []netip.Prefix{},
		LogPath:           "stderr",
		LogFormat:         "text",
	}
}
