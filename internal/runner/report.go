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
	skipped // not run, because an earlier step has failed or because of --dry-run
)

func (s status) String() string { return [...]string{"ok", "failed", "skipped"}[s] }

// stepResult is the result of one step of a check.
type stepResult struct {
	name    string
	info    string // set when a step starts: what conn-check shows with it; may be ""
	job     *job
	status  status
	message string // "" unless failed
	reason  check.Reason
	err     error         // behind message; may be nil
	took    time.Duration // 0 when skipped
	at      time.Duration // since the start of the run
}

// report is the result of one round.
type report struct {
	results    []stepResult // in the order of the file; the printer sorts them
	started    []stepResult // names and times of the steps that were started
	took       time.Duration
	rounds     int
	stopCause  error         // errMaxTimeout or an interruptError if the round ended early, else nil
	maxTimeout time.Duration // --max-timeout
	dryRun     bool
}

// count returns the number of steps with status s.
func (rep *report) count(s status) (n int) {
	for _, r := range rep.results {
		if r.status == s {
			n++
		}
	}
	return n
}

// dryRunReport returns a report in which every step is skipped.
func dryRunReport(jobs []*job) *report {
	rep := &report{dryRun: true}
	for _, j := range jobs {
		rep.results = append(rep.results, j.skipFrom(0, 0)...)
	}
	return rep
}
