package health

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/spool"
)

// Verdict is the answer to a Request.
type Verdict struct {
	OverrideState spool.State   // of the override that decided; Ready if none did
	Result        check.Result  // the code and text of the answer
	Override      *spool.Entry  // the override that decided; nil if none did
	Cache         cache.Status  // where the answer came from
	Age           time.Duration // since the end of the check; 0 if it is new or nothing was checked

	protocol *protocol // for Count
}

// overrideVerdict returns the answer that an override gives: 404 for drain, 503 for down and maint, 200 for force-up.
// spoolOnly is the protocol spool, whose 200 has no body, as in the original.
func overrideVerdict(o *spool.Entry, spoolOnly bool) Verdict {
	v := Verdict{OverrideState: o.State, Override: o}
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
	return err == nil && clients.Contains(e.o.CheckHostsAllowed, addr)
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
