// Package check asks services whether they are healthy: each protocol is one file and one line of the list in
// protocols.go. It does not cache results, apply overrides or read files, and it imports no endpoint (HTTP, agent).
//
// Each check opens a new connection, because an open one does not show that the service still accepts connections. The
// check closes it before it returns. The context of a check limits the time of each phase. Constants limit what a check
// reads from a service, stores and shows. Timeout and Limiter are wrappers for all checks.
package check

import (
	"context"
	"strings"
	"time"
)

// Target is one service instance to be checked, and how.
type Target struct {
	Protocol string
	Service  string
	Host     string // an IP address in canonical text, or a name; empty if the check's configuration names the host
	Port     uint16 // 0: the request names no port
	Hops     uint8  // the number of checks that led to this request; see HopsHeader
	// URI is the escaped path and query for the service, with the leading slash ("/status?x=1"), exactly as the
	// balancer sent them. Port-only protocols ignore it.
	URI string
	// Header holds the client's headers that are copied to the service.
	Header []Field
}

// Field is one header line to copy.
type Field struct{ Name, Value string }

// Clone returns a deep copy of t. Its strings share no memory with those of t, which may be parts of a whole
// request. Code that keeps a Target for longer than the request keeps a clone.
func (t Target) Clone() Target {
	t.Protocol, t.Service = strings.Clone(t.Protocol), strings.Clone(t.Service)
	t.Host, t.URI = strings.Clone(t.Host), strings.Clone(t.URI)
	header := make([]Field, len(t.Header))
	for i, f := range t.Header {
		header[i] = Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	t.Header = header
	return t
}

// Reason says in one word why a check ended as it did. It is a label in logs and metrics.
type Reason uint8

// The reasons. ReasonAnswered, the zero value, means that the service answered; Code says what.
const (
	ReasonAnswered  Reason = iota
	ReasonRefused          // nothing listens there, or there is no route to it
	ReasonTimeout          // no complete answer in time
	ReasonProtocol         // an answer in another protocol, or one that was cut off
	ReasonFailed           // an answer in the protocol that reports a failure (an error reply, a failed login)
	ReasonResolve          // the host name has no address
	ReasonBusy             // hacheck had no slot, descriptor or local port left; tells nothing about the service, never cached
	ReasonCancelled        // the caller gave up; tells nothing about the service, never cached
	ReasonConfig           // the configuration does not allow the check (no credentials, no port)
	ReasonForbidden        // the check is not permitted (see check_hosts_allowed)
)

var reasonNames = [...]string{
	ReasonAnswered:  "ok",
	ReasonRefused:   "refused",
	ReasonTimeout:   "timeout",
	ReasonProtocol:  "protocol",
	ReasonFailed:    "failed",
	ReasonResolve:   "resolve",
	ReasonBusy:      "busy",
	ReasonCancelled: "cancelled",
	ReasonConfig:    "config",
	ReasonForbidden: "forbidden",
}

// String returns the reason as one lower-case word, or "unknown" for any other number.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Result is what a check found.
type Result struct {
	Code        int    // HTTP status to answer with; only 200 is healthy
	Body        []byte // read-only, at most MaxBody bytes; hacheck's own text is one line without a newline at its end
	ContentType string // "" means text/plain; charset=utf-8
	Reason      Reason
	Err         error // for logs and metrics, never for clients; nil when Reason is ReasonAnswered
	Took        time.Duration
	Parts       []NamedResult // the results of a service's checks; only set by the protocol "checks"
	// Fields are what the check found, for the answer in JSON: the role, the lag. nil for most checks.
	Fields []ResultField
}

// ResultField is one thing that a check found.
type ResultField struct {
	Name  string // as a key of JSON: "lag_seconds"
	Value any    // a string, bool, int64 or float64
}

// FailureReason returns the reason of a result that is not healthy: ReasonFailed if the service answered, else Reason.
func (r *Result) FailureReason() Reason {
	if r.Reason == ReasonAnswered {
		return ReasonFailed
	}
	return r.Reason
}

// MaxBody is how many bytes of a service's answer are kept and passed on.
const MaxBody = 64 << 10

// Func asks a service. It obeys ctx in every phase, closes what it opens before it returns and is safe for
// concurrent use. It always returns a Result with a Code.
type Func func(ctx context.Context, t Target) Result

// withDuration returns the result of run with Took set.
func withDuration(run func() Result) Result {
	start := time.Now()
	r := run()
	r.Took = time.Since(start)
	return r
}
