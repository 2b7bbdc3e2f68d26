package check

import (
	"crypto/x509"

	"hacheck/internal/check/conn"
)

// Protocol is one word that can stand first in a check URL, and what it means.
type Protocol struct {
	Name string
	// Check asks the service. nil: only overrides decide (spool).
	Check Func
	// URI: the path and query reach the service and decide the answer. The slash after the port is required.
	URI bool
	// Roles: the path may name a role that the server has to have (Type.Roles). It may be missing.
	Roles bool
	// PerService: the answer depends on the service's name, so the name is part of the cache key.
	PerService bool
	// ForwardsHops: the check sends HopsHeader to the service, so Target.Hops is part of the cache key.
	ForwardsHops bool
	// Canonical returns t without the parts that do not reach the service. The check runs with this Target, and
	// Targets with the same canonical form share one check and one cache entry. nil: Host, Port, URI and Header all
	// reach the service.
	Canonical func(t Target) Target
	// PortOptional: the check needs no port (spool, checks).
	PortOptional bool
	// MayExceedTimeout: the check can run for longer than its context, for example when it starts a program on a file
	// server that hangs.
	MayExceedTimeout bool
}

// Options is what the checks need to know beyond their target. The zero value works.
type Options struct {
	// Version is sent to HTTP services as "User-Agent: hacheck/<version>"; empty sends "hacheck" alone.
	Version string
	// ServiceNameHeader names a header that carries the service's name to HTTP services; empty sends none.
	ServiceNameHeader string
	// TLSVerify makes https verify the certificate against the host of the target. By default https accepts any.
	TLSVerify bool
	// TLSRoots are the authorities that TLSVerify trusts; nil: the system's.
	TLSRoots *x509.CertPool

	// MySQLUsername and MySQLPassword are the login of the mysql check. Without a user name the check answers 500 and
	// connects to nothing. The password may be empty, and is never sent in clear.
	MySQLUsername string
	MySQLPassword Secret
	// RedisUsername and RedisPassword are the login for redis and sentinel servers that require one. They are sent in
	// clear, as the protocol has it, and to no other servers. Without a user name the password alone is sent, as
	// servers before Redis 6 need it.
	RedisUsername string
	RedisPassword Secret

	// Logins limits how many checks with a driver run at once; nil: no limit.
	Logins *conn.Limit
	// Sources remembers when replicas last saw their source; nil: each check starts anew.
	Sources *Sources

	// Services are the checks configured for each service. They are for the protocol "checks" and for the protocols that
	// take their options from them. A check that names no host was built with Defaults.Host.
	Services map[string][]*ConfiguredCheck `json:"-"`
}

// entry is one line of the list of protocols.
type entry struct {
	Protocol       // in check URLs; without a Name, no URL can name it
	Type     *Type // in the configuration (`type: tcp`); nil: it cannot be configured
}

// protocols returns the one list of everything that can be checked. To add a protocol, write a file with its check
// and add a line here. The types come in the order of the documentation.
func protocols(o Options) []entry {
	perService := o.ServiceNameHeader != ""
	return []entry{
		{Protocol{Name: "spool", PortOptional: true}, nil},
		{Protocol{Name: "tcp", Check: checkTCP}, &tcpType},
		configuredOrDefault(o, "tls", &tlsType),
		configuredOnly(o, "udp", &udpType),
		{Protocol{Name: "http", Check: newHTTP(o), URI: true, PerService: perService, ForwardsHops: true}, &httpType},
		{Protocol{Name: "https", Check: newHTTPS(o), URI: true, PerService: perService, ForwardsHops: true}, nil},
		configuredOrDefault(o, "grpc", &grpcType),
		{Protocol{}, &udpListenType},
		{Protocol{}, &scriptType},
		configuredOnly(o, "amqp", &amqpType),
		configuredOnly(o, "postgres", &postgresType),
		mysqlProtocol(o),
		redisProtocol(o, &redisType),
		redisProtocol(o, &sentinelType),
		{Protocol{Name: "redis-info", Check: newRedisInfo(o), URI: true, Canonical: canonicalRedisInfo}, nil},
		{Protocol{Name: "sentinel-info", Check: newRedisInfo(o), URI: true, Canonical: canonicalRedisInfo}, nil},
		configuredOrDefault(o, "memcached", &memcacheType),
		configuredOnly(o, "mongodb", &mongodbType),
		configuredOrDefault(o, "ldap", &ldapType),
		{Protocol{Name: "smtp", Check: checkSMTP}, &smtpType},
		{Protocol{Name: "haproxy", Check: newHAProxy(o), PerService: true, ForwardsHops: true}, &haproxyType},
		{Protocol{
			Name: "checks", Check: newChecks(o), PerService: true, ForwardsHops: true,
			Canonical: canonicalChecks(o), PortOptional: true, MayExceedTimeout: true,
		}, nil},
	}
}

// Set holds the protocols of check URLs by name.
type Set map[string]Protocol

// All returns every protocol that check URLs can name.
func All(o Options) Set {
	s := Set{}
	for _, e := range protocols(o) {
		if e.Name != "" {
			s[e.Name] = e.Protocol
		}
	}
	return s
}

// types are the types of configured checks.
var types = func() (list []*Type) {
	for _, e := range protocols(Options{}) {
		if e.Type != nil {
			list = append(list, e.Type)
		}
	}
	return list
}()

// Types returns every type of configured check, in the order of the documentation.
func Types() []Type {
	list := make([]Type, len(types))
	for i, t := range types {
		list[i] = *t
	}
	return list
}

// Wrap returns a set whose checks are wrapped. The first wrapper is the outermost:
//
//	check.All(o).Wrap(check.Timeout(10*time.Second), check.NewLimiter(512).Wrap)
func (s Set) Wrap(wrappers ...func(Func) Func) Set {
	wrapped := make(Set, len(s))
	for name, p := range s {
		if p.Check != nil {
			for i := len(wrappers) - 1; i >= 0; i-- {
				p.Check = wrappers[i](p.Check)
			}
		}
		wrapped[name] = p
	}
	return wrapped
}
