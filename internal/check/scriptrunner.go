package check

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultScripts is how many scripts run at once by default. One service has half of them at most.
const DefaultScripts = 64

// Scripts runs the scripts of the checks that were built with it. It limits how many run at once, and never runs one
// command twice at a time. Callers with the same command, service and port share one run. One Scripts serves a process
// for its whole life, across reloads.
type Scripts struct {
	slots *slots // divided among services

	mu       sync.Mutex
	commands map[string]*scriptCommand // the running commands by scriptRun.key
}

// scriptCommand is a program with its arguments while it runs.
type scriptCommand struct {
	current *scriptRun   // from before it waits for a slot until it is reaped
	next    []*scriptRun // the runs after it, in order of arrival; one for each service and port
}

// scriptRun is one run of a command. Callers with the same service and port share it until it ends.
type scriptRun struct {
	argv    []string
	service string
	port    uint16
	timeout time.Duration

	done   chan struct{} // closed when result is set
	result Result

	// Guarded by Scripts.mu until the run has started:
	started time.Time               // zero while another run of the command has not ended
	cancel  context.CancelCauseFunc // ends the run
	// Guarded by Scripts.mu:
	callers int
	ending  bool // no caller may join: the last one has left, or the run has ended
}

// NewScripts returns a runner of at most n scripts at once. It panics when n is less than 1, because nothing could
// ever run.
func NewScripts(n int) *Scripts {
	if n < 1 {
		panic(fmt.Sprintf("check: a limit of %d scripts", n))
	}
	// At most one run of each command waits, so the queue needs no limit.
	return &Scripts{slots: newSlots(n, math.MaxInt), commands: map[string]*scriptCommand{}}
}

// Stop kills the running scripts with their process groups, and returns when they have ended, after a second at most.
// Runs that wait for another run of their command do not start. The process calls it before it exits, because its exit
// kills only the scripts themselves.
func (s *Scripts) Stop() {
	s.mu.Lock()
	var runs []*scriptRun
	for _, c := range s.commands {
		c.current.ending = true
		c.current.cancel(context.Canceled)
		runs = append(runs, c.current)
		for _, run := range c.next {
			run.ending = true
			run.result = run.noResult(context.Canceled, time.Now(), "")
			close(run.done)
		}
		c.next = nil
	}
	s.mu.Unlock()
	for _, run := range runs {
		<-run.done
	}
}

// key returns what identifies the command. An argument cannot contain a NUL.
func (run *scriptRun) key() string { return strings.Join(run.argv, "\x00") }

// run runs a script and returns its result. Callers with the same command, service and port share one run, because only
// service and port are passed to a script. While the command runs for another service or port, the next run waits.
// leave kills a script when its last caller has left.
func (s *Scripts) run(ctx context.Context, want *scriptRun) Result {
	return withDuration(func() Result { return s.wait(ctx, want) })
}

// wait returns the result of a run that s.join found for want, or why there is none when ctx ends.
func (s *Scripts) wait(ctx context.Context, want *scriptRun) Result {
	const notRun = "was not run: another run of it has not ended"
	start := time.Now()
	if ctx.Err() != nil {
		return want.noResult(ctx.Err(), start, notRun)
	}
	run := s.join(want)
	select {
	case <-run.done:
		return run.result
	case <-ctx.Done():
	}
	started, last := s.leave(run, ctx.Err())
	switch {
	case started.IsZero():
		return want.noResult(ctx.Err(), start, notRun)
	case last:
		<-run.done // the script is killed; this blocks for reapTimeout at most
		if r := run.result; r.Reason == ReasonTimeout && started.Sub(start) > time.Since(started) {
			// The script had less than half of the time, which tells nothing about it.
			return want.noResult(ctx.Err(), start, fmt.Sprintf("had %.2fs only, because another run of it had not ended,", time.Since(started).Seconds()))
		}
		return run.result
	}
	select {
	case <-run.done: // just now
		return run.result
	default:
	}
	r := want.noResult(ctx.Err(), start, "has not ended and runs on for another request")
	if r.Reason == ReasonBusy && started.Sub(start) <= time.Since(started) {
		r.Reason = ReasonTimeout // the script ran for at least half of the time
	}
	return r
}

// join returns a run of the same command for the same service and port that has not ended, or else starts or queues
// want.
func (s *Scripts) join(want *scriptRun) *scriptRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.commands[want.key()]
	if c != nil {
		for _, run := range append([]*scriptRun{c.current}, c.next...) {
			if !run.ending && run.service == want.service && run.port == want.port {
				run.callers++
				return run
			}
		}
	}
	want.callers, want.done = 1, make(chan struct{})
	if c != nil {
		c.next = append(c.next, want)
		return want
	}
	c = &scriptCommand{}
	s.commands[want.key()] = c
	s.start(c, want)
	return want
}

// start starts a run of c and, when it has ended, the next one. s.mu is held.
func (s *Scripts) start(c *scriptCommand, run *scriptRun) {
	c.current, run.started = run, time.Now()
	// The run has a timeout of its own: callers join and leave while it runs, but must not prolong it.
	timed, stop := context.WithTimeout(context.Background(), run.timeout)
	ctx, cancel := context.WithCancelCause(timed)
	run.cancel = cancel
	go func() {
		defer stop()
		s.execute(ctx, run)
		s.mu.Lock()
		defer s.mu.Unlock()
		run.cancel(nil)
		if len(c.next) == 0 {
			delete(s.commands, run.key())
			return
		}
		next := c.next[0]
		c.next = slices.Delete(c.next, 0, 1)
		s.start(c, next)
	}()
}

// leave removes a caller from a run without a result. If it was the last caller, leave kills the run, or removes it
// from the queue. leave returns when the run started, zero if it has not.
func (s *Scripts) leave(run *scriptRun, cause error) (started time.Time, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	run.callers--
	if run.callers > 0 {
		return run.started, false
	}
	run.ending = true
	if c := s.commands[run.key()]; c != nil && run.started.IsZero() {
		c.next = slices.DeleteFunc(c.next, func(r *scriptRun) bool { return r == run })
	} else {
		run.cancel(cause)
	}
	return run.started, true
}

// execute waits for a slot and runs the script. It returns when the process is reaped.
func (s *Scripts) execute(ctx context.Context, run *scriptRun) {
	publish := func(r Result) {
		s.mu.Lock()
		run.ending = true
		s.mu.Unlock()
		run.result = r
		close(run.done)
	}
	owner := slotOwner{service: run.service}
	if err := s.slots.acquire(ctx, owner); err != nil {
		publish(run.noResult(context.Cause(ctx), run.started, s.fullReason(owner)))
		return
	}
	defer s.slots.release(owner)
	run.exec(ctx, publish)
}

// fullReason says why a service's script got no slot.
func (s *Scripts) fullReason(owner slotOwner) string {
	if running, own, _ := s.slots.count(owner); running < s.slots.size && own > 0 {
		return fmt.Sprintf("was not run: %d scripts of its service, as many as may, run already", own)
	}
	return fmt.Sprintf("was not run: %d scripts, as many as may, run already", s.slots.size)
}
