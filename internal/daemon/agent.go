package daemon

import (
	"context"
	"net"

	"hacheck/internal/agent"
	"hacheck/internal/spool"
)

// agentPort is a port of -A: first the listener, once answers are given the door.
type agentPort struct {
	ln   net.Listener
	door *agent.Server
}

// openAgents opens the ports of -A, which do not answer yet.
func (d *daemon) openAgents() error {
	d.agent = agent.New(agent.Options{
		Overrides: d.index, Successes: &d.passes, Log: d.log, LogLimit: d.logLimit, Conns: d.conns,
		OnAnswer: func(peer string, k spool.Key, answer string) { d.balancers.RecordAgent(peer, k.Name(), answer) },
	})
	for _, port := range d.opts.agentPorts {
		ln, err := d.inherited.listen(context.Background(), d.opts.bind, port)
		if err != nil {
			return err
		}
		d.agents = append(d.agents, agentPort{ln: ln})
	}
	return nil
}

// serveAgents begins to answer at the ports of -A.
func (d *daemon) serveAgents() {
	for i := range d.agents {
		p := &d.agents[i]
		p.door = d.agent.Serve(&acceptLog{Listener: p.ln, log: d.log}, spool.All)
		d.log.Info("agent answers", "listen", p.ln.Addr().String(), "service", spool.All)
	}
}

// closeAgents closes the ports of -A. What HAProxy was told last stands.
func (d *daemon) closeAgents() {
	for _, p := range d.agents {
		p.door.Close()
	}
}

func (d *serviceDoors) openAgent(s *serviceDoor, ln net.Listener) {
	service := s.spec.Load().service
	door := d.agent.Serve(&acceptLog{Listener: ln, log: d.log}, service)
	d.log.Info("service listens", "service", service, "agent", ln.Addr().String())
	s.use = func() { door.SetDefaultService(s.spec.Load().service) }
	s.close = door.Close
}
