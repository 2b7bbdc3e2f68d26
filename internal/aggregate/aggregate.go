// Package aggregate is the door of gruntwork's health-checker: many checks behind one URL, any URL, of a
// listener of their own. 200 and "OK" while all of them pass, a code of choice and what failed otherwise.
package aggregate

import (
	"cmp"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/health"
)

// DefaultFailureCode is what health-checker answers when something failed.
const DefaultFailureCode = http.StatusGatewayTimeout

// failed begins the body of a failure, in the words of health-checker.
const failed = "At least one health check failed"

// Handler answers every request with the state of one service. Judge must be set.
type Handler struct {
	// Evaluate asks; it is called for each request, with the checks that the request came through (check.HopsHeader).
	Evaluate    func(hops uint8) health.Verdict
	FailureCode func() int // nil, or one that returns 0: DefaultFailureCode
	// OnAnswer is told of each request and its answer; nil: nobody is.
	OnAnswer func(r *http.Request, v *health.Verdict, code int)
	Log      *slog.Logger
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w.Header().Set("X-Content-Type-Options", "nosniff") // part of the text comes from services
	v := h.Evaluate(check.WorstHops(r.Header[check.HopsHeader]))
	healthy := v.Result.Code == http.StatusOK
	code := http.StatusOK
	if !healthy {
		code = DefaultFailureCode
		if h.FailureCode != nil {
			code = cmp.Or(h.FailureCode(), code)
		}
	}
	if h.OnAnswer != nil {
		h.OnAnswer(r, &v, code)
	}
	if strings.Contains(strings.Join(r.Header["Accept"], ","), "application/json") {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(v.JSON())
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(text(v, healthy))
	}
	if h.Log != nil {
		h.Log.Debug("answered", "peer", r.RemoteAddr, "uri", r.URL.Path, "code", code, "took", time.Since(began))
	}
}

func text(v health.Verdict, healthy bool) []byte {
	switch {
	case healthy:
		return []byte("OK")
	case v.Override != nil:
		return v.Result.Body
	}
	return append([]byte(failed+"\n"), v.Result.Body...)
}

const (
	headTimeout = 10 * time.Second // for a request to arrive
	idleTimeout = 75 * time.Second
)

// Server returns a server for h with every limit set. checkTimeout is how long an answer may take to be
// found.
func Server(h *Handler, checkTimeout time.Duration) *http.Server {
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            headTimeout,
		ReadTimeout:                  headTimeout,
		WriteTimeout:                 checkTimeout + 2*headTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               64 << 10,
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
	}
}
