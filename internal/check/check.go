// Package check asks services how they are. A check is a small function; everything around it
// (timeout, limit of concurrent checks) is a wrapper. It knows no configuration, no door and no spool.
//
// Every protocol is one file and one line in All. A check opens a connection of its own, because an old
// one proves nothing, and has closed it when it returns. Its context bounds it in time in every phase;
// what a service may make it read, keep or show is bounded in size.
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
	Host     string // an IP address in canonical text or a name; empty for a check whose configuration says whom to ask
	Port     uint16 // 0: no port was given
	Hops     uint8  // the checks that the request came through; see HopsHeader
	// URI is the escaped path and query for the service exactly as the balancer sent them, with the
	// leading slash ("/status?x=1"). Port-only protocols ignore it.
	URI string
	// Header holds the client's headers that are copied to the service.
	Header []Field
}

// Field is one header line to copy.
type Field struct{ Name, Value string }

// Clone returns a deep copy of t: neither the memory of t's Header nor that of its strings, which may be parts of a
// whole request, is in it. Whatever outlives the request keeps a clone.
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

// Reason says in one word why a check ended as it did; it is a label in logs and metrics.
type Reason uint8

// The reasons. ReasonOK, the zero value, means that the service answered; Code says what.
const (
	ReasonOK        Reason = iota
	ReasonRefused          // nothing listens there, or there is no way to it
	ReasonTimeout          // no complete answer in time
	ReasonProtocol         // it answered, but not in this protocol, or cut off
	ReasonFailed           // it answered in the protocol that it is not well (an error reply, a failed login)
	ReasonResolve          // the host name has no address
	ReasonBusy             // hacheck itself had no slot, descriptor or local port left; says nothing about the service, never cached
	ReasonCancelled        // whoever asked gave up; says nothing about the service, never cached
	ReasonConfig           // it cannot be asked as things are configured (no credentials, no port)
	ReasonForbidden        // it may not be asked (see check_hosts_allowed)
)

var reasonNames = [...]string{
	ReasonOK:        "ok",
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

// String is the reason in one lower-case word, "unknown" for a number that is none.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Result is what a check found.
type Result struct {
	Code        int    // HTTP status that stands for the outcome; 200 is healthy and nothing else
	Body        []byte // at most MaxBody bytes; for our own text one line without a newline at its end; not to be changed
	ContentType string // "" means text/plain; charset=utf-8
	Reason      Reason
	Err         error // for logs and metrics, never for clients; nil when Reason is ReasonOK
	Took        time.Duration
	Parts       []NamedResult // what each of a service's checks found, where they were all asked; nil otherwise
}

// MaxBody is how much of a service's answer is kept and passed on, in bytes.
const MaxBody = 64 << 10

// Func asks a service. It obeys ctx in every phase, closes what it opens before it returns and is
// safe for concurrent use. It always returns a Result with a Code.
type Func func(ctx context.Context, t Target) Result
