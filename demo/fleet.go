package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// minUptime is the time in seconds after which a daemon knows its balancers. --safe refuses before.
const minUptime = 10

// startFleet starts an etcd, three hosts with a service and a hacheck each, and HAProxy.
func (c *cluster) startFleet(ctx context.Context, commands, haproxy, etcd string) error {
	url, err := c.startEtcd(ctx, etcd)
	if err != nil {
		return err
	}
	for _, name := range []string{"web1", "web2", "web3"} {
		if err := c.startService(name, "web"); err != nil {
			return err
		}
		if err := c.startFleetHost(ctx, commands, url, c.services[len(c.services)-1]); err != nil {
			return err
		}
	}
	return c.startHAProxy(ctx, haproxy, "/http/web/0/status")
}

// startEtcd starts an etcd with one member and returns its URL.
func (c *cluster) startEtcd(ctx context.Context, etcd string) (url string, err error) {
	client, err := freeAddr()
	if err != nil {
		return "", err
	}
	peer, err := freeAddr()
	if err != nil {
		return "", err
	}
	data, err := os.MkdirTemp(c.dir, "etcd-")
	if err != nil {
		return "", err
	}
	url = "http://" + client
	if err := c.start(etcd, "--data-dir", data, "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer, "--log-level", "error"); err != nil {
		return "", err
	}
	c.etcd = c.processes[len(c.processes)-1]
	return url, c.waitReady(ctx, func() error { _, err := c.get(ctx, url+"/health"); return err })
}

// startFleetHost starts the hacheck of a host that has one service. The commands of the host include "restart", which
// returns when the demo has restarted the service.
func (c *cluster) startFleetHost(ctx context.Context, commands, etcd string, s *service) error {
	dir := filepath.Join(c.dir, s.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "hacheck.yaml")
	text := fmt.Sprintf("cache_time: 1\nfleet:\n  etcd: [%s]\n  host: %s\n  lease: 5\n  state_dir: %s\n", etcd, s.name, filepath.Join(dir, "state"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	socket := filepath.Join(dir, "control.sock")
	s.restartFile = filepath.Join(dir, "restart")
	return c.startHacheck(ctx, commands, &hacheckHost{
		dir:       dir,
		arguments: []string{"-c", config, "--control-socket", socket},
		options:   []string{"--control-socket", socket},
		scripts:   []string{"restart", fmt.Sprintf("touch %[1]s && while [ -e %[1]s ]; do sleep 0.1; done", shellQuote(s.restartFile))},
	}, s)
}

// runFleet runs the demo of a fleet from the first line to the last.
func (d *demo) runFleet(ctx context.Context) error {
	d.paragraph("", "Three hosts, web1 to web3, each with a toy service and a hacheck, a HAProxy before them, and an etcd: "+
		"all on 127.0.0.1, and gone at the end. All the time 40 requests a second go through HAProxy. "+
		"The name before the $ is the host on which a command runs. At most one host of the three may be out: "+
		"that is the budget unless you set another.")
	if err := d.waitUntil(ctx, "the time in which hacheck learns its balancers", func() bool {
		for _, v := range d.views {
			if v.uptime < minUptime {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	if err := d.waitStates(ctx, 2, up, up, up); err != nil {
		return err
	}
	for _, show := range []func(context.Context) error{d.showTwoAtOnce, d.showRollingRestart, d.showWithoutEtcd} {
		if err := show(ctx); err != nil {
			return err
		}
	}
	return d.summarize("three hosts were restarted at the same moment, one after the other, and etcd was stopped",
		"docs/fleet.md (your own hosts), bin/hadown --help, bin/hacheck fleet --help.")
}

// showTwoAtOnce takes two hosts out in the same moment. One of them is refused.
func (d *demo) showTwoAtOnce(ctx context.Context) error {
	d.explain("Two operators take a host out in the same moment. Without a fleet both would succeed, and HAProxy would send " +
		"everything to web3. Here one of them is refused, with the reason.")
	const safe = "hadown --safe web -r 'new memory'"
	exits, err := d.runOn(ctx, safe, 0, 1)
	if err != nil {
		return err
	}
	winner, loser := 0, 1
	if exits[0] != 0 {
		winner, loser = 1, 0
	}
	if exits[winner] != 0 || exits[loser] != 1 {
		return fmt.Errorf("%s on two hosts: exit %v, want 0 and 1%s", safe, exits, d.logs())
	}
	states := []string{up, up, up}
	states[winner] = down
	if err := d.waitStates(ctx, 3, states...); err != nil {
		return err
	}
	d.explain("What is out in the fleet, by whom and why?")
	if err := d.mustRunOn(ctx, "hastatus --fleet", 2); err != nil {
		return err
	}
	d.explain("The memory is installed.")
	if err := d.mustRunOn(ctx, "haup --wait web", winner); err != nil {
		return err
	}
	return d.waitStates(ctx, 2, up, up, up)
}

// showRollingRestart restarts all services at the same moment. Never more than one is out.
func (d *demo) showRollingRestart(ctx context.Context) error {
	d.explain("A new version: the same command starts on all three hosts at the same moment. --wait-turn waits until the other " +
		"hosts are back, so it is a rolling restart.")
	d.mostOut = 0
	if err := d.mustRunOn(ctx, "hadown --safe --wait-turn --drain --wait web -r 'version 2' && restart && haup --wait web", 0, 1, 2); err != nil {
		return err
	}
	for _, v := range d.views {
		if v.restarts != 1 {
			return fmt.Errorf("%s was restarted %d times, want once", v.name, v.restarts)
		}
	}
	if d.mostOut != 1 {
		return fmt.Errorf("%d hosts were out at once, want 1%s", d.mostOut, d.logs())
	}
	return d.waitStates(ctx, 2, up, up, up)
}

// showWithoutEtcd stops etcd and takes a host out without it.
func (d *demo) showWithoutEtcd(ctx context.Context) error {
	d.explain("etcd is stopped. The fleet does not notice: no answer to a balancer needs etcd.")
	d.etcd.stop()
	if err := d.waitStates(ctx, 4, up, up, up); err != nil {
		return err
	}
	const safe = "hadown --safe web -r 'new disk'"
	d.explain("--safe cannot ask the other hosts, so it changes nothing and exits with 4.")
	exits, err := d.runOn(ctx, safe, 0)
	if err != nil {
		return err
	}
	if exits[0] != 4 {
		return fmt.Errorf("%s without etcd: exit %d, want 4%s", safe, exits[0], d.logs())
	}
	d.explain("A plain hadown works, as without a fleet.")
	if err := d.mustRunOn(ctx, "hadown web -r 'new disk'", 0); err != nil {
		return err
	}
	if err := d.waitStates(ctx, 2, down, up, up); err != nil {
		return err
	}
	if err := d.mustRunOn(ctx, "haup --wait web", 0); err != nil {
		return err
	}
	return d.waitStates(ctx, 2, up, up, up)
}

// mustRunOn is runOn for commands that succeed.
func (d *demo) mustRunOn(ctx context.Context, command string, hosts ...int) error {
	exits, err := d.runOn(ctx, command, hosts...)
	for i, host := range hosts {
		if err == nil && exits[i] != 0 {
			err = fmt.Errorf("%s on %s: exit %d%s", command, d.views[host].name, exits[i], d.logs())
		}
	}
	return err
}

// runOn shows a command and runs it on several hosts at the same moment. It returns the exit codes when all have ended.
func (d *demo) runOn(ctx context.Context, commandLine string, hosts ...int) (exits []int, err error) {
	var names []string
	for _, i := range hosts {
		names = append(names, d.views[i].name)
	}
	d.print(line{{strings.Join(names, ", ") + " $ " + commandLine, bold}})
	if err := d.sleep(ctx, 2); err != nil {
		return nil, err
	}
	var running []*command
	for _, i := range hosts {
		prefix := ""
		if len(hosts) > 1 {
			prefix = d.views[i].name + "| "
		}
		c, err := d.runShell(ctx, d.views[i].path, commandLine, prefix, d.lines)
		if err != nil {
			return nil, err
		}
		running = append(running, c)
	}
	if err := d.waitUntil(ctx, "the end of "+commandLine, func() bool {
		for _, c := range running {
			if !c.ended() {
				return false
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	for _, c := range running {
		exits = append(exits, c.exit)
	}
	return exits, nil
}
