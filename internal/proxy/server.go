// Package proxy is the HTTP endpoint of load balancers: it answers the check URLs and POST /spool, and passes all other
// requests on to the pages. It translates requests into questions to package health and verdicts into answers; it
// decides nothing itself. Package fastpath answers most requests of balancers without net/http.
package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/httpserver"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/textfmt"
)

// Settings are what a reload of the configuration may change.
type Settings struct {
	Evaluator     *health.Evaluator
	Checks        check.Set
	CheckHost     string   // where checks go when no header says otherwise
	HeadersToCopy []string // in any letter case
	Remote        Remote
}

// Recorder records check requests; *web.Server implements it. It must clone the strings that it keeps.
type Recorder interface {
	// RecordRequest records that a client asks about a service, before a check runs for the answer.
	RecordRequest(service, client string, at time.Time)
	// RecordAnswer records a request and its answer.
	RecordAnswer(service string, r balancer.AnsweredRequest, v health.Verdict)
}

// Options are what a Server keeps for life.
type Options struct {
	Log      *slog.Logger
	Recorder Recorder
	Pages    http.Handler // answers all requests but those of check URLs, POST /spool and FleetLock
	// FleetLock answers the requests of the FleetLock protocol; nil: Pages answers them too.
	FleetLock http.Handler
	// LogLimit limits the lines that a client can cause; nil: they are not limited.
	LogLimit *loglimit.Limiter
	// Conns bounds the connections of every listener of the process; nil: one with its default bounds.
	Conns *clients.ConnLimiter
	// ProxyFrom returns the networks of the peers whose PROXY line names the client; nil for none.
	ProxyFrom func() []netip.Prefix
}

// Server is the http.Handler of the endpoint. It is safe for concurrent use.
type Server struct {
	log      *slog.Logger
	limit    *loglimit.Limiter
	recorder Recorder
	pages    http.Handler
	lock     http.Handler // of the FleetLock protocol; nil for none
	conns    *clients.ConnLimiter
	from     func() []netip.Prefix // Options.ProxyFrom
	settings atomic.Pointer[Settings]
	routes   atomic.Pointer[chi.Mux]
	local    clients.LocalAddrs
	date     fastpath.Date
	refused  atomic.Uint64 // remote spool changes
}

// New returns a Server with these settings.
func New(o Options, s Settings) *Server {
	srv := &Server{log: o.Log, limit: o.LogLimit, recorder: o.Recorder, pages: o.Pages, lock: o.FleetLock, conns: o.Conns, from: o.ProxyFrom}
	if srv.conns == nil {
		srv.conns = clients.NewConnLimiter(clients.ConnLimits{})
	}
	srv.SetSettings(s)
	return srv
}

// SetSettings puts new settings in force for the requests that come from now on.
func (s *Server) SetSettings(set Settings) {
	names := make([]string, len(set.HeadersToCopy))
	for i, n := range set.HeadersToCopy {
		names[i] = textproto.CanonicalMIMEHeaderKey(n)
	}
	set.HeadersToCopy = names

	m := chi.NewMux()
	for _, p := range set.Checks {
		m.Handle("/"+p.Name+"/*", s.checkHandler(p))
	}
	m.Post("/spool/*", s.changeSpool)
	if s.lock != nil {
		for _, path := range []string{"/v1/pre-reboot", "/v1/steady-state"} { // no check protocol has the name v1
			m.Handle(path, s.lock)
		}
	}
	m.NotFound(s.pages.ServeHTTP)
	m.MethodNotAllowed(s.pages.ServeHTTP) // for methods that chi does not know

	s.settings.Store(&set)
	s.routes.Store(m)
}

// RefusedSpoolChanges returns how many remote spool changes were refused.
func (s *Server) RefusedSpoolChanges() uint64 { return s.refused.Load() }

// ServeHTTP answers one request. Every answer tells browsers to believe its Content-Type: a body may come from a
// service, and text must not become a page of this origin.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["X-Content-Type-Options"] = nosniff
	// Some balancers are configured with more than one slash at the beginning.
	if strings.HasPrefix(r.RequestURI, "//") {
		r.RequestURI = "/" + strings.TrimLeft(r.RequestURI, "/")
		r.URL.Path = "/" + strings.TrimLeft(r.URL.Path, "/")
		if r.URL.RawPath != "" {
			r.URL.RawPath = "/" + strings.TrimLeft(r.URL.RawPath, "/")
		}
	}
	// chi takes its routing context from the connection (see HTTPServer), which saves a copy of each request. The streams
	// of an HTTP/2 connection are answered at once, so each needs one of its own.
	if r.ProtoMajor == 2 {
		r = r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, chi.NewRouteContext()))
	} else if c, ok := r.Context().Value(chi.RouteCtxKey).(*chi.Context); ok {
		c.Reset()
	}
	s.routes.Load().ServeHTTP(w, r)
}

// maxFormBytes bounds the arguments of POST /spool.
const maxFormBytes = 64 << 10

// HTTPServer returns a server for s with every limit set. checkTimeout is how long an answer may take to be found.
func (s *Server) HTTPServer(checkTimeout time.Duration) *http.Server {
	srv := httpserver.New(httpserver.Options{Handler: s, AnswerTimeout: checkTimeout, Log: s.log, Conns: s.conns})
	srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, chi.RouteCtxKey, chi.NewRouteContext())
	}
	return srv
}

// NewRequest returns the request of one connection, for the fast path.
func (s *Server) NewRequest() fastpath.Request { return &checkRequest{server: s} }

// Listener wraps ln for the server that HTTPServer returns: plain check requests take the fast path, and HAProxy's
// requests without a Host line reach net/http with one. The returned listener closes ln.
func (s *Server) Listener(ln net.Listener) net.Listener {
	return fastpath.Listen(ln, s.listenOptions())
}

// TLSListener is Listener for connections by TLS.
func (s *Server) TLSListener(ln net.Listener, c *tls.Config) net.Listener {
	o := s.listenOptions()
	o.TLS = c
	return fastpath.ListenPlain(ln, o)
}

func (s *Server) listenOptions() fastpath.Options {
	return fastpath.Options{
		NewRequest: s.NewRequest, Conns: s.conns, IdleTimeout: httpserver.IdleTimeout,
		ProxyFrom: s.from, OnRefused: s.LogRefused,
	}
}

// LogRefused logs that a connection ended before its first request.
func (s *Server) LogRefused(client, why string) {
	const message = "a connection ended before its first request"
	if s.limit.AllowOnce(loglimit.Client, clients.NetworkOf(client).String(), message, why) {
		s.log.Warn(message, "client", client, "err", textfmt.Excerpt(why, 200))
	}
}
