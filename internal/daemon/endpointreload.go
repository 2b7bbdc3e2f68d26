package daemon

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"hacheck/internal/config"
)

// endpointReload is a prepared reload of the endpoints: its ports are open already, and nothing can fail any more. End
// it with commit or rollback.
type endpointReload struct {
	s      *serviceEndpoints
	want   map[endpointKey]endpointSettings
	opened map[endpointKey]net.Listener // not served yet
	closed map[endpointKey]openEndpoint // closed because a new endpoint needs their port
}

// prepare opens the ports of new endpoints. If one cannot be opened, prepare restores the endpoints as they were and
// returns an error.
func (s *serviceEndpoints) prepare(c *config.Config) (*endpointReload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &endpointReload{s: s, want: configuredEndpoints(c), opened: map[endpointKey]net.Listener{}, closed: map[endpointKey]openEndpoint{}}
	var errs []error
	for k, settings := range r.want {
		if _, stays := s.open[k]; stays || k.kind == beaconListen { // a beacon opens its own port, and retries
			continue
		}
		ln, err := s.sockets.listenConfigured(k.addr)
		if errors.Is(err, syscall.EADDRINUSE) && r.freePort(k.addr) {
			ln, err = s.sockets.listenConfigured(k.addr)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k.name(settings.service), err))
			continue
		}
		r.opened[k] = ln
	}
	if len(errs) > 0 {
		r.rollbackLocked()
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// freePort closes the endpoints on the port of addr that the new configuration does not have. It reports whether
// there was one.
func (r *endpointReload) freePort(addr string) (freed bool) {
	_, port, _ := net.SplitHostPort(addr)
	for k, e := range r.s.open {
		_, stays := r.want[k]
		_, isClosed := r.closed[k]
		if _, p, _ := net.SplitHostPort(k.addr); p == port && !stays && !isClosed {
			e.close()
			r.closed[k] = e
			freed = true
		}
	}
	return freed
}

// rollback restores the endpoints as they were.
func (r *endpointReload) rollback() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.rollbackLocked()
}

// rollbackLocked is rollback with s.mu held.
func (r *endpointReload) rollbackLocked() {
	for _, ln := range r.opened {
		_ = ln.Close()
	}
	if r.s.stopped {
		return
	}
	for k, e := range r.closed {
		r.s.remove(k)
		var ln net.Listener
		if k.kind != beaconListen {
			var err error
			if ln, err = r.s.sockets.listenConfigured(k.addr); err != nil {
				r.s.log.Error("a service's listener had made room and cannot be opened again", "service", e.settings.service, "listen", k.addr, "err", err)
				continue
			}
		}
		r.s.serve(k, e.settings, ln)
	}
}

// commit serves the new endpoints and applies the settings of the others. Endpoints that are not in the new
// configuration answer what they have accepted; commit does not wait for them.
func (r *endpointReload) commit() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped { // the daemon stops during the reload
		r.rollbackLocked()
		return
	}
	for k, e := range s.open {
		if _, stays := r.want[k]; !stays {
			e.close()
			s.remove(k)
		}
	}
	for k, settings := range r.want {
		if e, isOpen := s.open[k]; isOpen {
			e.settings = settings
			e.apply(settings)
			s.open[k] = e
		} else {
			s.serve(k, settings, r.opened[k])
		}
	}
}
