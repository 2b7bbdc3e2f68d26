package daemon

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"hacheck/internal/beacon"
	"hacheck/internal/loglimit"
)

// beaconEndpoint is the beacon_listen of a service.
type beaconEndpoint struct {
	s        *serviceEndpoints
	addr     string
	settings atomic.Pointer[endpointSettings]
	changed  chan struct{} // holds one
	cancel   context.CancelFunc
	done     chan struct{} // closed when the beacon has ended
	failing  bool          // the port could not be opened; only observe uses it
}

func (s *serviceEndpoints) serveBeacon(addr string, settings endpointSettings) *beaconEndpoint {
	ctx, cancel := context.WithCancel(context.Background())
	e := &beaconEndpoint{s: s, addr: addr, changed: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	e.settings.Store(&settings)
	go func() {
		defer close(e.done)
		_ = beacon.Run(ctx, beacon.Options{ // returns when ctx ends
			Addr: addr, Changed: e.changed, Conns: s.conns, Listen: openConfigured, Observe: e.observe,
			Interval: func() time.Duration { return e.settings.Load().interval },
			Healthy: func(context.Context) bool {
				return s.evaluators.current.Load().Evaluate(checksRequest(e.settings.Load().service)).Result.Code == http.StatusOK
			},
			CachedHealth: func() (healthy, ok bool) {
				v, pending := s.evaluators.current.Load().Cached(checksRequest(e.settings.Load().service))
				return v.Result.Code == http.StatusOK, pending == nil
			},
		})
	}()
	return e
}

func (e *beaconEndpoint) apply(settings endpointSettings) {
	e.settings.Store(&settings)
	e.trigger()
}

// trigger makes the beacon evaluate its service now.
func (e *beaconEndpoint) trigger() {
	select {
	case e.changed <- struct{}{}:
	default: // triggered already
	}
}

func (e *beaconEndpoint) close() {
	e.cancel()
	<-e.done // soon: a beacon does not wait for a check that runs
}

func (e *beaconEndpoint) drain(context.Context) {} // close has closed every connection

// observe logs what happens to the port.
func (e *beaconEndpoint) observe(event beacon.Event, addr net.Addr, err error) {
	service := e.settings.Load().service
	log := e.s.log.With("service", service, "beacon", e.addr)
	allow := func(message string) bool { return e.s.logLimit.Allow(loglimit.Service, service, message) }
	switch event {
	case beacon.Opened:
		e.failing = false
		if allow("beacon is open") {
			log.Info("beacon is open", "listen", addr.String())
		}
	case beacon.Closed:
		if allow("beacon is closed") {
			log.Info("beacon is closed")
		}
	case beacon.BindFailed:
		const message = "beacon cannot listen; it tries again after the next check"
		if !e.failing && allow(message) {
			log.Error(message, "err", err)
		}
		e.failing = true
	case beacon.AcceptFailed:
		log.Debug("beacon cannot accept", "err", err)
	case beacon.Unhealthy, beacon.Healthy, beacon.Connection:
	}
}
