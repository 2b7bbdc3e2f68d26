package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"hacheck/internal/control"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// The scopes of a fleet override, as control.Request has them.
const (
	scopeAll    = "all"
	groupPrefix = "group:"
	hostPrefix  = "host:"
)

const (
	// answerTime bounds a request that reads or writes etcd a few times.
	answerTime = 15 * time.Second
	// takedownTime is what a takedown may last beyond --wait-turn: the balancers have 10 s, and etcd may be slow.
	takedownTime = time.Minute
)

// failure says why a request to the daemon has failed. code is the exit code, result the word of the end event.
type failure struct {
	code   int
	result string
	text   string
	// unknown reports that the daemon may have done the request: the connection broke, or a signal closed it.
	unknown bool
}

// signalError says that a signal has ended a request.
type signalError struct{ os.Signal }

func (e *signalError) Error() string { return e.String() }

// exitCode returns 128 plus the number of the signal.
func (e *signalError) exitCode() int {
	if n, ok := e.Signal.(syscall.Signal); ok {
		return exitSignal + int(n)
	}
	return ExitFailed
}

// notifySignals returns a channel that receives the signals which end a command, and a function that stops that.
func notifySignals() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		// nohup and a shell that starts a background job ignore a signal on purpose.
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	return signals, func() { signal.Stop(signals) }
}

// hasControlSocket reports whether there is a control socket. It does not connect.
func (c *command) hasControlSocket() bool {
	if c.opt.fleet.socket == "" {
		return false
	}
	_, err := os.Stat(c.opt.fleet.socket)
	return err == nil
}

// ask sends a request to the daemon and returns the last event of the answer. It calls note, unless that is nil, with
// each text of the progress. After limit it closes the connection, which withdraws the request.
func (c *command) ask(ctx context.Context, r control.Request, limit time.Duration, note func(string)) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e, err := control.Do(ctx, c.opt.fleet.socket, r, func(e control.Event) {
		if note != nil && e.Text != "" {
			note(textfmt.OneLine(e.Text))
		}
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no whole answer within %s", textfmt.Duration(limit))
	}
	return e, err
}

// askUntilSignal is ask, but a signal closes the connection. The error is then a signalError.
func (c *command) askUntilSignal(signals chan os.Signal, r control.Request, limit time.Duration, note func(string)) (control.Event, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case sig := <-signals:
			cancel(&signalError{sig})
		case <-done:
		}
	}()
	e, err := c.ask(ctx, r, limit, note)
	close(done)
	<-ended
	sig, isSignal := errors.AsType[*signalError](context.Cause(ctx))
	switch {
	case !isSignal:
	case err != nil:
		err = sig
	default: // it came after the answer; the next wait handles it
		select {
		case signals <- sig.Signal:
		default:
		}
	}
	return e, err
}

// newFailure returns why a request was not done, nil if it was.
func (c *command) newFailure(e control.Event, err error) *failure {
	socket := textfmt.OneLine(c.opt.fleet.socket)
	if sig, ok := errors.AsType[*signalError](err); ok {
		return &failure{code: sig.exitCode(), result: "interrupted", text: sig.Error(), unknown: true}
	}
	switch {
	case errors.Is(err, control.ErrNoSocket) && socket == "":
		return &failure{code: ExitDaemonUnavailable, result: "not known", text: "the daemon is not asked, because of --control-socket ''"}
	case errors.Is(err, control.ErrNoSocket):
		return &failure{code: ExitDaemonUnavailable, result: "not known", text: fmt.Sprintf(
			"no daemon listens on the control socket %s; is hacheck running? If its socket is elsewhere, say where with --control-socket PATH", socket)}
	case errors.Is(err, control.ErrPermission):
		return &failure{code: ExitDaemonUnavailable, result: "not known", text: textfmt.OneLine(err.Error())}
	case err != nil:
		return &failure{code: ExitDaemonUnavailable, result: "not known", text: "the daemon cannot be asked: " + textfmt.OneLine(err.Error()), unknown: true}
	case e.NoFleet:
		return &failure{code: ExitFailed, result: "refused", text: "the daemon has no fleet: add a section fleet to its configuration"}
	case e.Code == ExitOK && e.Error == "":
		return nil
	}
	f := &failure{code: e.Code, result: "refused", text: textfmt.OneLine(e.Error)}
	switch e.Code {
	case ExitFailed, ExitUsage:
	case ExitWaitIncomplete:
		f.result = "time is up"
	case ExitDaemonUnavailable:
		f.result = "not known"
	default: // the daemon is newer than this command
		f.code = ExitFailed
	}
	if f.text == "" {
		f.text = "the daemon does not say why"
	}
	return f
}

// report asks the daemon for the whole fleet. The failure and the report are both set if etcd cannot be reached: the
// report is what the daemon knew last.
func (c *command) fleetReport() (*report.Fleet, *failure) {
	e, err := c.ask(context.Background(), control.Request{Op: control.OpReport}, answerTime, nil)
	f := c.newFailure(e, err)
	switch {
	case e.Fleet == nil && f == nil:
		f = &failure{code: ExitDaemonUnavailable, result: "not known", text: "the answer of the daemon has no report"}
	case e.Fleet != nil && f == nil && !e.Fleet.Connected:
		f = &failure{code: ExitDaemonUnavailable, result: "not known", text: "etcd cannot be asked: " + textfmt.OneLine(e.Fleet.Error)}
	}
	return e.Fleet, f
}

// names returns the keys of targets as the control socket takes them.
func names(targets []target) []string {
	list := make([]string, len(targets))
	for i, t := range targets {
		list[i] = t.key.Name()
	}
	return list
}

// expiresOf returns when e ends, as the control socket takes it.
func expiresOf(e spool.Entry) *time.Time {
	if e.Expires.IsZero() {
		return nil
	}
	return &e.Expires
}

// scopeText returns a scope for people: "group rack7", "host web17", "the whole fleet", and "this host" for the spool.
func scopeText(scope string) string {
	scope = textfmt.OneLine(scope)
	switch scope {
	case "":
		return "this host"
	case scopeAll:
		return "the whole fleet"
	}
	return strings.Replace(scope, ":", " ", 1)
}

// scopesText returns scopes for people.
func scopesText(scopes []string) string {
	list := make([]string, len(scopes))
	for i, s := range scopes {
		list[i] = scopeText(s)
	}
	return strings.Join(list, ", ")
}

// liftCommand returns the command that lifts the override of a scope with that key.
func liftCommand(scope, key string) string {
	text := "haup"
	switch {
	case scope == scopeAll:
		text += " --fleet"
	case strings.HasPrefix(scope, groupPrefix):
		text += " --group " + strings.TrimPrefix(scope, groupPrefix)
	case strings.HasPrefix(scope, hostPrefix):
		text += " --host " + strings.TrimPrefix(scope, hostPrefix)
	}
	k, err := spool.ParseKey(key)
	if err != nil {
		return textfmt.OneLine(text + " " + key)
	}
	text += " " + k.Service
	if k.Port != 0 {
		text += fmt.Sprintf(" -P %d", k.Port)
	}
	if k.Host != "" {
		text += " -H " + k.Host
	}
	return textfmt.OneLine(text)
}
