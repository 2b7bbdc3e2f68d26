package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"

	"hacheck/internal/check"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// overrideVerdict returns the answer that an override gives: 404 for drain, 503 for down and maint, 200 for force-up.
// spoolOnly is the protocol spool, whose 200 has no body, as in the original.
func overrideVerdict(o *spool.Entry, spoolOnly bool) Verdict {
	v := Verdict{State: o.State, Override: o}
	switch o.State {
	case spool.ForceUp:
		v.Result.Code = http.StatusOK
		if !spoolOnly {
			v.Result.Body = []byte("OK")
		}
	case spool.Drain:
		v.Result.Code, v.Result.Body = http.StatusNotFound, []byte(o.Line())
	default:
		v.Result.Code, v.Result.Body = http.StatusServiceUnavailable, []byte(o.Line())
	}
	return v
}

// tooManyHops answers a request that came through more checks than check.MaxHops.
var tooManyHops = fmt.Sprintf("Nothing was asked: too many checks ask hacheck itself, one for the other (%s is above %d, or is not a number); ask the service itself",
	check.HopsHeader, check.MaxHops)

// rejected returns the answer to a request that may not be checked, and whether it is one.
func (e *Evaluator) rejected(r *Request, p *protocol) (Verdict, bool) {
	t := &r.Target
	switch {
	case t.Port == 0 && !p.PortOptional:
		return reject(http.StatusBadRequest, check.ReasonConfig,
			"No port to check: the URL says 0 and no X-Haproxy-Server-State header gives one; add \"http-check send-state\" to the HAProxy backend, or name the port in the URL"), true
	case !r.Local && !e.allowed(t.Host):
		e.log.refusedHost(r)
		return reject(http.StatusForbidden, check.ReasonForbidden,
			t.Host+" is not an address of this machine; to have it checked, add it to check_hosts_allowed"), true
	case t.Hops > check.MaxHops:
		return reject(http.StatusServiceUnavailable, check.ReasonForbidden, tooManyHops), true
	}
	return Verdict{}, false
}

// allowed reports whether host is in check_hosts_allowed.
func (e *Evaluator) allowed(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, p := range e.o.Allowed {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func reject(code int, reason check.Reason, text string) Verdict {
	return Verdict{Result: check.Result{Code: code, Reason: reason, Body: []byte(text), Err: errors.New(text)}}
}

// busy returns the result of a check that hacheck did not finish in time. It says nothing about the service.
func busy(why string) check.Result {
	return check.Result{
		Code: http.StatusServiceUnavailable, Reason: check.ReasonBusy,
		Body: []byte("hacheck is busy: " + why), Err: errors.New("busy: " + why),
	}
}

// recoverPanic returns f with a recover around it: a panic in a check or its driver is a failed check and does not end
// the daemon.
func (e *Evaluator) recoverPanic(f check.Func) check.Func {
	return func(ctx context.Context, t check.Target) (r check.Result) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			const message = "check panicked; this is a bug in hacheck or a driver"
			if e.o.LogLimit.Allow(loglimit.Target, "the protocol "+t.Protocol, message) {
				e.o.Log.Error(message, "protocol", t.Protocol,
					"service", t.Service, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			r = check.Result{
				Code: http.StatusServiceUnavailable, Reason: check.ReasonProtocol,
				Body: []byte("The check failed inside hacheck; its log says where"), Err: fmt.Errorf("panic: %v", p),
			}
		}()
		return f(ctx, t)
	}
}
