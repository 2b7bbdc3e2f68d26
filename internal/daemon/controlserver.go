package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net"

	"hacheck/internal/config"
	"hacheck/internal/control"
)

// controlServer is the server of the control socket. Its zero value serves none.
type controlServer struct {
	ln    *net.UnixListener
	stop  context.CancelFunc
	ended chan struct{}
}

// openControl opens the control socket: the one that systemd handed over with that path, or a new one. The daemon goes on
// without one if it may not make it: balancers need none.
func (d *daemon) openControl() {
	path := d.opts.controlSocket
	if path == "" {
		return
	}
	ln, err := d.sockets.takeUnixSocket(path)
	if ln == nil && err == nil {
		ln, err = control.Listen(path)
	}
	if err == nil {
		d.control.ln = ln
		return
	}
	if !d.opts.controlSocketGiven && !d.isInFleet() && errors.Is(err, fs.ErrNotExist) { // a daemon without systemd
		d.log.Info("there is no control socket, and no fleet whose commands need one", "path", path, "err", err)
		return
	}
	d.log.Warn("there is no control socket, so commands for a fleet do not work on this host; make its directory, or give --control-socket another path",
		"path", path, "err", err)
}

// serveControl answers the control socket until stop.
func (d *daemon) serveControl() {
	if d.control.ln == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.control.stop, d.control.ended = cancel, make(chan struct{})
	h := &controlHandler{
		log: d.log, overrides: d.index.List, fleet: d.fleet.service, balancers: d.balancers,
		section: func() *config.Fleet { return d.config.Load().Fleet },
	}
	go func() {
		defer close(d.control.ended)
		if err := control.Serve(ctx, d.control.ln, h.handle, control.Options{Log: d.log}); err != nil {
			d.log.Error("the control socket is not answered any more", "err", err)
		}
	}()
}

// stopFleet withdraws the requests of commands and then leaves the fleet. It returns when that is done or ctx ends.
func (d *daemon) stopFleet(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if d.control.stop != nil {
			d.control.stop()
			<-d.control.ended
		}
		d.fleet.close()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
