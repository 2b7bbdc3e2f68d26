package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacheck/test/servertest"
)

// TestLogUnderFlood: clients of one IPv6 network, a flapping service and rewritten overrides cannot fill the log. They
// do not suppress the lines about anything else, and the log counts the suppressed lines. The test runs in a network
// namespace in which every address of the IPv6 network is local.
func TestLogUnderFlood(t *testing.T) { runInNamespace(t, syscall.CLONE_NEWNET, floodLog) }

func floodLog(t *testing.T) {
	servertest.RunIP(t, "link set lo up")
	servertest.RunIP(t, "-6 route add local 2001:db8:1:2::/64 dev lo")
	dir := t.TempDir()
	conf, spool, log := filepath.Join(dir, "hacheck.yaml"), filepath.Join(dir, "spool"), filepath.Join(dir, "log")
	if err := os.WriteFile(conf, []byte("log_path: "+log+"\nallow_remote_spool_changes: true\nremote_spool_allowed: [127.0.0.1/32]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, agent := freePort(t), freePort(t)
	d := newDaemon(t, "127.0.0.1", port, spool)
	d.process = start(t, bin(t, "hacheck"), "-B", "::", "-p", strconv.Itoa(port), "-A", strconv.Itoa(agent), "--spool-root", spool, "-c", conf)
	d.waitReady(t, d.addr)
	began := time.Now()

	var flapping, quiet atomic.Bool
	toggled := func(healthy *atomic.Bool) *service {
		healthy.Store(true)
		return startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) {
			if !healthy.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
	}
	fresh := func(name string, s *service) {
		sendRequest(t, client, http.MethodGet, fmt.Sprintf("%s/http/%s/%d/", d.url, name, s.port), nil, "Pragma: no-cache")
	}
	flappingService, quietService := toggled(&flapping), toggled(&quiet)
	fresh("flapping", flappingService)
	fresh("quiet", quietService)

	posts := 20_000
	if raceEnabled {
		posts = 4000
	}
	const changes, others = 500, 1000
	floods := []func(){
		func() { parallel(8, func(n int) { sendRejectedPosts(t, port, agent, n, posts/8) }) },
		func() {
			reason := bytes.Repeat([]byte("long "), 13_000)
			for i := range changes {
				if err := os.WriteFile(filepath.Join(spool, "rewritten"), fmt.Appendf(nil, "%d %s", i, reason), 0o644); err != nil {
					t.Error(err)
				}
			}
		},
		func() {
			for i := range changes {
				status := []string{"up", "down"}[i%2]
				if a := sendRequest(t, client, http.MethodPost, d.url+"/spool/posted/0/?status="+status+"&reason="+strings.Repeat("x", 2000), nil); a.code != 200 {
					t.Errorf("%d %s", a.code, a.body)
				}
			}
		},
		func() {
			for i := range changes {
				flapping.Store(i%2 == 1)
				fresh("flapping", flappingService)
			}
		},
		func() {
			for i := range others {
				if a := d.get(fmt.Sprintf("/tcp/invented%d/1", i)); a.code != 503 {
					t.Errorf("%d %s", a.code, a.body)
				}
				sendRequest(t, client, http.MethodGet, fmt.Sprintf("%s/tcp/refused/%d", d.url, i+1), nil, fmt.Sprintf("X-Nerve-Check-IP: 10.0.%d.%d", i/250, i%250))
			}
		},
	}
	parallel(len(floods), func(i int) { floods[i]() })

	quiet.Store(false)
	fresh("quiet", quietService)
	d.mustRun("hadown", "operated", "-r", "by hand")
	took := time.Since(began)
	if err := d.stop(); err != nil {
		t.Errorf("hacheck after SIGTERM: %v", err)
	}
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	t.Logf("%d bytes of log, %d lines in %v", len(text), strings.Count(text, "\n"), took)
	if most := 200_000 * (1 + int(took/time.Minute)); len(text) > most {
		t.Errorf("%d bytes of log in %v, want %d at most", len(text), took, most)
	}
	for _, want := range []string{`msg="service is not up" service=quiet`, `msg="override set" service=operated`} {
		if strings.Count(text, want) != 1 {
			t.Errorf("the log has not one line with %s", want)
		}
	}
	written, leftOut := 0, 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, "peer=") && strings.Contains(line, "[2001:db8:1:2:") {
			written++
		}
		if m := regexp.MustCompile(`about=2001:db8:1:2::/64 left_out=(\d+) `).FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			leftOut += n
		}
	}
	if written == 0 || written > 10*(1+int(took/time.Minute)) || written+leftOut != 2*posts {
		t.Errorf("%d lines about the network and %d reported as left out, want few and together %d", written, leftOut, 2*posts)
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "left_out=") {
				t.Log(line)
			}
		}
	}
}

// sendRejectedPosts sends count POSTs that hacheck rejects, and as many agent texts that name no service. Each comes
// from another address of one network.
func sendRejectedPosts(t *testing.T, port, agent, worker, count int) {
	dialFrom := func(i, port int) (net.Conn, error) {
		from := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2:%x::%x", worker+1, i+1))
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: waitLimit, Control: bindAnywhere}
		return dialer.DialContext(context.Background(), "tcp", fmt.Sprintf("[2001:db8:1:2::1]:%d", port))
	}
	say := func(i, port int, text, want string) bool {
		conn, err := dialFrom(i, port)
		if err != nil {
			t.Error(err)
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(waitLimit))
		_, _ = io.WriteString(conn, text)
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), want) {
			t.Errorf("%q is answered %q, %v", text, answer, err)
			return false
		}
		return true
	}
	for i := range count {
		if !say(i, port, "POST /spool/web/0/?status=up HTTP/1.0\r\n\r\n", "HTTP/1.0 403 ") || !say(i, agent, fmt.Sprintf("no service %d\n", i), "") {
			return
		}
	}
}

// bindAnywhere lets a socket have an address that no interface has. The route makes the address local.
func bindAnywhere(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) }); e != nil {
		return e
	}
	return err
}
