package check

import (
	"crypto/x509"
	"fmt"
)

// Protocol is one word that may stand first in a check URL, and what it means.
type Protocol struct {
	Name string
	// Check asks the service. nil: overrides alone decide (spool).
	Check Func
	// URI: the path and query reach the service and decide the answer; the slash after the port is required.
	URI bool
	// PerService: the answer depends on the service's name, so it is part of the cache key.
	PerService bool
	// ForwardsHops: the check tells the service how many checks it came through, so Target.Hops is part of the cache key.
	ForwardsHops bool
	// Canonical returns t without what does not reach the check, which is then run with the result: targets that differ
	// in nothing else share one check and one cache entry. nil: Host, Port, URI and Header all reach the check.
	Canonical func(t Target) Target
	// PortOptional: it can be asked without a port (spool, checks).
	PortOptional bool
	// MayExceedTimeout: a check may outlast its context, as one does that starts a program on a file server which hangs.
	MayExceedTimeout bool
}

// Set holds the protocols by name.
type Set map[string]Protocol

// Options is what the checks need to know beyond their target. The zero value works.
type Options struct {
	// Version is told to HTTP services as "User-Agent: hacheck/<version>"; empty sends "hacheck" alone.
	Version string
	// ServiceNameHeader names a header that carries the service's name to HTTP services; empty sends none.
	ServiceNameHeader string
	// TLSVerify has https verify the certificate against the host that is dialled; default: anything goes.
	TLSVerify bool
	// TLSRoots are the authorities TLSVerify trusts; nil: the system's.
	TLSRoots *x509.CertPool

	// MySQLUsername and MySQLPassword log the mysql check in; without a user name it answers 500 and asks
	// nothing. The password may be empty, and is never sent in clear.
	MySQLUsername string
	MySQLPassword Secret
	// RedisUsername and RedisPassword are shown, in clear as the protocol has it, to redis and sentinel
	// servers that ask for a password and to no others; without a user name the password alone is sent,
	// which servers before Redis 6 need.
	RedisUsername string
	RedisPassword Secret

	// Services are the checks configured for each service, for the protocol checks and for those that take
	// their options from them; a check that names no host is built with Defaults.Host.
	Services map[string][]*Configured `json:"-"`
}

// All returns every protocol. It is the one place where they are listed: a new one is a file with its
// check and a line here.
func All(o Options) Set {
	return newSet(append([]Protocol{
		{Name: "spool", PortOptional: true},
		{Name: "http", Check: newHTTP(o), URI: true, PerService: o.ServiceNameHeader != "", ForwardsHops: true},
		{Name: "https", Check: newHTTPS(o), URI: true, PerService: o.ServiceNameHeader != "", ForwardsHops: true},
		{Name: "tcp", Check: checkTCP},
		{Name: "smtp", Check: checkSMTP},
		{Name: "mysql", Check: newMySQL(o)},
		{Name: "redis", Check: newRedis(o)},
		{Name: "sentinel", Check: newRedis(o)},
		{Name: "redis-info", Check: newRedisInfo(o), URI: true, Canonical: reduceRedisInfo},
		{Name: "sentinel-info", Check: newRedisInfo(o), URI: true, Canonical: reduceRedisInfo},
		{Name: "haproxy", Check: newHAProxy(o), PerService: true, ForwardsHops: true},
		{Name: "checks", Check: newChecks(o), PerService: true, ForwardsHops: true, Canonical: newReduceChecks(o), PortOptional: true, MayExceedTimeout: true},
	}, typeProtocols(o)...)...)
}

// newSet indexes protocols by name. Two of one name are a mistake in the list above, seen at the first start.
func newSet(list ...Protocol) Set {
	s := make(Set, len(list))
	for _, p := range list {
		if _, ok := s[p.Name]; ok {
			panic(fmt.Sprintf("check: two protocols named %q", p.Name))
		}
		s[p.Name] = p
	}
	return s
}

// Wrap returns a set whose checks are wrapped, the first wrapper outermost:
//
//	check.All(o).Wrap(check.Timeout(10*time.Second), check.Limit(512))
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
