package daemon

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/certificate"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy"
	"hacheck/internal/web"
)

// serviceEndpoints are the listeners of the configuration: http_listen, beacon_listen and agent_listen of services, and
// tls_listen. A reload keeps the
// endpoints whose address stays, opens new ones and closes the others.
type serviceEndpoints struct {
	log         *slog.Logger
	logLimit    *loglimit.Limiter
	web         *web.Server // records the answers of http_listen
	agent       *agent.Agent
	conns       *clients.ConnLimiter
	sockets     *inheritedSockets
	evaluators  *evaluators
	proxy       *proxy.Server      // answers tls_listen
	certificate *certificate.Store // of tls_listen
	proxyFrom   func() []netip.Prefix
	onRefused   func(client, why string)

	mu       sync.Mutex
	open     map[endpointKey]openEndpoint
	draining map[endpoint]struct{} // closed by a reload; they may still answer requests
	stopped  bool
}

// The kinds of endpoints, named as their keys of the configuration.
const (
	httpListen   = "http_listen"
	beaconListen = "beacon_listen"
	agentListen  = "agent_listen"
	tlsListen    = "tls_listen" // of no service
)

// endpointKey identifies an endpoint across reloads.
type endpointKey struct {
	kind, addr string
	// service is set for a beacon, which must not stay open for another service that has not been checked, and for
	// port 0, which several services may have. Otherwise it is "".
	service string
}

// name returns what messages call the endpoint of a service.
func (k endpointKey) name(service string) string {
	if k.kind == tlsListen {
		return k.kind
	}
	return "service " + service + ": " + k.kind
}

// endpointSettings is what a reload may change of an endpoint that stays.
type endpointSettings struct {
	service     string
	failureCode int           // of http_listen
	interval    time.Duration // of beacon_listen
}

// endpoint is an open listener of the configuration.
type endpoint interface {
	// apply puts new settings in force.
	apply(endpointSettings)
	// close stops accepting connections.
	close()
	// drain blocks until every accepted connection is answered. When ctx ends, it closes them.
	drain(ctx context.Context)
}

type openEndpoint struct {
	endpoint
	settings endpointSettings
}

// configuredEndpoints returns the endpoints of all services, and tls_listen. Their keys differ: config refuses an address
// twice.
func configuredEndpoints(c *config.Config) map[endpointKey]endpointSettings {
	all := map[endpointKey]endpointSettings{}
	if c.TLSListen != "" {
		all[endpointKey{kind: tlsListen, addr: c.TLSListen}] = endpointSettings{}
	}
	for _, s := range c.Services {
		for _, k := range []endpointKey{
			{kind: httpListen, addr: s.HTTPListen},
			{kind: beaconListen, addr: s.BeaconListen},
			{kind: agentListen, addr: s.AgentListen},
		} {
			if k.addr == "" {
				continue
			}
			if k.kind == beaconListen || strings.HasSuffix(k.addr, ":0") {
				k.service = s.Name
			}
			all[k] = endpointSettings{service: s.Name, failureCode: s.FailureCode, interval: s.Interval}
		}
	}
	return all
}

// configuredListeners returns the addresses of configuredEndpoints that a socket of systemd can have. A beacon opens its
// own port.
func configuredListeners(c *config.Config) (addrs []string) {
	for k := range configuredEndpoints(c) {
		if k.kind != beaconListen {
			addrs = append(addrs, k.addr)
		}
	}
	return addrs
}

// serve starts an endpoint; ln is nil for a beacon. s.mu is held.
func (s *serviceEndpoints) serve(k endpointKey, settings endpointSettings, ln net.Listener) {
	e := openEndpoint{settings: settings}
	switch k.kind {
	case httpListen:
		e.endpoint = s.serveHTTP(k.addr, settings, ln)
	case beaconListen:
		e.endpoint = s.serveBeacon(k.addr, settings)
	case agentListen:
		e.endpoint = s.serveAgent(settings, ln)
	case tlsListen:
		e.endpoint = s.serveTLS(k.addr, ln)
	}
	if s.open == nil {
		s.open = map[endpointKey]openEndpoint{}
	}
	s.open[k] = e
}

// remove forgets a closed endpoint and drains it in the background. s.mu is held.
func (s *serviceEndpoints) remove(k endpointKey) {
	e := s.open[k].endpoint
	delete(s.open, k)
	if s.draining == nil {
		s.draining = map[endpoint]struct{}{}
	}
	s.draining[e] = struct{}{}
	go func() {
		e.drain(context.Background())
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.draining, e)
	}()
}

// triggerBeacons makes every beacon evaluate its service now.
func (s *serviceEndpoints) triggerBeacons() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.open {
		if b, ok := e.endpoint.(*beaconEndpoint); ok {
			b.trigger()
		}
	}
}

// stop closes all endpoints for good. It answers the requests in flight until ctx ends.
func (s *serviceEndpoints) stop(ctx context.Context) {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.draining))
	for _, e := range s.open {
		all = append(all, e.endpoint)
	}
	s.open, s.stopped = nil, true
	s.mu.Unlock()
	var wait sync.WaitGroup
	for _, e := range all {
		wait.Go(func() {
			e.close()
			e.drain(ctx)
		})
	}
	wait.Wait()
}

// checksRequest asks for all checks of a service, overrides first.
func checksRequest(service string) *health.Request {
	return &health.Request{
		Target:         check.Target{Protocol: "checks", Service: service, Host: "127.0.0.1"},
		Local:          true,
		ForceOverrides: true, // -S leaves overrides to the agent, and no agent belongs to these endpoints
	}
}
