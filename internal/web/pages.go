package web

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/cache"
	"hacheck/internal/sockdiag"
	"hacheck/internal/spool"
)

// pages are the documents that all clients share; see sharedPage.
type pages struct {
	overview  *sharedPage[[]byte]
	text      *sharedPage[overviewText]
	recent    *sharedPage[recentDoc]
	count     *sharedPage[[]byte]
	balancers *sharedPage[[]byte]
	// connections is balancers with what the kernel knows of connections.
	connections *sharedPage[[]byte]
	// metrics is plain and, for clients that accept it, compressed. A client can choose nothing else: for each further
	// format the figures would have to be collected once more.
	metrics [2]*sharedPage[*capturedAnswer]
}

// newPages returns the shared pages of s. One of them is made at a time.
func (s *Server) newPages() pages {
	turn := newChanMutex()
	p := pages{
		overview: newSharedPage(s, "/overview", turn, func() ([]byte, error) {
			var b bytes.Buffer
			err := s.buildOverview().writeJSON(&b)
			return b.Bytes(), err
		}),
		text: newSharedPage(s, "/", turn, func() (overviewText, error) {
			o := s.buildOverview()
			return overviewText{o.appendText(nil), o.empty()}, nil
		}),
		recent: newSharedPage(s, "/recent", turn, s.recent.doc),
		count: newSharedPage(s, "/status/count", turn, func() ([]byte, error) {
			return marshal(map[string]any{"service_access_counts": s.recent.counts()})
		}),
		balancers:   newSharedPage(s, "/balancers", turn, func() ([]byte, error) { return marshal(s.balancers("")) }),
		connections: newSharedPage(s, "/balancers?connections=1", turn, func() ([]byte, error) { return marshal(s.withConnections("")) }),
	}
	for i, encoding := range []string{"identity", "gzip"} {
		p.metrics[i] = newSharedPage(s, "/metrics", turn, func() (*capturedAnswer, error) { return capture(s.metrics, encoding), nil })
		p.metrics[i].shortInterval = true
	}
	return p
}

// status answers /status: the counters of the original, and some of hacheck's own.
func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.settings.Load().Evaluator.Stats()
	c := st.Cache
	hits := st.Answers[cache.Hit]
	misses := st.Answers[cache.Miss] + st.Answers[cache.Shared] + st.Answers[cache.Bypass]
	writeJSON(w, map[string]any{
		"cache": map[string]uint64{
			"expirations": c.Expirations, "sets": c.Sets, "gets": hits + misses, "hits": hits, "misses": misses,
			"uncached": c.Uncached, "entries": uint64(c.Entries), "bytes": uint64(c.Bytes),
		},
		"uptime":                      time.Since(s.started).Seconds(),
		"outbound_request_queue_size": st.InFlight + st.Renewals.InFlight,
		"busy":                        st.Busy,
	})
}

// statusSpool answers /status/spool: which directory the overrides are read from. The commands request it.
func (s *Server) statusSpool(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, s.overrides.DirectoryStatus())
}

// statusCount answers /status/count: how often each client has asked about each service.
func (s *Server) statusCount(w http.ResponseWriter, r *http.Request) {
	servePage(s, w, r, s.pages.count, func(body []byte) { writeBody(w, jsonType, body) })
}

// recentPage answers /recent?threshold=SECONDS: the last answer about each service that was asked about since. All
// clients share the rows; the threshold only chooses among them.
func (s *Server) recentPage(w http.ResponseWriter, r *http.Request) {
	threshold := recentFor.Seconds()
	if v, ok := r.URL.Query()["threshold"]; ok {
		f, err := strconv.ParseFloat(v[len(v)-1], 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			writeText(w, http.StatusBadRequest, "threshold must be a number of seconds, as in /recent?threshold=60")
			return
		}
		threshold = f
	}
	servePage(s, w, r, s.pages.recent, func(doc recentDoc) { writeRecent(w, &doc, threshold) })
}

func writeRecent(w http.ResponseWriter, doc *recentDoc, threshold float64) {
	tail, err := json.Marshal(threshold)
	if err != nil {
		writeError(w, err)
		return
	}
	parts := [][]byte{[]byte(`{"seen_services":[`)}
	if threshold > 0 {
		const century = 100 * 365 * 24 * 3600.0
		since := time.Duration(math.Min(threshold, century) * float64(time.Second))
		parts = doc.appendSince(parts, time.Now().Add(-since))
	}
	parts = append(parts, []byte(`],"threshold_seconds":`), tail, []byte("}"))
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(length)}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return // the client has hung up, or reads too slowly
		}
	}
}

// balancersPage answers /balancers[?service=NAME][&connections=1]: which balancers ask, what they are answered, and how
// they see the servers; with connections=1 also what the kernel knows of connections to the servers of this machine.
func (s *Server) balancersPage(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	report, page := s.balancers, s.pages.balancers
	if query.Get("connections") == "1" {
		report, page = s.withConnections, s.pages.connections
	}
	v, ok := query["service"]
	if !ok {
		servePage(s, w, r, page, func(body []byte) { writeBody(w, jsonType, body) })
		return
	}
	service := v[len(v)-1]
	if !spool.ValidService(service) {
		writeText(w, http.StatusBadRequest, "service must be the name of a service, as in /balancers?service=web")
		return
	}
	s.reportReaders.serve(w, r, func() {
		body, err := recoverPanics(s, "/balancers", func() ([]byte, error) {
			s.reportLock.Lock() // one report is made at a time
			defer s.reportLock.Unlock()
			return marshal(report(service))
		})()
		if err != nil {
			writeError(w, err)
			return
		}
		limitReadTime(w)
		writeBody(w, jsonType, body)
	})
}

// withConnections returns the report of balancers with the connections to the servers of this machine that the kernel
// knows.
func (s *Server) withConnections(service string) balancer.Report {
	report := s.balancers(service)
	ports := report.LocalPorts()
	if len(ports) == 0 {
		return report
	}
	list, err := sockdiag.Established(ports)
	if err != nil {
		report.ConnectionsError = err.Error()
	}
	for _, c := range list {
		peer := ""
		if c.Peer.IsValid() {
			peer = c.Peer.String()
		}
		report.Connections = append(report.Connections, balancer.Connection{Local: c.Local.String(), Port: c.Port, Peer: peer, Count: c.Count})
	}
	return report
}

// balancers returns the report about one service, or about all if it is "".
func (s *Server) balancers(service string) balancer.Report {
	report := s.recent.balancers.Report(service)
	report.AgentOnly = s.settings.Load().AgentOnly
	var since time.Time // when the row of the service was made
	if row := s.recent.get(service); row != nil {
		since = row.since
	}
	report.Unrecorded = append(report.Unrecorded, s.recent.balancers.UnrecordedOverflow(since)...)
	now := time.Now()
	for _, row := range s.recent.since(now.Add(-recentFor), service) {
		report.Services = append(report.Services, balancer.LastRequest{Service: row.service, Age: max(now.Sub(row.at), 0).Seconds()})
	}
	return report
}

// BalancerReport returns the report about all services, as /balancers has it.
func (s *Server) BalancerReport() balancer.Report { return s.balancers("") }

// metricsPage answers /metrics.
func (s *Server) metricsPage(w http.ResponseWriter, r *http.Request) {
	p := s.pages.metrics[0]
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		if part = strings.TrimSpace(part); part == "gzip" || strings.HasPrefix(part, "gzip;") {
			p = s.pages.metrics[1]
		}
	}
	servePage(s, w, r, p, func(a *capturedAnswer) {
		maps.Copy(w.Header(), a.header)
		w.Header()["Content-Length"] = []string{strconv.Itoa(a.body.Len())}
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body.Bytes()) // a client that has hung up needs no answer
	})
}

// capturedAnswer is an http.ResponseWriter that keeps the answer of a handler.
type capturedAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// capture returns the answer of h to a GET of a client that accepts that encoding.
func capture(h http.Handler, encoding string) *capturedAnswer {
	a := &capturedAnswer{header: http.Header{}, code: http.StatusOK}
	h.ServeHTTP(a, &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/metrics"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept-Encoding": {encoding}},
	})
	return a
}

// Header implements http.ResponseWriter.
func (a *capturedAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *capturedAnswer) WriteHeader(code int) { a.code = code }

// Write implements http.ResponseWriter.
func (a *capturedAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }
