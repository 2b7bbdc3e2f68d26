// Package config reads the daemon's configuration file. It holds plain values; cmd/hacheck turns
// them into the options of the other packages.
package config

import (
	"net/netip"
	"time"
)

// Config holds every setting of the configuration file. Default returns the defaults.
type Config struct {
	CacheTime          time.Duration // cache_time, seconds, default 15; 0 keeps nothing
	CacheTimeDown      time.Duration // cache_time_down, seconds, default cache_time
	CacheMaxEntries    int           // cache_max_entries, default 100,000
	CacheMaxBytes      int64         // cache_max_bytes, default 64 MiB
	HealthcheckTimeout time.Duration // healthcheck_timeout, seconds, default 10
	MaxClients         int           // max_clients, default 512

	CheckHost         string         // check_host, default 127.0.0.1
	CheckHostsAllowed []netip.Prefix // check_hosts_allowed, default none
	HTTPHeadersToCopy []string       // http_headers_to_copy, default [Host]
	ServiceNameHeader string         // service_name_header, default none
	TLSVerify         bool           // tls_verify, default false

	AllowRemoteSpoolChanges bool           // allow_remote_spool_changes, default false
	RemoteSpoolAllowed      []netip.Prefix // remote_spool_allowed, default loopback
	RemoteSpoolToken        Secret         // remote_spool_token

	MySQLUsername string // mysql_username
	MySQLPassword Secret // mysql_password
	RedisUsername string // redis_username
	RedisPassword Secret // redis_password

	LogPath      string // log_path: stdout, stderr (default) or a file
	LogFormat    string // log_format: text (default) or json
	RlimitNoFile int64  // rlimit_nofile: 0 leaves it, -1 is max
}

// Secret is a password that cannot print itself.
type Secret string
