package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/textfmt"
)

const (
	// maxConcurrent bounds how many checks run side by side. It is far above what a file usually has, so that
	// checks that hang do not hold up the others, and below the usual limit of descriptors.
	maxConcurrent = 512
	// cleanupTimeout is how long a run that was ended waits for its checks to close what they have open: a script
	// has to be killed, for one.
	cleanupTimeout = time.Second
	// maxMessage and maxName bound the text of a failure and of a name, which may have a URL in it, in bytes.
	maxMessage, maxName = 500, 4096
)

// job is a check and those of its steps that were chosen.
type job struct {
	*check.Configured
	steps []check.Step
}

func dryRunReport(jobs []*job) *report {
	rep := &report{dryRun: true}
	for _, j := range jobs {
		rep.results = append(rep.results, j.skipFrom(0, 0)...)
	}
	return rep
}

// skipFrom returns outcomes for the steps from the given one on.
func (j *job) skipFrom(from int, at time.Duration) []stepResult {
	list := make([]stepResult, 0, len(j.steps))
	for _, s := range j.steps[from:] {
		list = append(list, stepResult{name: s.Name, job: j, status: skipped, at: at})
	}
	return list
}

// event tells of one job that a step began or ended.
type event struct {
	job     int
	started bool
	stepResult
}

// round is one run of all jobs.
type round struct {
	jobs   []*job
	start  time.Time // of the whole run, for outcome.at
	events chan event
	done   sync.WaitGroup
}

// runRound runs the jobs side by side until all have ended or ctx has. see is told of each event as it
// comes, from this goroutine; tick, while it is not nil, has draw called with the names of what is under way.
func runRound(ctx context.Context, jobs []*job, start time.Time, see func(event), tick <-chan time.Time, draw func(progress)) *report {
	total := 0
	for _, j := range jobs {
		total += len(j.steps)
	}
	// There is room for every event, so no check ever waits for somebody to read them.
	r := &round{jobs: jobs, start: start, events: make(chan event, 2*total)}
	slots := make(chan struct{}, maxConcurrent)
	for i := range jobs {
		r.done.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				r.run(ctx, i)
			case <-ctx.Done():
			}
		})
	}
	t := newCollector(jobs)
	for open := total; open > 0; {
		select {
		case e := <-r.events:
			open -= t.add(e)
			see(e)
			continue
		case <-tick:
			draw(t.progress())
			continue
		case <-ctx.Done():
		}
		for len(r.events) > 0 {
			e := <-r.events
			open -= t.add(e)
			see(e)
		}
		if open > 0 {
			for _, e := range t.failUnfinished(context.Cause(ctx), time.Since(start)) {
				see(e)
			}
			r.await()
		}
		break
	}
	rep := t.report()
	if t.abandoned {
		rep.stopCause = context.Cause(ctx)
	}
	return rep
}

// run runs the steps of one job, one after the other.
func (r *round) run(ctx context.Context, i int) {
	j := r.jobs[i]
	limited, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	target := check.Target{Protocol: j.Type, Host: j.Endpoint.Host, Port: j.Endpoint.Port}
	for n, s := range j.steps {
		r.events <- event{job: i, started: true, stepResult: stepResult{name: s.Name, info: s.Info, job: j, at: time.Since(r.start)}}
		began := time.Now()
		res := s.Run(limited, target)
		if res.Code != 200 && isExpired(ctx) {
			return // it was not the service that failed
		}
		o := stepResult{name: s.Name, job: j, took: time.Since(began), at: time.Since(r.start)}
		if res.Code == 200 {
			r.events <- event{job: i, stepResult: o}
			continue
		}
		o.status, o.message, o.reason, o.err = failed, failureMessage(res), res.Reason, res.Err
		if o.reason == check.ReasonOK { // it has answered, but not what it should
			o.reason = check.ReasonFailed
		}
		r.events <- event{job: i, stepResult: o}
		for _, o := range j.skipFrom(n+1, o.at) {
			r.events <- event{job: i, stepResult: o}
		}
		return
	}
}

// isExpired tells whether ctx has ended, or will in a moment: a connection knows the deadline too, and may see
// it a little earlier.
func isExpired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// failureMessage says in one line what is wrong. A service's own page is not shown: it may be anything.
func failureMessage(r check.Result) string {
	if r.Reason == check.ReasonOK {
		return fmt.Sprintf("Unexpected response code: %d", r.Code)
	}
	if text := clean(string(r.Body), maxMessage); text != "" {
		return text
	}
	return r.Reason.String()
}

// await gives checks whose context has ended the time to clean up.
func (r *round) await() {
	all := make(chan struct{})
	go func() {
		r.done.Wait()
		close(all)
	}()
	timer := time.NewTimer(cleanupTimeout)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
	}
}

// collector keeps what the events tell.
type collector struct {
	jobs      []*job
	outcomes  [][]stepResult // by job
	started   []stepResult
	running   map[int]string // job and the name of its step
	finished  int
	failed    int
	abandoned bool
}

// progress is how far a round is, for people.
type progress struct {
	done, total, failed int
	running             []string // sorted
}

func newCollector(jobs []*job) *collector {
	return &collector{jobs: jobs, outcomes: make([][]stepResult, len(jobs)), running: map[int]string{}}
}

// add counts an event and returns how many steps it ends.
func (t *collector) add(e event) int {
	if e.started {
		t.started = append(t.started, e.stepResult)
		t.running[e.job] = e.name
		return 0
	}
	delete(t.running, e.job)
	t.outcomes[e.job] = append(t.outcomes[e.job], e.stepResult)
	t.finished++
	if e.status == failed {
		t.failed++
	}
	return 1
}

// failUnfinished ends every job that is still open: its next step has failed, and what comes after is skipped.
func (t *collector) failUnfinished(cause error, at time.Duration) []event {
	t.abandoned = true
	var events []event
	for i, j := range t.jobs {
		n := len(t.outcomes[i])
		if n == len(j.steps) {
			continue
		}
		o := stepResult{
			name: j.steps[n].Name, job: j, status: failed, message: "not finished: " + cause.Error(),
			reason: check.ReasonCancelled, err: cause, at: at,
		}
		if errors.Is(cause, errMaxTimeout) {
			o.reason = check.ReasonTimeout
		}
		for _, o := range append([]stepResult{o}, j.skipFrom(n+1, at)...) {
			e := event{job: i, stepResult: o}
			t.add(e)
			events = append(events, e)
		}
	}
	return events
}

func (t *collector) report() *report {
	rep := &report{started: t.started}
	for _, list := range t.outcomes {
		rep.results = append(rep.results, list...)
	}
	return rep
}

func (t *collector) progress() progress {
	s := progress{done: t.finished, failed: t.failed}
	for _, j := range t.jobs {
		s.total += len(j.steps)
	}
	for _, name := range t.running {
		s.running = append(s.running, name)
	}
	slices.Sort(s.running)
	return s
}

// clean is what a report shows of a text from elsewhere, about that many bytes at most.
func clean(s string, most int) string { return textfmt.Excerpt(s, most) }
