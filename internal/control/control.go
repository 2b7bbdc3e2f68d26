// Package control is the Unix socket through which the commands of this host reach the daemon: one request, then events
// until the last one. The kernel tells the daemon who calls. The package does not know what a request means, and links
// neither net/http nor etcd, because every command links it.
package control

import (
	"time"

	"hacheck/internal/fleet/report"
)

// DefaultSocket is the path of the socket without --control-socket.
const DefaultSocket = "/run/hacheck/control.sock"

// The operations of a Request.
const (
	OpTakeDown = "takedown" // hadown --safe: permit, balancers and override
	OpImpact   = "impact"   // what OpSet would do
	OpSet      = "set"      // an override of scopes
	OpLift     = "lift"     // the end of an override of scopes
	OpHeldDown = "held"     // overrides of the fleet that keep Services of this host down; without Services all of them, also force-up
	OpReport   = "report"   // the fleet, as report.Fleet
	OpBudget   = "budget"
	OpForget   = "forget"
	OpRelease  = "release"
	OpLeave    = "leave"
	OpJoin     = "join"

	OpForgetBalancer = "forget_balancer" // needs no fleet
)

// Request is the line that a command sends. Fields that an operation does not use are empty.
type Request struct {
	Op       string     `json:"op"`
	Scopes   []string   `json:"scopes,omitempty"`   // all, group:NAME, host:NAME
	Services []string   `json:"services,omitempty"` // names of spool.Key
	State    string     `json:"state,omitempty"`    // down, drain, maint or up
	Reason   string     `json:"reason,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
	Replace  bool       `json:"replace,omitempty"`
	// UntilBoot of OpTakeDown: the override ends with the next start of the machine.
	UntilBoot bool `json:"until_boot,omitempty"`
	// WaitTurn and Timeout are in seconds; 0: not given.
	WaitTurn float64 `json:"wait_turn,omitempty"`
	Timeout  float64 `json:"timeout,omitempty"`
	Host     string  `json:"host,omitempty"`     // of OpForget and OpRelease
	Balancer string  `json:"balancer,omitempty"` // of OpForgetBalancer: an address or a node name
	Budget   string  `json:"budget,omitempty"`   // of OpBudget: "2", "25%", or "" to remove it
}

// Event is one line of the answer. The last one has Done.
type Event struct {
	Text string `json:"text,omitempty"` // progress, for people
	Done bool   `json:"done,omitempty"`
	// Code is the exit code of the command; 0 means that the operation was done.
	Code     int               `json:"code,omitempty"`
	Error    string            `json:"error,omitempty"`     // why Code is not 0
	NoFleet  bool              `json:"no_fleet,omitempty"`  // the daemon has no fleet; nothing was done, Code is not 0
	Outcome  *report.Outcome   `json:"outcome,omitempty"`   // of OpSet and OpLift
	Impact   []report.Impact   `json:"impact,omitempty"`    // of OpImpact
	HeldDown []report.HeldDown `json:"held_down,omitempty"` // of OpHeldDown
	Fleet    *report.Fleet     `json:"fleet,omitempty"`     // of OpReport
	// WrittenAt is when the override of OpTakeDown was in force. A command that was stopped (SIGSTOP, ^Z) reads it late.
	WrittenAt time.Time `json:"written_at,omitzero"`
}
