package test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These tests hold many connections open at each listener. The connections send nothing or half of a request, and the
// process has few descriptors. Another client, and the same client (it may be a NAT with a balancer behind it), must get
// an answer within answerTime. Without the connection limits each would wait for a timeout of 8 to 10 s.
const answerTime = 5 * time.Second

// startWithFileLimit starts a command with a limit of open descriptors.
func startWithFileLimit(t *testing.T, descriptors int, args ...string) *process {
	t.Helper()
	return start(t, "/bin/sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(descriptors)}, args...)...)
}

// holdConnections opens n connections from 127.0.0.3 and sends text on each.
func holdConnections(t *testing.T, n int, addr, text string) {
	t.Helper()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}, Timeout: waitLimit}
	for range n {
		c, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = io.WriteString(c, text) // or it is closed already
	}
}

// expectAnswer sends text from 127.0.0.1 and from 127.0.0.3, the address of holdConnections. Both answers must
// contain want.
func expectAnswer(t *testing.T, addr, text, want string) {
	t.Helper()
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 3)} {
		began := time.Now()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: answerTime}).Dial("tcp", addr)
		if err != nil {
			t.Errorf("from %v: %v", ip, err)
			continue
		}
		_ = c.SetDeadline(began.Add(answerTime))
		_, _ = io.WriteString(c, text)
		line := make([]byte, 200)
		n, err := c.Read(line)
		if !strings.Contains(string(line[:n]), want) {
			t.Errorf("from %v: %q after %v (%v), want %s", ip, line[:n], time.Since(began), err, want)
		}
		c.Close()
	}
}

const partialHead = "GET / HTTP/1.1\r\nX-Never: "

func TestAggregateBesidePartialRequests(t *testing.T) {
	t.Parallel()
	web := startService(t, "127.0.0.1", 0, serveOK)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	p := startWithFileLimit(t, 300, bin(t, "hacheck"), "aggregate", "--listener", addr, "--port", strconv.Itoa(web.port), "--spool-root", t.TempDir())
	p.waitReady(t, addr)
	holdConnections(t, 500, addr, partialHead)
	expectAnswer(t, addr, "GET / HTTP/1.0\r\n\r\n", "200 OK")
	if n := strings.Count(p.out.String(), "holds as many connections as it may"); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}
}

func TestBeaconBesideSilentClients(t *testing.T) {
	t.Parallel()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, udpPort, _ := net.SplitHostPort(udp.LocalAddr().String())
	port := strconv.Itoa(freePort(t))
	addr := net.JoinHostPort("127.0.0.1", port)
	p := startWithFileLimit(t, 1500, bin(t, "hacheck"), "beacon", "--spool-root", t.TempDir(), udpPort, port)
	p.waitReady(t, addr)
	holdConnections(t, 3000, addr, "")
	expectAnswer(t, addr, "", "OK\n")
}

func TestListenersBesideSilentClients(t *testing.T) {
	t.Parallel()
	web := startService(t, "127.0.0.1", 0, serveOK)
	listener := map[string]string{}
	for _, name := range []string{"http_listen", "beacon_listen", "agent_listen"} {
		listener[name] = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	}
	d := startDaemon(t, fmt.Sprintf(`rlimit_nofile: 600
services: {web: {http_listen: "%s", beacon_listen: "%s", agent_listen: "%s", checks: [{type: tcp, port: %d}]}}
`, listener["http_listen"], listener["beacon_listen"], listener["agent_listen"], web.port))
	for _, addr := range listener {
		d.waitReady(t, addr)
	}
	const get = "GET / HTTP/1.0\r\n\r\n"
	all := func(t *testing.T) {
		t.Helper()
		expectAnswer(t, d.addr, "GET /spool/web/0/ HTTP/1.0\r\n\r\n", "200 OK")
		expectAnswer(t, d.addr, fmt.Sprintf("GET /http/web/%d/ HTTP/1.0\r\n\r\n", web.port), "200 OK") // through net/http
		expectAnswer(t, listener["http_listen"], get, "200 OK")
		expectAnswer(t, listener["beacon_listen"], "", "OK\n")
		expectAnswer(t, listener["agent_listen"], "", "up ready")
	}
	all(t)
	// The limit covers all listeners together: connections held at one listener block no other.
	holdConnections(t, 400, d.addr, partialHead)
	all(t)
	holdConnections(t, 400, listener["http_listen"], partialHead)
	all(t)
	holdConnections(t, 1800, listener["beacon_listen"], "")
	expectAnswer(t, listener["beacon_listen"], "", "OK\n")
	holdConnections(t, 400, listener["agent_listen"], "")
	all(t)
	if n := d.metric("process_open_fds"); n > 500 {
		t.Errorf("%v descriptors are open", n)
	}
}
