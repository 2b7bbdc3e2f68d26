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
	"slices"
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
	services []*service

	lbAddr    string // address of HAProxy
	lbSocket  string // its stats socket
	etcd      *process
	processes []*process
	load      *load
	client    *http.Client // for the pages of hacheck
}

// haproxyConf is the configuration of HAProxy. The check interval is shorter than on a real host, to keep the demo short.
// There are no retries, so that every failed request is counted.
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
    http-check send meth GET uri-lf %[3]s
    http-check send-state
    http-check disable-on-404
    default-server inter 500ms rise 1 fall 1
    use-server web1 if { path /download }
%[4]s`

// startCluster starts all servers with start and then the requests. It returns when all servers answer. The caller must
// call stop.
func startCluster(ctx context.Context, dir string, start func(*cluster) error) (*cluster, error) {
	var err error
	for range startTries {
		c := &cluster{dir: dir, client: &http.Client{Timeout: requestTimeout}}
		if err = start(c); err == nil {
			c.load = startLoad(ctx, "http://"+c.lbAddr)
			return c, nil
		}
		c.stop()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// startPair starts two services, one hacheck for both, and HAProxy.
func (c *cluster) startPair(ctx context.Context, commands, haproxy string) error {
	for _, name := range []string{"web1", "web2"} {
		if err := c.startService(name, name); err != nil {
			return err
		}
	}
	// Without a control socket the commands ask no other hacheck of this machine.
	host := hacheckHost{dir: c.dir, arguments: []string{"--control-socket", ""}, options: []string{"--control-socket", ""}}
	if err := c.startHacheck(ctx, commands, &host, c.services...); err != nil {
		return err
	}
	// The servers in HAProxy have the names of the services, so that one line sets the check URL of both.
	return c.startHAProxy(ctx, haproxy, "/http/%[srv_name]/0/status")
}

// startService starts a service on a free port. name is its name in HAProxy, key the one in hacheck.
func (c *cluster) startService(name, key string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	s := &service{name: name, key: key, addr: addr}
	c.services = append(c.services, s)
	return s.start()
}

// hacheckHost says how a hacheck and the commands of its host are started.
type hacheckHost struct {
	dir       string   // of the spool and of the scripts
	arguments []string // further ones of the daemon
	options   []string // further ones of the commands
	scripts   []string // further ones, by name and text in turn
}

// startHacheck starts a hacheck that checks the services, and writes the scripts for the commands of its host.
func (c *cluster) startHacheck(ctx context.Context, commands string, h *hacheckHost, services ...*service) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	spool := filepath.Join(h.dir, "spool")
	if err := c.start(filepath.Join(commands, "hacheck"), append([]string{"-B", host, "-p", port, "--spool-root", spool}, h.arguments...)...); err != nil {
		return err
	}
	path, err := h.writeScripts(commands, append([]string{"--spool-root", spool, "-p", addr}, h.options...))
	if err != nil {
		return err
	}
	for _, s := range services {
		s.hacheckAddr, s.path = addr, path
	}
	return c.waitReady(ctx, func() error { _, err := c.report(ctx, services[0]); return err })
}

// startHAProxy starts an HAProxy before all services. uri is the format of its check URL.
func (c *cluster) startHAProxy(ctx context.Context, haproxy, uri string) (err error) {
	if c.lbAddr, err = freeAddr(); err != nil {
		return err
	}
	var servers strings.Builder
	for _, s := range c.services {
		host, port, err := net.SplitHostPort(s.hacheckAddr)
		if err != nil {
			return err
		}
		fmt.Fprintf(&servers, "    server %s %s check addr %s port %s\n", s.name, s.addr, host, port)
	}
	c.lbSocket = filepath.Join(c.dir, "haproxy.sock")
	conf := filepath.Join(c.dir, "haproxy.cfg")
	if err := os.WriteFile(conf, fmt.Appendf(nil, haproxyConf, c.lbSocket, c.lbAddr, uri, servers.String()), 0o600); err != nil {
		return err
	}
	if err := c.start(haproxy, "-db", "-f", conf); err != nil {
		return err
	}
	return c.waitReady(ctx, func() error { _, err := c.servers(); return err })
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
		t.stop()
	}
	c.client.CloseIdleConnections()
}

// writeScripts writes scripts that call the commands with the options of this host. It returns a PATH that has them
// first.
func (h *hacheckHost) writeScripts(commands string, options []string) (path string, err error) {
	dir := filepath.Join(h.dir, "bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var quoted strings.Builder
	for _, o := range options {
		quoted.WriteString(" " + shellQuote(o))
	}
	scripts := h.scripts
	for _, name := range []string{"hadown", "haup", "hastatus"} {
		scripts = append(scripts, name, fmt.Sprintf("exec %s \"$@\"%s", shellQuote(filepath.Join(commands, name)), &quoted))
	}
	for pair := range slices.Chunk(scripts, 2) {
		if err := os.WriteFile(filepath.Join(dir, pair[0]), []byte("#!/bin/sh\n"+pair[1]+"\n"), 0o700); err != nil {
			return "", err
		}
	}
	return dir + string(os.PathListSeparator) + os.Getenv("PATH"), nil
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
func (c *cluster) report(ctx context.Context, s *service) (*balancer.Report, error) {
	page, err := c.get(ctx, "http://"+s.hacheckAddr+"/balancers?service="+s.key)
	if err != nil {
		return nil, err
	}
	var r balancer.Report
	if err := json.Unmarshal(page, &r); err != nil {
		return nil, fmt.Errorf("read hacheck's /balancers: %w", err)
	}
	return &r, nil
}

// get returns the page of a server. It returns an error unless the answer is 200.
func (c *cluster) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody) //nolint:gosec // 127.0.0.1 and a port that the demo has chosen
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req) //nolint:gosec // to that address
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
