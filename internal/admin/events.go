package admin

import "time"

// The events of --wait --json, one a line. "after" is in seconds since the command began.
type (
	writtenEvent struct {
		Event string  `json:"event"` // written
		After float64 `json:"after"`
		changeDocument
	}
	balancerEvent struct {
		Event    string  `json:"event"` // balancer
		After    float64 `json:"after"`
		Status   string  `json:"status"` // waiting, done, silent, lost
		Service  string  `json:"service"`
		Port     uint16  `json:"port,omitempty"`
		Address  string  `json:"address"`
		Node     string  `json:"node,omitempty"`
		Server   string  `json:"server,omitempty"`
		URL      string  `json:"url,omitempty"`
		State    string  `json:"state,omitempty"`
		Sessions *int    `json:"sessions"` // null if not known
		Queued   *int    `json:"queued"`   // null if not known
		Text     string  `json:"text"`
	}
	noteEvent struct {
		Event string  `json:"event"` // note
		After float64 `json:"after"`
		Text  string  `json:"text"`
	}
	endEvent struct {
		Event  string   `json:"event"` // end
		After  float64  `json:"after"`
		Result string   `json:"result"` // out, up, unknown, time is up, lost, interrupted, not known, overtaken, refused, failed, held
		Exit   int      `json:"exit"`   // the exit code
		Open   []string `json:"open"`   // balancers that have not followed
		Text   string   `json:"text"`
	}
)

// afterSeconds returns the "after" of an event.
func afterSeconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
