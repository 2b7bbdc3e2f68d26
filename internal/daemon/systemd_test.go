package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fileListener is a listener whose socket another process can have.
type fileListener interface{ File() (*os.File, error) }

// launchWithSockets starts the daemon as systemd does, with listening sockets, their names and env.
func launchWithSockets(t *testing.T, sockets []fileListener, names string, env []string, args ...string) *process {
	t.Helper()
	return launch(t, func(c *exec.Cmd) {
		for _, ln := range sockets {
			f, err := ln.File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			c.ExtraFiles = append(c.ExtraFiles, f)
		}
		// The shell sets LISTEN_PID to its own process id, which exec keeps.
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`}, c.Args...)
		c.Env = append(c.Env, env...)
		c.Env = append(c.Env, "LISTEN_FDS="+strconv.Itoa(len(sockets)))
		if names != "" {
			c.Env = append(c.Env, "LISTEN_FDNAMES="+names)
		}
	}, args...)
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	type row struct {
		name    string
		names   string   // of the two sockets
		args    []string // A and B are their ports
		answers []string // of A and B: those that answer HTTP
		more    int      // the number of ports that the daemon opens itself
		unused  []string // of A and B: those that nothing uses
	}
	for _, test := range []row{
		{"by port", "x:y", []string{"-p", "A", "-p", "B"}, []string{"A", "B"}, 0, nil},
		{"one by port", "x:y", []string{"-p", "A"}, []string{"A"}, 0, []string{"B"}},
		{"unnamed", "", nil, []string{"A", "B"}, 0, nil},
		{"by the unit's name", "hacheck.socket:hacheck.socket", nil, []string{"A", "B"}, 0, nil},
		{"another port besides", "http:http", []string{"-p", "0"}, []string{"A", "B"}, 1, nil},
		{"one for another endpoint", "hacheck.socket:agent", nil, []string{"A"}, 0, []string{"B"}},
		{"one for the agent", "hacheck.socket:agent", []string{"-A", "B"}, []string{"A"}, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			socket := map[string]*net.TCPListener{"A": listenTCP(t), "B": listenTCP(t)}
			addr := func(name string) string { return socket[name].Addr().String() }
			args := slices.Clone(test.args)
			for i, a := range args {
				if socket[a] != nil {
					args[i] = port(t, addr(a))
				}
			}
			p := launchWithSockets(t, []fileListener{socket["A"], socket["B"]}, test.names, nil, args...)
			p.waitReady()
			for _, name := range test.answers {
				if i := slices.Index(p.addrs, addr(name)); i < 0 {
					t.Errorf("it answers on %v, not on %s", p.addrs, addr(name))
				} else {
					p.addrs = slices.Delete(p.addrs, i, i+1)
				}
				q := &process{t: t, addrs: []string{addr(name)}}
				q.mustGet("/spool/web/0/", 200)
			}
			if len(p.addrs) != test.more {
				t.Errorf("it answers on %v besides, want %d", p.addrs, test.more)
			}
			for _, name := range test.unused {
				p.waitForLog(regexp.MustCompile(`level=WARN msg="systemd handed over sockets that nothing uses.*` + regexp.QuoteMeta(addr(name))))
			}
			if test.unused == nil && strings.Contains(p.log(), "handed over") {
				t.Error("it complains about sockets that are in use")
			}
		})
	}
}

// listenOnPort opens port at host; port "0" is a free one.
func listenOnPort(t *testing.T, network, host, port string) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen(network, net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// TestSocketsAreNoWider: the daemon does not start if a socket has its port, but listens on more or other addresses than
// the command line or the configuration names.
func TestSocketsAreNoWider(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, network, host string   // of the socket
		args                []string // PORT is its port
		config              string
		refused             string // "" if it is used
	}{
		{"-B is narrower", "tcp4", "0.0.0.0", []string{"-B", "127.0.0.1"}, "", `-B says 127\.0\.0\.1`},
		{"-B is IPv4", "tcp", "", []string{"-B", "0.0.0.0"}, "", `-B says 0\.0\.0\.0`},
		{"-B is another address", "tcp4", "127.0.0.2", []string{"-B", "127.0.0.1"}, "", `-B says 127\.0\.0\.1`},
		{"-B is a name", "tcp4", "0.0.0.0", []string{"-B", "localhost"}, "", `-B says localhost`},
		{"-B and the agent", "tcp4", "0.0.0.0", []string{"-B", "127.0.0.1", "-p", "0", "-A", "PORT"}, "", `-B says 127\.0\.0\.1`},
		{"http_listen", "tcp4", "0.0.0.0", []string{"-p", "0"}, "http_listen: '127.0.0.1:PORT'", `the configuration says 127\.0\.0\.1:`},
		{"agent_listen", "tcp", "", []string{"-p", "0"}, "agent_listen: '0.0.0.0:PORT'", `the configuration says 0\.0\.0\.0:`},
		{"the same address", "tcp4", "127.0.0.1", []string{"-B", "127.0.0.1"}, "", ""},
		{"the same name", "tcp4", "127.0.0.1", []string{"-B", "localhost"}, "", ""},
		{"narrower than -B", "tcp4", "127.0.0.1", []string{"-B", "0.0.0.0"}, "", ""},
		{"narrower than ::", "tcp4", "127.0.0.1", []string{"-B", "::"}, "", ""},
		{"no -B", "tcp", "", nil, "", ""},
		{"narrower than http_listen", "tcp4", "127.0.0.1", []string{"-p", "0"}, "http_listen: ':PORT'", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ln := listenOnPort(t, test.network, test.host, "0")
			n := port(t, ln.Addr().String())
			name := "hacheck.socket"
			args := []string{}
			for _, a := range test.args {
				if a == "-p" { // then the socket is for another port
					name = "other"
				}
				args = append(args, strings.ReplaceAll(a, "PORT", n))
			}
			if test.config != "" {
				conf := filepath.Join(t.TempDir(), "hacheck.yaml")
				writeFile(t, conf, "services: {web: {checks: [{type: tcp, port: 1}], "+strings.ReplaceAll(test.config, "PORT", n)+"}}\n")
				args = append(args, "-c", conf)
			}
			p := launchWithSockets(t, []fileListener{ln}, name, nil, args...)
			if test.refused == "" {
				p.waitReady()
				if strings.Contains(p.log(), "nothing listens on") {
					t.Error("the socket is not used")
				}
				return
			}
			p.wantExit(1)
			want := `socket ` + name + ` listens on \S+:` + n + `, but ` + test.refused + `.*: change ListenStream= in the socket unit, or `
			if !regexp.MustCompile(want).MatchString(p.log()) {
				t.Errorf("it says %q, want %s", p.log(), want)
			}
		})
	}
}

// TestSocketsByAddress: of several sockets on one port, each service uses the one with its address. A service without a
// socket opens its own.
func TestSocketsByAddress(t *testing.T) {
	t.Parallel()
	first := listenOnPort(t, "tcp4", "127.0.0.2", "0")
	n := port(t, first.Addr().String())
	second := listenOnPort(t, "tcp4", "127.0.0.3", n)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	text := "services:\n"
	for i, host := range []string{"127.0.0.3", "127.0.0.2", "127.0.0.4"} {
		text += fmt.Sprintf("  web%d: {checks: [{type: tcp, port: 1}], failure_code: %d, http_listen: '%s:%s'}\n", i, 551+i, host, n)
	}
	writeFile(t, conf, text)
	p := launchWithSockets(t, []fileListener{first, second}, "a:b", nil, "-c", conf, "-B", "127.0.0.1", "-p", "0")
	p.waitReady()
	for i, host := range []string{"127.0.0.3", "127.0.0.2", "127.0.0.4"} {
		r, err := (&http.Client{Timeout: testTimeout}).Get("http://" + net.JoinHostPort(host, n) + "/")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 551+i {
			t.Errorf("%s answers %d, want %d", host, r.StatusCode, 551+i)
		}
	}
	if strings.Contains(p.log(), "nothing listens on") {
		t.Error("a socket is not used")
	}
}

// TestZeroIsIPv4: 0.0.0.0 never includes IPv6.
func TestZeroIsIPv4(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Logf("this machine has no IPv6: %v", err)
		return
	}
	probe.Close()
	service := listenTCP(t)
	ports := map[string]string{}
	text := "services: {web: {interval: 0.1, checks: [{type: tcp, port: " + port(t, service.Addr().String()) + "}]"
	for _, key := range []string{"http_listen", "agent_listen", "beacon_listen"} {
		ports[key] = port(t, freeAddr(t))
		text += ", " + key + ": '0.0.0.0:" + ports[key] + "'"
	}
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, text+"}}\n")
	startDaemon(t, "-c", conf)
	ports["hacheck aggregate"] = port(t, freeAddr(t))
	launch(t, nil, "aggregate", "--listener", "0.0.0.0:"+ports["hacheck aggregate"], "--port", "1")
	for what, n := range ports {
		waitUntil(t, what+" listens", func() bool {
			c, err := net.Dial("tcp4", "127.0.0.1:"+n)
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
		if c, err := net.Dial("tcp6", "[::1]:"+n); err == nil {
			c.Close()
			t.Errorf("%s at 0.0.0.0 answers on IPv6", what)
		}
	}
}

// TestInheritedServiceListener: http_listen uses a socket too, also after a reload has removed and added it again.
func TestInheritedServiceListener(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	with := "services: {web: {checks: [{type: tcp, port: " + port(t, ln.Addr().String()) + "}], http_listen: '" + ln.Addr().String() + "'}}\n"
	writeFile(t, conf, with)
	p := launchWithSockets(t, []fileListener{ln}, "web", nil, "-c", conf, "-B", "127.0.0.1", "-p", "0")
	p.waitReady()
	ask := func() {
		t.Helper()
		r, err := http.Get("http://" + ln.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Errorf("it answered %d", r.StatusCode)
		}
	}
	ask()
	for i, text := range []string{"{}\n", with} {
		writeFile(t, conf, text)
		p.signal(syscall.SIGHUP)
		waitUntil(t, "it was reloaded", func() bool { return strings.Count(p.log(), "reloaded the configuration") > i })
	}
	ask()
}

func TestInvalidSocketEnvironment(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"LISTEN_FDS=many":    `^hacheck: read LISTEN_FDS: want a number of sockets up to 1024, got "many"\n$`,
		"LISTEN_FDS=1":       `^hacheck: take over socket unknown \(descriptor 3\): `, // there is no such descriptor
		"WATCHDOG_USEC=soon": `^hacheck: read WATCHDOG_USEC: want a number of microseconds, got "soon"\n$`,
	} {
		p := launch(t, func(c *exec.Cmd) {
			c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, c.Args...)
			c.Env = append(c.Env, env)
		}, "-B", "127.0.0.1", "-p", "0")
		p.wantExit(1)
		if !regexp.MustCompile(want).MatchString(p.log()) {
			t.Errorf("%s: stderr is %q, want %s", env, p.log(), want)
		}
	}
	// Sockets for the parent process are ignored.
	p := launch(t, func(c *exec.Cmd) {
		c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_PID=1", "WATCHDOG_USEC=1000", "WATCHDOG_PID=1")
	}, "-B", "127.0.0.1", "-p", "0")
	p.waitReady()
}

// TestRestartsRefuseNothing: under 500 checks a second, each on a new connection, ten restarts with a socket of systemd
// refuse no connection and lose no answer: neither from memory, nor from net/http, nor from the service.
func TestRestartsRefuseNothing(t *testing.T) {
	t.Parallel()
	const (
		rate     = 500
		restarts = 10
	)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well") }))
	defer service.Close()
	backend := port(t, service.Listener.Addr().String())
	ln := listenTCP(t)
	spool := filepath.Join(t.TempDir(), "spool")
	start := func() *process {
		return launchWithSockets(t, []fileListener{ln}, "hacheck.socket", nil, "--spool-root", spool)
	}
	p := start()
	p.waitReady()

	paths := []string{"/spool/web/0/", "/http/web/" + backend + "/", "/status", "/http/web/" + backend + "/fresh"}
	var (
		asked  atomic.Int64
		wg     sync.WaitGroup
		failed = make(chan error, 10)
	)
	ask := func(n int64) {
		path := paths[n%int64(len(paths))]
		err := func() error {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(testTimeout))
			more := ""
			if strings.HasSuffix(path, "fresh") {
				more = "Cache-Control: no-cache\r\n"
			}
			if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\n%s\r\n", path, more); err != nil {
				return err
			}
			b, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(b), "HTTP/1.0 200 OK\r\n") || !strings.Contains(string(b), "\r\n\r\n") {
				return fmt.Errorf("answer %q, %w", b, err)
			}
			return nil
		}()
		if err != nil {
			select {
			case failed <- fmt.Errorf("check %d, %s: %w", n, path, err):
			default:
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for due := int64(time.Since(began).Seconds() * rate); asked.Load() < due; {
				n := asked.Add(1)
				wg.Go(func() { ask(n) })
			}
		}
	})
	for range restarts {
		// The restart comes when the queue of the last one has been worked off.
		at := asked.Load()
		waitUntil(t, "checks were made", func() bool { return asked.Load() >= at+rate/5 })
		p.signal(syscall.SIGTERM)
		p.wantExit(0)
		p = start()
		p.waitReady()
	}
	at := asked.Load()
	waitUntil(t, "checks were made after the last restart", func() bool { return asked.Load() >= at+rate/5 })
	cancel()
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	t.Logf("%d checks in %d restarts", asked.Load(), restarts)
}

// notifySocket is a service manager that receives notifications.
func notifySocket(t *testing.T) (env string, next func() map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return "NOTIFY_SOCKET=" + path, func() map[string]string {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(testTimeout))
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("the daemon says nothing: %v", err)
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(b[:n])) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			fields[k] = v
		}
		return fields
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	env, next := notifySocket(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	// A script that writes down its environment and descriptors.
	seen := filepath.Join(t.TempDir(), "seen")
	script := filepath.Join(t.TempDir(), "script")
	writeFile(t, script, "#!/bin/sh\nenv >"+seen+"; ls -l /proc/$$/fd >>"+seen+"\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	config := "services: {web: {checks: [{type: script, command: " + script + "}]}}\n"
	writeFile(t, conf, config)
	ln := listenTCP(t)
	p := launchWithSockets(t, []fileListener{ln}, "", []string{env, "WATCHDOG_USEC=60000000"}, "-c", conf)
	if got := next(); got["READY"] != "1" || got["STATUS"] != "Answering on "+ln.Addr().String() {
		t.Errorf("at the start it says %v", got)
	}
	p.waitReady()
	if got := next(); got["WATCHDOG"] != "1" {
		t.Errorf("then it says %v", got)
	}

	p.mustGet("/checks/web/0/", 200)
	inherits, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "socket:"} {
		if strings.Contains(string(inherits), bad) {
			t.Errorf("a script inherits %s:\n%s", bad, inherits)
		}
	}

	reload := func(text, status string) {
		t.Helper()
		writeFile(t, conf, text)
		p.signal(syscall.SIGHUP)
		if got := next(); got["RELOADING"] != "1" || !regexp.MustCompile(`^[1-9][0-9]+$`).MatchString(got["MONOTONIC_USEC"]) {
			t.Errorf("at a reload it says %v", got)
		}
		if got := next(); got["READY"] != "1" || !strings.HasPrefix(got["STATUS"], status) {
			t.Errorf("after the reload it says %v, want %s", got, status)
		}
	}
	reload("cache_time: x\nmax_clients: y\n", "The configuration was not reloaded, the old one stays in force: "+conf+":1: cache_time")
	reload(config, "Reloaded the configuration at 2")

	p.signal(syscall.SIGTERM)
	if got := next(); got["STOPPING"] != "1" || got["EXTEND_TIMEOUT_USEC"] != "12000000" {
		t.Errorf("at the end it says %v", got)
	}
	p.wantExit(0)
}

// TestWatchdog: a daemon that answers feeds the watchdog within half its interval. A daemon that hangs does not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	env, next := notifySocket(t)
	p := launchWithSockets(t, nil, "", []string{env, "WATCHDOG_USEC=2000000"}, "-B", "127.0.0.1", "-p", "0")
	if got := next(); got["READY"] != "1" {
		t.Fatalf("at the start it says %v", got)
	}
	p.waitReady()
	last := time.Now()
	for range 3 {
		if got := next(); got["WATCHDOG"] != "1" {
			t.Fatalf("it says %v", got)
		}
		if took := time.Since(last); took > 2*time.Second {
			t.Errorf("fed after %v", took)
		}
		last = time.Now()
	}
	// The self-check appears on no page.
	if _, body, err := p.get("/recent"); err != nil || !strings.Contains(body, `"seen_services":[]`) {
		t.Errorf("/recent has %s, %v", body, err)
	}
}

// TestWatchdogWithoutDescriptors: a daemon without free descriptors does not feed the watchdog.
func TestWatchdogWithoutDescriptors(t *testing.T) {
	t.Parallel()
	env, next := notifySocket(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "rlimit_nofile: 20\n")
	p := launchWithSockets(t, nil, "", []string{env, "WATCHDOG_USEC=1000000"}, "-c", conf, "-B", "127.0.0.1", "-p", "0")
	next() // READY
	p.waitReady()
	var held []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", p.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	p.waitForLog(regexp.MustCompile(`level=ERROR msg="the daemon could not answer; systemd ends it unless that passes" err="(ask|tell) `))
	for _, c := range held {
		c.Close()
	}
	n := strings.Count(p.log(), "could not answer")
	waitUntil(t, "it is fed again", func() bool {
		return next()["WATCHDOG"] == "1" && strings.Count(p.log(), "could not answer") >= n
	})
}

// TestSocketActivate: systemd-socket-activate starts the daemon at the first connection.
func TestSocketActivate(t *testing.T) {
	t.Parallel()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Fatalf("%v; run test/install.sh", err)
	}
	addr := freeAddr(t)
	p := launch(t, func(c *exec.Cmd) {
		c.Path, c.Args = activate, append([]string{activate, "-l", addr}, c.Args...)
	})
	p.addrs = []string{addr}
	waitUntil(t, "the port is open", func() bool {
		p.wantRunning()
		code, _, err := p.get("/spool/web/0/")
		return err == nil && code == 200
	})
	p.waitReady()
	if !slices.Equal(p.addrs, []string{addr}) {
		t.Errorf("it answers on %v, want %s", p.addrs, addr)
	}
}
