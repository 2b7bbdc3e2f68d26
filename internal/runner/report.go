package runner

import (
	"time"

	"hacheck/internal/check"
)

// status is how a step ended.
type status uint8

const (
	passed status = iota
	failed
	skipped // not asked, as a step before it has failed or it is a dry run
)

// String is the status in one word.
func (s status) String() string { return [...]string{"ok", "failed", "skipped"}[s] }

// stepResult is what became of one step.
type stepResult struct {
	name    string
	info    string // conn-check's, where a step begins; may be ""
	job     *job
	status  status
	message string // "" unless failed
	reason  check.Reason
	err     error         // behind why; may be nil
	took    time.Duration // 0 when skipped
	at      time.Duration // since the start of the run
}

// report is what one round has found.
type report struct {
	results    []stepResult // in the order of the file; the printer sorts
	started    []stepResult // names and times of the steps that began
	took       time.Duration
	rounds     int
	stopCause  error         // errMaxTimeout or errInterrupted when the run ended early, else nil
	maxTimeout time.Duration // --max-timeout, to be named
	dryRun     bool
}

func (rep *report) count(s status) (n int) {
	for _, o := range rep.results {
		if o.status == s {
			n++
		}
	}
	return n
}
