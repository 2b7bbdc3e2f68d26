package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"hacheck/internal/check"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// The headers of a check request that mean something, in Go's canonical spelling.
const (
	stateHeader = "X-Haproxy-Server-State"
	nerveHeader = "X-Nerve-Check-Ip"
	hopsHeader  = check.HopsHeader
)

// refusal is why a request is not answered as asked: a status and a sentence for whoever reads it.
type refusal struct {
	code     int
	sentence string
}

// splitCheckURL takes "<service>/<port>/<query>", all that follows "/<protocol>/" in a request line. uri is
// the rest from the slash after the port, as it came; it is empty when there is no such slash.
func splitCheckURL(rest string) (service string, port uint16, uri string, no *refusal) {
	service, rest, ok := strings.Cut(rest, "/")
	if !spool.ValidService(service) {
		return "", 0, "", &refusal{http.StatusNotFound, "No such service: a service's name is 1 to 200 of the characters a-z A-Z 0-9 . _ - and not . or .."}
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	port, valid := parsePort(rest[:end])
	if !ok || !valid || end < len(rest) && rest[end] != '/' && rest[end] != '?' {
		return "", 0, "", &refusal{http.StatusNotFound, "No such port: after the service comes a decimal port from 0 to 65535, as in /http/web/8080/status"}
	}
	if end < len(rest) && rest[end] == '/' {
		uri = rest[end:]
	}
	return service, port, uri, nil
}

// parsePort reads a decimal number of any number of digits up to 65535.
func parsePort(s string) (uint16, bool) {
	n := 0
	for i := range len(s) {
		d := int(s[i]) - '0'
		if d < 0 || d > 9 {
			return 0, false
		}
		if n = n*10 + d; n > 65535 {
			return 0, false
		}
	}
	return uint16(n), s != ""
}

// validEscapes reports whether every % in s begins an escape of two hexadecimal digits. net/http has
// looked at the path already, but not at the query.
func validEscapes(s string) bool {
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return true
		}
		if len(s) < i+3 || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return false
		}
		s = s[i+3:]
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// wanted is what the headers of a check request say, whoever has read them.
type wanted struct {
	address, port string // of X-Haproxy-Server-State
	node, name    string // of X-Haproxy-Server-State: the balancer's name, and what it calls the server
	header        string // the last X-Haproxy-Server-State as it came
	sent          bool   // there was one
	nerve         string // X-Nerve-Check-IP
	fresh         bool   // a kept result does not count
	hops          uint8  // the largest X-Hacheck-Hops
}

// wantedBy reads the headers that net/http has parsed.
func wantedBy(h http.Header) (w wanted) {
	for _, v := range h[stateHeader] {
		w.state(v)
	}
	if v := h[nerveHeader]; len(v) > 0 {
		w.nerve = v[len(v)-1]
	}
	w.hops = check.WorstHops(h[hopsHeader])
	for _, v := range h["Pragma"] {
		w.fresh = w.fresh || hasNoCache(v)
	}
	for _, v := range h["Cache-Control"] {
		w.fresh = w.fresh || hasNoCache(v)
	}
	return w
}

// state reads one X-Haproxy-Server-State, such as
//
//	UP 2/3; address=10.0.0.5; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=0
//
// The last of repeated keys wins; a field with more than one = is none.
func (w *wanted) state(v string) {
	w.sent, w.header = true, v
	for v != "" {
		var field string
		field, v, _ = strings.Cut(v, ";")
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || strings.IndexByte(value, '=') >= 0 {
			continue
		}
		var to *string
		switch name {
		case "address":
			to = &w.address
		case "port":
			to = &w.port
		case "node":
			to = &w.node
		case "name":
			to = &w.name
		default:
			continue
		}
		*to = strings.TrimSpace(value)
	}
}

// place is where a check goes.
type place struct {
	host string // canonical; "" when no header names one
	addr netip.Addr
	port uint16 // 0 when no header names one
}

// place returns where the headers send the check.
func (w *wanted) place() (p place, no *refusal) {
	if w.port != "" && w.port != "0" && w.port != "unix" {
		n, ok := parsePort(w.port)
		if !ok {
			return p, &refusal{http.StatusBadRequest, "X-Haproxy-Server-State: port=" + printable(w.port) + " is not a port from 1 to 65535"}
		}
		p.port = n
	}
	if w.address != "unix" {
		if no := p.at("X-Haproxy-Server-State: address=", w.address); no != nil || p.host != "" {
			return p, no
		}
	}
	return p, p.at("X-Nerve-Check-IP: ", strings.TrimSpace(w.nerve))
}

// at sets the host to address, unless that names none. from is what stands before it in the headers.
func (p *place) at(from, address string) *refusal {
	switch address {
	case "":
		return nil
	case "localhost":
		address = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Zone() != "" {
		return &refusal{http.StatusBadRequest, from + printable(address) + " is not an IP address (names, brackets and zones are not taken here)"}
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() {
		return nil
	}
	p.addr = addr
	if p.host = address; !canonicalIPv4(address, addr) {
		p.host = addr.String()
	}
	return nil
}

// canonicalIPv4 saves the text that every IPv4 literal which netip accepts already is.
func canonicalIPv4(s string, a netip.Addr) bool { return a.Is4() && strings.IndexByte(s, ':') < 0 }

func hasNoCache(v string) bool {
	for v != "" {
		var d string
		d, v, _ = strings.Cut(v, ",")
		if strings.EqualFold(strings.TrimSpace(d), "no-cache") {
			return true
		}
	}
	return false
}

// copied appends the client's headers that are passed on to the service. names are canonical.
func copied(dst []check.Field, r *http.Request, names []string) []check.Field {
	for _, name := range names {
		if name == "Host" {
			if r.Host != "" { // the empty line that the listener inserts counts as not sent
				dst = append(dst, check.Field{Name: name, Value: r.Host})
			}
			continue
		}
		for _, v := range r.Header[name] {
			dst = append(dst, check.Field{Name: name, Value: v})
		}
	}
	return dst
}

// printable returns a bounded quotation of what a client sent.
func printable(s string) string { return textfmt.Excerpt(s, 80) }
