package fastpath

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"hacheck/internal/clients"
	"hacheck/internal/health"
)

// addrServer is a net/http server that answers with the address of the client, behind the listener that listen makes.
func addrServer(t *testing.T, listen func(net.Listener, Options) net.Listener, from ...netip.Prefix) (addr string, refused *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused = new(atomic.Int64)
	o := testOptions()
	o.ProxyFrom = func() []netip.Prefix { return from }
	o.OnRefused = func(string, string) { refused.Add(1) }
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, clients.HostPart(r.RemoteAddr))
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	done := make(chan struct{})
	go func() { _ = srv.Serve(listen(ln, o)); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String(), refused
}

// exchange sends the pieces, each as a segment of its own, and returns code and body of the answer; 0 is none.
func exchange(t *testing.T, addr string, pieces ...string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(len(pieces)-1) * 20 * time.Millisecond)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// v2 returns a header of version 2 that names source as the client.
func v2(t *testing.T, command proxyproto.ProtocolVersionAndCommand, family proxyproto.AddressFamilyAndProtocol, source net.Addr) string {
	t.Helper()
	h := &proxyproto.Header{Version: 2, Command: command, TransportProtocol: family, SourceAddr: source, DestinationAddr: source}
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const addrRequest = "GET / HTTP/1.1\r\n\r\n"

// listenings are the two ways to listen.
var listenings = map[string]func(net.Listener, Options) net.Listener{"direct": Listen, "plain": ListenPlain}

// TestPROXYFromTrustedPeer: the client is the one that the line names, if it names one.
func TestPROXYFromTrustedPeer(t *testing.T) {
	t.Parallel()
	tcp := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 1}
	for name, listen := range listenings {
		addr, refused := addrServer(t, listen, netip.MustParsePrefix("127.0.0.0/8"))
		for _, c := range []struct {
			name   string
			pieces []string
			code   int
			want   string // the body, or for 400 a part of it
		}{
			{"none", []string{addrRequest}, 200, "127.0.0.1"},
			{"v1", []string{"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n" + addrRequest}, 200, "192.0.2.7"},
			{"v1, then the request", []string{"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", addrRequest}, 200, "192.0.2.7"},
			{"v1, request in pieces", []string{"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGE", "T / HTTP/1.1\r\n", "\r\n"}, 200, "192.0.2.7"},
			{"v1 IPv6", []string{"PROXY TCP6 2001:db8::7 ::1 1 2\r\n" + addrRequest}, 200, "2001:db8::7"},
			{"v1 IPv4 in IPv6", []string{"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n" + addrRequest}, 200, "192.0.2.7"},
			{"v1 UNKNOWN", []string{"PROXY UNKNOWN\r\n" + addrRequest}, 200, "127.0.0.1"},
			{"v2", []string{v2(t, proxyproto.PROXY, proxyproto.TCPv4, tcp) + addrRequest}, 200, "192.0.2.7"},
			{"v2 in pieces", []string{proxyprotoSignature[:7], v2(t, proxyproto.PROXY, proxyproto.TCPv4, tcp)[7:] + addrRequest}, 200, "192.0.2.7"},
			{"v2 LOCAL", []string{v2(t, proxyproto.LOCAL, proxyproto.UNSPEC, nil) + addrRequest}, 200, "127.0.0.1"},
			{"v2 UNSPEC", []string{proxyprotoSignature + "\x21\x00\x00\x00" + addrRequest}, 400, "unsupported address family"},
			{"v2 AF_UNIX", []string{proxyprotoSignature + "\x21\x31\x00\xd8" + strings.Repeat("/", 216) + addrRequest}, 400, "without an IP address"},
			{"v2 of a datagram", []string{proxyprotoSignature + "\x21\x12\x00\x0c" + strings.Repeat("\x01", 12) + addrRequest}, 400, "without an IP address"},
			{"v2 too long", []string{proxyprotoSignature + "\x21\x11\xff\xff" + strings.Repeat("x", 5000)}, 400, "invalid length"},
			{"v2 of another version", []string{proxyprotoSignature + "\x31\x11\x00\x0c" + strings.Repeat("\x01", 12) + addrRequest}, 400, "PROXY line"},
			{"v1 too long", []string{"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n" + addrRequest}, 400, "107 bytes"},
			{"v1 malformed", []string{"PROXY TCP4 192.0.2.256 127.0.0.1 1 2\r\n" + addrRequest}, 400, "invalid address"},
			{"v1 with a name", []string{"PROXY TCP4 localhost 127.0.0.1 1 2\r\n" + addrRequest}, 400, "invalid address"},
			{"v1 cut", []string{"PROXY TCP4 192.0.2.7"}, 400, "cannot be read"},
			{"v1 with a bare newline", []string{"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\n" + addrRequest}, 400, "must end with"},
			{"two lines", []string{strings.Repeat("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", 2) + addrRequest}, 400, ""},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				before := refused.Load()
				code, body := exchange(t, addr, c.pieces...)
				if code != c.code || code == 200 && body != c.want || !strings.Contains(body, c.want) {
					t.Errorf("%d %q, want %d %q", code, body, c.code, c.want)
				}
				if got := refused.Load() - before; c.want != "" && got != map[int]int64{200: 0, 400: 1}[code] {
					t.Errorf("reported %d times", got)
				}
			})
		}
	}
}

const proxyprotoSignature = "\r\n\r\n\x00\r\nQUIT\n"

// TestPROXYFromOthers: a line from a peer that is not trusted gets 400 and the name of the setting, and names no client.
func TestPROXYFromOthers(t *testing.T) {
	t.Parallel()
	for name, listen := range listenings {
		for what, from := range map[string][]netip.Prefix{"no peer is trusted": nil, "another is trusted": {netip.MustParsePrefix("10.0.0.0/8")}} {
			addr, refused := addrServer(t, listen, from...)
			for version, line := range map[string]string{
				"v1": "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n",
				"v2": proxyprotoSignature + "\x21\x11\x00\x0c" + strings.Repeat("\x01", 12),
			} {
				t.Run(fmt.Sprint(name, "/", what, "/", version), func(t *testing.T) {
					before := refused.Load()
					code, body := exchange(t, addr, line+addrRequest)
					if code != 400 || !strings.Contains(body, "proxy_protocol_from") || !strings.Contains(body, "127.0.0.1") {
						t.Errorf("%d %q", code, body)
					}
					if n := refused.Load() - before; n != 1 {
						t.Errorf("reported %d times", n)
					}
				})
			}
			if code, body := exchange(t, addr, addrRequest); code != 200 || body != "127.0.0.1" {
				t.Errorf("%s: without a line: %d %q", what, code, body)
			}
		}
	}
}

// TestPROXYNamesLoopback: loopback in a line from another machine is that machine, not this one.
func TestPROXYNamesLoopback(t *testing.T) {
	t.Parallel()
	named := &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}
	for peer, believed := range map[string]bool{"127.0.0.1": true, "::1": true, "10.0.0.7": false, "2001:db8::7": false} {
		if got := mayName(netip.MustParseAddr(peer), named); got != believed {
			t.Errorf("from %s: %v", peer, got)
		}
	}
}

// testOptions are those of a listener whose heads all go to net/http.
func testOptions() Options {
	return Options{NewRequest: func() Request { return netHTTPOnly{} }, Conns: clients.NewConnLimiter(clients.ConnLimits{})}
}

type netHTTPOnly struct{}

func (netHTTPOnly) Parse(*Head) bool { return false }

func (netHTTPOnly) Answer(string, bool) (v health.Verdict, at time.Time, ok bool) {
	return v, at, false
}
