package main

import (
	"bufio"
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
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hacheck/internal/balancer"
)

const (
	// startTimeout is how long a server may take until it answers, stopTime how long to end before it is killed.
	startTimeout = 20 * time.Second
	stopTimeout  = 3 * time.Second
	// startTries is how often the stage is set up: a port that was free when it was chosen may be taken by the
	// time a server wants it.
	startTries = 3
	// requestTimeout bounds a question to HAProxy or hacheck.
	requestTimeout = 5 * time.Second
)

// cluster is everything that runs.
type cluster struct {
	dir      string // of the demo's own
	services [2]*service

	hacheckAddr string
	lbAddr      string // where HAProxy takes requests
	lbSocket    string // and tells what it thinks
	path        string // PATH for the commands
	processes   []*process
	load        *load
	client      *http.Client // for hacheck's own pages
}

// haproxyConf is HAProxy's configuration. The servers are named as the services are, so that one line asks about
// each. The checks are quicker than they would be on a real host: nobody wants to watch patience. Nothing is tried
// twice, so that whatever goes wrong is counted.
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

// startCluster starts the services, hacheck, HAProxy and the requests, and returns when all of them answer.
func startCluster(ctx context.Context, dir, commands, haproxy string) (*cluster, error) {
	var err error
	for range startTries {
		s := &cluster{dir: dir, client: &http.Client{Timeout: requestTimeout}}
		if err = s.startAll(ctx, commands, haproxy); err == nil {
			return s, nil
		}
		s.stop()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (s *cluster) startAll(ctx context.Context, commands, haproxy string) error {
	for i := range s.services {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		s.services[i] = &service{name: fmt.Sprintf("web%d", i+1), addr: addr}
		if err := s.services[i].start(); err != nil {
			return err
		}
	}

	var err error
	if s.hacheckAddr, err = freeAddr(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s.hacheckAddr)
	if err != nil {
		return err
	}
	spool := filepath.Join(s.dir, "spool")
	if err := s.start(filepath.Join(commands, "hacheck"), "-B", host, "-p", port, "--spool-root", spool); err != nil {
		return err
	}
	if err := s.waitReady(ctx, func() error { _, err := s.report(ctx, "web1"); return err }); err != nil {
		return err
	}

	if s.lbAddr, err = freeAddr(); err != nil {
		return err
	}
	s.lbSocket = filepath.Join(s.dir, "haproxy.sock")
	conf := filepath.Join(s.dir, "haproxy.cfg")
	text := fmt.Sprintf(haproxyConf, s.lbSocket, s.lbAddr, host, port, s.services[0].addr, s.services[1].addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	if err := s.start(haproxy, "-db", "-f", conf); err != nil {
		return err
	}
	if err := s.waitReady(ctx, func() error { _, err := s.servers(); return err }); err != nil {
		return err
	}
	if err := s.writeWrappers(commands, spool); err != nil {
		return err
	}
	s.load = startLoad(ctx, "http://"+s.lbAddr)
	return nil
}

// stop ends everything. Requests end first, for none may be lost to that.
func (s *cluster) stop() {
	if s.load != nil {
		s.load.stop()
	}
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].stop()
	}
	for _, t := range s.services {
		if t != nil {
			t.stop()
		}
	}
	s.client.CloseIdleConnections()
}

// writeWrappers writes the commands that are on the PATH here: the real ones, told where this hacheck is.
func (s *cluster) writeWrappers(commands, spool string) error {
	dir := filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"hadown", "haup", "hastatus"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" --spool-root %s -p %s\n", shellQuote(filepath.Join(commands, name)), shellQuote(spool), s.hacheckAddr)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			return err
		}
	}
	s.path = dir + string(os.PathListSeparator) + os.Getenv("PATH")
	return nil
}

// shellQuote makes one word of a text for a shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// freeAddr returns an address of 127.0.0.1 on which nothing listens, below the ports from which the kernel takes
// those of outgoing connections.
func freeAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if ln, err := net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", errors.New("find a free port on 127.0.0.1: none of 1000 is")
}

// process is a server that runs.
type process struct {
	name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{} // closed once it has ended
}

func (s *cluster) start(program string, args ...string) error {
	p := &process{name: filepath.Base(program), cmd: exec.Command(program, args...), done: make(chan struct{})} //nolint:gosec // by the flags and PATH of whoever runs the demo, and nobody else's word
	p.cmd.Dir = s.dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = ownProcessGroup()
	p.cmd.WaitDelay = stopTimeout
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // that it ended is what matters
		close(p.done)
	}()
	s.processes = append(s.processes, p)
	return nil
}

// output is the end of what it has printed.
func (p *process) output() string {
	if text := strings.TrimSpace(p.out.String()); text != "" {
		return "it printed\n" + text
	}
	return "it printed nothing"
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// waitReady waits until ready returns nil.
func (s *cluster) waitReady(ctx context.Context, ready func() error) error {
	p := s.processes[len(s.processes)-1]
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(startTimeout); ; {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at its start: %s", p.name, p.output())
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w; %s", p.name, err, p.output())
		}
	}
}

// logs is what the servers have printed lately.
func (s *cluster) logs() string {
	var b strings.Builder
	for _, p := range s.processes {
		fmt.Fprintf(&b, "\n%s: %s", p.name, p.output())
	}
	return b.String()
}

// lbServer is a server as HAProxy has it.
type lbServer struct {
	state string // UP, DOWN, NOLB, ...
	open  int    // sessions
}

// servers asks HAProxy about its servers.
func (s *cluster) servers() (map[string]lbServer, error) {
	conn, err := net.DialTimeout("unix", s.lbSocket, requestTimeout) //nolint:gosec // a path in the directory that the demo has made for itself
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
		// With one check to rise or fall there is nothing between UP and DOWN but "UP 0/1", in the moment in
		// which HAProxy has counted the check and not yet done what follows.
		state, _, _ := strings.Cut(column["status"], " ")
		servers[column["svname"]] = lbServer{state, open}
	}
	return servers, nil
}

// report asks hacheck who asks it and what it has answered. To ask for the answer itself would make the demo a
// balancer as well, that hadown --wait waits for.
//
// The page about one service is made for each request; the one about all is made once a second at most.
func (s *cluster) report(ctx context.Context, service string) (*balancer.Report, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.hacheckAddr+"/balancers?service="+service, http.NoBody) //nolint:gosec // 127.0.0.1 and a port that the demo has chosen
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req) //nolint:gosec // to that address
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

// command is a command line that is being run.
type command struct {
	done chan struct{} // closed once it has ended and all it printed was taken; then exit is set
	exit int           // its exit code, -1 if it was killed
}

// ended reports whether it has.
func (c *command) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// runShell gives a command line to a shell. What it prints goes to lines, which somebody has to take.
func (s *cluster) runShell(ctx context.Context, commandLine string, lines chan<- string) (*command, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", commandLine) //nolint:gosec // the lines are constants of this program, shown as they are typed
	cmd.Env = append(os.Environ(), "PATH="+s.path)
	cmd.Dir = s.dir
	cmd.SysProcAttr = ownProcessGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &command{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		printed := bufio.NewScanner(out)
		for printed.Scan() {
			select {
			case lines <- printed.Text():
			case <-ctx.Done():
			}
		}
		_, _ = io.Copy(io.Discard, out) // after a line that is too long, which none is
		_ = cmd.Wait()                  // the code says what there is to say
		c.exit = cmd.ProcessState.ExitCode()
	}()
	return c, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailBytes; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
