package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/servertest"
)

// TestNetns proves that a client cannot make the daemon dial a host that is not allowed. The network namespace counts
// every connection attempt and every datagram, and has addresses that come and go.
func TestNetns(t *testing.T) { runInNamespace(t, syscall.CLONE_NEWNET, dialNoForeignHost) }

// countSent returns how many connections this network namespace has opened, and how many other packets it has sent or
// tried to send.
func countSent(t *testing.T) (opens, others int) {
	t.Helper()
	add := func(name, value string) {
		n, err := strconv.Atoi(value)
		if err != nil {
			return
		}
		switch name {
		case "Tcp:ActiveOpens":
			opens += n
		case "Ip:OutNoRoutes", "Udp:OutDatagrams", "Icmp:OutEchos", "Ip6OutNoRoutes", "Udp6OutDatagrams", "Icmp6OutEchos":
			others += n
		}
	}
	// snmp has pairs of lines, names and values. snmp6 has a name and a value on each line.
	file, err := os.Open("/proc/self/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		names := strings.Fields(lines.Text())
		lines.Scan()
		for i, v := range strings.Fields(lines.Text()) {
			add(names[0]+names[i], v)
		}
	}
	six, err := os.ReadFile("/proc/self/net/snmp6")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(six)) {
		if f := strings.Fields(line); len(f) == 2 {
			add(f[0], f[1])
		}
	}
	return opens, others
}

func dialNoForeignHost(t *testing.T) {
	servertest.RunIP(t, "link set lo up")
	// Packets to any address leave and get lost. Without routes the kernel would refuse to dial.
	servertest.RunIP(t, "route add default dev lo")
	servertest.RunIP(t, "-6 route add default dev lo")
	const allowed, refused = "10.9.0.7", "10.1.2.3"
	d := startDaemon(t, "check_hosts_allowed: [10.9.0.0/16]\nhealthcheck_timeout: 0.5\ncache_time: 0\nmysql_username: u\nmysql_password: p\nallow_remote_spool_changes: true\n")
	d.mustRun("hadown", "-r", "by hand", "downed")
	web := startService(t, "127.0.0.1", 0, serveOK)

	// ask sends a request. It returns the answer and what the daemon has sent because of it.
	ask := func(request string, headers ...string) (a rawAnswer, dialled, others int) {
		t.Helper()
		opens, others := countSent(t)
		method, _, _ := strings.Cut(request, " ")
		a, err := exchangeRaw(d.addr, method, strings.Join(append([]string{request + " HTTP/1.0"}, headers...), "\r\n")+"\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		after, othersAfter := countSent(t)
		return a, after - opens - 1, othersAfter - others // without our own connection
	}
	port := strconv.Itoa(web.port)
	state := func(address string) string {
		return "X-Haproxy-Server-State: UP 2/3; address=" + address + "; port=" + port
	}

	t.Run("counters", func(t *testing.T) {
		// The counters must count, or the subtests below prove nothing.
		a, dialled, _ := ask("GET /tcp/web/"+port, "X-Nerve-Check-IP: "+allowed)
		if a.code != 503 || !strings.Contains(a.body, allowed) || dialled != 1 {
			t.Errorf("an allowed host: %d %q, %d dials; want 503 with its address, 1", a.code, a.body, dialled)
		}
		if a, dialled, _ = ask("GET /http/web/"+port+"/", state(allowed)); a.code != 503 || dialled != 1 {
			t.Errorf("an allowed host: %d %q, %d dials; want 503, 1", a.code, a.body, dialled)
		}
		_, others := countSent(t)
		conn, err := net.Dial("udp", "10.1.2.3:53")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, after := countSent(t); after != others+1 {
			t.Errorf("a datagram is counted %d times", after-others)
		}
	})

	t.Run("hosts that are not allowed", func(t *testing.T) {
		for p := range check.All(check.Options{}) {
			url := fmt.Sprintf("GET /%s/web/%s/", p, port)
			want := 403
			if p == "spool" {
				want = 200
			}
			for _, header := range []string{"X-Nerve-Check-IP: " + refused, "X-Nerve-Check-IP: 2001:db8::7", state(refused), state("2001:db8::7"), state("10.8.255.255"), state("::ffff:" + refused)} {
				a, dialled, others := ask(url, header)
				if a.code != want || dialled != 0 || others != 0 {
					t.Errorf("%s with %s: %d %q, %d dials, %d datagrams; want %d and none", url, header, a.code, a.body, dialled, others, want)
				}
				if a.code == 403 && !strings.Contains(a.body, "check_hosts_allowed") {
					t.Errorf("%s with %s: the refusal does not name the setting: %q", url, header, a.body)
				}
			}
			// An override decides first, for any host.
			url = fmt.Sprintf("GET /%s/downed/%s/", p, port)
			for _, address := range []string{refused, allowed, "2001:db8::7", "127.0.0.1"} {
				if a, dialled, others := ask(url, state(address)); a.code != 503 || !strings.Contains(a.body, "by hand") || dialled+others != 0 {
					t.Errorf("%s at %s: %d %q, %d dials, %d datagrams; want the override and none", url, address, a.code, a.body, dialled, others)
				}
			}
			// hacheck resolves no names.
			url = fmt.Sprintf("GET /%s/web/%s/", p, port)
			for _, address := range []string{"www.example.com", "10.9.0.7.example", allowed + ":80", "[" + refused + "]", "x@" + allowed, "0x0a.9.0.7", "10.9", "fe80::1%lo", "../x", allowed + "/"} {
				for _, header := range []string{"X-Nerve-Check-IP: " + address, state(address)} {
					if a, dialled, others := ask(url, header); a.code != 400 || dialled+others != 0 {
						t.Errorf("%s with %s: %d %q, %d dials, %d datagrams; want 400 and none", url, header, a.code, a.body, dialled, others)
					}
				}
			}
		}
		for _, c := range []struct {
			request string
			header  string
			code    int
		}{
			{"GET /tcp/web/0", "X-Nerve-Check-IP: " + allowed, 400},
			{"GET /tcp/web/70000", "X-Nerve-Check-IP: " + allowed, 404},
			{"GET /tcp/web/80", "X-Haproxy-Server-State: UP; port=abc; address=" + allowed, 400},
			{"GET /http/web/80/%zz", "X-Nerve-Check-IP: " + allowed, 400},
			{"POST /http/web/80/", "X-Nerve-Check-IP: " + allowed, 405},
			{"POST /spool/web/80/?status=down", "X-Nerve-Check-IP: " + refused, 400},
			{"GET /http/web/80", "X-Nerve-Check-IP: " + allowed, 404},
			{"GET http://10.9.0.7/", "X-Nerve-Check-IP: " + allowed, 404},
			{"OPTIONS /", state(allowed), 404},
		} {
			if a, dialled, others := ask(c.request, c.header); a.code != c.code || dialled+others != 0 {
				t.Errorf("%s with %s: %d %q, %d dials, %d datagrams; want %d and none", c.request, c.header, a.code, a.body, dialled, others, c.code)
			}
		}
		// The daemon writes its log behind the answers.
		eventually(t, func() error {
			if !strings.Contains(d.out.String(), refused) {
				return fmt.Errorf("the log has no line about %s", refused)
			}
			return nil
		})
		if n := strings.Count(d.out.String(), refused); n > 20 {
			t.Errorf("the log has %d lines about %s", n, refused)
		}
	})

	t.Run("addresses come and go", func(t *testing.T) {
		url := "GET /tcp/web/" + strconv.Itoa(freePort(t))
		expectRefused := func(address string) error {
			if a, dialled, _ := ask(url, "X-Nerve-Check-IP: "+address); a.code != 403 || dialled != 0 {
				return fmt.Errorf("%s: %d %q, %d dials; want 403 and none", address, a.code, a.body, dialled)
			}
			return nil
		}
		own := []string{"192.0.2.10", "2001:db8:5::1"}
		for i, add := range []string{"addr add 192.0.2.10/32 dev lo", "-6 addr add 2001:db8:5::1/128 dev lo nodad"} {
			if err := expectRefused(own[i]); err != nil {
				t.Fatal(err)
			}
			servertest.RunIP(t, add)
			// For an unknown address the daemon reads its own addresses again, at most five times a second.
			began := time.Now()
			eventually(t, func() error {
				a, dialled, _ := ask(url, "X-Nerve-Check-IP: "+own[i])
				if a.code != 503 || !strings.Contains(a.body, "refused") || dialled != 1 {
					return fmt.Errorf("%s: %d %q, %d dials; want it dialled, and refused by nobody listening", own[i], a.code, a.body, dialled)
				}
				return nil
			})
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%s was not a local address for %v after it was added", own[i], took)
			}
		}
		servertest.RunIP(t, "addr del 192.0.2.10/32 dev lo")
		servertest.RunIP(t, "-6 addr del 2001:db8:5::1/128 dev lo")
		began := time.Now()
		for _, address := range own {
			eventually(t, func() error { return expectRefused(address) })
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the addresses were still ours %v after they had gone, want 5 s at most", took)
		}
	})
}
