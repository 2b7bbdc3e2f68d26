package fastpath

import (
	"net/http"
	"strings"

	"hacheck/internal/check"
)

// Head is a request head that can be understood in one way only. Its strings are parts of one copy of the head.
type Head struct {
	Method string        // GET, HEAD or OPTIONS
	Target string        // path and query
	Fields []check.Field // all header lines, in order

	http10   bool
	close    bool // the connection ends with the answer
	hostSeen bool
}

// maxFields bounds the header lines of a plain head.
const maxFields = 16

// parse reads text, which must be one whole head with nothing behind it. It returns false in any doubt.
func (h *Head) parse(text string) bool {
	*h = Head{Fields: h.Fields[:0]}
	line, rest, ok := cutLine(text)
	if !ok {
		return false
	}
	h.Method, line, ok = strings.Cut(line, " ")
	if !ok || h.Method != http.MethodGet && h.Method != http.MethodHead && h.Method != http.MethodOptions {
		return false
	}
	var version string
	h.Target, version, ok = strings.Cut(line, " ")
	if !ok || !isPlainTarget(h.Target) {
		return false
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10, h.close = true, true
	default:
		return false
	}
	n := min(strings.Count(rest, "\n"), maxFields+1) - 1
	if cap(h.Fields) < n {
		h.Fields = make([]check.Field, 0, n) // no larger, because a connection keeps it
	}
	for {
		line, rest, ok = cutLine(rest)
		if !ok {
			return false
		}
		if line == "" {
			return rest == ""
		}
		if len(h.Fields) == maxFields || !h.addField(line) {
			return false
		}
	}
}

// cutLine is strings.Cut at "\r\n", faster, for lines that have no other "\n".
func cutLine(s string) (line, rest string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return s, "", false
	}
	return s[:i-1], s[i+1:], true
}

// isPlainTarget reports whether s is a path and query of printable ASCII that can be read in one way only.
func isPlainTarget(s string) bool {
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

// addField adds one header line. It returns false if the line is not plain, or means more than plain requests do.
func (h *Head) addField(line string) bool {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || !isPlainName(name) || !isPlainValue(value) {
		return false
	}
	value = strings.Trim(value, " \t")
	h.Fields = append(h.Fields, check.Field{Name: name, Value: value})
	switch len(name) { // which is faster than to compare each name
	case len("Host"):
		if strings.EqualFold(name, "Host") {
			ok = !h.hostSeen && IsPlainHost(value)
			h.hostSeen = true
		}
	case len("Connection"):
		if strings.EqualFold(name, "Connection") {
			// net/http knows when to agree to a keep-alive of HTTP/1.0.
			isClose := strings.EqualFold(value, "close")
			ok = isClose || !h.http10 && strings.EqualFold(value, "keep-alive")
			h.close = h.close || isClose
		}
	case len("Expect"):
		ok = !strings.EqualFold(name, "Expect")
	case len("Upgrade"):
		ok = !strings.EqualFold(name, "Upgrade") && !strings.EqualFold(name, "Trailer")
	case len("Content-Length"):
		ok = !strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		ok = !strings.EqualFold(name, "Transfer-Encoding")
	}
	return ok
}

// isPlainName reports whether a header name has only letters, digits and hyphens.
func isPlainName(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return true
}

// isPlainValue reports whether a header value has only printable ASCII, spaces and tabs.
func isPlainValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// IsPlainHost reports whether net/http certainly accepts s as the value of a Host header.
func IsPlainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			c != '.' && c != '-' && c != ':' && c != '_' && c != '[' && c != ']' {
			return false
		}
	}
	return true
}
