package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const (
	// maxOutput is how many bytes of a script's output are kept and shown; the rest is discarded.
	maxOutput = 4 << 10
	// defaultScriptTimeout is the timeout of a script where nothing else sets one.
	defaultScriptTimeout = 5 * time.Second
)

// scriptType is the check that runs a program.
var scriptType = Type{
	Name: "script",
	Doc:  "a program of this machine exits with 0; no shell runs it; the timeout kills it with its process group",
	Options: []Option{
		{Name: "command", Want: "a list of words, or a text that is split into words as a shell does", Required: true, Doc: "the program and its arguments"},
		{Name: "timeout", Want: "a number of seconds above 0 and up to 3600", Default: "5", Doc: "hacheck kills the script after this time"},
		{Name: "ports", Want: "a list of ports from 1 to 65535", Doc: "which ports of a request are passed to the script, in addition to those of the service's other checks"},
	},
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		argv, ports := o.command("command"), o.ports("ports")
		if len(argv) == 0 {
			return nil, nil // o has the error
		}
		scripts := d.Scripts
		if scripts == nil {
			scripts = NewScripts(1)
		}
		// The arguments are not part of the name, because they may contain a password.
		c := &ConfiguredCheck{Name: "script:" + excerpt(argv[0], 300), Timeout: defaultScriptTimeout, ports: ports}
		c.Steps = []Step{StepOf(c.Name, func(ctx context.Context, t Target) Result {
			return scripts.run(ctx, &scriptRun{argv: argv, service: t.Service, port: t.Port, timeout: c.Timeout})
		})}
		return c, nil
	},
}

// name returns the program, to be shown. It leaves out the arguments.
func (run *scriptRun) name() string { return excerpt(run.argv[0], 200) }

// environ returns the whole environment of a script.
func (run *scriptRun) environ() []string {
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

// noResult returns the result for a caller that stopped waiting for the script, because of cause and after the time
// since start. It is ReasonCancelled or else ReasonBusy.
func (run *scriptRun) noResult(cause error, start time.Time, why string) Result {
	after := time.Since(start).Seconds()
	err := fmt.Errorf("wait for %s: %w", run.name(), cause)
	if errors.Is(cause, context.Canceled) {
		return result(503, ReasonCancelled, err, "Check cancelled after %.2fs (script %s)", after, run.name())
	}
	return result(503, ReasonBusy, err, "%s %s after %.2fs", run.name(), why, after)
}

// notStarted returns the result for a script that the system did not start.
func (run *scriptRun) notStarted(err error) Result {
	err = fmt.Errorf("start script: %w", err)
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOMEM} {
		if errors.Is(err, ours) {
			return result(503, ReasonBusy, err, "This machine cannot start %s now: %s", run.name(), causeText(err))
		}
	}
	why := causeText(err)
	if errors.Is(err, exec.ErrNotFound) {
		why = "it is in no directory of PATH"
	}
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(path.Err, fs.ErrNotExist) {
		why = "no such file, or its interpreter is missing"
	}
	return result(500, ReasonConfig, err, "Cannot start %s: %s", run.name(), why)
}

// killed returns the result for a script that was killed when ctx ended. state goes after the time in the message.
func (run *scriptRun) killed(ctx context.Context, output []byte, state string) Result {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		return run.noResult(cause, run.started, "")
	}
	err := fmt.Errorf("script %s: %w", run.name(), cause)
	r := result(503, ReasonTimeout, err, "%s was killed after %.2fs%s", run.name(), time.Since(run.started).Seconds(), state)
	return withOutput(r, output)
}

// exited returns the result for a script that ended by itself.
func (run *scriptRun) exited(state *os.ProcessState, output []byte) Result {
	after := time.Since(run.started).Seconds()
	if state.Success() {
		return Result{Code: 200, Body: fmt.Appendf(nil, "%s exited with 0 after %.2fs%s", run.name(), after, outputSuffix(output))}
	}
	how := fmt.Sprintf("exited with %d", state.ExitCode())
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		how = fmt.Sprintf("was ended by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	err := fmt.Errorf("script %s %s", run.name(), how)
	return withOutput(result(503, ReasonFailed, err, "%s %s after %.2fs", run.name(), how, after), output)
}

// withOutput adds a script's output to the text of r, but not to its error: the log has no output, which only the
// clients of the check may see.
func withOutput(r Result, output []byte) Result {
	r.Body = append(r.Body, outputSuffix(output)...)
	return r
}

// outputSuffix returns a script's output as the end of a sentence, "" if there is none.
func outputSuffix(output []byte) string {
	if text := excerpt(output, maxOutput); text != "" {
		return ": " + text
	}
	return ""
}
