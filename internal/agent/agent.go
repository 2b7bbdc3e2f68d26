//go:build unix

// Package agent answers HAProxy's agent-check. HAProxy connects, may send the name of a service, and reads one line
// of two words: one sets or clears the administrative state of the server, the other its operational state. Every
// answer has both, because only the agent can undo what the agent did.
//
// The agent reports overrides and never the result of a check.
package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Overrides are the overrides that the agent reports; *spool.Index has them.
type Overrides interface {
	Lookup(service, host string, port uint16, local bool) spool.View
	LastMaintEnd(service, host string, port uint16, local bool) time.Time
	Weight(service, host string, port uint16, local bool) int
	WeightEnd(service, host string, port uint16, local bool) time.Time
}

// Options are the options of New. Overrides, Successes and Log must be set.
type Options struct {
	Overrides    Overrides
	PassedChecks *PassedChecks
	Log          *slog.Logger
	LogLimit     *loglimit.Limiter // of the lines that a client can cause; nil: they are not limited
	// Conns bounds the connections of every listener of the process; nil: a limiter with the default bounds.
	Conns *clients.ConnLimiter

	// OnAnswer is called after each answer with the client's address, the key, and the line without its newline.
	// It is called from many goroutines and must not block. nil: no call.
	OnAnswer func(peer string, key spool.Key, answer string)
	// TellsWeightEnd reports whether the next answer to the client at the address peer has to say 100% because a weight
	// of key ended at ended. It is called from many goroutines and must not block. nil: each answer does.
	TellsWeightEnd func(peer string, key spool.Key, ended time.Time) bool
}

// Agent answers on any number of Servers, which share its bounds. It is safe for concurrent use.
type Agent struct {
	o     Options
	hosts clients.LocalAddrs
	queue waitQueue
}

// New returns an Agent. Serve adds a listener to it.
func New(o Options) *Agent {
	if o.Conns == nil {
		o.Conns = clients.NewConnLimiter(clients.ConnLimits{})
	}
	return &Agent{o: o, queue: newWaitQueue(maxWaiting, maxWaitingPerClient, maxOpen)}
}

const (
	// maxReason bounds a reason, in bytes. HAProxy 2.6 itself shows about 108 of them.
	maxReason = 120
	// recheckTimeout is how long after the end of maint the answer is "down" while no check has passed.
	recheckTimeout = 10 * time.Second
)

// line returns the line about k for the client at peer, without its newline.
func (a *Agent) line(k spool.Key, peer netip.Addr) string {
	local := k.Host == ""
	if !local {
		addr, err := netip.ParseAddr(k.Host)
		local = err == nil && a.hosts.Contains(addr)
	}
	o := a.o.Overrides.Lookup(k.Service, k.Host, k.Port, local).Override
	if o == nil {
		ended := a.o.Overrides.LastMaintEnd(k.Service, k.Host, k.Port, local)
		if !ended.IsZero() && time.Since(ended) < recheckTimeout && !a.o.PassedChecks.passedSince(k, local, ended) {
			// HAProxy sends no checks during maint. With "up" it would send traffic before the first check.
			return "ready down #coming back"
		}
		return a.up(k, local, peer)
	}
	switch o.State {
	case spool.Drain:
		return "up drain"
	case spool.Down:
		return withReason("ready down", o.ReasonText())
	case spool.Maint:
		a.o.PassedChecks.recordFor(maintRecordTime)
		return withReason("maint down", o.ReasonText())
	default: // ForceUp; an override is never Ready
		return a.up(k, local, peer)
	}
}

// up returns the line about k for the client at peer while k is up. It has the weight, which HAProxy keeps until it reads
// another one: see spool.Weight. Once the client has read the end of a weight there is none in the line, so that
// the weight that an administrator sets in HAProxy stays.
func (a *Agent) up(k spool.Key, local bool, peer netip.Addr) string {
	percent := a.o.Overrides.Weight(k.Service, k.Host, k.Port, local)
	if percent == spool.MaxWeight && a.o.TellsWeightEnd != nil {
		ended := a.o.Overrides.WeightEnd(k.Service, k.Host, k.Port, local)
		if !ended.IsZero() && !a.o.TellsWeightEnd(peer.String(), k, ended) {
			percent = 0
		}
	}
	if percent == 0 {
		return "up ready"
	}
	return fmt.Sprintf("up ready %d%%", percent)
}

// withReason returns words and the reason, if there is one. HAProxy reads the reason from the first '#' behind a
// blank to the end of the line.
func withReason(words, reason string) string {
	if reason = textfmt.Truncate(reason, maxReason); reason == "" {
		return words
	}
	return words + " #" + reason
}
