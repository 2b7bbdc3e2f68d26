package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// logNotifyError logs that a notification did not reach systemd. The daemon goes on: systemd restarts it if it has to,
// and balancers are answered meanwhile.
func (d *daemon) logNotifyError(err error) {
	if err != nil {
		d.log.Warn("a notification did not reach systemd", "err", err)
	}
}

// The parts of the watchdog's interval.
const (
	feedPart   = 2 // the watchdog is fed after half of it, so that one late check does no harm
	retryPart  = 8 // a failed check is repeated after an eighth
	answerPart = 4 // a check fails after a quarter
)

// feedWatchdog keeps the watchdog of systemd quiet as long as the daemon can answer.
//
// It finds a daemon that has its port open and does not answer. Balancers would take all services of the host out, and
// no restart policy would notice. It checks no service and reads no file: a restart mends neither a slow service nor a
// file server that hangs under the spool directory, and would lose the last known overrides.
func (d *daemon) feedWatchdog(interval time.Duration) {
	var wait time.Duration
	for {
		<-time.After(wait)
		wait = interval / feedPart
		err := d.checkSelf(interval / answerPart)
		if err == nil {
			err = d.manager.Alive() // which needs a descriptor, as an answer does
		}
		if err != nil {
			wait = interval / retryPart
			d.log.Error("the daemon could not answer; systemd ends it unless that passes", "err", err, "within", interval)
		}
	}
}

// checkSelf returns an error that says what keeps the daemon from answering. It asks the evaluator about an override
// and the HTTP handler for a page, without a connection: an idle daemon makes no system call for it. If connections
// wait to be accepted, it also opens one of its own and waits for the answer.
func (d *daemon) checkSelf(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		d.evaluators.current.Load().Evaluate(&health.Request{
			Target: check.Target{Protocol: "spool", Service: spool.All, Host: "127.0.0.1"}, Local: true,
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/status", nil)
		if err == nil {
			r.RequestURI, r.RemoteAddr = "/status", "127.0.0.1:0"
			d.http.Handler.ServeHTTP(discardResponse{}, r)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("ask the evaluator and for a page: no answer after %v", limit)
	}
	for _, ln := range d.http.listeners {
		if !hasPendingConns(ln) {
			continue
		}
		err := requestStatus(ln.Addr(), limit)
		if errors.Is(err, syscall.EINTR) { // interrupted by a signal
			err = requestStatus(ln.Addr(), limit)
		}
		if err != nil {
			return fmt.Errorf("ask %s: %w", ln.Addr(), err)
		}
	}
	return nil
}

// discardResponse is an http.ResponseWriter that discards the answer.
type discardResponse struct{}

func (discardResponse) Header() http.Header         { return http.Header{} }
func (discardResponse) Write(b []byte) (int, error) { return len(b), nil }
func (discardResponse) WriteHeader(int)             {}
