// Package fleetlock serves the FleetLock protocol to programs of this machine that reboot it, such as Zincati: POST
// /v1/pre-reboot takes the whole host out with a permit of the fleet, and POST /v1/steady-state puts it back. Package
// fleet decides about the permit, and package balancer knows what the balancers report.
package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/clients"
	"hacheck/internal/fleet"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// The paths of the protocol.
const (
	PreRebootPath   = "/v1/pre-reboot"
	SteadyStatePath = "/v1/steady-state"
)

// By is Entry.By of the override that this package sets. An override on all by another name is an operator's.
const By = "fleetlock"

const (
	maxBody     = 64 << 10
	maxName     = 200              // bytes of an id or a group in a reason
	maxRequests = 8                // at once
	writeTime   = 10 * time.Second // for the client to read the answer
	waitLimit   = time.Hour        // for the balancers; the client repeats the request
)

// Fleet grants permits; fleet.Service is one.
type Fleet interface {
	// TakeDown writes the override of t once this host has a permit. If ctx ends before the override is written, nothing
	// is written and the permit goes back.
	TakeDown(ctx context.Context, t fleet.Takedown, p fleet.Progress) error
}

// Spool has the override files of this host; *spool.Dir is one.
type Spool interface {
	Read(k spool.Key) (spool.Entry, error)
	Remove(k spool.Key) error
}

// Overrides lists the overrides in force, from the spool and from the fleet; *spool.Index does.
type Overrides interface {
	List() []spool.Entry
}

// Options are the parts that a Handler works with. All but LogLimit are required.
type Options struct {
	Fleet     Fleet
	Spool     Spool
	Overrides Overrides
	Balancers func() balancer.Report // about all services, with the requests of all clients
	Log       *slog.Logger
	LogLimit  *loglimit.Limiter // limits the lines that clients can cause; nil: they are not limited
}

// Handler is the http.Handler of both paths. It is safe for concurrent use.
type Handler struct {
	Options
	requests chan struct{} // has an element for each request under way
	// changing is held while the override is set or lifted, so that a steady-state that comes after a pre-reboot lifts
	// its override.
	changing chan struct{}
}

// New returns a Handler.
func New(o Options) *Handler {
	return &Handler{Options: o, requests: make(chan struct{}, maxRequests), changing: make(chan struct{}, 1)}
}

// client is the program that asks, by the names that it gives itself. They mean nothing to the fleet, which knows this
// host by its own name.
type client struct {
	ID    string `json:"id"`
	Group string `json:"group"`
}

// failure is an answer other than 200. The protocol has it as JSON.
type failure struct {
	code  int
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// ServeHTTP answers one request. It answers pre-reboot when the balancers have the host out, which may take as long as
// the longest session.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, fail := h.parse(w, r)
	if fail == nil {
		select {
		case h.requests <- struct{}{}:
			defer func() { <-h.requests }()
		default:
			fail = unavailable("too many requests at once")
		}
	}
	if fail == nil {
		if r.URL.Path == PreRebootPath {
			fail = h.preReboot(r.Context(), c)
		} else {
			fail = h.steadyState(r.Context(), c)
		}
		// The server's limit is that of a check, and is over by now.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	}
	if fail != nil {
		h.logFailure(r, fail)
		fail.write(w)
		return
	}
	w.Header()["Content-Length"] = []string{"0"}
	w.WriteHeader(http.StatusOK)
}

// parse reads the request. It reads the whole body: net/http notices only then that the client closes the connection.
func (h *Handler) parse(w http.ResponseWriter, r *http.Request) (client, *failure) {
	if !clients.AddrOrZero(clients.HostPart(r.RemoteAddr)).IsLoopback() {
		return client{}, &failure{http.StatusForbidden, "forbidden", "only clients on this machine may ask, over its loopback address"}
	}
	if r.Method != http.MethodPost {
		w.Header()["Allow"] = []string{http.MethodPost}
		return client{}, &failure{http.StatusMethodNotAllowed, "method_not_allowed", "method not allowed here; allowed: POST"}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site != "" && site != "none" {
		return client{}, &failure{http.StatusForbidden, "forbidden", "this is not for web pages"}
	}
	if r.Header.Get("Fleet-Lock-Protocol") != "true" {
		return client{}, badRequest(`the request has no header "fleet-lock-protocol: true"`)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return client{}, badRequest("the body cannot be read: " + err.Error())
	}
	var doc struct {
		Params client `json:"client_params"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return client{}, badRequest("the body is no JSON object of the protocol: " + err.Error())
	}
	if doc.Params.ID == "" || doc.Params.Group == "" {
		return client{}, badRequest(`the body names no client: want {"client_params": {"id": "...", "group": "..."}}`)
	}
	return client{textfmt.Excerpt(doc.Params.ID, maxName), textfmt.Excerpt(doc.Params.Group, maxName)}, nil
}

func badRequest(text string) *failure {
	return &failure{http.StatusBadRequest, "bad_request", text}
}

func refused(text string) *failure { return &failure{http.StatusConflict, "refused", text} }

func unavailable(text string) *failure {
	return &failure{http.StatusServiceUnavailable, "unavailable", text}
}

// failureOf returns the answer for an error of the fleet, or nil for none.
func failureOf(err error) *failure {
	var refusal *fleet.RefusedError
	var noEtcd *fleet.UnavailableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refused(refusal.Reason)
	case errors.As(err, &noEtcd):
		return unavailable(noEtcd.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable("the request was cut off: " + err.Error())
	}
	return &failure{http.StatusInternalServerError, "internal", err.Error()}
}

// write answers with f.
func (f *failure) write(w http.ResponseWriter) {
	f.Value = textfmt.OneLine(f.Value)
	body, err := json.Marshal(f)
	if err != nil { // two strings always marshal
		body = []byte(`{"kind":"internal","value":""}`)
	}
	body = textfmt.EscapeJSON(body)
	h := w.Header()
	h["Content-Type"] = []string{"application/json; charset=utf-8"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(f.code)
	_, _ = w.Write(body) // a client that has hung up needs no answer
}

// logFailure logs a failure, within the limits for one client.
func (h *Handler) logFailure(r *http.Request, f *failure) {
	const message = "FleetLock request failed"
	network := clients.NetworkOf(clients.HostPart(r.RemoteAddr)).String()
	if h.LogLimit.AllowOnce(loglimit.Client, network, message, f.Value) {
		h.Log.Warn(message, "peer", r.RemoteAddr, "path", r.URL.Path, "code", f.code, "why", textfmt.OneLine(f.Value))
	}
}
