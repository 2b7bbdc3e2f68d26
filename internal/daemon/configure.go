package daemon

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/proxy"
	"hacheck/internal/web"
)

// newProxy returns the HTTP endpoint of the ports of -p. It lives until the process ends; a reload changes its
// settings.
func (d *daemon) newProxy(s proxy.Settings) *proxy.Server {
	return proxy.New(proxy.Options{
		Log: d.log, LogLimit: d.logLimit, Recorder: d.web, Pages: d.web, Conns: d.conns,
		FleetLock: d.fleetLockIfEnabled(), ProxyFrom: d.proxyFrom,
	}, s)
}

// proxyFrom returns proxy_protocol_from as it is in force.
func (d *daemon) proxyFrom() []netip.Prefix { return d.config.Load().ProxyProtocolFrom }

// newWeb returns the pages for people. It lives until the process ends, like the proxy.
func (d *daemon) newWeb(s web.Settings) *web.Server {
	return web.New(web.Options{
		Log: d.log, LogLimit: d.logLimit, Balancers: d.balancers, Overrides: d.index, Metrics: d.metrics(), Fleet: d.fleet,
		Certificate: func() (time.Time, bool) {
			status := d.certificate.Status()
			return status.Expires, status.Err != nil
		},
	}, s)
}

// webSettings returns the settings of the pages that c describes.
func (d *daemon) webSettings(c *config.Config, e *health.Evaluator) web.Settings {
	return web.Settings{Evaluator: e, AgentOnly: d.opts.agentOnly, StatusAllowed: c.StatusAllowed, NoFleet: c.Fleet == nil}
}

// proxySettings returns the settings that c describes, with a new evaluator and new checks. It puts nothing in force.
func (d *daemon) proxySettings(c *config.Config) proxy.Settings {
	options := d.checkOptions(c)
	checks := check.All(options)
	return proxy.Settings{
		Evaluator:     d.newEvaluator(c, checks),
		Checks:        checks,
		CheckHost:     c.CheckHost,
		HeadersToCopy: options.HeadersToCopy(c.HTTPHeadersToCopy),
		Remote: proxy.Remote{
			Enabled: c.AllowRemoteSpoolChanges,
			Allowed: c.RemoteSpoolAllowed,
			Token:   c.RemoteSpoolToken.Reveal(),
			Spool:   d.dir,

			AsksAgent: d.asksAgent,
		},
	}
}

func (d *daemon) newEvaluator(c *config.Config, checks check.Set) *health.Evaluator {
	return health.New(health.Options{
		Overrides:         d.index,
		Checks:            checks,
		CacheTime:         c.CacheTime,
		CacheTimeDown:     c.CacheTimeDown,
		CacheMaxEntries:   c.CacheMaxEntries,
		CacheMaxBytes:     c.CacheMaxBytes,
		Timeout:           c.HealthcheckTimeout,
		MaxClients:        c.MaxClients,
		CheckHostsAllowed: c.CheckHostsAllowed,
		IgnoreOverrides:   d.opts.agentOnly,
		Counters:          d.counters,
		OnResult:          d.successes.CheckFinished,
		Log:               d.log,
		LogLimit:          d.logLimit,
	})
}

// checkOptions returns the options of all checks, with the checks of the services built.
func (d *daemon) checkOptions(c *config.Config) check.Options {
	o := check.Options{
		Version:           d.version,
		ServiceNameHeader: c.ServiceNameHeader,
		TLSVerify:         c.TLSVerify,
		MySQLUsername:     c.MySQLUsername,
		MySQLPassword:     check.Secret(c.MySQLPassword.Reveal()),
		RedisUsername:     c.RedisUsername,
		RedisPassword:     check.Secret(c.RedisPassword.Reveal()),
		Logins:            d.logins,
		Sources:           d.sources,
	}
	services := make(map[string][]*check.ConfiguredCheck, len(c.Services))
	for _, s := range c.Services {
		for _, spec := range s.Checks {
			// There is no error: config built each check when it read the file.
			if built, err := spec.Build(check.Defaults{Options: o, Host: c.CheckHost, Scripts: d.scripts}); err == nil {
				services[s.Name] = append(services[s.Name], built)
			}
		}
	}
	o.Services = services
	return o
}

// evaluators are the evaluator in force and those of earlier configurations that still run checks.
type evaluators struct {
	current atomic.Pointer[health.Evaluator]

	mu  sync.Mutex
	all []*health.Evaluator // current is the last one
}

// replace puts next in force for the requests that come from now on.
func (e *evaluators) replace(next *health.Evaluator) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(slices.DeleteFunc(e.all, func(old *health.Evaluator) bool { return old.Stats().InFlight == 0 }), next)
	if old := e.current.Swap(next); old != nil {
		old.StopRenewals() // no request will read its cache
	}
}

// stopRenewals cancels the checks that no client waits for.
func (e *evaluators) stopRenewals() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.all {
		one.StopRenewals()
	}
}

// isBusy reports whether a check runs that a client may be waiting for.
func (e *evaluators) isBusy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.all, func(one *health.Evaluator) bool { return one.Stats().InFlight > 0 })
}
