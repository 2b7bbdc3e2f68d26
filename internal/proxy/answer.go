package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/cache"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/textfmt"
)

// Header values that every answer shares. net/http only reads them.
var (
	textType = []string{"text/plain; charset=utf-8"}
	jsonType = []string{"application/json; charset=utf-8"}
	nosniff  = []string{"nosniff"}
	outcomes = [cache.Statuses][]string{
		{cache.Override.String()}, {cache.Hit.String()}, {cache.Miss.String()}, {cache.Shared.String()}, {cache.Bypass.String()},
	}
	smallAges = func() (ages [64][]string) {
		for i := range ages {
			ages[i] = []string{strconv.Itoa(i)}
		}
		return ages
	}()
)

// dates keeps the value of the Date header for a second: to write it anew costs net/http half a
// microsecond.
type dates struct{ last atomic.Pointer[dateOf] }

type dateOf struct {
	second int64
	value  []string
}

func (d *dates) value(now time.Time) []string {
	if l := d.last.Load(); l != nil && l.second == now.Unix() {
		return l.value
	}
	l := &dateOf{now.Unix(), []string{now.UTC().Format(http.TimeFormat)}}
	d.last.Store(l)
	return l.value
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
	ask    health.Request
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
			allow := "GET, HEAD, OPTIONS"
			if p.Name == "spool" {
				allow += ", POST"
			}
			notAllowed(w, allow)
			return
		}
		if len(r.RequestURI) < prefix || r.RequestURI[0] != '/' {
			notFound(w) // an absolute URI: we are no forward proxy
			return
		}
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

		began := time.Now()
		row := s.recent.see(service, hostOf(r.RemoteAddr), began)
		v, now := s.judge(r, &p, row, service, port, uri, began)
		w.Header()["Date"] = s.date.value(now)
		if p.Name == "checks" && health.WantsJSON(r.Header) {
			v.Result.Body, v.Result.ContentType = v.JSON(), jsonType[0]
		}
		writeVerdict(w, &v)
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			s.log.Debug("answered", "method", r.Method, "uri", printable(r.RequestURI), "peer", r.RemoteAddr,
				"code", v.Result.Code, "cache", v.Cache.String(), "took", time.Since(began))
		}
	}
}

// judge has the request judged that came at began, and enters the answer in row. It returns when that was.
func (s *Server) judge(r *http.Request, p *check.Protocol, row *seenService, service string, port uint16, uri string, began time.Time) (health.Verdict, time.Time) {
	set := s.settings.Load()
	q := questions.Get().(*question)
	defer func() {
		q.poison()
		questions.Put(q)
	}()
	var fields []check.Field
	if p.URI {
		fields = copied(q.fields[:0], r, set.HeadersToCopy)
	}
	w := wantedBy(r.Header)
	var v health.Verdict
	if no := s.fill(&q.ask, set, p, service, port, uri, &w, fields); no != nil {
		v.Result = check.Result{Code: no.code, Reason: check.ReasonConfig, Body: []byte(no.sentence)}
		q.ask.Target.Host, q.ask.Target.Port = "", 0
	} else {
		q.ask.Client = hostOf(r.RemoteAddr)
		v = set.Evaluator.Evaluate(&q.ask)
	}
	now := began
	if v.Cache != cache.Hit {
		now = time.Now()
	}
	s.recent.answer(row, service, &balancer.Request{
		Peer: hostOf(r.RemoteAddr), HasState: w.sent, State: w.header, Node: w.node, Name: w.name, URL: r.RequestURI,
		Host: q.ask.Target.Host, Port: q.ask.Target.Port, Local: q.ask.Local,
		Received: began, Code: v.Result.Code, Override: v.State, Answered: now,
	}, &v)
	return v, now
}

// fill makes an ask of what URL and headers say.
func (s *Server) fill(a *health.Request, set *Settings, p *check.Protocol, service string, port uint16, uri string, w *wanted, fields []check.Field) *refusal {
	to, no := w.place()
	if no != nil {
		return no
	}
	*a = health.Request{
		Target:  check.Target{Protocol: p.Name, Service: service, Host: to.host, Port: port, Hops: w.hops},
		Local:   to.host == "" || s.hosts.Contains(to.addr),
		NoCache: w.fresh,
	}
	if p.URI {
		a.Target.URI, a.Target.Header = uri, fields
	}
	if to.port != 0 {
		a.Target.Port = to.port
	}
	if to.host == "" {
		a.Target.Host = set.CheckHost
	}
	return nil
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
		if len(body) == 0 || len(body) > 2<<10 {
			// net/http finds the length by itself where it buffers the whole body, and not for HEAD without one.
			h["Content-Length"] = []string{strconv.Itoa(len(body))}
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
func bodyAllowed(code int) bool {
	return code != http.StatusNoContent && code != http.StatusNotModified
}

// sentence answers with one line of our own.
func sentence(w http.ResponseWriter, code int, text string) {
	w.Header()["Content-Type"] = textType
	w.WriteHeader(code)
	_, _ = io.WriteString(w, textfmt.OneLine(text))
}

func notFound(w http.ResponseWriter) {
	sentence(w, http.StatusNotFound, "Not found. A check URL is /<protocol>/<service>/<port>/<query>, as in /http/web/8080/status")
}

func notAllowed(w http.ResponseWriter, allow string) {
	w.Header()["Allow"] = []string{allow}
	sentence(w, http.StatusMethodNotAllowed, "Method not allowed here; allowed: "+allow)
}
