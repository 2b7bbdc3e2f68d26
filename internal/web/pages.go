package proxy

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/cache"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// status answers /status: the counters of the original, and some of our own behind them.
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
		"outbound_request_queue_size": st.InFlight,
		"busy":                        st.Busy,
	})
}

// statusSpool answers /status/spool: which directory the overrides are read from. The commands ask, on this
// machine alone: elsewhere the path and the numbers mean nothing, and are nobody's business.
func (s *Server) statusSpool(w http.ResponseWriter, r *http.Request) {
	caller, err := netip.ParseAddr(hostOf(r.RemoteAddr))
	if err != nil || !s.hosts.Contains(caller.WithZone("").Unmap()) {
		sentence(w, http.StatusForbidden, "only this machine may see this")
		return
	}
	writeJSON(w, s.overrides.DirectoryStatus())
}

// pages are the documents that all clients share; see sharedPage.
type pages struct {
	overview  *sharedPage[[]byte]
	text      *sharedPage[overviewText]
	recent    *sharedPage[recentRows]
	count     *sharedPage[[]byte]
	balancers *sharedPage[[]byte]
	// metrics is plain and, for clients that accept it, compressed. That is all that a client may choose of it: for
	// each further format the figures would have to be gathered once more.
	metrics [2]*sharedPage[*recordedAnswer]
}

// sharePages sets up the pages of s.
func (s *Server) sharePages() {
	turn := newSemaphore()
	s.pages = pages{
		overview: newSharedPage(turn, func() ([]byte, error) {
			var b bytes.Buffer
			err := s.overview().writeJSON(&b)
			return b.Bytes(), err
		}),
		text: newSharedPage(turn, func() (overviewText, error) {
			o := s.overview()
			return overviewText{o.appendText(nil), o.empty()}, nil
		}),
		recent: newSharedPage(turn, s.recent.rows),
		count: newSharedPage(turn, func() ([]byte, error) {
			return marshal(map[string]any{"service_access_counts": s.recent.counts()})
		}),
		balancers: newSharedPage(turn, func() ([]byte, error) { return marshal(s.balancers("")) }),
	}
	for i, encoding := range []string{"identity", "gzip"} {
		s.pages.metrics[i] = newSharedPage(turn, func() (*recordedAnswer, error) { return record(s.metrics, encoding), nil })
		s.pages.metrics[i].cheap = true
	}
}

// statusCount answers /status/count: who has asked about which service how often.
func (s *Server) statusCount(w http.ResponseWriter, r *http.Request) {
	servePage(s, w, r, s.pages.count, func(body []byte) { writeBody(w, jsonType, body) })
}

// recentPage answers /recent?threshold=SECONDS: the last answer for each service asked about since. The rows are
// shared whatever the threshold, which only chooses among them.
func (s *Server) recentPage(w http.ResponseWriter, r *http.Request) {
	threshold := recentFor.Seconds()
	if v, ok := r.URL.Query()["threshold"]; ok {
		f, err := strconv.ParseFloat(v[len(v)-1], 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			sentence(w, http.StatusBadRequest, "threshold must be a number of seconds, as in /recent?threshold=60")
			return
		}
		threshold = f
	}
	servePage(s, w, r, s.pages.recent, func(rows recentRows) {
		tail, err := json.Marshal(threshold)
		if err != nil {
			cannotWrite(w, err)
			return
		}
		parts := [][]byte{[]byte(`{"seen_services":[`)}
		if threshold > 0 {
			const century = 100 * 365 * 24 * 3600.0
			since := time.Duration(math.Min(threshold, century) * float64(time.Second))
			parts = rows.since(parts, time.Now().Add(-since))
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
	})
}

// balancersPage answers /balancers[?service=NAME]: who asks, what they are told, and how they see the servers.
func (s *Server) balancersPage(w http.ResponseWriter, r *http.Request) {
	v, ok := r.URL.Query()["service"]
	if !ok {
		servePage(s, w, r, s.pages.balancers, func(body []byte) { writeBody(w, jsonType, body) })
		return
	}
	service := v[len(v)-1]
	if !spool.ValidService(service) {
		sentence(w, http.StatusBadRequest, "service must be the name of a service, as in /balancers?service=web")
		return
	}
	s.reportReaders.read(w, r, func() {
		body, err := s.reportOf(service)
		if err != nil {
			cannotWrite(w, err)
			return
		}
		limitReading(w)
		writeBody(w, jsonType, body)
	})
}

// reportOf is the document at /balancers about one service. One is made at a time.
func (s *Server) reportOf(service string) ([]byte, error) {
	s.reportTurn.Lock()
	defer s.reportTurn.Unlock()
	return marshal(s.balancers(service))
}

// balancers is the document at /balancers, about one service, or about all when it is "".
func (s *Server) balancers(service string) balancer.Report {
	report := s.recent.balancers.Report(service)
	report.AgentOnly = s.settings.Load().AgentOnly
	var since time.Time // when the row of the service was made
	if row := s.recent.services.get(service); row != nil {
		since = row.since
	}
	report.Unrecorded = append(report.Unrecorded, s.recent.balancers.OtherUnrecorded(since)...)
	now := time.Now()
	for _, row := range s.recent.since(now.Add(-recentFor), service) {
		report.Services = append(report.Services, balancer.LastRequest{Service: row.service, Ago: max(now.Sub(row.at), 0).Seconds()})
	}
	return report
}

// metricsPage answers /metrics.
func (s *Server) metricsPage(w http.ResponseWriter, r *http.Request) {
	p := s.pages.metrics[0]
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		if part = strings.TrimSpace(part); part == "gzip" || strings.HasPrefix(part, "gzip;") {
			p = s.pages.metrics[1]
		}
	}
	servePage(s, w, r, p, func(a *recordedAnswer) {
		maps.Copy(w.Header(), a.header)
		w.Header()["Content-Length"] = []string{strconv.Itoa(a.body.Len())}
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body.Bytes()) // a client that has hung up needs no answer
	})
}

// recordedAnswer is an http.ResponseWriter that keeps the answer of a handler.
type recordedAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// record returns what h answers to a GET of a client that accepts that encoding.
func record(h http.Handler, encoding string) *recordedAnswer {
	a := &recordedAnswer{header: http.Header{}, code: http.StatusOK}
	h.ServeHTTP(a, &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/metrics"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept-Encoding": {encoding}},
	})
	return a
}

// Header implements http.ResponseWriter.
func (a *recordedAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *recordedAnswer) WriteHeader(code int) { a.code = code }

// Write implements http.ResponseWriter.
func (a *recordedAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

func writeJSON(w http.ResponseWriter, v any) {
	b, err := marshal(v)
	if err != nil {
		cannotWrite(w, err)
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
