package proxy

import (
	"encoding/json"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/cache"
	"hacheck/internal/spool"
	"hacheck/internal/wording"
)

// status answers /status: the counters of the original, and some of our own behind them.
func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.settings.Load().Judge.Stats()
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
	if err != nil || !s.hosts.Own(caller.WithZone("").Unmap()) {
		sentence(w, http.StatusForbidden, "only this machine may see this")
		return
	}
	writeJSON(w, s.overrides.Home())
}

// statusCount answers /status/count: who has asked about which service how often.
func (s *Server) statusCount(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"service_access_counts": s.recent.counts()})
}

// recentPage answers /recent?threshold=SECONDS: the last answer for each service asked about since.
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
	rows := []seenRow{}
	if threshold > 0 {
		const century = 100 * 365 * 24 * 3600.0
		since := time.Duration(math.Min(threshold, century) * float64(time.Second))
		rows = s.recent.since(time.Now().Add(-since))
	}
	seen := make([][2]any, len(rows))
	for i, row := range rows {
		seen[i] = [2]any{row.service, row.last}
	}
	writeJSON(w, map[string]any{"seen_services": seen, "threshold_seconds": threshold})
}

// balancersPage answers /balancers[?service=NAME]: who asks, what they are told, and how they see the servers.
func (s *Server) balancersPage(w http.ResponseWriter, r *http.Request) {
	service := ""
	if v, ok := r.URL.Query()["service"]; ok {
		service = v[len(v)-1]
		if !spool.ValidService(service) {
			sentence(w, http.StatusBadRequest, "service must be the name of a service, as in /balancers?service=web")
			return
		}
	}
	writeJSON(w, s.balancers(service))
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
	for _, row := range s.recent.since(now.Add(-recentFor)) {
		if service == "" || row.service == service {
			report.Services = append(report.Services, balancer.Asked{Service: row.service, Ago: max(now.Sub(row.at), 0).Seconds()})
		}
	}
	return report
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		sentence(w, http.StatusInternalServerError, "Cannot write this page: "+err.Error())
		return
	}
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(wording.EscapeJSON(b))
}
