//go:build unix

// Package agent is the door of HAProxy's agent-check: HAProxy connects, may say which service it means,
// and reads one line of two words, one that sets or clears what it calls the administrative state and one
// that sets or clears the operational state. Both come every time, because only the agent can undo what the
// agent did. It speaks of what operators say and never of checks.
package agent

import (
	"bytes"
	"log/slog"
	"net/netip"
	"time"

	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Overrides tells what operators have said and, where they say nothing now, when they last took back a
// maint; *spool.Index does.
type Overrides interface {
	Lookup(service, host string, port uint16, here bool) spool.View
	MaintEnded(service, host string, port uint16, here bool) time.Time
}

// Options are what an Agent needs. Overrides, Passes and Log must be set.
type Options struct {
	Overrides Overrides
	Successes *Successes
	Log       *slog.Logger
	LogLimit  *loglimit.Limiter // of the lines that a client can cause; nil: they are not limited
	// Conns bounds the connections of every listener of the process; nil: one with its default bounds.
	Conns *clients.ConnLimiter

	// OnAnswer is told of each answer: to which address, about what, and the line without its newline. It is
	// called from many goroutines and must not block. It may be nil.
	OnAnswer func(peer string, key spool.Key, answer string)
}

// Agent answers at any number of Doors, for which its bounds hold together. It is safe for concurrent use
// and owns no goroutine but those of its doors.
type Agent struct {
	o     Options
	hosts clients.LocalAddrs
	crowd crowd
}

// New returns an Agent.
func New(o Options) *Agent {
	if o.Conns == nil {
		o.Conns = clients.NewConnLimiter(clients.ConnLimits{})
	}
	return &Agent{o: o, crowd: newCrowd(maxWaiting, maxWaitingPeer, maxAlive)}
}

const (
	// maxReason bounds a reason, in bytes. HAProxy 2.6 itself shows about 108 of them.
	maxReason = 120
	// comingBack is how long at most a target is said to be down after maint has ended.
	comingBack = 10 * time.Second
)

// answer returns the line about k, without its newline.
func (a *Agent) answer(k spool.Key) string {
	here := k.Host == ""
	if !here {
		addr, err := netip.ParseAddr(k.Host)
		here = err == nil && a.hosts.Contains(addr)
	}
	o := a.o.Overrides.Lookup(k.Service, k.Host, k.Port, here).Override
	if o == nil {
		ended := a.o.Overrides.MaintEnded(k.Service, k.Host, k.Port, here)
		if !ended.IsZero() && time.Since(ended) < comingBack && !a.o.Successes.since(k, here, ended) {
			// HAProxy has sent no checks during maint, and would send traffic before the first of them.
			return "ready down #coming back"
		}
		return "up ready"
	}
	switch o.State {
	case spool.Drain:
		return "up drain"
	case spool.Down:
		return because("ready down", o.Reason)
	case spool.Maint:
		a.o.Successes.expect(maintTold)
		return because("maint down", o.Reason)
	default: // Ready is never one that was found
		return "up ready"
	}
}

// because adds the reason. HAProxy reads it from the '#', which must have a blank before it, to the end of
// the line, whatever is in it, further '#' included; a line without one is one without a reason.
func because(words, reason string) string {
	if reason = textfmt.Truncate(reason, maxReason); reason == "" {
		return words
	}
	return words + " #" + reason
}

// maxText is how much of what is sent is read, in bytes; no key is that long.
const maxText = 256

// parse reads what was sent before the newline, or before the end when there is none. Nothing is own.
func parse(text []byte, own spool.Key) (k spool.Key, ok bool) {
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return own, true
	}
	k, err := spool.ParseKey(string(text))
	return k, err == nil
}
