package proxy

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/textfmt"
)

// Header values that every answer shares. net/http only reads them.
var (
	textType = []string{"text/plain; charset=utf-8"}
	nosniff  = []string{"nosniff"}
)

// checkHandler answers the check URLs of one protocol.
func (s *Server) checkHandler(p check.Protocol) http.HandlerFunc {
	allow := "GET, HEAD, OPTIONS"
	if p.Name == "spool" {
		allow += ", POST"
	}
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			w.Header()["Allow"] = []string{allow}
			writeText(w, http.StatusMethodNotAllowed, "Method not allowed here; allowed: "+allow)
			return
		}
		began := time.Now()
		c := &checkRequest{server: s}
		if err := c.parseHTTP(r, &p); err != nil {
			writeText(w, err.code, err.text)
			return
		}
		v, at, ok := s.answer(c, true)
		if !ok { // the settings in force no longer have the protocol of the route
			writeText(w, http.StatusNotFound, notFound)
			return
		}
		w.Header()["Date"] = s.date.Value(at)
		if (p.Name == "checks" || v.Result.Fields != nil) && acceptsJSON(c.fields) {
			v.Result.Body, v.Result.ContentType = v.JSON(), "application/json; charset=utf-8"
		}
		writeVerdict(w, &v)
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			s.log.Debug("answered", "method", r.Method, "uri", excerpt(r.RequestURI), "peer", r.RemoteAddr,
				"code", v.Result.Code, "cache", v.Cache.String(), "took", time.Since(began))
		}
	}
}

// Answer implements fastpath.Request.
func (c *checkRequest) Answer(client string, mayBlock bool) (v health.Verdict, at time.Time, ok bool) {
	if c.server.log.Enabled(context.Background(), slog.LevelDebug) {
		return v, at, false // the log gets a line for each request
	}
	c.client = client
	return c.server.answer(c, mayBlock)
}

// answer evaluates a check request by the settings in force now, records the answer, and returns it with its time.
//
// It returns false, and records nothing, for a request that needs a check or has a long body if mayBlock is not set,
// and for a URL that the protocol does not have.
func (s *Server) answer(c *checkRequest, mayBlock bool) (v health.Verdict, at time.Time, ok bool) {
	set := s.settings.Load()
	p, ok := set.Checks[c.protocol]
	if !ok || p.URI && c.uri == "" {
		return v, at, false
	}
	var q health.Request
	var received time.Time // zero: when it was answered
	if c.invalid != nil {
		v.Result = check.Result{Code: c.invalid.code, Reason: check.ReasonConfig, Body: []byte(c.invalid.text)}
	} else {
		s.fill(&q, set, &p, c)
		var pending *health.PendingCheck
		v, pending = set.Evaluator.Cached(&q)
		switch {
		case !mayBlock && (pending != nil || len(v.Result.Body) > fastpath.MaxShortBody):
			return v, at, false
		case pending == nil:
			set.Evaluator.Count(&v)
		default:
			received = time.Now()
			s.recorder.RecordRequest(c.service, c.client, received)
			v = set.Evaluator.RunCheck(&q, pending)
		}
	}
	at = time.Now()
	s.recorder.RecordAnswer(c.service, balancer.AnsweredRequest{
		Peer: c.client, HasState: c.state.Sent, State: c.state.Header, Node: c.state.Node, Name: c.state.Name, URL: c.url,
		Host: q.Target.Host, Port: q.Target.Port, Local: q.Local,
		Received: received, Code: v.Result.Code, Override: v.OverrideState, Answered: at,
	}, v)
	return v, at, true
}

// fill sets q to the question that c asks.
func (s *Server) fill(q *health.Request, set *Settings, p *check.Protocol, c *checkRequest) {
	q.Target = check.Target{Protocol: p.Name, Service: c.service, Host: c.target.host, Port: c.port, Hops: c.hops}
	q.Local = c.target.host == "" || s.local.Contains(c.target.addr)
	q.NoCache, q.Client = c.noCache, c.client
	if p.URI {
		q.Target.URI, q.Target.Header = c.uri, c.forwardedFields(set.HeadersToCopy)
	}
	if p.Roles {
		q.Target.URI = c.uri
	}
	if c.target.port != 0 {
		q.Target.Port = c.target.port
	}
	if c.target.host == "" {
		q.Target.Host = set.CheckHost
	}
}

// writeVerdict writes an answer through net/http; fastpath writes the others.
func writeVerdict(w http.ResponseWriter, v *health.Verdict) {
	h := w.Header()
	h["X-Hacheck-Cache"] = []string{v.Cache.String()}
	h["Age"] = []string{strconv.FormatInt(max(int64(v.Age/time.Second), 0), 10)}
	code, body := v.Result.Code, v.Result.Body
	if fastpath.BodyAllowed(code) {
		h["Content-Type"] = textType
		if v.Result.ContentType != "" {
			h["Content-Type"] = []string{v.Result.ContentType}
		}
		if len(body) == 0 || len(body) > 2<<10 {
			// net/http finds the length by itself if it buffers the whole body, and not for HEAD without a body.
			h["Content-Length"] = []string{strconv.Itoa(len(body))}
		}
	} else {
		body = nil
	}
	w.WriteHeader(code)
	if len(body) > 0 {
		_, _ = w.Write(body) // a client that has hung up needs no answer
	}
}

// writeText answers with one line.
func writeText(w http.ResponseWriter, code int, text string) {
	w.Header()["Content-Type"] = textType
	w.WriteHeader(code)
	_, _ = io.WriteString(w, textfmt.OneLine(text))
}
