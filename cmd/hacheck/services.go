package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/aggregate"
	"hacheck/internal/beacon"
	"hacheck/internal/check"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/proxy"
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
	log    *slog.Logger
	door   *proxy.Server // told of who asks
	agent  *agent.Agent
	listen func(addr string) (net.Listener, error)
	judge  atomic.Pointer[health.Judge]

	mu    sync.Mutex
	doors map[doorKey]*serviceDoor
}

// doorKey is what makes a door the same after a reload.
type doorKey struct {
	service, kind, addr string
	code                int
	interval            time.Duration
}

type serviceDoor struct {
	stop    func(ctx context.Context)
	changed chan struct{} // of a beacon; nil otherwise
}

// use opens and closes doors until they are what services say, and has them ask judge.
func (d *serviceDoors) use(services []config.Service, judge *health.Judge) error {
	d.judge.Store(judge)
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted := map[doorKey]bool{}
	for _, s := range services {
		if s.HTTPListen != "" {
			wanted[doorKey{service: s.Name, kind: "http_listen", addr: s.HTTPListen, code: s.FailureCode}] = true
		}
		if s.BeaconListen != "" {
			wanted[doorKey{service: s.Name, kind: "beacon_listen", addr: s.BeaconListen, interval: s.Interval}] = true
		}
		if s.AgentListen != "" {
			wanted[doorKey{service: s.Name, kind: "agent_listen", addr: s.AgentListen}] = true
		}
	}
	for k, door := range d.doors {
		if !wanted[k] {
			door.stop(context.Background())
			delete(d.doors, k)
		}
	}
	if d.doors == nil {
		d.doors = map[doorKey]*serviceDoor{}
	}
	var errs []error
	for k := range wanted {
		if d.doors[k] != nil {
			continue
		}
		open := d.aggregate
		switch k.kind {
		case "beacon_listen":
			open = d.beacon
		case "agent_listen":
			open = d.agentDoor
		}
		door, err := open(k)
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %s: %w", k.service, k.kind, err))
			continue
		}
		d.doors[k] = door
	}
	return errors.Join(errs...)
}

// ask has the checks of a service judged, overrides first.
func (d *serviceDoors) ask(ctx context.Context, service string) health.Verdict {
	return d.judge.Load().Verdict(ctx, &health.Ask{
		Target: check.Target{Protocol: "checks", Service: service, Host: "127.0.0.1"}, Here: true,
		Obey: true, // -S is about the HTTP door: no agent speaks for these
	})
}

func (d *serviceDoors) aggregate(k doorKey) (*serviceDoor, error) {
	ln, err := d.listen(k.addr)
	if err != nil {
		return nil, err
	}
	srv := newServer(aggregate.Server(&aggregate.Handler{
		Judge:       func(ctx context.Context) health.Verdict { return d.ask(ctx, k.service) },
		FailureCode: k.code,
		Asked: func(r *http.Request, v *health.Verdict, code int) {
			d.door.Note(k.service, "http://"+k.addr+r.RequestURI, r, v, code)
		},
		Log: d.log,
	}, time.Hour)) // the judge has its own patience, which a reload may change
	go func() {
		if err := srv.Serve(d.door.Bounded(proxy.HostLines(ln))); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("a service's listener ended", "service", k.service, "listen", k.addr, "err", err)
		}
	}()
	d.log.Info("service listens", "service", k.service, "http", ln.Addr().String())
	return &serviceDoor{stop: func(ctx context.Context) {
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close()
		}
	}}, nil
}

func (d *serviceDoors) beacon(k doorKey) (*serviceDoor, error) {
	door := &serviceDoor{changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	log := d.log.With("service", k.service, "beacon", k.addr)
	failing := false
	go func() {
		defer close(done)
		_ = beacon.Run(ctx, beacon.Options{ // ends with ctx only
			Addr: k.addr, Interval: k.interval, Changed: door.changed,
			Healthy: func(ctx context.Context) bool { return d.ask(ctx, k.service).Result.Code == http.StatusOK },
			Observe: func(e beacon.Event, a net.Addr, err error) {
				switch e {
				case beacon.Opened:
					failing = false
					log.Info("beacon is open", "listen", a.String())
				case beacon.Closed:
					log.Info("beacon is closed")
				case beacon.BindFailed:
					if !failing {
						log.Error("beacon cannot listen; it is tried again at each look", "err", err)
					}
					failing = true
				case beacon.AcceptFailed:
					log.Debug("beacon cannot accept", "err", err)
				case beacon.Unhealthy, beacon.Healthy, beacon.Connection:
				}
			},
		})
	}()
	door.stop = func(context.Context) {
		cancel()
		<-done
	}
	return door, nil
}

// changed has the beacons look at once: an operator has said something.
func (d *serviceDoors) changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, door := range d.doors {
		if door.changed == nil {
			continue
		}
		select {
		case door.changed <- struct{}{}:
		default: // it is about to look anyway
		}
	}
}

// stop closes all doors; requests in flight are answered until ctx ends.
func (d *serviceDoors) stop(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all sync.WaitGroup
	for _, door := range d.doors {
		all.Go(func() { door.stop(ctx) })
	}
	all.Wait()
	d.doors = nil
}
