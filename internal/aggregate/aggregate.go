// Package aggregate is the endpoint of gruntwork's health-checker: each URL of a listener answers with the state of all
// checks of one service. The answer is 200 and "OK" while all of them pass, else a configured code and what failed.
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

// DefaultFailureCode is the code of health-checker for a failure.
const DefaultFailureCode = http.StatusGatewayTimeout

// failed is the first line of a failure's body, as health-checker writes it.
const failed = "At least one health check failed"

// Handler answers every request with the state of one service. Evaluate must be set.
type Handler struct {
	// Evaluate returns the state. hops is the number of checks that the request came through (check.HopsHeader).
	Evaluate    func(hops uint8) health.Verdict
	FailureCode func() int // nil, or a result of 0, means DefaultFailureCode
	// OnAnswer is called with each request and its answer. It may be nil.
	OnAnswer func(r *http.Request, v *health.Verdict, code int)
	Log      *slog.Logger // for each request, at level debug; may be nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w.Header().Set("X-Content-Type-Options", "nosniff") // part of the text comes from services
	v := h.Evaluate(check.LargestHops(r.Header[check.HopsHeader]))
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

// Server returns a server for h with every limit set. checkTimeout is how long an answer may take to be found.
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
