package main

import (
	"bufio"
	"bytes"
	"cmp"
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
	"syscall"
	"time"
)

// server is a running contestant.
type server struct {
	name string
	addr string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
}

// start starts a server on 127.0.0.1:port and waits until it listens.
func (b *bench) start(name string, port int, program string, args ...string) (*server, error) {
	s, err := b.launch(name, port, program, args...)
	if err != nil {
		return nil, err
	}
	if err := b.waitListening(s); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// launch starts a server that will listen on 127.0.0.1:port.
func (b *bench) launch(name string, port int, program string, args ...string) (*server, error) {
	// Debian installs servers in sbin, which is not in the PATH of an unprivileged user.
	if _, err := exec.LookPath(program); err != nil {
		program = filepath.Join("/usr/sbin", program)
	}
	s := &server{name: name, addr: "127.0.0.1:" + strconv.Itoa(port), cmd: exec.Command(program, args...), done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = killWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // waitListening reports that it ended, with its output
		close(s.done)
	}()
	return s, nil
}

// waitListening waits until the server accepts connections, at most 30 s.
func (b *bench) waitListening(s *server) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("%s ended: %s", s.name, s.log.String())
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen: %w", s.name, err)
		}
	}
}

// stop ends the server with SIGTERM, after 10 s with SIGKILL.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func stopAll(servers []*server) {
	for _, s := range servers {
		s.stop()
	}
}

// freePort returns a port below the kernel's range for outgoing connections.
func freePort() (int, error) {
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return port, ln.Close()
		}
	}
	return 0, errors.New("found no free port")
}

// startBare starts a server of bare net/http with a constant answer.
func (b *bench) startBare() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return b.start("bare net/http", port, b.bare, "-listen", "127.0.0.1:"+strconv.Itoa(port))
}

// startNginx starts nginx with a constant answer: one worker per core, no log, no limit of requests per connection.
func (b *bench) startNginx() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.tmp, "nginx-")
	if err != nil {
		return nil, err
	}
	// Workers run as another user and need access to their directories.
	for _, d := range []string{b.tmp, dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(`
daemon off;
worker_processes auto;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    keepalive_requests 1000000000;
    default_type text/plain;
    server {
        listen 127.0.0.1:%[2]d backlog=4096 reuseport;
        location / { return 200 "OK"; }
    }
}
`, dir, port)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return b.start("nginx", port, "nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", file)
}

// startHAProxy starts HAProxy with a constant: one thread a core, which is its default, and no log.
func (b *bench) startHAProxy() (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`
defaults
    mode http
    timeout client 60s
    timeout http-keep-alive 60s
frontend constant
    bind 127.0.0.1:%d backlog 4096
    http-request return status 200 content-type text/plain string OK
`, port)
	file := filepath.Join(b.tmp, fmt.Sprintf("haproxy-%d.cfg", port))
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return b.start("HAProxy", port, cmp.Or(os.Getenv("HAPROXY"), "haproxy"), "-db", "-f", file)
}

// hacheck is a daemon with a spool directory of its own.
type hacheck struct {
	*server
	spool string
}

// startHacheck starts the daemon with a configuration, a spool directory and further options. If spool is "", it creates an
// empty one.
func (b *bench) startHacheck(spool, config string, options ...string) (*hacheck, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if spool == "" {
		if spool, err = os.MkdirTemp(b.tmp, "spool-"); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(b.tmp, fmt.Sprintf("hacheck-%d.yaml", port))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s, err := b.start("hacheck", port, filepath.Join(b.bin, "hacheck"),
		append([]string{"-B", "127.0.0.1", "-p", strconv.Itoa(port), "--spool-root", spool, "-c", file}, options...)...)
	if err != nil {
		return nil, err
	}
	return &hacheck{server: s, spool: spool}, nil
}

// cacheForAnHour is the configuration of rows about cached results. Nothing expires during a row.
const cacheForAnHour = "cache_time: 3600\n"

// get sends one request on a new connection and returns the code and the body of the answer.
func (s *server) get(path string) (int, string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + s.addr + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// expectOK sends one request and returns an error unless the answer is 200.
func (s *server) expectOK(path string) error {
	code, body, err := s.get(path)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s answered %d %s", path, code, body)
	}
	return err
}

// cacheCounters are the counters of the cache in /status.
type cacheCounters struct{ Hits, Misses, Sets int }

func (h *hacheck) counters() (cacheCounters, error) {
	var page struct{ Cache cacheCounters }
	code, body, err := h.get("/status")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/status answered %d", code)
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &page)
	}
	return page.Cache, err
}

// memory returns the private and the whole resident memory of the daemon in MB (1,000,000 bytes).
func (s *server) memory() (private, all float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), "\n"+name+":")
		var kb float64
		if _, err2 := fmt.Sscan(rest, &kb); err2 != nil {
			err = fmt.Errorf("%s of %s: %w", name, s.name, err2)
		}
		return kb * 1024 / 1e6
	}
	private, all = field("RssAnon"), field("VmRSS")
	return private, all, err
}

// cpu returns the processor time of the daemon so far, of all threads. The kernel counts it in hundredths of a second.
func (s *server) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name of the program, in brackets, may contain spaces. utime and stime are the 12th and 13th field after it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat of %s: %q", s.cmd.Process.Pid, s.name, text)
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// keepAliveClient sends requests to a daemon over one keep-alive connection.
type keepAliveClient struct {
	conn net.Conn
	r    *bufio.Reader
}

func newKeepAliveClient(s *server) (*keepAliveClient, error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return &keepAliveClient{conn, bufio.NewReader(conn)}, nil
}

// get requests a path, with header lines unless "", and returns the code of the answer.
func (a *keepAliveClient) get(path, header string) (int, error) {
	if _, err := fmt.Fprintf(a.conn, "GET %s HTTP/1.1\r\n%s\r\n", path, header); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// fillCache requests n different targets, so that their results are cached. target returns the path of the i-th one.
// header must be the header of later requests, because the Host is part of the cache key.
func (b *bench) fillCache(h *hacheck, n int, header string, target func(i int) string) error {
	const workers = 8
	failed := make(chan error, workers)
	for w := range workers {
		go func() {
			failed <- func() error {
				a, err := newKeepAliveClient(h.server)
				if err != nil {
					return err
				}
				defer a.conn.Close()
				for i := w; i < n && b.ctx.Err() == nil; i += workers {
					if code, err := a.get(target(i), header); err != nil || code != http.StatusOK {
						return fmt.Errorf("fill the cache: %s answered %d: %w", target(i), code, err)
					}
				}
				return b.ctx.Err()
			}()
		}()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-failed)
	}
	return err
}
