package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// told logs what went wrong when the service manager was told something. The daemon goes on: whoever
// started it finds out by itself, and the balancers are served meanwhile.
func (d *daemon) told(err error) {
	if err != nil {
		d.log.Warn("the service manager does not listen", "err", err)
	}
}

// tellReady says that requests are answered, and has the watchdog fed from now on if there is one.
func (d *daemon) tellReady(addrs []string) {
	d.told(d.manager.Ready("Answering on " + strings.Join(addrs, ", ")))
	if every := d.manager.Watchdog(); every > 0 {
		go d.feedWatchdog(every) // until the process ends
	}
}

// tellReload says that a reload begins; what it returns says how it ended.
func (d *daemon) tellReload() (ended func(err error)) {
	d.told(d.manager.Reloading())
	return func(err error) {
		status := "Reloaded the configuration at " + time.Now().Format(time.DateTime)
		if err != nil {
			status = "The configuration was not reloaded, the old one stays in force: " + err.Error()
		}
		d.told(d.manager.Ready(status))
	}
}

// The parts of the watchdog's interval.
const (
	feedPart  = 2 // fed once in half of it, so that one look that comes late does no harm
	retryPart = 8 // looked again soon after a look that failed
	lookPart  = 4 // how long one look may take
)

// feedWatchdog tells the service manager that the daemon is alive as long as it could answer.
//
// What shall be caught is a daemon that has its port and does not answer: balancers would take out all of
// the host, and no restart policy sees anything wrong. It asks no service and reads no file: a service that
// is slow, or a file server that hangs under the spool, is not mended by a restart, and the last overrides
// that were known would be lost by it.
func (d *daemon) feedWatchdog(every time.Duration) {
	wait := time.Duration(0)
	for {
		<-time.After(wait)
		wait = every / feedPart
		err := d.look(every / lookPart)
		if err == nil {
			err = d.manager.Alive() // which takes a descriptor, as an answer does
		}
		if err != nil {
			wait = every / retryPart
			d.log.Error("the daemon could not answer; systemd ends it unless that passes", "err", err, "within", every)
		}
	}
}

// look reports what keeps the daemon from answering. It has the judge, whom every door asks and who looks
// into the overrides, and the handler of the HTTP door answer, without a connection: that wakes a tenth of
// the code and asks the kernel nothing, and a daemon that nobody asks shall sleep. Whether connections are
// accepted shows in the queue that they wait in; when there are any, the daemon asks itself by one.
func (d *daemon) look(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		d.services.judge.Load().Evaluate(&health.Request{
			Target: check.Target{Protocol: "spool", Service: spool.All, Host: "127.0.0.1"}, Local: true,
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/status", nil)
		if err == nil {
			r.RequestURI, r.RemoteAddr = "/status", "127.0.0.1:0"
			d.server.Handler.ServeHTTP(unread{}, r)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("ask the judge and for a page: no answer after %v", limit)
	}
	for _, ln := range d.accepting {
		if !waiting(ln) {
			continue
		}
		err := askSelf(ln.Addr(), limit)
		if errors.Is(err, syscall.EINTR) { // by a signal that is somebody else's business
			err = askSelf(ln.Addr(), limit)
		}
		if err != nil {
			return fmt.Errorf("ask %s: %w", ln.Addr(), err)
		}
	}
	return nil
}

// unread is an answer that nobody reads.
type unread struct{}

func (unread) Header() http.Header         { return http.Header{} }
func (unread) Write(b []byte) (int, error) { return len(b), nil }
func (unread) WriteHeader(int)             {}
