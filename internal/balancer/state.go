package balancer

import (
	"iter"
	"strconv"
	"strings"
)

// StateHeader is the header of HAProxy's "http-check send-state", in Go's canonical spelling.
const StateHeader = "X-Haproxy-Server-State"

// SentState is what the X-Haproxy-Server-State headers of one request say about the server that is checked. The zero
// value is that of a request without one.
type SentState struct {
	Sent          bool
	Header        string // the last header, as it came
	Node, Name    string // of the balancer and of its server
	Address, Port string // of the server
}

// Add parses one more header of the request. Of repeated keys the last wins.
func (s *SentState) Add(header string) {
	s.Sent, s.Header = true, header
	for key, value := range stateFields(header) {
		switch key {
		case "address":
			s.Address = value
		case "port":
			s.Port = value
		case "node":
			s.Node = value
		case "name":
			s.Name = value
		}
	}
}

// stateFields yields the fields of a header, "key=value" between semicolons. It skips text without a "=" or with more
// than one.
func stateFields(header string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for header != "" {
			var field string
			field, header, _ = strings.Cut(header, ";")
			key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
			if !ok || strings.IndexByte(value, '=') >= 0 {
				continue
			}
			if !yield(key, strings.TrimSpace(value)) {
				return
			}
		}
	}
}

// serverState is an X-Haproxy-Server-State header that has been read:
//
//	UP 2/3; address=10.0.0.5; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=0; throttle=10%
//
// as HAProxy's documentation of "http-check send-state" has it. Before 1.5 there was no address and no port;
// what is not listed here, such as the "host=" of some, is passed over. What is missing or no number is nil.
type serverState struct {
	state          string // the words before the first semicolon
	sessions       *int
	queued         *int
	weight, weighs *int // of the server, of all
	throttle       string
}

// maxStateWords is the longest state that is kept: HAProxy's longest is "no check".
const maxStateWords = 32

// parseState reads a header. Anything may stand in it.
func parseState(header string) (s serverState) {
	words, fields, _ := strings.Cut(header, ";")
	s.state = shown(strings.TrimSpace(words), maxStateWords)
	for key, value := range stateFields(fields) {
		switch key {
		case "scur":
			s.sessions, _ = pair(value)
		case "qcur":
			s.queued, _ = pair(value)
		case "weight":
			s.weight, s.weighs = pair(value)
		case "throttle":
			s.throttle = shown(value, maxStateWords)
		}
	}
	return s
}

// pair reads "13/22", or "13" alone.
func pair(v string) (first, second *int) {
	a, b, _ := strings.Cut(v, "/")
	return number(a), number(b)
}

// number reads a count, nil when it is none.
func number(v string) *int {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return nil
	}
	i := int(n)
	return &i
}

// shown is s as it may be shown anywhere: at most n bytes, what is no printable ASCII as a question mark.
func shown(s string, n int) string {
	s = s[:min(len(s), n)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}
