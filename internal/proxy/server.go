// Package proxy is the HTTP door: check URLs for load balancers, and the pages that say what the daemon
// has seen. It translates requests into asks and verdicts into answers; it decides nothing itself.
package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
)

// Settings are what a reload of the configuration may change.
type Settings struct {
	Evaluator     *health.Evaluator
	Checks        check.Set
	CheckHost     string   // where checks go when no header says otherwise
	HeadersToCopy []string // in any letter case
	Remote        Remote
	// StatusAllowed are the clients that may see what is no check, besides this machine. Nil is nobody else.
	StatusAllowed []netip.Prefix
	// AgentOnly says that Judge ignores overrides (-S); /balancers tells those who wait.
	AgentOnly bool
}

// Options are what a Server keeps for life.
type Options struct {
	Log       *slog.Logger
	Balancers *balancer.Table // told of every check request
	Metrics   http.Handler    // the page at /metrics
	Overrides Overrides       // for the page
	// LogLimit limits the lines that a client can cause; nil: they are not limited.
	LogLimit *loglimit.Limiter
	// Conns bounds the connections of every listener of the process; nil: one with its default bounds.
	Conns *clients.ConnLimiter
}

// Server is the http.Handler of the door. It is safe for concurrent use.
type Server struct {
	log       *slog.Logger
	metrics   http.Handler
	started   time.Time
	settings  atomic.Pointer[Settings]
	routes    atomic.Pointer[chi.Mux]
	recent    *recent
	overrides Overrides
	hosts     health.LocalAddrs
	date      dates
	limit     *loglimit.Limiter
	conns     *clients.ConnLimiter
	refused   atomic.Uint64 // remote spool changes

	pages         pages
	readers       readers    // of pages
	reportReaders readers    // of the report about one service
	reportTurn    sync.Mutex // held by the report that is made
}

// New returns a Server that answers by s.
func New(o Options, s Settings) *Server {
	srv := &Server{
		log: o.Log, limit: o.LogLimit, metrics: o.Metrics, started: time.Now(), recent: newRecent(o.Balancers), overrides: o.Overrides, conns: o.Conns,
	}
	if srv.conns == nil {
		srv.conns = clients.NewConnLimiter(clients.ConnLimits{})
	}
	srv.sharePages()
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
	page := func(path string, h http.HandlerFunc) {
		m.Get(path, s.forPeople(h))
		m.Head(path, s.forPeople(h))
	}
	page("/status", s.status)
	page("/status/count", s.statusCount)
	page("/status/spool", s.statusSpool)
	page("/recent", s.recentPage)
	page("/balancers", s.balancersPage)
	if s.metrics != nil {
		page("/metrics", s.metricsPage)
	}
	page("/overview", s.overviewPage)
	page("/", s.index)
	m.NotFound(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			notCheckURL(w, r)
			return
		}
		notFound(w)
	})
	m.MethodNotAllowed(notCheckURL)

	s.settings.Store(&set)
	s.routes.Store(m)
}

// forPeople keeps a balancer from taking a page for a check: what sends the state of a server means a
// check URL, and has it wrong. And it keeps out whom status_allowed does not name.
func (s *Server) forPeople(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header[stateHeader] != nil {
			notFound(w)
			return
		}
		if caller := hostOf(r.RemoteAddr); !s.statusAllowed(caller) {
			sentence(w, http.StatusForbidden, caller+" may not see this: add it to status_allowed in hacheck's configuration")
			return
		}
		page(w, r)
	}
}

func (s *Server) statusAllowed(caller string) bool {
	a, err := netip.ParseAddr(caller)
	if err != nil {
		return false
	}
	a = a.WithZone("").Unmap()
	return contains(s.settings.Load().StatusAllowed, a) || s.hosts.Contains(a)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// notCheckURL answers what has no meaning outside check URLs, above all the "OPTIONS /" of a plain
// "option httpchk".
func notCheckURL(w http.ResponseWriter, r *http.Request) {
	if r.Header[stateHeader] != nil {
		notFound(w)
		return
	}
	notAllowed(w, "GET, HEAD")
}

// ServeHTTP answers one request. Every answer tells browsers to take its Content-Type as it is: a body may come from a
// service, and text must not become a page of this origin.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["X-Content-Type-Options"] = nosniff
	// A request line may begin with more than one slash; some balancers are configured so.
	if strings.HasPrefix(r.RequestURI, "//") {
		r.RequestURI = "/" + strings.TrimLeft(r.RequestURI, "/")
		r.URL.Path = "/" + strings.TrimLeft(r.URL.Path, "/")
		if r.URL.RawPath != "" {
			r.URL.RawPath = "/" + strings.TrimLeft(r.URL.RawPath, "/")
		}
	}
	// chi takes the context of its routing from the connection (see ConnContext), which saves a copy of
	// the request each time.
	if c, ok := r.Context().Value(chi.RouteCtxKey).(*chi.Context); ok {
		c.Reset()
	}
	s.routes.Load().ServeHTTP(w, r)
}

// Limits of the server. HAProxy asks in one packet and reads at once; whoever needs longer than these is
// broken or means harm.
const (
	headTimeout  = 10 * time.Second // for a request to arrive
	idleTimeout  = 75 * time.Second // between two requests on a connection
	maxHeadBytes = 64 << 10
	maxFormBytes = 64 << 10
)

// HTTPServer returns a server for s with every limit set. checkTimeout is how long an answer may take to
// be found; writing it may take headTimeout more.
func (s *Server) HTTPServer(checkTimeout time.Duration) *http.Server {
	return &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true, // OPTIONS * must not look healthy
		ReadHeaderTimeout:            headTimeout,
		ReadTimeout:                  headTimeout,
		WriteTimeout:                 checkTimeout + 2*headTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeadBytes,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, chi.RouteCtxKey, chi.NewRouteContext())
		},
	}
}
