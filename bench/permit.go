package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// permitHost is a daemon with a balancer that asks it all the time.
type permitHost struct {
	*hacheck
	socket string // of the fleet's commands; "" without a fleet
	stop   chan struct{}
	failed chan error // of the balancer, when it has ended
}

// safeWithPermit measures how much longer `hadown --safe` takes in a fleet, where it needs a permit, than without one.
// Both wait for the next request of a balancer. The fleet has three members of etcd and one host.
func (b *bench) safeWithPermit() error {
	members, err := b.startEtcd(3)
	if err != nil {
		return err
	}
	defer stopAll(members)
	endpoints := ""
	for i, m := range members {
		if i > 0 {
			endpoints += ", "
		}
		endpoints += "http://" + m.addr
	}
	socket := filepath.Join(b.tmp, "control.sock")
	inFleet, err := b.startPermitHost(socket, fmt.Sprintf("fleet: {etcd: [%s], host: bench, state_dir: %s}\n", endpoints, filepath.Join(b.tmp, "state")))
	if err != nil {
		return err
	}
	defer inFleet.end()
	alone, err := b.startPermitHost("", "")
	if err != nil {
		return err
	}
	defer alone.end()
	// Before that a daemon does not know all balancers, and --safe waits.
	shares, err := cpuShares(func() error { return b.wait(11 * time.Second) }, inFleet.server, alone.server)
	if err != nil {
		return err
	}
	memory, _, err := inFleet.memory()
	if err != nil {
		return err
	}
	memoryAlone, _, err := alone.memory()
	if err != nil {
		return err
	}
	b.addInformation("private memory (RssAnon) of a daemon in a fleet", []float64{memory}, "MB",
		fmt.Sprintf("without a fleet %.1f MB; processor for 100 checks/s %.1f %% of a core, without a fleet %.1f %%", memoryAlone, shares[0], shares[1]))
	turns := max(60/b.divisor, 5)
	with, without := make([]float64, turns), make([]float64, turns)
	more := make([]float64, turns)
	for i := range turns {
		for k := range 2 {
			if (i+k)%2 == 0 {
				with[i], err = b.timeSafe(inFleet)
			} else {
				without[i], err = b.timeSafe(alone)
			}
			if err != nil {
				return err
			}
		}
		more[i] = with[i] - without[i]
	}
	b.addAtMost("`hadown --safe` with a permit, over without a fleet", more, 25, "ms more",
		fmt.Sprintf("with a permit %.1f ms (%s), without a fleet %.1f ms (%s), %d runs of each",
			median(with), spread(with, "%.1f"), median(without), spread(without, "%.1f"), turns))
	return nil
}

// startPermitHost starts a daemon and its balancer.
func (b *bench) startPermitHost(socket, config string) (*permitHost, error) {
	d, err := b.startHacheck("", config, "--control-socket", socket)
	if err != nil {
		return nil, err
	}
	h := &permitHost{hacheck: d, socket: socket, stop: make(chan struct{}), failed: make(chan error, 1)}
	go func() { h.failed <- h.balance() }()
	return h, nil
}

// balance asks for web every 10 ms, as a balancer that has this server up or down, and one more server.
func (h *permitHost) balance() error {
	a, err := newKeepAliveClient(h.server)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	state, usable := "UP", 2
	for {
		code, err := a.get("/spool/web/0/", fmt.Sprintf("Host: bench\r\nX-Haproxy-Server-State: %s; name=web/bench; node=lb; weight=1/%d; scur=0/0; qcur=0\r\n", state, usable))
		if err != nil {
			return err
		}
		if state, usable = "UP", 2; code != http.StatusOK {
			state, usable = "DOWN", 1
		}
		select {
		case <-h.stop:
			return nil
		case <-tick.C:
		}
	}
}

// end stops the balancer and the daemon.
func (h *permitHost) end() {
	close(h.stop)
	if err := <-h.failed; err != nil {
		fmt.Fprintln(os.Stderr, "bench: the balancer of hadown --safe:", err)
	}
	h.server.stop()
}

// timeSafe takes the host out with --safe, brings it back, and waits until its permit is returned. It returns how long
// the first command took, in milliseconds.
func (b *bench) timeSafe(h *permitHost) (float64, error) {
	command := func(name string, args ...string) error {
		args = append(args, "--spool-root", h.spool, "-p", h.addr, "--control-socket", h.socket, "web")
		if out, err := exec.CommandContext(b.ctx, filepath.Join(b.bin, name), args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	began := time.Now()
	if err := command("hadown", "--safe", "-r", "bench"); err != nil {
		return 0, err
	}
	took := float64(time.Since(began)) / float64(time.Millisecond)
	if err := command("haup", "--wait"); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(30 * time.Second); h.socket != ""; {
		var page struct{ Fleet struct{ Permit string } }
		_, body, err := h.get("/overview")
		if err == nil {
			err = json.Unmarshal([]byte(body), &page)
		}
		if err != nil {
			return 0, err
		}
		if page.Fleet.Permit == "" {
			break
		}
		if time.Now().After(deadline) {
			return 0, errors.New("the permit was not returned within 30 s")
		}
		if err := b.wait(20 * time.Millisecond); err != nil {
			return 0, err
		}
	}
	return took, nil
}

// wait waits for d, or until bench is interrupted.
func (b *bench) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}
