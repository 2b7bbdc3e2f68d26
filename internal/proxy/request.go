package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// nerveHeader is X-Nerve-Check-IP in Go's canonical spelling.
const nerveHeader = "X-Nerve-Check-Ip"

// httpError is an answer that tells the client what is wrong with its request.
type httpError struct {
	code int
	text string
}

// checkRequest is a check request. parseHTTP and Parse set it from the two forms in which requests come; both put the
// header lines into fields and share all that follows. It holds no settings.
type checkRequest struct {
	server *Server
	client string // the client's address, without a port
	url    string // as it came
	checkURL
	checkHeaders
	target  destination
	invalid *httpError // why the headers name no destination; nil if they do

	fields  []check.Field // all header lines
	forward []check.Field // reused by forwardedFields
}

// checkURL is the path of a check request.
type checkURL struct {
	protocol string
	service  string
	port     uint16 // 0 when the URL names none
	uri      string // of the checked service, as it came; "" without a slash after the port
}

// checkHeaders are the headers of a check request that mean something.
type checkHeaders struct {
	state   balancer.SentState
	nerve   string // X-Nerve-Check-IP
	noCache bool   // the client wants a new check
	hops    uint8  // the largest X-Hacheck-Hops
}

// notFound is the text of a 404.
const notFound = "Not found. A check URL is /<protocol>/<service>/<port>/<query>, as in /http/web/8080/status"

// parseHTTP reads a request that net/http has parsed, of a protocol whose URLs begin with "/protocol/".
func (c *checkRequest) parseHTTP(r *http.Request, p *check.Protocol) *httpError {
	prefix := len("/" + p.Name + "/")
	if len(r.RequestURI) < prefix || r.RequestURI[0] != '/' {
		return &httpError{http.StatusNotFound, notFound} // an absolute URI: hacheck is no forward proxy
	}
	c.client, c.url, c.protocol = clients.HostPart(r.RemoteAddr), r.RequestURI, p.Name
	if err := c.checkURL.parse(r.RequestURI[prefix:]); err != nil {
		return err
	}
	switch {
	case c.uri == "" && p.URI:
		return &httpError{http.StatusNotFound, "No such check URL: a slash belongs after the port, as in /" + p.Name + "/" + c.service + "/8080/"}
	case !hasValidEscapes(c.uri):
		return &httpError{http.StatusBadRequest, "Invalid % escape in the URL: two hexadecimal digits come after a %"}
	}
	if r.Host != "" { // the empty line that the listener inserts counts as not sent
		c.fields = append(c.fields, check.Field{Name: "Host", Value: r.Host})
	}
	for name, values := range r.Header {
		for _, v := range values {
			c.fields = append(c.fields, check.Field{Name: name, Value: v})
		}
	}
	c.checkHeaders.parse(c.fields)
	c.invalid = c.target.parse(&c.checkHeaders)
	return nil
}

// Parse implements fastpath.Request.
func (c *checkRequest) Parse(h *fastpath.Head) bool {
	*c = checkRequest{server: c.server, url: h.Target, fields: h.Fields, forward: c.forward}
	name, rest, ok := strings.Cut(h.Target[1:], "/")
	if !ok || c.checkURL.parse(rest) != nil {
		return false
	}
	c.protocol = name
	c.checkHeaders.parse(h.Fields)
	c.invalid = c.target.parse(&c.checkHeaders)
	return c.invalid == nil && !c.noCache && !acceptsJSON(h.Fields) // JSON is a second kind of answer
}

func acceptsJSON(fields []check.Field) bool {
	for i := range fields {
		if f := &fields[i]; strings.EqualFold(f.Name, "Accept") && strings.Contains(f.Value, "application/json") {
			return true
		}
	}
	return false
}

// parse reads "<service>/<port>/<query>", all that follows "/<protocol>/" in a request line.
func (u *checkURL) parse(rest string) *httpError {
	service, rest, ok := strings.Cut(rest, "/")
	if !spool.ValidService(service) {
		return &httpError{http.StatusNotFound, "No such service: a service's name is 1 to 200 of the characters a-z A-Z 0-9 . _ - and not . or .."}
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	port, valid := parsePort(rest[:end])
	if !ok || !valid || end < len(rest) && rest[end] != '/' && rest[end] != '?' {
		return &httpError{http.StatusNotFound, "No such port: after the service comes a decimal port from 0 to 65535, as in /http/web/8080/status"}
	}
	u.service, u.port = service, port
	if end < len(rest) && rest[end] == '/' {
		u.uri = rest[end:]
	}
	return nil
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

// hasValidEscapes reports whether two hexadecimal digits follow each % in s.
func hasValidEscapes(s string) bool {
	isHex := func(c byte) bool {
		return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
	}
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

// parse reads the header lines. Of repeated state and nerve headers the last wins.
func (h *checkHeaders) parse(fields []check.Field) {
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		switch len(name) { // which is faster than to compare each name
		case len("Pragma"):
			h.noCache = h.noCache || strings.EqualFold(name, "Pragma") && hasNoCache(value)
		case len("Cache-Control"):
			h.noCache = h.noCache || strings.EqualFold(name, "Cache-Control") && hasNoCache(value)
		case len(check.HopsHeader):
			if strings.EqualFold(name, check.HopsHeader) {
				h.hops = max(h.hops, check.ParseHops(value))
			}
		case len(nerveHeader):
			if strings.EqualFold(name, nerveHeader) {
				h.nerve = value
			}
		case len(balancer.StateHeader):
			if strings.EqualFold(name, balancer.StateHeader) {
				h.state.Add(value)
			}
		}
	}
}

func hasNoCache(v string) bool {
	for directive := range strings.SplitSeq(v, ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
			return true
		}
	}
	return false
}

// forwardedFields returns the client's header lines with these names, in canonical spelling, in their order. The
// result is valid until the next call.
func (c *checkRequest) forwardedFields(names []string) []check.Field {
	c.forward = c.forward[:0]
	for _, name := range names {
		for i := range c.fields {
			if f := &c.fields[i]; strings.EqualFold(f.Name, name) && (f.Value != "" || name != "Host") {
				c.forward = append(c.forward, check.Field{Name: name, Value: f.Value})
			}
		}
	}
	return c.forward
}

// destination is where the headers send a check.
type destination struct {
	host string // an address in canonical form; "" when no header names one
	addr netip.Addr
	port uint16 // 0 when no header names one
}

// parse sets the destination to the one that the headers name.
func (d *destination) parse(h *checkHeaders) *httpError {
	if p := h.state.Port; p != "" && p != "0" && p != "unix" {
		n, ok := parsePort(p)
		if !ok {
			return &httpError{http.StatusBadRequest, "X-Haproxy-Server-State: port=" + excerpt(p) + " is not a port from 1 to 65535"}
		}
		d.port = n
	}
	if h.state.Address != "unix" {
		if err := d.setHost("X-Haproxy-Server-State: address=", h.state.Address); err != nil || d.host != "" {
			return err
		}
	}
	return d.setHost("X-Nerve-Check-IP: ", strings.TrimSpace(h.nerve))
}

// setHost sets the host to address, unless that names none. prefix is what precedes address in the headers.
func (d *destination) setHost(prefix, address string) *httpError {
	switch address {
	case "":
		return nil
	case "localhost":
		address = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Zone() != "" {
		return &httpError{http.StatusBadRequest, prefix + excerpt(address) + " is not an IP address (names, brackets and zones are not taken here)"}
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() {
		return nil
	}
	d.addr, d.host = addr, address
	if !addr.Is4() || strings.IndexByte(address, ':') >= 0 { // every IPv4 literal that netip accepts is canonical
		d.host = addr.String()
	}
	return nil
}

// excerpt returns a bounded quotation of what a client sent.
func excerpt(s string) string { return textfmt.Excerpt(s, 80) }
