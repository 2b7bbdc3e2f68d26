package proxy

import (
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/health"
)

// Header values that every answer shares. net/http only reads them.
var (
	textType  = []string{"text/plain; charset=utf-8"}
	jsonType  = []string{"application/json; charset=utf-8"}
	outcomes  = [cache.Outcomes][]string{}
	smallAges = [64][]string{}
)

func init() {
	for o := range outcomes {
		outcomes[o] = []string{cache.Outcome(o).String()}
	}
	for i := range smallAges {
		smallAges[i] = []string{strconv.Itoa(i)}
	}
}

func ageValue(d time.Duration) []string {
	s := int64(d / time.Second)
	if s < 0 {
		s = 0
	}
	if s < int64(len(smallAges)) {
		return smallAges[s]
	}
	return []string{strconv.FormatInt(s, 10)}
}

// question is what one check request needs; a pool spares the garbage collector.
type question struct {
	ask    health.Ask
	fields [4]check.Field
}

var questions = sync.Pool{New: func() any { return new(question) }}

// checkHandler answers the check URLs of one protocol.
func (s *Server) checkHandler(p check.Protocol) http.HandlerFunc {
	prefix := len("/" + p.Name + "/")
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			notAllowed(w, "GET, HEAD, OPTIONS")
			return
		}
		if len(r.RequestURI) < prefix || r.RequestURI[0] != '/' {
			notFound(w) // an absolute URI: we are no forward proxy
			return
		}
		began := time.Now()
		service, port, uri, no := splitCheckURL(r.RequestURI[prefix:])
		switch {
		case no != nil:
		case uri == "" && p.URI:
			no = &refusal{http.StatusNotFound, "No such check URL: a slash belongs after the port, as in /" + p.Name + "/" + service + "/8080/"}
		case !validEscapes(uri):
			no = &refusal{http.StatusBadRequest, "Invalid % escape in the URL: two hexadecimal digits come after a %"}
		}
		if no != nil {
			sentence(w, no.code, no.sentence)
			return
		}

		row := s.recent.see(service)
		v := s.judge(r, &p, service, port, uri)
		s.recent.answer(row, r.RemoteAddr, v.Result.Code)
		writeVerdict(w, &v)
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			s.log.Debug("answered", "method", r.Method, "uri", printable(r.RequestURI), "peer", r.RemoteAddr,
				"code", v.Result.Code, "cache", v.Cache.String(), "took", time.Since(began))
		}
	}
}

// judge turns the request into an ask and has it judged.
func (s *Server) judge(r *http.Request, p *check.Protocol, service string, port uint16, uri string) health.Verdict {
	to, no := placeOf(r.Header)
	if no != nil {
		return health.Verdict{Result: check.Result{Code: no.code, Reason: check.ReasonConfig, Body: []byte(no.sentence)}}
	}
	set := s.settings.Load()
	q := questions.Get().(*question)
	defer questions.Put(q)
	t := &q.ask.Target
	*t = check.Target{Protocol: p.Name, Service: service, Host: to.host, Port: port}
	if p.URI {
		t.URI = uri
		t.Header = copied(q.fields[:0], r, set.HeadersToCopy)
	}
	if to.port != 0 {
		t.Port = to.port
	}
	q.ask.Here = to.host == "" || s.hosts.Own(to.addr)
	if to.host == "" {
		t.Host = set.CheckHost
	}
	q.ask.Fresh = wantsFresh(r.Header)
	return set.Judge.Verdict(r.Context(), &q.ask)
}

func writeVerdict(w http.ResponseWriter, v *health.Verdict) {
	h := w.Header()
	h["X-Hacheck-Cache"] = outcomes[v.Cache]
	h["Age"] = ageValue(v.Age)
	code, body := v.Result.Code, v.Result.Body
	if bodyAllowed(code) {
		h["Content-Type"] = textType
		if v.Result.ContentType != "" {
			h["Content-Type"] = []string{v.Result.ContentType}
		}
	} else {
		body = nil
	}
	w.WriteHeader(code)
	if len(body) > 0 {
		_, _ = w.Write(body) // who has hung up needs no answer
	}
}

// bodyAllowed is RFC 9110's rule; net/http refuses to write one.
func bodyAllowed(code int) bool { return code != http.StatusNoContent && code != http.StatusNotModified }

// sentence answers with a line of our own for whoever reads it.
func sentence(w http.ResponseWriter, code int, text string) {
	w.Header()["Content-Type"] = textType
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}

func notFound(w http.ResponseWriter) {
	sentence(w, http.StatusNotFound, "Not found. A check URL is /<protocol>/<service>/<port>/<query>, as in /http/web/8080/status")
}

func notAllowed(w http.ResponseWriter, allow string) {
	w.Header()["Allow"] = []string{allow}
	sentence(w, http.StatusMethodNotAllowed, "Method not allowed here; allowed: "+allow)
}
