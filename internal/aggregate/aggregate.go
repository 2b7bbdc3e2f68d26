// Package aggregate answers every URL of a listener with the state of all checks of one service, as gruntwork's
// health-checker does. The answer is 200 and "OK" while all of them pass, else a configured code and the failed checks.
package aggregate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/httpserver"
	"hacheck/internal/textfmt"
)

// DefaultFailureCode is the code of health-checker for a failure.
const DefaultFailureCode = http.StatusGatewayTimeout

// failedLine is the first line of a failure's body, as health-checker writes it.
const failedLine = "At least one health check failed"

// Handler answers every request with the state of one service. Evaluate must be set.
type Handler struct {
	// Evaluate returns the state. hops is the number of checks that the request came through (check.HopsHeader).
	Evaluate    func(hops uint8) health.Verdict
	FailureCode func() int // nil, or a result of 0, means DefaultFailureCode
	// OnAnswer is called with each request and its answer. It may be nil.
	OnAnswer func(r *http.Request, v *health.Verdict, code int)
	Log      *slog.Logger // for each request, at level debug; may be nil
	Detailed bool         // answer in the JSON of health-checker's --detailed-status
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
	if h.Detailed {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(detailedBody(v, healthy, time.Since(began)))
	} else if strings.Contains(strings.Join(r.Header["Accept"], ","), "application/json") {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(v.JSON())
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(textBody(v, healthy))
	}
	if h.Log != nil {
		h.Log.Debug("answered", "peer", r.RemoteAddr, "uri", r.URL.Path, "code", code, "took", time.Since(began))
	}
}

func textBody(v health.Verdict, healthy bool) []byte {
	switch {
	case healthy:
		return []byte("OK")
	case v.Override != nil:
		return v.Result.Body
	}
	return append([]byte(failedLine+"\n"), v.Result.Body...)
}

// detailedJSON is the answer of health-checker's --detailed-status.
type detailedJSON struct {
	Status  string   `json:"status"`       // OK, or the first line of the answer in text
	Elapsed string   `json:"elapsed_time"` // from the request to the result of the checks, "0.012s"
	Errors  []string `json:"errors,omitempty"`
}

func detailedBody(v health.Verdict, healthy bool, elapsed time.Duration) []byte {
	status, rest, _ := strings.Cut(string(textBody(v, healthy)), "\n")
	doc := detailedJSON{Status: status, Elapsed: fmt.Sprintf("%.3fs", elapsed.Seconds())}
	if rest != "" {
		doc.Errors = strings.Split(rest, "\n")
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil { // cannot happen: the document has only strings
		return []byte("{}")
	}
	return append(textfmt.EscapeJSON(b), '\n')
}

// Timeouts are the timeouts of a server. The zero value has the defaults.
type Timeouts struct {
	Read  time.Duration // for a request to arrive; 0: httpserver.HeadTimeout
	Write time.Duration // for the checks and the answer; 0: the check timeout and 20 s
	Idle  time.Duration // between two requests of a connection; 0: httpserver.IdleTimeout
}

// NewServer returns a server for h with every limit set. checkTimeout is how long h.Evaluate may take. conns limits the
// connections.
func NewServer(h *Handler, checkTimeout time.Duration, conns *clients.ConnLimiter, t Timeouts) *http.Server {
	s := httpserver.New(httpserver.Options{
		Handler: h, AnswerTimeout: checkTimeout, Log: slog.New(slog.DiscardHandler), Conns: conns,
	})
	s.ReadTimeout = cmp.Or(t.Read, s.ReadTimeout)
	s.ReadHeaderTimeout = s.ReadTimeout
	s.WriteTimeout, s.IdleTimeout = cmp.Or(t.Write, s.WriteTimeout), cmp.Or(t.Idle, s.IdleTimeout)
	return s
}
