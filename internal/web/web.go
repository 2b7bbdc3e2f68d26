// Package web serves the pages about the daemon: /, /overview, /status, /recent, /balancers, /fleet and /metrics. For these
// pages it records the answers of the endpoints, and which of the clients are balancers. It answers no check.
package web

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"hacheck/internal/balancer"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// Overrides returns the overrides in force. *spool.Index implements it.
type Overrides interface {
	List() []spool.Entry     // in force now, by name
	Weights() []spool.Weight // in force now, by name
	Stats() spool.Stats
	DirectoryStatus() spool.DirectoryStatus
}

// Settings are what a reload of the configuration may change.
type Settings struct {
	Evaluator *health.Evaluator // for its statistics
	// StatusAllowed are the clients that may read the pages. This machine always may; nil allows no other client.
	StatusAllowed []netip.Prefix
	// AgentOnly says that Evaluator ignores overrides (-S). /balancers reports it to hadown --wait.
	AgentOnly bool
	// NoFleet says that this host is in no fleet now, although there is Options.Fleet.
	NoFleet bool
}

// Options are the parts of a Server that a reload does not change.
type Options struct {
	Log       *slog.Logger
	Balancers *balancer.Table // gets every recorded request
	Overrides Overrides
	Metrics   http.Handler // the page at /metrics; nil for none
	Fleet     Fleet        // for the page at /fleet; nil for none
	// Certificate returns when the certificate of tls_listen expires, the zero time without one, and whether its files have
	// changed and cannot be used. It may be nil.
	Certificate func() (expires time.Time, broken bool)
	// LogLimit limits the lines that a client can cause; nil: they are not limited.
	LogLimit *loglimit.Limiter
}

// Server is the http.Handler of the pages. It is safe for concurrent use.
type Server struct {
	log       *slog.Logger
	limit     *loglimit.Limiter
	metrics   http.Handler
	overrides Overrides
	started   time.Time
	cert      func() (expires time.Time, broken bool) // Options.Certificate
	settings  atomic.Pointer[Settings]
	recent    *recentTable
	local     clients.LocalAddrs
	routes    *chi.Mux

	configuredFleet *fleetPage // nil without Options.Fleet; see fleet
	pages           pages
	readers         pageLimiter // of pages
	reportReaders   pageLimiter // of the report about one service
	reportLock      sync.Mutex  // held while a report about one service is made
}

// New returns a Server with these settings.
func New(o Options, s Settings) *Server {
	srv := &Server{
		log: o.Log, limit: o.LogLimit, metrics: o.Metrics, cert: o.Certificate, overrides: o.Overrides, started: time.Now(),
		recent: newRecentTable(o.Balancers),
	}
	srv.pages = srv.newPages()
	if o.Fleet != nil {
		srv.configuredFleet = newFleetPage(srv, o.Fleet)
	}
	srv.routes = srv.newRoutes()
	srv.SetSettings(s)
	return srv
}

// SetSettings puts new settings in force for the requests that come from now on.
func (s *Server) SetSettings(set Settings) { s.settings.Store(&set) }

func (s *Server) newRoutes() *chi.Mux {
	m := chi.NewMux()
	for path, page := range map[string]http.HandlerFunc{
		"/":             s.index,
		"/overview":     s.overviewPage,
		"/status":       s.status,
		"/status/count": s.statusCount,
		"/status/spool": s.localOnly(s.statusSpool),
		"/recent":       s.recentPage,
		"/balancers":    s.balancersPage,
		"/fleet":        s.fleetPage,
		"/metrics":      s.metricsPage,
	} {
		if path != "/metrics" || s.metrics != nil {
			m.Get(path, s.statusOnly(page))
			m.Head(path, s.statusOnly(page))
		}
	}
	m.NotFound(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			notAllowed(w, r)
			return
		}
		notFound(w)
	})
	m.MethodNotAllowed(notAllowed)
	return m
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The request may come from another chi router, whose context would be used again.
	if c, ok := r.Context().Value(chi.RouteCtxKey).(*chi.Context); ok {
		c.Reset()
	}
	s.routes.ServeHTTP(w, r)
}

// RecordRequest records that a client asks about a service, before a check runs for the answer.
func (s *Server) RecordRequest(service, client string, at time.Time) {
	s.recent.getOrCreate(service, client, at)
}

// RecordAnswer records a request and its answer. It keeps none of the memory of r and v.
func (s *Server) RecordAnswer(service string, r balancer.AnsweredRequest, v health.Verdict) {
	s.recent.record(service, &r, &v)
}

// RecordEndpointAnswer records an answer of another endpoint. url identifies the question among others about the service.
func (s *Server) RecordEndpointAnswer(service, url string, r *http.Request, v *health.Verdict, code int) {
	var state balancer.SentState
	for _, header := range r.Header[balancer.StateHeader] {
		state.Add(header)
	}
	s.recent.record(service, &balancer.AnsweredRequest{
		Peer: clients.HostPart(r.RemoteAddr), HasState: state.Sent, State: state.Header, Node: state.Node, Name: state.Name,
		URL: url, Host: "127.0.0.1", Local: true, Code: code, Override: v.OverrideState, Answered: time.Now(),
	}, v)
}

// Header values that every answer shares. net/http only reads them.
var (
	textType = []string{"text/plain; charset=utf-8"}
	jsonType = []string{"application/json; charset=utf-8"}
	htmlType = []string{"text/html; charset=utf-8"}
)

// writeText answers with one line.
func writeText(w http.ResponseWriter, code int, text string) {
	w.Header()["Content-Type"] = textType
	w.WriteHeader(code)
	_, _ = io.WriteString(w, textfmt.OneLine(text))
}

func notFound(w http.ResponseWriter) {
	writeText(w, http.StatusNotFound, "Not found. A check URL is /<protocol>/<service>/<port>/<query>, as in /http/web/8080/status")
}

// notAllowed answers a method that no page has, above all the "OPTIONS /" of a plain "option httpchk".
func notAllowed(w http.ResponseWriter, r *http.Request) {
	if r.Header[balancer.StateHeader] != nil {
		notFound(w)
		return
	}
	const allow = "GET, HEAD"
	w.Header()["Allow"] = []string{allow}
	writeText(w, http.StatusMethodNotAllowed, "Method not allowed here; allowed: "+allow)
}

// writeBody writes the whole body of a page. net/http does not copy a body of known length.
func writeBody(w http.ResponseWriter, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body) // a client that has hung up needs no answer
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := marshal(v)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(b)
}

// marshal returns v as JSON that a terminal may show.
func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return textfmt.EscapeJSON(b), err
}

// writeError answers a request for a page that cannot be made.
func writeError(w http.ResponseWriter, err error) {
	writeText(w, http.StatusInternalServerError, "Cannot write this page: "+err.Error())
}
