// Package report has the documents that describe a fleet: the page, its JSON and the commands show them. They are plain
// data, so that the commands need not link the etcd client.
package report

import "time"

// Fleet is the whole fleet at one moment, as /fleet and `hastatus --fleet --json` have it. Lists are sorted and never
// nil.
type Fleet struct {
	Self      string     `json:"self"`            // this host
	Prefix    string     `json:"prefix"`          // of the keys
	Connected bool       `json:"connected"`       // to etcd; false: the rest is what was known last
	Error     string     `json:"error,omitempty"` // why not, or what else is wrong on this host
	Since     *time.Time `json:"since,omitempty"` // of Error, while Connected is false
	Revision  int64      `json:"revision"`        // of etcd, 0 if it was never read
	ReadAt    time.Time  `json:"read_at"`
	Left      bool       `json:"left"` // this host ignores fleet overrides (hacheck fleet leave)

	Overrides []Override `json:"overrides"`
	Services  []Service  `json:"services"`
	Hosts     []Host     `json:"hosts"`
	Queue     []Claim    `json:"queue"`
	Permits   []Permit   `json:"permits"`
	Budgets   []Budget   `json:"budgets"`
}

// Budget is a budget that was set. A service without members may have one.
type Budget struct {
	Service string `json:"service"` // or *, which is every service without a budget of its own
	Rule    string `json:"rule"`    // what was set: "2", "25%"
}

// Override is an override of a scope that is in force.
type Override struct {
	Scope   string     `json:"scope"`   // all, group:NAME or host:NAME
	Service string     `json:"service"` // or all, or an instance
	State   string     `json:"state"`   // drain, down, maint or up
	Reason  string     `json:"reason,omitempty"`
	By      string     `json:"by,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Lost    bool       `json:"lost,omitempty"` // its key is gone from etcd without a lift record; this host still obeys it
}

// Service is a service with its members.
type Service struct {
	Name    string   `json:"name"`
	Budget  int      `json:"budget"`  // members that may be out now
	Rule    string   `json:"rule"`    // what was set: "2", "25%", "default"
	Members []Member `json:"members"` // by host
	Out     int      `json:"out"`     // of Members
}

// Member is one host of a service.
type Member struct {
	Host   string     `json:"host"`
	State  string     `json:"state"`           // up, force-up, drain, down, maint, failing or absent
	Out    bool       `json:"out"`             // counts against the budget
	Since  *time.Time `json:"since,omitempty"` // absent: since when, or the last change of the state if that is not known
	Until  *time.Time `json:"until,omitempty"`
	Reason string     `json:"reason,omitempty"`
	By     string     `json:"by,omitempty"`
	Scope  string     `json:"scope,omitempty"`
	Permit bool       `json:"permit,omitempty"` // holds one for the service
	// BalancersOut reports that every balancer that reports has the host out.
	BalancersOut bool `json:"balancers_out,omitempty"`
}

// Host is one host of the fleet.
type Host struct {
	Name     string     `json:"name"`
	Present  bool       `json:"present"`
	Since    *time.Time `json:"since,omitempty"` // present: its start; absent: see Since of a Member
	Groups   []string   `json:"groups,omitempty"`
	Version  string     `json:"version,omitempty"`
	Revision int64      `json:"revision"` // of the overrides that it obeys
	Left     bool       `json:"left,omitempty"`
	Error    string     `json:"error,omitempty"` // why it does not apply overrides
}

// Claim is a request for a permit that waits in the queue.
type Claim struct {
	Host     string    `json:"host"`
	Services []string  `json:"services"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Waiting  string    `json:"waiting,omitempty"`
}

// Permit is the permission of a host to be out.
type Permit struct {
	Host     string    `json:"host"`
	Services []string  `json:"services"`
	Phase    string    `json:"phase"` // asked or used
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Waiting  string    `json:"waiting,omitempty"` // what has to happen until it is returned
}

// Status is what this host knows without asking etcd: for metrics, /status and hastatus.
type Status struct {
	Connected bool       `json:"connected"`
	Error     string     `json:"error,omitempty"`     // why not, or what is wrong with what was read
	Since     time.Time  `json:"since"`               // of Connected or of Error
	Revision  int64      `json:"revision"`            // of the overrides in force
	Confirmed *time.Time `json:"confirmed,omitempty"` // when etcd last answered
	Left      bool       `json:"left"`
	Lost      int        `json:"lost"`             // overrides in force whose key is gone
	Overrides int        `json:"overrides"`        // of the fleet, that this host obeys
	Permit    string     `json:"permit,omitempty"` // asked or used; "" without
	Queued    int        `json:"queued"`           // claims of this host
	Errors    uint64     `json:"errors"`           // failed calls to etcd
	Hosts     int        `json:"hosts"`            // present, when last read
}

// Outcome is how far the hosts have followed an override of scopes, or its end.
type Outcome struct {
	Missing []string `json:"missing,omitempty"` // hosts that were present at the beginning and have not applied it in time
	Absent  []string `json:"absent,omitempty"`  // hosts of the scope that are absent; they obey when they are back
	Left    []string `json:"left,omitempty"`    // hosts of the scope that ignore fleet overrides
	Unknown []string `json:"unknown,omitempty"` // scopes (host:NAME, group:NAME) that have no host which etcd knows
	// StillDown are members that something else keeps out after a lift.
	StillDown []HeldDown `json:"still_down,omitempty"`
}

// HeldDown is a service of a host that an override keeps out.
type HeldDown struct {
	Host    string     `json:"host"`
	Service string     `json:"service"`
	Key     string     `json:"key,omitempty"` // of the override, as spool.Key.Name has it: all, the service or an instance
	State   string     `json:"state"`
	Scope   string     `json:"scope,omitempty"` // of the override; "" for the spool of the host
	Reason  string     `json:"reason,omitempty"`
	By      string     `json:"by,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Until   *time.Time `json:"until,omitempty"` // nil: it does not end by itself, or its end is not known
}

// Impact is what an override of scopes does to a service.
type Impact struct {
	Service string `json:"service"`
	Members int    `json:"members"`
	Out     int    `json:"out"`    // now
	GoOut   int    `json:"go_out"` // members that the override takes out and that are in now
	Budget  int    `json:"budget"`
}
