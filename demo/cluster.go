package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/balancer"
)

const (
	// startTimeout is how long a server may take to answer. After stopTimeout a server that does not end is killed.
	startTimeout = 20 * time.Second
	stopTimeout  = 3 * time.Second
	// startTries is how often startCluster tries: another process may take a free port before the server listens on it.
	startTries = 3
	// requestTimeout bounds a request to HAProxy or hacheck.
	requestTimeout = 5 * time.Second
)

// cluster is all servers of the demo and the requests to them.
type cluster struct {
	dir      string // the temporary directory
	services [2]*service

	hacheckAddr string
	lbAddr      string // address of HAProxy
	lbSocket    string // its stats socket
	path        string // PATH for the commands
	processes   []*process
	load        *load
	client      *http.Client // for the pages of hacheck
}

// haproxyConf is the configuration of HAProxy. The servers have the names of the services, so that one line sets the
// check URL of both. The check interval is shorter than on a real host, to keep the demo short. There are no retries,
// so that every failed request is counted.
const haproxyConf = `
global
    node lb1
    stats socket %[1]s mode 600
    hard-stop-after 1s
defaults
    mode http
    retries 0
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 5s
listen web
    bind %[2]s
    option httpchk
    http-check send meth GET uri-lf /http/%%[srv_name]/0/status
    http-check send-state
    http-check disable-on-404
    default-server check addr %[3]s port %[4]s inter 500ms rise 1 fall 1
    use-server web1 if { path /download }
    server web1 %[5]s
    server web2 %[6]s
`

// startCluster starts the services, hacheck, HAProxy and the requests, and returns when all servers answer. The caller
// must call stop.
func startCluster(ctx context.Context, dir, commands, haproxy string) (*cluster, error) {
	var err error
	for range startTries {
		c := &cluster{dir: dir, client: &http.Client{Timeout: requestTimeout}}
		if err = c.startAll(ctx, commands, haproxy); err == nil {
			return c, nil
		}
		c.stop()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (c *cluster) startAll(ctx context.Context, commands, haproxy string) error {
	for i := range c.services {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		c.services[i] = &service{name: fmt.Sprintf("web%d", i+1), addr: addr}
		if err := c.services[i].start(); err != nil {
			return err
		}
	}

	var err error
	if c.hacheckAddr, err = freeAddr(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.hacheckAddr)
	if err != nil {
		return err
	}
	spool := filepath.Join(c.dir, "spool")
	if err := c.start(filepath.Join(commands, "hacheck"), "-B", host, "-p", port, "--spool-root", spool); err != nil {
		return err
	}
	if err := c.waitReady(ctx, func() error { _, err := c.report(ctx, "web1"); return err }); err != nil {
		return err
	}

	if c.lbAddr, err = freeAddr(); err != nil {
		return err
	}
	c.lbSocket = filepath.Join(c.dir, "haproxy.sock")
	conf := filepath.Join(c.dir, "haproxy.cfg")
	text := fmt.Sprintf(haproxyConf, c.lbSocket, c.lbAddr, host, port, c.services[0].addr, c.services[1].addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	if err := c.start(haproxy, "-db", "-f", conf); err != nil {
		return err
	}
	if err := c.waitReady(ctx, func() error { _, err := c.servers(); return err }); err != nil {
		return err
	}
	if err := c.writeWrappers(commands, spool); err != nil {
		return err
	}
	c.load = startLoad(ctx, "http://"+c.lbAddr)
	return nil
}

// stop ends everything. The requests end first, so that none is lost.
func (c *cluster) stop() {
	if c.load != nil {
		c.load.stop()
	}
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].stop()
	}
	for _, t := range c.services {
		if t != nil {
			t.stop()
		}
	}
	c.client.CloseIdleConnections()
}

// writeWrappers writes scripts that call the commands with the spool directory and the port of this hacheck, and puts
// them first in the PATH.
func (c *cluster) writeWrappers(commands, spool string) error {
	dir := filepath.Join(c.dir, "bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"hadown", "haup", "hastatus"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --spool-root %s -p %s\n", shellQuote(filepath.Join(commands, name)), shellQuote(spool), c.hacheckAddr)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			return err
		}
	}
	c.path = dir + string(os.PathListSeparator) + os.Getenv("PATH")
	return nil
}

// shellQuote returns text quoted as one word for a shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// freeAddr returns an address of 127.0.0.1 on which nothing listens, below the kernel's range of ports for outgoing
// connections.
func freeAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if ln, err := net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", errors.New("find a free port on 127.0.0.1: none of 1000 is")
}

// lbServer is a server in HAProxy.
type lbServer struct {
	state string // UP, DOWN, NOLB, ...
	open  int    // sessions
}

// servers asks HAProxy for its servers by name.
func (c *cluster) servers() (map[string]lbServer, error) {
	conn, err := net.DialTimeout("unix", c.lbSocket, requestTimeout) //nolint:gosec // a path in the directory that the demo has made for itself
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, conn, int64(len("# "))); err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(conn).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read show stat: %w", err)
	}
	servers := map[string]lbServer{}
	for _, row := range rows[1:] {
		column := map[string]string{}
		for i, name := range rows[0] {
			column[name] = row[i]
		}
		if column["type"] != "2" { // a server
			continue
		}
		open, err := strconv.Atoi(column["scur"])
		if err != nil {
			return nil, fmt.Errorf("read show stat: %w", err)
		}
		// With rise 1 and fall 1 the only state between UP and DOWN is "UP 0/1", while HAProxy handles the check.
		state, _, _ := strings.Cut(column["status"], " ")
		servers[column["svname"]] = lbServer{state, open}
	}
	return servers, nil
}

// report asks hacheck for the balancers of a service and its last answers to them. A check URL would make the demo
// itself a balancer, and hadown --wait would wait for it.
//
// The page for one service is always current. The page for all services is renewed once a second at most.
func (c *cluster) report(ctx context.Context, service string) (*balancer.Report, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.hacheckAddr+"/balancers?service="+service, http.NoBody) //nolint:gosec // 127.0.0.1 and a port that the demo has chosen
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req) //nolint:gosec // to that address
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("hacheck's /balancers: %s", resp.Status)
	}
	var r balancer.Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return nil, fmt.Errorf("read hacheck's /balancers: %w", err)
	}
	return &r, nil
}
