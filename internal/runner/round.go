package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/textfmt"
)

const (
	// maxConcurrent is how many checks run at once. It exceeds the checks of a usual file, so that hanging checks do
	// not delay the others. It is below the usual limit of file descriptors.
	maxConcurrent = 512
	// cleanupTimeout is how long an interrupted run waits for its checks to close what they have opened. Scripts
	// must be killed, for example.
	cleanupTimeout = time.Second
	// maxMessage and maxName are the longest failure message and the longest name in bytes. A name may contain a URL.
	maxMessage, maxName = 500, 4096
)

// job is a check with its selected steps.
type job struct {
	*check.ConfiguredCheck
	steps []check.Step
}

// skipFrom returns a skipped result for each step from index first on.
func (j *job) skipFrom(first int, at time.Duration) []stepResult {
	list := make([]stepResult, 0, len(j.steps))
	for _, s := range j.steps[first:] {
		list = append(list, stepResult{name: s.Name, job: j, status: skipped, at: at})
	}
	return list
}

// event reports that a step of a job has started or ended.
type event struct {
	job     int // index of the job
	started bool
	stepResult
}

// round is one run of all jobs.
type round struct {
	jobs   []*job
	start  time.Time // of the whole run
	events chan event
	wg     sync.WaitGroup // the goroutines of the jobs
}

// runRound runs the jobs concurrently until all have ended or ctx ends. It calls onEvent for each event and draw at
// each tick, both on the caller's goroutine. A nil tick never draws.
func runRound(ctx context.Context, jobs []*job, start time.Time, onEvent func(event), tick <-chan time.Time, draw func(progress)) *report {
	c := newCollector(jobs, onEvent)
	// The channel has room for every event, so that no check blocks on it.
	r := &round{jobs: jobs, start: start, events: make(chan event, 2*c.total)}
	slots := make(chan struct{}, maxConcurrent)
	for i := range jobs {
		r.wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				r.run(ctx, i)
			case <-ctx.Done():
			}
		})
	}
	for c.done < c.total {
		select {
		case e := <-r.events:
			c.add(e)
			continue
		case <-tick:
			draw(c.snapshot())
			continue
		case <-ctx.Done():
		}
		for len(r.events) > 0 {
			c.add(<-r.events)
		}
		if c.done < c.total {
			c.failUnfinished(context.Cause(ctx), time.Since(start))
			r.waitForCleanup()
		}
	}
	return c.report()
}

// run runs the steps of job i in order until one fails.
func (r *round) run(ctx context.Context, i int) {
	j := r.jobs[i]
	limited, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	target := check.Target{Protocol: j.Type, Host: j.Endpoint.Host, Port: j.Endpoint.Port}
	attempt := j.Begin(limited, target)
	defer attempt.End()
	for n, s := range j.steps {
		r.events <- event{job: i, started: true, stepResult: stepResult{name: s.Name, info: s.Info, job: j, at: time.Since(r.start)}}
		began := time.Now()
		found := attempt.Run(s)
		if found.Code != 200 && isExpired(ctx) {
			return // the run was ended, the service did not fail
		}
		result := stepResult{name: s.Name, job: j, took: time.Since(began), at: time.Since(r.start)}
		if found.Code == 200 {
			r.events <- event{job: i, stepResult: result}
			continue
		}
		result.status, result.message, result.reason, result.err = failed, failureMessage(found), found.FailureReason(), found.Err
		r.events <- event{job: i, stepResult: result}
		for _, s := range j.skipFrom(n+1, result.at) {
			r.events <- event{job: i, stepResult: s}
		}
		return
	}
}

// isExpired reports whether ctx has ended or its deadline has passed. A connection with the same deadline may fail
// shortly before ctx ends.
func isExpired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// failureMessage returns one line that says why a check failed. It does not contain a page of the service.
func failureMessage(r check.Result) string {
	if r.Reason == check.ReasonAnswered {
		return fmt.Sprintf("Unexpected response code: %d", r.Code)
	}
	if text := textfmt.Excerpt(r.Body, maxMessage); text != "" {
		return text
	}
	return r.Reason.String()
}

// waitForCleanup waits until all jobs have returned, at most cleanupTimeout.
func (r *round) waitForCleanup() {
	all := make(chan struct{})
	go func() {
		r.wg.Wait()
		close(all)
	}()
	timer := time.NewTimer(cleanupTimeout)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
	}
}

// collector builds the report of a round from its events.
type collector struct {
	progress // running is empty, see runningSteps

	jobs         []*job
	onEvent      func(event)
	results      [][]stepResult // by job
	started      []stepResult
	runningSteps map[int]string // the name of the running step by job
	stopCause    error
}

func newCollector(jobs []*job, onEvent func(event)) *collector {
	c := &collector{jobs: jobs, onEvent: onEvent, results: make([][]stepResult, len(jobs)), runningSteps: map[int]string{}}
	for _, j := range jobs {
		c.total += len(j.steps)
	}
	return c
}

// add records e and passes it to onEvent.
func (c *collector) add(e event) {
	c.onEvent(e)
	if e.started {
		c.started = append(c.started, e.stepResult)
		c.runningSteps[e.job] = e.name
		return
	}
	delete(c.runningSteps, e.job)
	c.results[e.job] = append(c.results[e.job], e.stepResult)
	c.done++
	if e.status == failed {
		c.failed++
	}
}

// failUnfinished marks the next step of each unfinished job as failed and its further steps as skipped.
func (c *collector) failUnfinished(cause error, at time.Duration) {
	c.stopCause = cause
	reason := check.ReasonCancelled
	if errors.Is(cause, errMaxTimeout) {
		reason = check.ReasonTimeout
	}
	for i, j := range c.jobs {
		next := len(c.results[i])
		if next == len(j.steps) {
			continue
		}
		c.add(event{job: i, stepResult: stepResult{
			name: j.steps[next].Name, job: j, status: failed, message: "not finished: " + cause.Error(), reason: reason, err: cause, at: at,
		}})
		for _, s := range j.skipFrom(next+1, at) {
			c.add(event{job: i, stepResult: s})
		}
	}
}

func (c *collector) report() *report {
	return &report{results: slices.Concat(c.results...), started: c.started, stopCause: c.stopCause}
}

// snapshot returns the progress so far.
func (c *collector) snapshot() progress {
	p := c.progress
	p.running = slices.Sorted(maps.Values(c.runningSteps))
	return p
}
