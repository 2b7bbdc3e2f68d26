package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxOutput is how much a script's output is kept and shown, in bytes; the rest is read and thrown away.
	maxOutput = 4 << 10
	// DefaultScripts is how many scripts run at once where nobody says otherwise. One service has half of them at most.
	DefaultScripts = 64
	// defaultScriptTimeout is a script's time if it names none.
	defaultScriptTimeout = 5 * time.Second
	// reapTime is how long a killed script is waited for. One that sits in the kernel, on a dead disk, dies
	// when that lets it go; it goes on counting as running, but nobody waits.
	reapTime = time.Second
)

// scriptType is the check that is whatever a program says.
var scriptType = Type{
	Name: "script",
	Doc:  "a program of this machine exits with 0; it is never run by a shell, and killed with all it has started at the timeout",
	Options: []Option{
		{Name: "command", Want: "a list of words, or a text that is split into words as a shell does", Required: true, Doc: "the program and its arguments"},
		{Name: "timeout", Want: "a number of seconds above 0 and up to 3600", Default: "5", Doc: "when it is killed"},
		{Name: "ports", Want: "a list of ports from 1 to 65535", Doc: "which ports of a request the script is told, besides those of the service's other checks"},
	},
	build: func(o *values, d Defaults) (*Configured, error) {
		argv, ports := o.command("command"), o.ports("ports")
		if len(argv) == 0 {
			return nil, nil // o knows why
		}
		scripts := d.Scripts
		if scripts == nil {
			scripts = NewScripts(1)
		}
		// The arguments are not part of the name: a password may be among them.
		c := &Configured{Name: "script:" + oneLine(argv[0], 300), Timeout: o.seconds("timeout", defaultScriptTimeout), ports: ports}
		c.Steps = []Step{{Name: c.Name, Run: func(ctx context.Context, t Target) Result {
			return scripts.ask(ctx, &script{
				argv: argv, service: t.Service, port: t.Port, timeout: c.Timeout,
			})
		}}}
		return c, nil
	},
}

// command returns the words of a command, which may be given as a list or in one text.
func (o *values) command(name string) []string {
	var argv []string
	switch v := o.spec.Options[name].(type) {
	case nil:
		return nil
	case string:
		words, err := SplitCommand(v)
		if err != nil {
			o.wrong(name, "expected "+o.option(name).Want+", got "+err.Error())
		}
		return words
	case []any:
		for _, word := range v {
			switch word := word.(type) {
			case string:
				argv = append(argv, word)
			case int, float64:
				argv = append(argv, fmt.Sprint(word))
			default:
				o.wrong(name, "expected a list of words, got one with something else in it")
				return nil
			}
		}
		if len(argv) == 0 || argv[0] == "" || strings.Contains(strings.Join(argv, ""), "\x00") {
			o.wrong(name, "expected a program and its arguments, got a list without a program or with a NUL character")
			return nil
		}
		return argv
	default:
		o.unexpected(name, v)
		return nil
	}
}

// Scripts runs the scripts of the checks that were built with it: so many at once, and never one command
// twice at a time. One serves a whole process, reloads of its configuration included.
type Scripts struct {
	slots *slots // divided among services

	mu       sync.Mutex
	commands map[string]*command // those that run
}

// command is a program with its arguments while it runs.
type command struct {
	running *script   // from before it waits for a slot until it is reaped
	next    []*script // what is run after it, in order of arrival: one run for each service and port, for all who ask
}

// NewScripts returns a runner of at most n scripts at once. It panics when n is less than 1: nothing could
// ever run.
func NewScripts(n int) *Scripts {
	if n < 1 {
		panic(fmt.Sprintf("check: a limit of %d scripts", n))
	}
	// One of each command waits at most, so that places need no bound.
	return &Scripts{slots: newSlots(n, math.MaxInt), commands: map[string]*command{}}
}

// Running is the number of scripts that run now.
func (s *Scripts) Running() int {
	running, _, _ := s.slots.count(share{})
	return running
}

// Stop kills the scripts that run, with their groups, and returns when they are gone, a second later at
// most. Those that wait for another run of their command are not run. It is for the end of a process, which kills no more than the scripts themselves.
func (s *Scripts) Stop() {
	s.mu.Lock()
	var runs []*script
	for _, c := range s.commands {
		c.running.ending = true
		c.running.cancel(context.Canceled)
		runs = append(runs, c.running)
		for _, run := range c.next {
			run.ending = true
			run.result = run.gaveUp(context.Canceled, time.Now(), "")
			close(run.done)
		}
		c.next = nil
	}
	s.mu.Unlock()
	for _, run := range runs {
		<-run.done
	}
}

// script is one run of a command, for everybody who asks for it until it has ended.
type script struct {
	argv    []string
	service string
	port    uint16
	timeout time.Duration

	done   chan struct{} // closed when result is there
	result Result

	// Under Scripts.mu until it has begun:
	began  time.Time               // zero while another run of the command has not ended
	cancel context.CancelCauseFunc // ends the run
	// Under Scripts.mu:
	askers int
	ending bool // its last asker has left, or it has ended: nobody may join
}

// key is what there must not be two of. A NUL cannot be in an argument.
func (run *script) key() string { return strings.Join(run.argv, "\x00") }

// name is the program, to be shown; its arguments are not.
func (run *script) name() string { return oneLine(run.argv[0], 200) }

// serves tells whether a run answers an asker who would have started mine.
func (run *script) serves(mine *script) bool {
	return !run.ending && run.service == mine.service && run.port == mine.port
}

// ask runs a script and returns what came of it. If the same command runs already for the same service and port, which
// is all it is told, the result of that run serves. If it runs for others, the next run for that service and port
// serves everybody who has asked for it by then. A script that nobody waits for any more is killed.
func (s *Scripts) ask(ctx context.Context, mine *script) Result {
	start := time.Now()
	r := s.answer(ctx, mine)
	r.Took = time.Since(start)
	return r
}

func (s *Scripts) answer(ctx context.Context, mine *script) Result {
	const notRun = "was not run: another run of it has not ended"
	start := time.Now()
	if ctx.Err() != nil {
		return mine.gaveUp(ctx.Err(), start, notRun)
	}
	run := s.join(mine)
	select {
	case <-run.done:
		return run.result
	case <-ctx.Done():
	}
	began, last := s.leave(run, ctx.Err())
	switch {
	case began.IsZero():
		return mine.gaveUp(ctx.Err(), start, notRun)
	case last:
		<-run.done // it has been killed, and is waited for no longer than reapTime
		if r := run.result; r.Reason == ReasonTimeout && began.Sub(start) > time.Since(began) {
			// It had less than half of the time, which says nothing about it.
			return mine.gaveUp(ctx.Err(), start, fmt.Sprintf("had %.2fs only, because another run of it had not ended,", time.Since(began).Seconds()))
		}
		return run.result
	}
	select {
	case <-run.done: // just now
		return run.result
	default:
	}
	r := mine.gaveUp(ctx.Err(), start, "has not ended and runs on for another request")
	if r.Reason == ReasonBusy && began.Sub(start) <= time.Since(began) {
		r.Reason = ReasonTimeout // it was run, and had the time that there was
	}
	return r
}

// join returns the run that answers who asks for mine: one of its command that runs or is to run next, or mine.
func (s *Scripts) join(mine *script) *script {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.commands[mine.key()]
	if c != nil {
		for _, run := range append([]*script{c.running}, c.next...) {
			if run.serves(mine) {
				run.askers++
				return run
			}
		}
	}
	mine.askers, mine.done = 1, make(chan struct{})
	if c != nil {
		c.next = append(c.next, mine)
		return mine
	}
	c = &command{}
	s.commands[mine.key()] = c
	s.start(c, mine)
	return mine
}

// start begins a run of c. s.mu is held.
func (s *Scripts) start(c *command, run *script) {
	c.running, run.began = run, time.Now()
	// Its time is its own: askers may come and go as long as it runs, but it may not run on with them.
	timed, stop := context.WithTimeout(context.Background(), run.timeout)
	ctx, cancel := context.WithCancelCause(timed)
	run.cancel = cancel
	go func() {
		defer stop()
		s.run(ctx, run)
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

// leave takes an asker from a run before there is a result, and ends the run if it was the last. It returns when the
// run has begun; one that has not, and that nobody waits for now, never will.
func (s *Scripts) leave(run *script, cause error) (began time.Time, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	run.askers--
	if run.askers > 0 {
		return run.began, false
	}
	run.ending = true
	if c := s.commands[run.key()]; c != nil && run.began.IsZero() {
		c.next = slices.DeleteFunc(c.next, func(r *script) bool { return r == run })
	} else {
		run.cancel(cause)
	}
	return run.began, true
}

// run waits for a slot, runs the script, and returns when it is gone.
func (s *Scripts) run(ctx context.Context, run *script) {
	publish := func(r Result) {
		s.mu.Lock()
		run.ending = true
		s.mu.Unlock()
		run.result = r
		close(run.done)
	}
	of := share{service: run.service}
	if err := s.slots.acquire(ctx, of); err != nil {
		publish(run.gaveUp(context.Cause(ctx), run.began, s.full(of)))
		return
	}
	defer s.slots.release(of)
	run.exec(ctx, publish)
}

// full says why a service's script got no slot.
func (s *Scripts) full(of share) string {
	if running, mine, _ := s.slots.count(of); running < s.slots.size && mine > 0 {
		return fmt.Sprintf("was not run: %d scripts of its service, as many as may, run already", mine)
	}
	return fmt.Sprintf("was not run: %d scripts, as many as may, run already", s.slots.size)
}

// gaveUp is the result of a script that could not be waited for.
func (run *script) gaveUp(cause error, since time.Time, why string) Result {
	after := time.Since(since).Seconds()
	err := fmt.Errorf("wait for %s: %w", run.name(), cause)
	if errors.Is(cause, context.Canceled) {
		return result(503, ReasonCancelled, err, "Check cancelled after %.2fs (script %s)", after, run.name())
	}
	return result(503, ReasonBusy, err, "%s %s after %.2fs", run.name(), why, after)
}

// environ is all that a script finds in its environment.
func (run *script) environ() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{
		"PATH=" + path,
		"LANG=C.UTF-8",
		"HACHECK_SERVICE=" + run.service,
		"HACHECK_PORT=" + strconv.Itoa(int(run.port)),
	}
}

// exec runs the command and publishes the result, once the script has ended or has been killed. It returns
// when the process is reaped, which may be later.
func (run *script) exec(ctx context.Context, publish func(Result)) {
	read, write, err := os.Pipe()
	if err != nil {
		publish(run.notStarted(err))
		return
	}
	cmd := exec.Command(run.argv[0], run.argv[1:]...) //nolint:gosec // what the configuration says, and nothing else can
	cmd.Env, cmd.Stdout, cmd.Stderr = run.environ(), write, write
	cmd.SysProcAttr = scriptGroup()
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		_ = read.Close()
		publish(run.notStarted(err))
		return
	}
	output := collect(read)
	exited := make(chan struct{})
	go func() {
		waitExit(cmd)
		close(exited)
	}()
	killed := false
	select {
	case <-exited:
	case <-ctx.Done():
		killed = true
		killGroup(cmd)
		late := time.NewTimer(reapTime)
		defer late.Stop()
		select {
		case <-exited:
		case <-late.C:
			// It sits in the kernel. Whoever asks is told now; nobody may run it again before it is gone.
			publish(run.killed(ctx, output.take(), ", and does not die"))
			<-exited
			killGroup(cmd)
			reap(cmd)
			return
		}
	}
	// What the script has left behind in its group goes with it: it was started to check, not to serve.
	killGroup(cmd)
	reap(cmd)
	if killed {
		publish(run.killed(ctx, output.take(), ""))
		return
	}
	publish(run.ended(cmd.ProcessState, output.take()))
}

// killGroup kills the script and everything in its group. Until the script is reaped the group's number can
// be no other's.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

func (run *script) notStarted(err error) Result {
	err = fmt.Errorf("start script: %w", err)
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM} {
		if errors.Is(err, ours) {
			return result(503, ReasonBusy, err, "This machine cannot start %s now: %s", run.name(), errno(err))
		}
	}
	why := errno(err)
	if errors.Is(err, exec.ErrNotFound) {
		why = "it is in no directory of PATH"
	}
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(path.Err, fs.ErrNotExist) {
		why = "no such file, or its interpreter is missing"
	}
	return result(500, ReasonConfig, err, "Cannot start %s: %s", run.name(), why)
}

func (run *script) killed(ctx context.Context, output []byte, and string) Result {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		return run.gaveUp(cause, run.began, "")
	}
	err := fmt.Errorf("script %s: %w", run.name(), cause)
	return result(503, ReasonTimeout, err, "%s was killed after %.2fs%s%s", run.name(), time.Since(run.began).Seconds(), and, said(output))
}

func (run *script) ended(state *os.ProcessState, output []byte) Result {
	after := time.Since(run.began).Seconds()
	if state.Success() {
		return Result{Code: 200, Body: fmt.Appendf(nil, "%s exited with 0 after %.2fs%s", run.name(), after, said(output))}
	}
	how := fmt.Sprintf("exited with %d", state.ExitCode())
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		how = fmt.Sprintf("was ended by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	// The output is for whoever may see the answer, not for every log.
	return result(503, ReasonFailed, fmt.Errorf("script %s %s", run.name(), how), "%s %s after %.2fs%s", run.name(), how, after, said(output))
}

// said is a script's output as the end of a sentence.
func said(output []byte) string {
	if text := oneLine(output, maxOutput); text != "" {
		return ": " + text
	}
	return ""
}

// collector reads what a script writes, so that it never waits for a reader, and keeps the beginning.
type collector struct {
	pipe *os.File
	kept []byte
	done chan struct{}
}

func collect(pipe *os.File) *collector {
	c := &collector{pipe: pipe, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		var b [maxOutput]byte
		for {
			n, err := pipe.Read(b[:])
			c.keep(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *collector) keep(b []byte) {
	c.kept = append(c.kept, b[:min(len(b), maxOutput-len(c.kept))]...)
}

// take returns what has been written so far and closes the pipe. It waits for nobody: something that the
// script has started may hold the other end for as long as it likes.
func (c *collector) take() []byte {
	defer func() { _ = c.pipe.Close() }()
	_ = c.pipe.SetReadDeadline(longAgo)
	<-c.done
	// What the script wrote just before its end may still be in the pipe.
	_ = c.pipe.SetReadDeadline(time.Time{})
	raw, err := c.pipe.SyscallConn()
	if err != nil {
		return c.kept
	}
	var b [maxOutput]byte
	for len(c.kept) < maxOutput {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), b[:]) // the descriptor does not block
			return true
		})
		if err != nil || n <= 0 {
			break
		}
		c.keep(b[:n])
	}
	return c.kept
}
