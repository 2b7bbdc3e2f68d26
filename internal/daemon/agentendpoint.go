package daemon

import (
	"context"
	"net"
	"slices"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// openAgents opens the ports of -A. They are not served yet.
func (d *daemon) openAgents() error {
	d.agent = agent.New(agent.Options{
		Overrides: d.index, PassedChecks: &d.successes, Log: d.log, LogLimit: d.logLimit, Conns: d.conns,
		OnAnswer: func(peer string, k spool.Key, answer string) { d.balancers.RecordAgent(peer, k.Name(), answer) },
		TellsWeightEnd: func(peer string, k spool.Key, ended time.Time) bool {
			return d.balancers.TellsWeightEnd(peer, k.Name(), ended)
		},
	})
	for _, port := range d.opts.agentPorts {
		ln, err := d.sockets.listen(d.opts.bind, port)
		if err != nil {
			return err
		}
		d.agentListeners = append(d.agentListeners, ln)
	}
	return nil
}

// asksAgent reports whether a balancer asks the agent about a target that k covers, so that it learns of a weight of k. A
// client that has asked fewer than three times may be a person.
func (d *daemon) asksAgent(k spool.Key) bool {
	service := k.Service
	if service == spool.All {
		service = "" // every service
	}
	return slices.ContainsFunc(d.balancers.Report(service).Agents, func(a balancer.Agent) bool {
		asked, err := spool.ParseKey(a.Service)
		return err == nil && a.Confirmed && !a.Silent && k.Covers(asked, true)
	})
}

// serveAgents serves the ports of -A.
func (d *daemon) serveAgents() {
	for _, ln := range d.agentListeners {
		d.agentServers = append(d.agentServers, d.agent.Serve(&acceptErrorLogger{Listener: ln, log: d.log}, spool.All))
		d.log.Info("agent answers", "listen", ln.Addr().String(), "service", spool.All)
	}
}

// agentEndpoint is the agent_listen of a service.
type agentEndpoint struct{ server *agent.Server }

func (s *serviceEndpoints) serveAgent(settings endpointSettings, ln net.Listener) *agentEndpoint {
	e := &agentEndpoint{s.agent.Serve(&acceptErrorLogger{Listener: ln, log: s.log}, settings.service)}
	s.log.Info("service listens", "service", settings.service, "agent", ln.Addr().String())
	return e
}

func (e *agentEndpoint) apply(settings endpointSettings) {
	e.server.SetDefaultService(settings.service)
}
func (e *agentEndpoint) close()                { e.server.Close() } // without an answer: HAProxy keeps the last one
func (e *agentEndpoint) drain(context.Context) {}                   // close has closed every connection
