package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
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

// The parts of the watchdog's interval. A minute's rest costs a handful of system calls.
const (
	feedPart  = 2 // fed once in half of it, so that one late look does no harm
	retryPart = 8 // looked again soon after a look that failed
	lookPart  = 4 // how long one look may take
)

// feedWatchdog tells the service manager that the daemon is alive as long as it answers itself.
//
// What shall be caught is a daemon that has its port and does not answer: balancers would take out all of
// the host, and no restart policy sees anything wrong. So it asks a page through its own port, past the
// kernel, the accepting workers, net/http and its router, and asks the judge, which every door needs and
// which looks into the overrides. It asks no service and reads no file: a service that is slow, or a
// file server that hangs under the spool, is not mended by a restart, and the last overrides that were
// known would be lost by it.
func (d *daemon) feedWatchdog(every time.Duration) {
	wait := time.Duration(0)
	for {
		<-time.After(wait)
		wait = every / feedPart
		if err := d.look(every / lookPart); err != nil {
			wait = every / retryPart
			d.log.Error("the daemon does not answer itself; systemd ends it unless that passes", "err", err, "within", every)
			continue
		}
		d.told(d.manager.Alive())
	}
}

// look reports what keeps the daemon from answering, as far as it can tell by asking itself.
func (d *daemon) look(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	judged := make(chan struct{})
	go func() {
		defer close(judged)
		d.services.judge.Load().Verdict(ctx, &health.Ask{
			Target: check.Target{Protocol: "spool", Service: spool.All, Host: "127.0.0.1"}, Here: true,
		})
	}()
	for _, ln := range d.listeners {
		if err := askSelf(ctx, ln.Addr()); err != nil {
			return fmt.Errorf("ask %s: %w", ln.Addr(), err)
		}
	}
	select {
	case <-judged:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ask the judge: no verdict after %v", limit)
	}
}

// askSelf wants an answer at addr, whatever it is. The page is none that a service's check, its balancers
// or the list of services seen would know of.
func askSelf(ctx context.Context, addr net.Addr) error {
	// An unspecified address is dialled as this machine.
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	}
	if _, err := c.Write([]byte("GET /status HTTP/1.0\r\n\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(c, 64).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "HTTP/1.") {
		return fmt.Errorf("it answered %q", line)
	}
	return nil
}
