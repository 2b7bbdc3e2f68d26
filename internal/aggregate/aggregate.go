// Package aggregate is the door of gruntwork's health-checker: many checks behind one URL, any URL, of a
// listener of their own. 200 and "OK" while all of them pass, a code of choice and what failed otherwise.
package aggregate

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"hacheck/internal/health"
)

// DefaultFailureCode is what health-checker answers when something failed.
const DefaultFailureCode = http.StatusGatewayTimeout

// failed begins the body of a failure, in the words of health-checker.
const failed = "At least one health check failed"

// Handler answers every request with the state of one service. Judge must be set.
type Handler struct {
	// Judge asks; it is called for each request.
	Judge       func(ctx context.Context) health.Verdict
	FailureCode int // 0 is DefaultFailureCode
	Log         *slog.Logger
}

// answer is the JSON document for clients that accept it.
type answer struct {
	Healthy bool     `json:"healthy"`
	State   string   `json:"state,omitempty"`  // what an operator has said: up, drain, down or maint
	Reason  string   `json:"reason,omitempty"` // why, when something is wrong
	Checks  []result `json:"checks,omitempty"`
}

type result struct {
	Name    string  `json:"name"`
	Healthy bool    `json:"healthy"`
	Message string  `json:"message"`
	Seconds float64 `json:"seconds"`
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	v := h.Judge(r.Context())
	healthy := v.Result.Code == http.StatusOK
	code := http.StatusOK
	if !healthy {
		code = DefaultFailureCode
		if h.FailureCode != 0 {
			code = h.FailureCode
		}
	}
	if acceptsJSON(r) {
		h.json(w, v, healthy, code)
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

func (h *Handler) json(w http.ResponseWriter, v health.Verdict, healthy bool, code int) {
	a := answer{Healthy: healthy, State: v.State.String()}
	if !healthy {
		a.Reason = string(v.Result.Body)
	}
	for _, p := range v.Result.Parts {
		a.Checks = append(a.Checks, result{
			Name: p.Name, Healthy: p.Result.Code == http.StatusOK,
			Message: string(p.Result.Body), Seconds: p.Result.Took.Seconds(),
		})
	}
	b, err := json.Marshal(a)
	if err != nil { // of strings and numbers: cannot happen
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

func acceptsJSON(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept") {
		if strings.Contains(v, "application/json") {
			return true
		}
	}
	return false
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
		ReadTimeout:                  headTimeout,
		WriteTimeout:                 checkTimeout + 2*headTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               64 << 10,
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
	}
}
