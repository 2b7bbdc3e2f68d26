package balancer

import (
	"strconv"
	"strings"
)

// StateHeader is the header of HAProxy's "http-check send-state", in Go's canonical spelling.
const StateHeader = "X-Haproxy-Server-State"

// SentState is the state that a request sends, in one or more state headers. The zero value is that of a request
// without one.
type SentState struct {
	Sent   bool
	Header string // the last header as it was sent
	ServerState
}

// Add adds one more header of the request.
func (s *SentState) Add(header string) {
	s.Sent, s.Header = true, header
	s.Update(header)
}

// ServerState is what an X-Haproxy-Server-State header says about a server, such as
//
//	UP 2/3; address=10.0.0.5; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=0; throttle=10%
//
// HAProxy documents it at "http-check send-state"; before 1.5 it sent no address and no port. A field is "" if the
// header does not have it. All fields are parts of the header, unchecked: the client may send anything.
type ServerState struct {
	State    string // the words before the first semicolon: "UP 2/3", "DOWN", "NOLB 1/2", "no check"
	Address  string // of the server
	Port     string // of the server
	Node     string // the name of the HAProxy node
	Name     string // backend/server
	Weight   string // of the server, "/", of all usable active servers of the backend
	Sessions string // "scur": open on this server, "/", open on the backend
	Queued   string // "qcur": waiting for this server
	Throttle string // of a server in slow start
}

// ParseServerState reads one header. It does not allocate.
func ParseServerState(header string) (s ServerState) {
	s.Update(header)
	return s
}

// Update reads one more header of the same request. Its state and its fields replace those of earlier headers. Of
// repeated fields the last wins; a field with more than one "=" and an unknown field are ignored.
func (s *ServerState) Update(header string) {
	words, rest, _ := strings.Cut(header, ";")
	s.State = strings.TrimSpace(words)
	for rest != "" {
		var text string
		text, rest, _ = strings.Cut(rest, ";")
		name, value, ok := strings.Cut(strings.TrimSpace(text), "=")
		if !ok || strings.IndexByte(value, '=') >= 0 {
			continue
		}
		if field := s.field(name); field != nil {
			*field = strings.TrimSpace(value)
		}
	}
}

// field returns where the value of a field goes, nil for an unknown one.
func (s *ServerState) field(name string) *string {
	switch name {
	case "address":
		return &s.Address
	case "port":
		return &s.Port
	case "node":
		return &s.Node
	case "name":
		return &s.Name
	case "weight":
		return &s.Weight
	case "scur":
		return &s.Sessions
	case "qcur":
		return &s.Queued
	case "throttle":
		return &s.Throttle
	}
	return nil
}

// setState fills in what a header says. A report shows it everywhere, so text is shortened and printable.
func (b *ServerView) setState(header string) {
	s := ParseServerState(header)
	b.State, b.Throttle = printable(s.State, maxStateWords), printable(s.Throttle, maxStateWords)
	b.Sessions, _ = counts(s.Sessions)
	b.Queued, _ = counts(s.Queued)
	b.Weight, b.TotalWeight = counts(s.Weight)
}

// counts reads "13/22" or "13". A count is nil if it is missing or not a number.
func counts(v string) (first, second *int) {
	a, b, _ := strings.Cut(v, "/")
	return count(a), count(b)
}

func count(v string) *int {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return nil
	}
	i := int(n)
	return &i
}

// maxStateWords is how many bytes of a state a report shows: HAProxy's longest is "no check".
const maxStateWords = 32

// printable returns at most n bytes of s, with a question mark for each character that is not printable ASCII.
func printable(s string, n int) string {
	s = s[:min(len(s), n)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}
