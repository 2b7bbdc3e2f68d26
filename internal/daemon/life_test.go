package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/config"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

var endings = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

// TestStopInFirstMilliseconds ends daemons at a random moment of their start. The original, told so while
// its port opened, stayed for ever in a third of all cases. Before main has begun there is nobody to
// answer a signal: then the kernel or the Go runtime ends the process by it, and nothing was begun.
func TestStopInFirstMilliseconds(t *testing.T) {
	began := time.Now()
	startDaemon(t)
	start := time.Since(began)
	byKernel := 0
	for i := range starts() {
		how := endings[i%len(endings)]
		p := launch(t, nil, "-B", "127.0.0.1", "-p", "0")
		<-time.After(rand.N(start * 3 / 2)) // the moment to be tested, nothing waits for anything
		p.signal(how)
		code := p.exit()
		status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case code == 0:
		case status.Signaled() && status.Signal() == how && p.said() == "":
			byKernel++
		case how == syscall.SIGQUIT && code == 2 && !strings.Contains(p.said(), "hacheck answers") && strings.Contains(p.said(), "SIGQUIT: quit"):
			byKernel++ // the runtime's own way to obey SIGQUIT
		default:
			t.Errorf("start %d, %v: %v\n%s", i, how, p.cmd.ProcessState, p.said())
		}
	}
	if byKernel == starts() {
		t.Errorf("all were ended before main began; a start took %v", start)
	}
}

// starts is how often the tests of a moment start the daemon; under the race detector that takes long.
func starts() int {
	if underRace() {
		return 15
	}
	return 60
}

// TestStopWhenPortOpens is the moment at which the original deadlocks.
func TestStopWhenPortOpens(t *testing.T) {
	for i := range starts() {
		addr := freeAddr(t)
		p := launch(t, nil, "-B", "127.0.0.1", "-p", port(t, addr))
		until(t, "the port is open", func() bool {
			p.alive()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
		p.signal(endings[i%len(endings)])
		p.stopped(0)
	}
}

// freeAddr returns an address of 127.0.0.1 at which nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := servertest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(servertest.Host, strconv.Itoa(int(port)))
}

// slowService answers once release is closed; asked says that it was asked.
func slowService(t *testing.T) (p string, asked <-chan struct{}, release chan struct{}) {
	t.Helper()
	in, release := make(chan struct{}, 100), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "at last")
	}))
	t.Cleanup(s.Close)
	return port(t, s.Listener.Addr().String()), in, release
}

type answer struct {
	code int
	body string
	err  error
}

// ask asks in the background.
func (p *process) ask(path string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		code, body, err := p.get(path)
		c <- answer{code, body, err}
	}()
	return c
}

func TestStopAnswersRequestsInFlight(t *testing.T) {
	for _, how := range endings {
		t.Run(how.String(), func(t *testing.T) {
			service, asked, release := slowService(t)
			p := startDaemon(t)
			in := p.ask("/http/web/" + service + "/")
			<-asked
			p.signal(how)
			p.wait(regexp.MustCompile(`msg="stopping; .*signal=` + how.String()))
			until(t, "no connection is accepted", func() bool {
				c, err := net.Dial("tcp", p.addrs[0])
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			p.alive()
			close(release)
			if a := <-in; a.err != nil || a.code != 200 || a.body != "at last" {
				t.Errorf("the request in flight got %d %q, %v", a.code, a.body, a.err)
			}
			p.stopped(0)
			if !strings.Contains(p.said(), "msg=stopped") {
				t.Errorf("the log does not say the end:\n%s", p.said())
			}
		})
	}
}

// TestStopIsBounded: a service that never answers holds the end up for healthcheck_timeout at most.
func TestStopIsBounded(t *testing.T) {
	service, asked, _ := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "healthcheck_timeout: 1\n")
	p := startDaemon(t, "-c", conf)
	in := p.ask("/http/web/" + service + "/")
	<-asked
	p.signal(syscall.SIGTERM)
	if a := <-in; a.err != nil || a.code != 503 {
		t.Errorf("the request in flight got %d %q, %v", a.code, a.body, a.err)
	}
	p.stopped(0)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	service, asked, _ := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "healthcheck_timeout: 3600\n")
	p := startDaemon(t, "-c", conf)
	in := p.ask("/http/web/" + service + "/")
	<-asked
	p.signal(syscall.SIGTERM)
	p.wait(regexp.MustCompile(`msg="stopping`))
	p.signal(syscall.SIGINT)
	p.stopped(1)
	if a := <-in; a.err == nil {
		t.Errorf("the request in flight got %d %q", a.code, a.body)
	}
	if want := "hacheck: a second signal (interrupt): requests in flight were cut off\n"; !strings.HasSuffix(p.said(), want) {
		t.Errorf("stderr is %q, want %q at its end", p.said(), want)
	}
}

// TestStopWithOpenConnections: neither a connection that has never said a word nor one that is kept
// between requests holds up the end.
func TestStopWithOpenConnections(t *testing.T) {
	p := startDaemon(t)
	silent, err := net.Dial("tcp", p.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	kept, err := net.Dial("tcp", p.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	fmt.Fprintf(kept, "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(kept), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.stopped(0)
	if took := time.Since(began); took > 4*time.Second { // net/http alone waits 5 s
		t.Errorf("the end took %v", took)
	}
}

func TestSignalsThatMeanNothing(t *testing.T) {
	p := startDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH} {
		p.signal(s)
		p.mustGet("/spool/web/0/", 200)
	}
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

// TestNobodyReadsTheLog: whoever read stderr has gone (SIGPIPE), or has stopped reading and the pipe is full.
func TestNobodyReadsTheLog(t *testing.T) {
	for _, gone := range []bool{true, false} {
		t.Run(fmt.Sprintf("gone=%v", gone), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			addr := freeAddr(t)
			p := launch(t, func(c *exec.Cmd) { c.Stderr = w }, "-v", "-B", "127.0.0.1", "-p", port(t, addr))
			w.Close()
			p.addrs = []string{addr}
			until(t, "the daemon answers", func() bool {
				p.alive()
				code, _, _ := p.get("/spool/web/0/")
				return code == 200
			})
			if gone {
				r.Close()
			}
			// A pipe holds 64 KiB, the queue 1 MiB.
			long, refusing := strings.Repeat("x", 10_000), strconv.Itoa(int(checktest.ClosedPort(t)))
			for i := range 200 {
				p.mustGet("/http/web/"+refusing+"/"+strconv.Itoa(i)+long, 503)
			}
			p.signal(syscall.SIGTERM)
			p.stopped(0)
		})
	}
}

func TestReload(t *testing.T) {
	seen := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("X-One") + r.Header.Get("X-Two")
	}))
	defer s.Close()
	path := "/http/web/" + port(t, s.Listener.Addr().String()) + "/"
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "service_name_header: X-One\ncache_time: 0\n")
	p := startDaemon(t, "-c", conf)
	header := func() string {
		t.Helper()
		p.mustGet(path, 200)
		return <-seen
	}
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}

	// A wrong file changes nothing and is worth one line.
	writeFile(t, conf, "service_name_header: X-Two\ncache_time: x\nmysql_password: [hunter2]\n")
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*hacheck\.yaml:2: cache_time: .*; .*hacheck\.yaml:3: mysql_password: `))
	writeFile(t, conf, "service_name_header: X-Two\nlog_path: "+filepath.Join(conf, "log")+"\n") // below a file
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`level=ERROR .*open log_path`))
	writeFile(t, conf, "service_name_header: X-Two\nrlimit_nofile: 1073741824\n")
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`level=ERROR .*above the hard limit`))
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`level=ERROR .*hacheck\.yaml: no such file`))
	if n := strings.Count(p.said(), "level=ERROR"); n != 4 {
		t.Errorf("%d lines for 4 failed reloads", n)
	}
	if strings.Contains(p.said(), "hunter2") {
		t.Errorf("a password is in the log:\n%s", p.said())
	}
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}
	if code, _, err := p.get(path); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	<-seen

	// A right one is in force, a key that means nothing is a warning, and the log goes elsewhere.
	log := filepath.Join(t.TempDir(), "log")
	writeFile(t, conf, "service_name_header: X-Two\ncache_time: 0\nbogus: 1\nlog_path: "+log+"\nlog_format: json\n")
	p.signal(syscall.SIGHUP)
	fileSays(t, log, `"msg":"reloaded the configuration"`)
	fileSays(t, log, `bogus: unknown key`)
	writeFile(t, conf, "service_name_header: X-Two\n")
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`level=INFO msg="reloaded the configuration"`))
	if got := header(); got != "web" {
		t.Fatalf("the service saw %q", got)
	}
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

// TestReloadUnderLoad: no request is lost while the configuration is reloaded over and over, and a check
// that began under the old one is answered.
func TestReloadUnderLoad(t *testing.T) {
	service, asked, release := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "max_clients: 3\n")
	p := startDaemon(t, "-c", conf)
	slow := p.ask("/http/slow/" + service + "/")
	<-asked
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 2)
	for range cap(failed) {
		go func() {
			for ctx.Err() == nil {
				if code, body, err := p.get("/spool/web/0/"); err != nil || code != 200 {
					failed <- fmt.Errorf("%d %q %w", code, body, err)
					return
				}
			}
			failed <- nil
		}()
	}
	for i := range 20 {
		p.signal(syscall.SIGHUP)
		until(t, "it was reloaded", func() bool {
			return strings.Count(p.said(), "reloaded the configuration") > i
		})
	}
	cancel()
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	// The end waits for checks of every configuration.
	p.signal(syscall.SIGTERM)
	p.wait(regexp.MustCompile(`msg="stopping`))
	close(release)
	if a := <-slow; a.err != nil || a.code != 200 {
		t.Errorf("the check from before the reloads got %d %q, %v", a.code, a.body, a.err)
	}
	p.stopped(0)
}

func TestReloadWithoutFile(t *testing.T) {
	p := startDaemon(t)
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`reopened the log; there is no configuration file to reload`))
	p.mustGet("/spool/web/0/", 200)
}

func fileSays(t *testing.T, path, text string) {
	t.Helper()
	until(t, path+" says "+text, func() bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), text)
	})
}

// TestLogRotation: a log file that was moved away is made anew by SIGHUP and without it, and never for all to read.
func TestLogRotation(t *testing.T) {
	dir := t.TempDir()
	log, conf := filepath.Join(dir, "log"), filepath.Join(dir, "hacheck.yaml")
	writeFile(t, conf, "log_path: "+log+"\n")
	addr := freeAddr(t)
	p := launch(t, nil, "-v", "-c", conf, "-B", "127.0.0.1", "-p", port(t, addr))
	p.addrs = []string{addr}
	fileSays(t, log, "hacheck answers")

	rotate := func(n int) {
		t.Helper()
		if info, err := os.Stat(log); err != nil || info.Mode() != 0o640 {
			t.Errorf("before rotation %d the log has mode %v, %v, want 0640", n, info.Mode(), err)
		}
		if err := os.Rename(log, log+"."+strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
	}
	rotate(1)
	p.signal(syscall.SIGHUP)
	fileSays(t, log, "reloaded the configuration")

	rotate(2)
	n := 0
	until(t, "the log is made anew by itself", func() bool {
		n++
		p.mustGet("/spool/n"+strconv.Itoa(n)+"/0/", 200)
		_, err := os.Stat(log)
		return err == nil
	})
	// Every line is in one of the files: nothing was lost on the way.
	p.mustGet("/spool/last/0/", 200)
	fileSays(t, log, "/spool/last/0/")
	if info, err := os.Stat(log); err != nil || info.Mode() != 0o640 {
		t.Errorf("a log that was made anew without a signal has mode %v, %v, want 0640", info.Mode(), err)
	}
	var all strings.Builder
	for _, f := range []string{log + ".2", log} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for i := 1; i <= n; i++ {
		if !strings.Contains(all.String(), "/spool/n"+strconv.Itoa(i)+"/0/") {
			t.Errorf("the line of request %d of %d is lost", i, n)
		}
	}

	// The directory goes, and comes back: until then the open file is the log, and nobody minds.
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	fileSays(t, filepath.Join(dir+".gone", "log"), "not reloaded")
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	if said := p.said(); said != "" {
		t.Errorf("stderr says %q", said)
	}
	p.signal(syscall.SIGTERM)
	p.stopped(0)
	fileSays(t, log, "msg=stopped")
}

// TestFullDisk: a log that takes nothing does not stop the daemon from answering.
func TestFullDisk(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "log_path: /dev/full\n")
	addr := freeAddr(t)
	p := launch(t, nil, "-v", "-c", conf, "-B", "127.0.0.1", "-p", port(t, addr))
	p.addrs = []string{addr}
	until(t, "the daemon answers", func() bool {
		p.alive()
		code, _, _ := p.get("/spool/web/0/")
		return code == 200
	})
	for range 100 {
		p.mustGet("/spool/web/0/", 200)
	}
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

func TestStartupLine(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	spool := filepath.Join(t.TempDir(), "spool")
	writeFile(t, conf, "cache_tme: 3\nlog_format: json\n")
	p := launch(t, nil, "-c", conf, "--spool-root", spool, "-B", "127.0.0.1", "-p", "0", "ignored", "-n", "1", "-p", "0", "-S")
	p.wait(regexp.MustCompile(`"level":"WARN","msg":"the configuration has a key that means nothing","where":".*hacheck\.yaml:1: cache_tme: unknown key; did you mean cache_time\?"`))
	p.wait(regexp.MustCompile(`"level":"WARN",.*"arguments":\["ignored"\]`))
	m := p.wait(regexp.MustCompile(`"level":"INFO","msg":"hacheck answers","version":"1\.2\.3-test","listen":\["(.*?)","(.*?)"\],"spool":"` + regexp.QuoteMeta(spool) + `","config":"` + regexp.QuoteMeta(conf) + `"`))
	for _, addr := range m[1:] {
		p.addrs = []string{addr}
		p.mustGet("/spool/web/0/", 200)
	}
	if fi, err := os.Stat(spool); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("the spool directory was made as %v, %v; want mode 0750", fi, err)
	}
}

// TestOverrideIsLogged: one line when an override comes and one when it goes, and nothing for a request.
func TestOverrideIsLogged(t *testing.T) {
	spool := filepath.Join(t.TempDir(), "spool")
	p := startDaemon(t, "--spool-root", spool)
	file := filepath.Join(spool, "web:80")
	// Moved there, or the daemon could see the file before its content.
	beside := filepath.Join(filepath.Dir(spool), "beside")
	writeFile(t, beside, `{"reason": "new disk", "expiration": 4000000000, "creation": 1500000000}`)
	if err := os.Rename(beside, file); err != nil {
		t.Fatal(err)
	}
	p.mustGet("/spool/web/80/", 503)
	p.wait(regexp.MustCompile(`level=INFO msg="override set" service=web:80 state=down reason="new disk" since=2017-07-14T\S+ until=2096-10-02T\S+`))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.mustGet("/spool/web/80/", 200)
	p.wait(regexp.MustCompile(`level=INFO msg="override lifted" service=web:80 state=down reason="new disk"`))
	if said := p.said(); strings.Contains(said, "/spool/web") {
		t.Errorf("requests are logged without -v:\n%s", said)
	}
}

// TestFailedStartIsLogged: what was said before it failed may be why it did.
func TestFailedStartIsLogged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "hacheck.yaml")
	if err := os.WriteFile(conf, []byte("cachetime: 5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 20 { // a race between the log and the end of the process
		out, err := exec.Command(binary, "-c", conf, "--spool-root", filepath.Join(dir, "no", "parent")).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("%v, want exit code 1\n%s", err, out)
		}
		if !strings.Contains(string(out), "did you mean cache_time?") || !strings.Contains(string(out), "create spool directory") {
			t.Fatalf("it says\n%s", out)
		}
	}
}

func TestUnreadableSpool(t *testing.T) {
	// Not below t.TempDir, into which no other user may look.
	spool, err := os.MkdirTemp(filepath.Dir(binary), "spool")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(spool, 0); err != nil {
		t.Fatal(err)
	}
	p := launch(t, func(c *exec.Cmd) {
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		c.Dir = filepath.Dir(binary)
	}, "--spool-root", spool, "-B", "127.0.0.1", "-p", "0")
	p.stopped(1)
	if want := regexp.MustCompile(`^hacheck: .*` + regexp.QuoteMeta(spool) + `.*permission denied\n$`); !want.MatchString(p.said()) {
		t.Errorf("stderr is %q, want %v", p.said(), want)
	}
}

func TestBind(t *testing.T) {
	reaches := func(network, host, addr string) bool {
		c, err := net.Dial(network, net.JoinHostPort(host, port(t, addr)))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	probe, err := net.Listen("tcp6", "[::1]:0")
	ipv6 := err == nil
	if ipv6 {
		probe.Close()
	}
	for _, test := range []struct {
		bind   string
		v4, v6 bool
	}{
		{"0.0.0.0", true, false},
		{"127.0.0.1", true, false},
		{"::", true, true},
		{"", true, true},
		{"localhost", true, false},
	} {
		t.Run("-B "+test.bind, func(t *testing.T) {
			p := startDaemon(t, "-B", test.bind, "-p", "0", "-p", "0")
			if len(p.addrs) != 2 || p.addrs[0] == p.addrs[1] {
				t.Fatalf("it answers on %v, want two ports", p.addrs)
			}
			for _, addr := range p.addrs {
				if got := reaches("tcp4", "127.0.0.1", addr); got != test.v4 {
					t.Errorf("IPv4 on %s: %v, want %v", addr, got, test.v4)
				}
				if got := reaches("tcp6", "::1", addr); got != (test.v6 && ipv6) {
					t.Errorf("IPv6 on %s: %v, want %v", addr, got, test.v6 && ipv6)
				}
			}
		})
	}
	t.Run("the same port twice", func(t *testing.T) {
		n := port(t, freeAddr(t))
		p := startDaemon(t, "-p", n, "--port="+n)
		if len(p.addrs) != 1 {
			t.Errorf("it answers on %v", p.addrs)
		}
	})
}

// TestOutOfDescriptors: with every descriptor taken the daemon waits, says so once, and answers again as
// soon as there is one.
func TestOutOfDescriptors(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "rlimit_nofile: 20\n")
	p := startDaemon(t, "-c", conf)
	held := make([]net.Conn, 0, 100)
	for range cap(held) {
		c, err := net.Dial("tcp", p.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	p.wait(regexp.MustCompile(`level=ERROR msg="cannot accept connections; trying again" listen=\S+ err=.*too many open files`))
	for _, c := range held {
		c.Close()
	}
	until(t, "it answers again", func() bool {
		p.alive()
		code, _, err := p.get("/spool/web/0/")
		return err == nil && code == 200
	})
	// A reload needs descriptors too, and takes the limit away again.
	writeFile(t, conf, "rlimit_nofile: max\n")
	p.signal(syscall.SIGHUP)
	p.wait(regexp.MustCompile(`reloaded the configuration`))
	if n := strings.Count(p.said(), "cannot accept"); n != 1 {
		t.Errorf("%d lines about one shortage", n)
	}
	p.signal(syscall.SIGTERM)
	p.stopped(0)
}

// TestWriteDeadline: an answer may take as long as a reloaded healthcheck_timeout, although the server has the limit of
// its start.
func TestWriteDeadline(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewUnstartedServer(nil)
	s.Config.WriteTimeout = time.Millisecond
	p := &writeDeadlineHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "ok")
	})}
	s.Config.Handler = p
	s.Start()
	defer s.Close()
	get := func() (string, error) {
		r, err := client.Get(s.URL)
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	if body, err := get(); err == nil {
		t.Fatalf("with the limit of the start it got %q", body)
	}
	p.raise(time.Minute, s.Config)
	if body, err := get(); err != nil || body != "ok" {
		t.Errorf("%q, %v", body, err)
	}
	s.Config.WriteTimeout = time.Hour
	if p.raise(time.Minute, s.Config); p.limit.Load() != 0 {
		t.Error("the server's own limit is long enough")
	}
}

func TestRlimit(t *testing.T) {
	limit := func() (l syscall.Rlimit) {
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := limit()
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	low, high := before, before
	low.Cur, high.Cur = 500, before.Max
	for _, test := range []struct {
		n    int64
		want syscall.Rlimit
	}{{500, low}, {0, low}, {config.RlimitMax, high}} {
		if err := setNoFile(test.n); err != nil || limit() != test.want {
			t.Errorf("setNoFile(%d): %v, the limit is %v, want %v", test.n, err, limit(), test.want)
		}
	}
	if err := setNoFile(1 << 40); err == nil || errors.Is(err, syscall.EPERM) || limit() != high {
		t.Errorf("above the hard limit: %v, the limit is %v", err, limit())
	}
}
