package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
)

// A balancer asks the same few questions every two seconds for years, in heads that are plain, and nearly
// all of the answers are in memory. The shortcut answers those right from the bytes that were read, which
// takes less than half of what net/http and its router need. It takes nothing but heads whose reading is
// beyond doubt; everything else goes on to net/http as if the shortcut did not exist. On a kept connection it
// also waits for the check where one is needed, which would go through net/http only to be waited for there.
// FuzzShortcut holds the two ways against each other.

// plainHead is a request head as the shortcut understands it. Its strings are parts of one copy of the head.
type plainHead struct {
	method   string // GET, HEAD or OPTIONS
	target   string
	http10   bool
	close    bool // the connection ends with this answer
	host     string
	want     wanted
	fields   [16]check.Field // all header lines, in order
	n        int
	hostSeen bool
}

const (
	maxShortBody      = 4 << 10          // what fits any fresh socket's buffer, for a connection that ends
	shortWriteTimeout = 10 * time.Second // for an answer, of check.MaxBody at most
)

// parsePlain reads head, which must be one whole head with nothing behind it. It returns false whenever it
// is not sure.
func (h *plainHead) parsePlain(head string) bool {
	line, rest, ok := cutLine(head)
	if !ok {
		return false
	}
	h.method, line, ok = strings.Cut(line, " ")
	if !ok || h.method != http.MethodGet && h.method != http.MethodHead && h.method != http.MethodOptions {
		return false
	}
	var version string
	h.target, version, ok = strings.Cut(line, " ")
	if !ok || !plainTarget(h.target) {
		return false
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10, h.close = true, true
	default:
		return false
	}
	for {
		line, rest, ok = cutLine(rest)
		if !ok {
			return false
		}
		if line == "" {
			return rest == ""
		}
		if !h.header(line) {
			return false
		}
	}
}

// cutLine is strings.Cut at "\r\n", quicker, for lines that have no other "\n".
func cutLine(s string) (line, rest string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return s, "", false
	}
	return s[:i-1], s[i+1:], true
}

// plainTarget reports whether s is a path and query of printable ASCII that nobody can read in two ways.
func plainTarget(s string) bool {
	if len(s) < 2 || s[0] != '/' || s[1] == '/' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '#' {
			return false
		}
	}
	return true
}

func (h *plainHead) header(line string) bool {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || h.n == len(h.fields) {
		return false
	}
	for i := range len(name) {
		if c := name[i] | 0x20; (c < 'a' || c > 'z') && (name[i] < '0' || name[i] > '9') && name[i] != '-' {
			return false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	value = strings.Trim(value, " \t")
	h.fields[h.n] = check.Field{Name: name, Value: value}
	h.n++

	is := func(s string) bool { return strings.EqualFold(name, s) }
	switch len(name) {
	case len("Host"):
		if is("Host") {
			if h.hostSeen || !plainHost(value) {
				return false
			}
			h.hostSeen, h.host = true, value
		}
	case len("Expect"): // and Pragma, and Accept
		if is("Accept") && strings.Contains(value, "json") {
			return false // a question of more than one kind of answer
		}
		if is("Pragma") {
			h.want.fresh = h.want.fresh || hasNoCache(value)
		}
		return !is("Expect")
	case len("Upgrade"): // and Trailer
		return !is("Upgrade") && !is("Trailer")
	case len("Connection"):
		if is("Connection") {
			switch {
			case strings.EqualFold(value, "close"):
				h.close = true
			case strings.EqualFold(value, "keep-alive") && h.http10:
				return false // net/http knows when to agree to that
			case !strings.EqualFold(value, "keep-alive"):
				return false
			}
		}
	case len("Cache-Control"):
		if is("Cache-Control") {
			h.want.fresh = h.want.fresh || hasNoCache(value)
		}
	case len(hopsHeader): // and Content-Length
		if is(hopsHeader) {
			h.want.hops = max(h.want.hops, check.ParseHops(value))
		}
		return !is("Content-Length")
	case len(nerveHeader):
		if is(nerveHeader) {
			h.want.nerve = value
		}
	case len("Transfer-Encoding"):
		return !is("Transfer-Encoding")
	case len(stateHeader):
		if is(stateHeader) {
			h.want.state(value)
		}
	}
	return true
}

// plainHost reports whether net/http takes s as a Host for certain.
func plainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			c != '.' && c != '-' && c != ':' && c != '_' && c != '[' && c != ']' {
			return false
		}
	}
	return true
}

// copied is copied for a plain head.
func (h *plainHead) copied(dst []check.Field, names []string) []check.Field {
	for _, name := range names {
		if name == "Host" {
			if h.host != "" {
				dst = append(dst, check.Field{Name: name, Value: h.host})
			}
			continue
		}
		for _, f := range h.fields[:h.n] {
			if strings.EqualFold(f.Name, name) {
				dst = append(dst, check.Field{Name: name, Value: f.Value})
			}
		}
	}
	return dst
}

// shortQuestion is what one answer by the shortcut needs; a pool spares the garbage collector.
type shortQuestion struct {
	question
	head plainHead
}

var shortQuestions = sync.Pool{New: func() any { return new(shortQuestion) }}

// shortcut appends the answer to head to out if it has one, and reports whether the connection ends with
// it and whether it has. peer is who asks. With closing it answers only what ends the connection, needs no
// check and is short, and does not block; without, it may wait for a check. head is the caller's again when it
// returns.
func (s *Server) shortcut(out, head []byte, peer string, closing bool) (answer []byte, last, answered bool) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		return out, false, false // every request has its line then
	}
	q := shortQuestions.Get().(*shortQuestion)
	defer func() {
		q.poison()
		shortQuestions.Put(q)
	}()
	h := &q.head
	*h = plainHead{}
	// The copy costs one allocation a request. Without it, everything that remembers a part of the head (the cache,
	// the agent, a script's environment) would read the bytes of the next one.
	if !h.parsePlain(string(head)) || h.want.fresh || closing && !h.close {
		return out, false, false
	}
	name, rest, ok := strings.Cut(h.target[1:], "/")
	if !ok {
		return out, false, false
	}
	set := s.settings.Load()
	p, ok := set.Checks[name]
	if !ok {
		return out, false, false
	}
	service, port, uri, no := splitCheckURL(rest)
	if no != nil || uri == "" && p.URI {
		return out, false, false
	}
	var fields []check.Field
	if p.URI {
		fields = h.copied(q.fields[:0], set.HeadersToCopy)
	}
	if no := s.fill(&q.ask, set, &p, service, port, uri, &h.want, fields); no != nil {
		return out, false, false
	}
	q.ask.Client = peer
	v, query := set.Evaluator.Cached(&q.ask)
	if closing && (query != nil || len(v.Result.Body) > maxShortBody) {
		return out, false, false
	}
	now := time.Now()
	row := s.recent.see(service, peer, now)
	var came time.Time
	if query == nil {
		set.Evaluator.Count(&v)
	} else {
		came = now
		v = set.Evaluator.RunCheck(&q.ask, query)
		now = time.Now()
	}
	s.recent.answer(row, service, &balancer.Request{
		Peer: peer, HasState: h.want.sent, State: h.want.header, Node: h.want.node, Name: h.want.name, URL: h.target,
		Host: q.ask.Target.Host, Port: q.ask.Target.Port, Here: q.ask.Local,
		Received: came, Code: v.Result.Code, Override: v.State, Answered: now,
	}, &v)
	return s.appendAnswer(out, h, &v, now), h.close, true
}

// appendAnswer appends what net/http would have written.
func (s *Server) appendAnswer(b []byte, h *plainHead, v *health.Verdict, now time.Time) []byte {
	if h.http10 {
		b = append(b, "HTTP/1.0 "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(v.Result.Code), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(v.Result.Code)...)
	b = append(b, "\r\nAge: "...)
	b = append(b, ageValue(v.Age)[0]...)
	b = append(b, "\r\nDate: "...)
	b = append(b, s.date.value(now)[0]...)
	b = append(b, "\r\nX-Content-Type-Options: nosniff\r\nX-Hacheck-Cache: "...)
	b = append(b, outcomes[v.Cache][0]...)
	body := v.Result.Body
	if bodyAllowed(v.Result.Code) {
		b = append(b, "\r\nContent-Type: "...)
		if v.Result.ContentType != "" {
			b = append(b, v.Result.ContentType...)
		} else {
			b = append(b, textType[0]...)
		}
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
	} else {
		body = nil
	}
	if h.close && !h.http10 {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	if h.method != http.MethodHead {
		b = append(b, body...)
	}
	return b
}
