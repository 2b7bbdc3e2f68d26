package fleet

import (
	"time"
)

// version is the version of every value that this package writes. A value with a larger one is not read.
const version = 1

// maxStateSize bounds a state value in bytes. A longer reason is cut.
const maxStateSize = 600

// maxValue bounds every value that is read, in bytes. A longer one cannot be read.
const maxValue = 64 << 10

// presence is the value of present/<host>. Its lease ends with the daemon.
type presence struct {
	V        int       `json:"v"`
	Instance string    `json:"instance"` // random, kept in the locked state directory
	Boot     string    `json:"boot"`     // boot id of the kernel
	Started  time.Time `json:"started"`
	Version  string    `json:"version"` // of hacheck
	Groups   []string  `json:"groups,omitempty"`
}

// The words of state.State beyond those of spool.State.Word.
const (
	stateUp      = "up"
	stateFailing = "failing"
)

// state is the value of state/<service>/<host>. It is written on change.
type state struct {
	V      int        `json:"v"`
	State  string     `json:"state"` // up, down, drain, maint, force-up or failing
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"`
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"`
	Scope  string     `json:"scope,omitempty"` // of the override: "" for the spool
	Out    bool       `json:"out,omitempty"`   // every balancer that reports has the host out
	Groups []string   `json:"groups,omitempty"`
}

// applied is the value of applied/<host>.
type applied struct {
	V        int    `json:"v"`
	Revision int64  `json:"revision"`        // every override up to it is in force
	Left     bool   `json:"left,omitempty"`  // hacheck fleet leave
	Error    string `json:"error,omitempty"` // why Revision does not advance
	Instance string `json:"instance"`        // of the daemon that wrote it
}

// override is the value of overrides/<scope>/<service>.
type override struct {
	V       int         `json:"v"`
	ID      string      `json:"id"`    // random, one for each time it is set
	State   string      `json:"state"` // down, drain, maint or up, as in a spool file
	Reason  string      `json:"reason,omitempty"`
	By      string      `json:"by,omitempty"`
	Created time.Time   `json:"created"`
	Expires *time.Time  `json:"expires,omitempty"`
	Lifted  *liftRecord `json:"lifted,omitempty"` // the override has ended
}

// liftRecord is the lift record of an override.
type liftRecord struct {
	At time.Time `json:"at"`
	By string    `json:"by,omitempty"`
}

// budget is the value of budgets/<service>. Exactly one of Hosts and Percent is not zero.
type budget struct {
	V       int       `json:"v"`
	Hosts   int       `json:"hosts,omitempty"`
	Percent int       `json:"percent,omitempty"` // of all members, rounded down, at least 1
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
}

// queueEntry is the value of queue/<claim>. It has the lease of present/<host>.
type queueEntry struct {
	V        int       `json:"v"`
	Claim    string    `json:"claim"`
	Host     string    `json:"host"`
	Services []string  `json:"services"` // sorted; all of them or none are granted
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Waiting  string    `json:"waiting,omitempty"` // why it lets others pass: its balancers refuse
}

// The phases of a permit.
const (
	phaseAsked = "asked" // the override is not in force yet
	phaseUsed  = "used"  // from then on; it is returned by the daemon
)

// permit is the value of permits/<host>.
type permit struct {
	V        int      `json:"v"`
	Claim    string   `json:"claim"` // random, of the command that asked
	Host     string   `json:"host"`
	Instance string   `json:"instance"`
	Services []string `json:"services"` // sorted
	Phase    string   `json:"phase"`
	// Used has the services of a used permit to which an asked one adds others. They stay when the claim is given back.
	Used      []string  `json:"used,omitempty"`
	By        string    `json:"by,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	At        time.Time `json:"at"`
	Balancers []string  `json:"balancers,omitempty"` // known at the grant; each has to report UP before it is returned
	// Weights has what this host weighs in the backends of each service, the largest of them, for other hosts' --safe.
	Weights map[string]int `json:"weights,omitempty"`
	Waiting string         `json:"waiting,omitempty"` // what a used permit waits for, for people
}
