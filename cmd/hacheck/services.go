package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/aggregate"
	"hacheck/internal/beacon"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/web"
)

// configured builds the checks of the services. They were built once when the file was read, so that
// nothing is wrong with them.
func configured(c *config.Config, o check.Options, scripts *check.Scripts) map[string][]*check.Configured {
	services := make(map[string][]*check.Configured, len(c.Services))
	for _, s := range c.Services {
		for _, spec := range s.Checks {
			if built, err := spec.Build(check.Defaults{Options: o, Host: c.CheckHost, Scripts: scripts}); err == nil {
				services[s.Name] = append(services[s.Name], built)
			}
		}
	}
	return services
}

// serviceDoors are the listeners of services: http_listen, beacon_listen and agent_listen. A reload keeps those whose
// address stays, opens the new ones and closes the others.
type serviceDoors struct {
	log      *slog.Logger
	logLimit *loglimit.Limiter
	web      *web.Server // records the answers
	agent    *agent.Agent
	conns    *clients.ConnLimiter
	listen   func(addr string) (net.Listener, error)
	judge    atomic.Pointer[health.Evaluator]

	mu      sync.Mutex
	doors   map[doorKey]*serviceDoor
	leaving map[*serviceDoor]struct{} // closed by a reload, with requests in flight perhaps
	stopped bool
}

// The kinds of doors, by the keys of the configuration.
const (
	httpDoor   = "http_listen"
	beaconDoor = "beacon_listen"
	agentDoor  = "agent_listen"
)

// doorKey is what makes a door the same after a reload.
type doorKey struct {
	kind, addr string
	service    string        // where the port is 0: then others may have the same address
	interval   time.Duration // of a beacon
}

// doorSpec is what a reload may change of a door that stays.
type doorSpec struct {
	service string
	code    int // of http_listen, for a failure
}

// serviceDoor is one that is open.
type serviceDoor struct {
	spec atomic.Pointer[doorSpec]
	// use takes up spec, where that is not read for each request anyway.
	use func()
	// close accepts nobody any more.
	close func()
	// drain returns when all that was accepted is answered, or ctx has ended.
	drain   func(ctx context.Context)
	changed chan struct{} // of a beacon; nil otherwise
}

// wantedDoors are the doors that services ask for. No two of them are the same: config has seen to that.
func wantedDoors(services []config.Service) map[doorKey]doorSpec {
	wanted := map[doorKey]doorSpec{}
	for _, s := range services {
		for _, k := range []doorKey{
			{kind: httpDoor, addr: s.HTTPListen},
			{kind: beaconDoor, addr: s.BeaconListen, interval: s.Interval},
			{kind: agentDoor, addr: s.AgentListen},
		} {
			if k.addr == "" {
				continue
			}
			if strings.HasSuffix(k.addr, ":0") {
				k.service = s.Name
			}
			wanted[k] = doorSpec{service: s.Name, code: s.FailureCode}
		}
	}
	return wanted
}

// doorChange is a change of the doors that can no longer fail. Either commit or abandon ends it.
type doorChange struct {
	d      *serviceDoors
	wanted map[doorKey]doorSpec
	opened map[doorKey]net.Listener // nobody is answered yet
	closed map[doorKey]*serviceDoor // had to make room
}

// prepare opens the ports that services ask for beside those that are open. When one cannot be opened, all is
// as it was.
func (d *serviceDoors) prepare(services []config.Service) (*doorChange, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &doorChange{d: d, wanted: wantedDoors(services), opened: map[doorKey]net.Listener{}, closed: map[doorKey]*serviceDoor{}}
	var errs []error
	for k, spec := range c.wanted {
		if k.kind == beaconDoor || d.doors[k] != nil { // a beacon opens its port by itself, and tries again
			continue
		}
		ln, err := d.listen(k.addr)
		if errors.Is(err, syscall.EADDRINUSE) && c.makeRoom(k.addr) {
			ln, err = d.listen(k.addr)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %s: %w", spec.service, k.kind, err))
			continue
		}
		c.opened[k] = ln
	}
	if len(errs) > 0 {
		c.undo()
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// makeRoom closes the doors on the port of addr that are about to go. It reports whether there was one.
func (c *doorChange) makeRoom(addr string) (made bool) {
	_, port, _ := net.SplitHostPort(addr)
	for k, door := range c.d.doors {
		if _, stays := c.wanted[k]; stays || c.closed[k] != nil {
			continue
		}
		if _, p, _ := net.SplitHostPort(k.addr); p == port {
			door.close()
			c.closed[k] = door
			made = true
		}
	}
	return made
}

// abandon leaves the doors as they were.
func (c *doorChange) abandon() {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.undo()
}

func (c *doorChange) undo() {
	for _, ln := range c.opened {
		_ = ln.Close()
	}
	for k, door := range c.closed {
		if c.d.stopped {
			return
		}
		c.d.leave(door)
		delete(c.d.doors, k)
		var ln net.Listener
		if k.kind != beaconDoor {
			var err error
			if ln, err = c.d.listen(k.addr); err != nil {
				c.d.log.Error("a service's listener had made room and cannot be opened again", "service", door.spec.Load().service, "listen", k.addr, "err", err)
				continue
			}
		}
		c.d.open(k, *door.spec.Load(), ln)
	}
}

// commit has all doors ask judge, and answers at the new ones. Those that are no longer wanted answer what they
// have accepted; nobody waits for that.
func (c *doorChange) commit(judge *health.Evaluator) {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped { // the process ends while a reload is under way
		c.undo()
		return
	}
	d.judge.Store(judge)
	for k, door := range d.doors {
		if _, stays := c.wanted[k]; !stays {
			door.close()
			d.leave(door)
			delete(d.doors, k)
		}
	}
	for k, spec := range c.wanted {
		if door := d.doors[k]; door != nil {
			door.spec.Store(&spec)
			door.use()
		} else {
			d.open(k, spec, c.opened[k])
		}
	}
}

// leave has a door that is closed answer what it has accepted. d.mu is held.
func (d *serviceDoors) leave(door *serviceDoor) {
	if d.leaving == nil {
		d.leaving = map[*serviceDoor]struct{}{}
	}
	d.leaving[door] = struct{}{}
	go func() {
		door.drain(context.Background())
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.leaving, door)
	}()
}

// open answers at a door; ln is nil for a beacon.
func (d *serviceDoors) open(k doorKey, spec doorSpec, ln net.Listener) {
	door := &serviceDoor{use: func() {}, drain: func(context.Context) {}}
	door.spec.Store(&spec)
	switch k.kind {
	case httpDoor:
		d.aggregate(door, k, ln)
	case beaconDoor:
		d.beacon(door, k)
	case agentDoor:
		d.openAgent(door, ln)
	}
	if d.doors == nil {
		d.doors = map[doorKey]*serviceDoor{}
	}
	d.doors[k] = door
}

// ask has the checks of a service judged, overrides first.
func (d *serviceDoors) ask(service string) health.Verdict {
	return d.judge.Load().Evaluate(question(service))
}

func question(service string) *health.Request {
	return &health.Request{
		Target: check.Target{Protocol: "checks", Service: service, Host: "127.0.0.1"}, Local: true,
		ApplyOverrides: true, // -S is about the HTTP door: no agent speaks for these
	}
}

func (d *serviceDoors) aggregate(door *serviceDoor, k doorKey, ln net.Listener) {
	srv := newServer(aggregate.Server(&aggregate.Handler{
		Evaluate: func(hops uint8) health.Verdict {
			q := question(door.spec.Load().service)
			q.Target.Hops = hops
			return d.judge.Load().Evaluate(q)
		},
		FailureCode: func() int { return door.spec.Load().code },
		OnAnswer: func(r *http.Request, v *health.Verdict, code int) {
			d.web.RecordHTTPAnswer(door.spec.Load().service, "http://"+k.addr+r.RequestURI, r, v, code)
		},
		Log: d.log,
	}, time.Hour)) // the judge has its own patience, which a reload may change
	go func() {
		if err := srv.Serve(d.conns.Listener(fastpath.HostLines(ln))); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("a service's listener ended", "service", door.spec.Load().service, "listen", k.addr, "err", err)
		}
	}()
	d.log.Info("service listens", "service", door.spec.Load().service, "http", ln.Addr().String())
	door.close = srv.Refuse
	door.drain = func(ctx context.Context) {
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close()
		}
	}
}

func (d *serviceDoors) beacon(door *serviceDoor, k doorKey) {
	door.changed = make(chan struct{}, 1)
	door.use = door.look
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	failing := false
	go func() {
		defer close(done)
		_ = beacon.Run(ctx, beacon.Options{ // ends with ctx only
			Addr: k.addr, Interval: k.interval, Changed: door.changed, Conns: d.conns, Listen: listenBeacon,
			Healthy: func(context.Context) bool {
				return d.ask(door.spec.Load().service).Result.Code == http.StatusOK
			},
			CachedHealth: func() (healthy, ok bool) {
				v, open := d.judge.Load().Cached(question(door.spec.Load().service))
				return v.Result.Code == http.StatusOK, open == nil
			},
			Observe: func(e beacon.Event, a net.Addr, err error) {
				service := door.spec.Load().service
				log := d.log.With("service", service, "beacon", k.addr)
				allow := func(message string) bool { return d.logLimit.Allow(loglimit.Service, service, message) }
				switch e {
				case beacon.Opened:
					failing = false
					if allow("beacon is open") {
						log.Info("beacon is open", "listen", a.String())
					}
				case beacon.Closed:
					if allow("beacon is closed") {
						log.Info("beacon is closed")
					}
				case beacon.BindFailed:
					const message = "beacon cannot listen; it is tried again at each look"
					if !failing && allow(message) {
						log.Error(message, "err", err)
					}
					failing = true
				case beacon.AcceptFailed:
					log.Debug("beacon cannot accept", "err", err)
				case beacon.Unhealthy, beacon.Healthy, beacon.Connection:
				}
			},
		})
	}()
	door.close = func() {
		cancel()
		<-done // in a moment: it waits for no check
	}
}

// look has a beacon look at once.
func (s *serviceDoor) look() {
	select {
	case s.changed <- struct{}{}:
	default: // it is about to look anyway
	}
}

// changed has the beacons look at once: an operator has said something.
func (d *serviceDoors) changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, door := range d.doors {
		if door.changed != nil {
			door.look()
		}
	}
}

// stop closes all doors; requests in flight are answered until ctx ends.
func (d *serviceDoors) stop(ctx context.Context) {
	d.mu.Lock()
	doors := slices.Concat(slices.Collect(maps.Values(d.doors)), slices.Collect(maps.Keys(d.leaving)))
	d.doors, d.stopped = nil, true
	d.mu.Unlock()
	var all sync.WaitGroup
	for _, door := range doors {
		all.Go(func() {
			door.close()
			door.drain(ctx)
		})
	}
	all.Wait()
}
