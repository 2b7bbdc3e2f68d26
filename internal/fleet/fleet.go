package fleet

import (
	"context"
	"log/slog"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/fleet/report"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// Options configure a Fleet. A field is required unless its comment says "optional".
type Options struct {
	Endpoints []string        // URLs of etcd's members
	Prefix    string          // of all keys, with a slash at the end
	Host      string          // name of this host in the fleet
	Groups    []string        // optional: by which operators address several hosts
	Member    map[string]bool // optional: services of which this host is always, or never, a member
	Lease     time.Duration   // of present/<host>: 5 s to 5 min
	StartWait time.Duration   // how long Open waits for etcd
	StateDir  string          // of the local copy and the instance id
	Version   string          // of hacheck

	// Credentials reads the login and the TLS files anew for each connection, so that a renewed certificate is used.
	Credentials func() (Credentials, error)

	Overrides Overrides              // of this host
	Spool     Spool                  // where a permit's override is written
	Balancers func() balancer.Report // optional: what the balancers have reported to this host

	Log      *slog.Logger      // optional
	LogLimit *loglimit.Limiter // optional
}

// Overrides is the index that lookups read; *spool.Index is one.
type Overrides interface {
	// SetFleet replaces the fleet overrides of the index. It returns when every lookup that begins from now on sees
	// them. The key of an entry is its service or instance, Scope says for which hosts it was set.
	SetFleet(list []spool.Entry)
	// List returns every override in force, from the spool and from the fleet.
	List() []spool.Entry
}

// Spool writes overrides of this host; *spool.Dir does.
type Spool interface {
	Write(e spool.Entry) error
}

// Progress receives the progress of an operation, one sentence per change. It must not block.
type Progress func(text string)

// Takedown is `hadown --safe`: an override of this host that needs a permit.
type Takedown struct {
	Keys     []spool.Key // what is taken out; All is every service of which the host is a member
	Override spool.Entry // without its Key
	// WaitTurn is how long the claim may wait in the queue; 0: it is granted at once or refused.
	WaitTurn time.Duration
	// IsStopped reports whether the command is stopped (SIGSTOP, ^Z). Such a claim lets others pass until the command
	// goes on. Optional: the command always runs.
	IsStopped func() bool
}

// ScopedOverride is an override of many hosts.
type ScopedOverride struct {
	Scopes   []string    // all, group:NAME or host:NAME
	Keys     []spool.Key // services or instances, or All
	Override spool.Entry // without its Key; By is required
	Replace  bool        // replace the override of another person
}

// RefusedError says why an operation was refused, and what the operator can do. Nothing was changed.
type RefusedError struct{ Reason string }

// Error returns the reason.
func (e *RefusedError) Error() string { return e.Reason }

// UnavailableError says that etcd could not be asked, or that the outcome of a transaction is not known.
type UnavailableError struct {
	Err     error
	Unknown bool // the transaction may have been applied
}

// Error returns why, and whether the change may have happened.
func (e *UnavailableError) Error() string {
	if e.Unknown {
		return "it is not known whether etcd has applied the change: " + e.Err.Error()
	}
	return "etcd cannot be asked: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Service is what other packages use of a Fleet; the control socket and the page are its users.
type Service interface {
	// TakeDown does the whole of `hadown --safe`: it waits for a permit, asks the balancers and writes the override.
	// When ctx ends before the override is written, nothing is written and the permit goes back.
	TakeDown(ctx context.Context, t Takedown, p Progress) error
	// Impact says what o would do, without doing it.
	Impact(ctx context.Context, o ScopedOverride) ([]report.Impact, error)
	// SetOverride sets o and waits until every present host of its scopes has applied it, or ctx ends.
	SetOverride(ctx context.Context, o ScopedOverride, p Progress) (report.Outcome, error)
	// LiftOverride lifts the overrides of exactly these scopes and keys and waits likewise. Only Scopes, Keys and
	// Override.By of o count.
	LiftOverride(ctx context.Context, o ScopedOverride, p Progress) (report.Outcome, error)
	// SetBudget sets how many members of service ("*": every other service) may be out: "2" or "25%"; "" removes it.
	SetBudget(ctx context.Context, service, budget, by string) error
	// Forget removes an absent host: its state, permit and queue entries.
	Forget(ctx context.Context, host, by string) error
	// Release gives back the permit of host for service. The host "" is this one.
	Release(ctx context.Context, service, host, by string) error
	// Leave makes this host ignore fleet overrides until Join. It needs no etcd.
	Leave(by string) error
	Join(by string) error
	// Report reads the fleet, at most once in 2 s for all callers. Without etcd it returns what was known last.
	Report(ctx context.Context) (*report.Fleet, error)
	Status() report.Status
}
