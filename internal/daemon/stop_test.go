package daemon

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

var stopSignals = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

// TestStopInFirstMilliseconds stops daemons at a random moment of their start. The original never stopped in a third of
// all cases if the signal came while its port opened. Before main has begun, the kernel or the Go runtime ends the
// process by the signal.
func TestStopInFirstMilliseconds(t *testing.T) {
	began := time.Now()
	startDaemon(t)
	start := time.Since(began)
	byKernel := 0
	for i := range startCount() {
		how := stopSignals[i%len(stopSignals)]
		p := launch(t, nil, "-B", "127.0.0.1", "-p", "0")
		<-time.After(rand.N(start * 3 / 2)) // the random moment
		p.signal(how)
		code := p.exit()
		status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case code == 0:
		case status.Signaled() && status.Signal() == how && p.log() == "":
			byKernel++
		case how == syscall.SIGQUIT && code == 2 && !strings.Contains(p.log(), "hacheck answers") && strings.Contains(p.log(), "SIGQUIT: quit"):
			byKernel++ // the Go runtime handled SIGQUIT
		default:
			t.Errorf("start %d, %v: %v\n%s", i, how, p.cmd.ProcessState, p.log())
		}
	}
	if byKernel == startCount() {
		t.Errorf("all were ended before main began; a start took %v", start)
	}
}

// startCount is how often the tests of the first milliseconds start the daemon. The race detector makes it slow.
func startCount() int {
	if underRace() {
		return 15
	}
	return 60
}

// TestStopWhenPortOpens stops the daemon when its port opens: the original deadlocks then.
func TestStopWhenPortOpens(t *testing.T) {
	for i := range startCount() {
		addr := freeAddr(t)
		p := launch(t, nil, "-B", "127.0.0.1", "-p", port(t, addr))
		waitUntil(t, "the port is open", func() bool {
			p.wantRunning()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
		p.signal(stopSignals[i%len(stopSignals)])
		p.wantExit(0)
	}
}

func TestStopAnswersRequestsInFlight(t *testing.T) {
	for _, how := range stopSignals {
		t.Run(how.String(), func(t *testing.T) {
			service, asked, release := slowService(t)
			p := startDaemon(t)
			in := p.getAsync("/http/web/" + service + "/")
			<-asked
			p.signal(how)
			p.waitForLog(regexp.MustCompile(`msg="stopping; .*signal=` + how.String()))
			waitUntil(t, "no connection is accepted", func() bool {
				c, err := net.Dial("tcp", p.addrs[0])
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			p.wantRunning()
			close(release)
			if a := <-in; a.err != nil || a.code != 200 || a.body != "at last" {
				t.Errorf("the request in flight got %d %q, %v", a.code, a.body, a.err)
			}
			p.wantExit(0)
			if !strings.Contains(p.log(), "msg=stopped") {
				t.Errorf("the log does not say the end:\n%s", p.log())
			}
		})
	}
}

// TestStopIsBounded: a service that never answers delays the end by healthcheck_timeout at most.
func TestStopIsBounded(t *testing.T) {
	service, asked, _ := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "healthcheck_timeout: 1\n")
	p := startDaemon(t, "-c", conf)
	in := p.getAsync("/http/web/" + service + "/")
	<-asked
	p.signal(syscall.SIGTERM)
	if a := <-in; a.err != nil || a.code != 503 {
		t.Errorf("the request in flight got %d %q, %v", a.code, a.body, a.err)
	}
	p.wantExit(0)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	service, asked, _ := slowService(t)
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "healthcheck_timeout: 3600\n")
	p := startDaemon(t, "-c", conf)
	in := p.getAsync("/http/web/" + service + "/")
	<-asked
	p.signal(syscall.SIGTERM)
	p.waitForLog(regexp.MustCompile(`msg="stopping`))
	p.signal(syscall.SIGINT)
	p.wantExit(1)
	if a := <-in; a.err == nil {
		t.Errorf("the request in flight got %d %q", a.code, a.body)
	}
	if want := "hacheck: a second signal (interrupt): requests in flight were cut off\n"; !strings.HasSuffix(p.log(), want) {
		t.Errorf("stderr is %q, want %q at its end", p.log(), want)
	}
}

// TestStopWithOpenConnections: neither a connection without a request nor an idle keep-alive connection delays the end.
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
	p.wantExit(0)
	if took := time.Since(began); took > 4*time.Second { // net/http alone waits 5 s
		t.Errorf("the end took %v", took)
	}
}

// TestStopAnswersHTTP2: a stop answers the HTTP/2 request in flight, and tells an idle connection of HTTP/2 that it ends.
func TestStopAnswersHTTP2(t *testing.T) {
	t.Parallel()
	service, asked, release := slowService(t)
	p := startDaemon(t)
	get := func(path string) (int, error) {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: &protocols}
		t.Cleanup(transport.CloseIdleConnections)
		r, err := (&http.Client{Transport: transport, Timeout: testTimeout}).Get("http://" + p.addrs[0] + path)
		if err != nil {
			return 0, err
		}
		defer r.Body.Close()
		_, err = io.ReadAll(r.Body)
		return r.StatusCode, err
	}
	type result struct {
		code int
		err  error
	}
	inFlight := make(chan result, 1)
	go func() {
		code, err := get("/http/web/" + service + "/")
		inFlight <- result{code, err}
	}()
	<-asked
	idle := dial(t, p.addrs[0])
	_ = idle.SetDeadline(time.Now().Add(testTimeout))
	_, _ = io.WriteString(idle, http2.ClientPreface)
	framer := http2.NewFramer(idle, idle)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for served := false; !served; { // until the daemon has read the preface: then it is a connection of HTTP/2
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		settings, ok := f.(*http2.SettingsFrame)
		served = ok && settings.IsAck()
	}
	p.signal(syscall.SIGTERM)
	p.waitForLog(regexp.MustCompile(`msg="stopping; `))
	close(release)
	if r := <-inFlight; r.code != 200 || r.err != nil {
		t.Errorf("the request in flight got %d, %v", r.code, r.err)
	}
	for goAway := false; !goAway; {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("the idle connection ended without GOAWAY: %v", err)
		}
		_, goAway = f.(*http2.GoAwayFrame)
	}
	p.wantExit(0)
}

// TestStopWithSilentServiceClient: a silent connection to http_listen does not delay the end.
func TestStopWithSilentServiceClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, addr := filepath.Join(dir, "hacheck.yaml"), freeAddr(t)
	writeFile(t, conf, "services:\n  web:\n    checks: [{type: script, command: \"true\"}]\n    http_listen: "+addr+"\n")
	p := startDaemon(t, "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
	dial(t, addr) // and sends nothing
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	if took := time.Since(began); took > 4*time.Second { // the limit of an unfinished request is 10 s
		t.Errorf("the end took %v", took)
	}
}

func TestIgnoredSignals(t *testing.T) {
	p := startDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH} {
		p.signal(s)
		p.mustGet("/spool/web/0/", 200)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}
