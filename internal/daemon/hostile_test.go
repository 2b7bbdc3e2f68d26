package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hacheck/test/servertest"
)

// startTLSDaemon starts a daemon with tls_listen and more lines of configuration. It returns the address and a client's
// configuration.
func startTLSDaemon(t *testing.T, more string) (p *process, addr string, client *tls.Config) {
	t.Helper()
	ca := servertest.NewAuthority(t)
	cert, key := ca.Issue(t, "one")
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	addr = freeAddr(t)
	writeFile(t, conf, fmt.Sprintf("tls_listen: %s\ntls_cert_file: %s\ntls_key_file: %s\n%s", addr, cert, key, more))
	return startDaemon(t, "-c", conf), addr, ca.Client(t, "", "")
}

func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * testTimeout))
	return c
}

// TestHalfHandshakes: handshakes that never end are bounded for each client and in time. They keep out no other
// connection of the same client.
func TestHalfHandshakes(t *testing.T) {
	t.Parallel()
	_, addr, client := startTLSDaemon(t, "rlimit_nofile: 200\n") // one client may hold half of that
	var half []net.Conn
	for range 300 {
		c := dialTCP(t, addr)
		if _, err := io.WriteString(c, "\x16\x03\x01\x02\x00\x01"); err != nil {
			t.Fatal(err)
		}
		half = append(half, c)
	}
	for _, http2 := range []bool{false, true} {
		if code, _, _, err := getTLS(tlsClient(client, http2), addr, "/spool/web/0/"); err != nil || code != 200 {
			t.Errorf("beside them: %d, %v", code, err)
		}
	}
	began := time.Now()
	for _, c := range half {
		_, _ = io.Copy(io.Discard, c) // until the daemon closes it
	}
	if took := time.Since(began); took > testTimeout {
		t.Errorf("they were open for %v more", took)
	}
}

// TestHTTP2Floods: no frames of a client, by TLS or without, end the daemon or keep others from their answers.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	p, addr, client := startTLSDaemon(t, "")
	client.NextProtos, client.ServerName = []string{"h2"}, "127.0.0.1"
	head := func(pad int) []byte {
		var b strings.Builder
		e := hpack.NewEncoder(&b)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/spool/web/0/"}, {":authority", "x"}, {"x-pad", strings.Repeat("x", pad)}} {
			_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return []byte(b.String())
	}
	small, huge := head(1), head(1<<20)
	floods := map[string]func(f *http2.Framer) error{
		"rapid reset": func(f *http2.Framer) (err error) {
			for id := uint32(1); id < 40_000 && err == nil; id += 2 {
				if err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: small, EndStream: true, EndHeaders: true}); err == nil {
					err = f.WriteRSTStream(id, http2.ErrCodeCancel)
				}
			}
			return err
		},
		"continuation": func(f *http2.Framer) error {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: small})
			for i := 0; i < 20_000 && err == nil; i++ {
				err = f.WriteContinuation(1, false, huge[1000:2000])
			}
			return err
		},
		"settings": func(f *http2.Framer) (err error) {
			for i := 0; i < 50_000 && err == nil; i++ {
				err = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
			}
			return err
		},
		"ping": func(f *http2.Framer) (err error) {
			for i := 0; i < 50_000 && err == nil; i++ {
				err = f.WritePing(false, [8]byte{1})
			}
			return err
		},
		"priority": func(f *http2.Framer) (err error) {
			for i := uint32(1); i < 50_000 && err == nil; i++ {
				err = f.WritePriority(i, http2.PriorityParam{StreamDep: i + 1, Weight: 1})
			}
			return err
		},
		"a huge head": func(f *http2.Framer) error {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: huge[:16<<10], EndStream: true})
			for rest := huge[16<<10:]; len(rest) > 0 && err == nil; {
				n := min(16<<10, len(rest))
				err = f.WriteContinuation(1, n == len(rest), rest[:n])
				rest = rest[n:]
			}
			return err
		},
	}
	for name, flood := range floods {
		for _, by := range []string{"TLS", "TCP"} {
			c := dialTCP(t, p.addrs[0])
			if by == "TLS" {
				c = tls.Client(dialTCP(t, addr), client)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // a flood that is not read stops there
			if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			f := http2.NewFramer(c, c)
			if err := f.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			stopped := flood(f)
			for _, path := range []string{"/spool/web/0/", "/status"} {
				if code, _, err := p.get(path); err != nil || code != 200 {
					t.Errorf("after %s by %s (%v): %d, %v", name, by, stopped, code, err)
				}
			}
			if code, _, _, err := getTLS(tlsClient(client.Clone(), true), addr, "/spool/web/0/"); err != nil || code != 200 {
				t.Errorf("by TLS after %s by %s: %d, %v", name, by, code, err)
			}
			c.Close()
		}
	}
}

// TestHTTP2OnHTTP1: HTTP/2 begins with the first byte of a connection, or not at all.
func TestHTTP2OnHTTP1(t *testing.T) {
	t.Parallel()
	p := startDaemon(t)
	const get = "GET /spool/web/0/ HTTP/1.1\r\nHost: x\r\n"
	for name, test := range map[string]struct {
		text  string
		codes []int // until the connection ends; each 1 to 9 is a class of codes
	}{
		"an upgrade":                  {get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + get + "Connection: close\r\n\r\n", []int{200, 200}},
		"a preface behind a request":  {get + "\r\n" + http2.ClientPreface, []int{200, 4}},
		"a preface with a header":     {"PRI * HTTP/2.0\r\nX: y\r\n\r\nSM\r\n\r\n", []int{4}},
		"half a preface, then HTTP/1": {"PRI * HTTP/2.0\r\n\r\n" + get + "\r\n", []int{4}},
		"another HTTP/2":              {"GET /spool/web/0/ HTTP/2.0\r\nHost: x\r\n\r\n", []int{5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialTCP(t, p.addrs[0])
			if _, err := io.WriteString(c, test.text); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(c)
			for i := 0; ; i++ {
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					if i < len(test.codes) && test.codes[i] >= 100 {
						t.Errorf("answer %d: %v", i, err)
					}
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if i >= len(test.codes) || r.StatusCode != test.codes[i] && r.StatusCode/100 != test.codes[i] {
					t.Errorf("answer %d: %s", i, r.Status)
					return
				}
			}
		})
	}
}

// TestPROXYDecidesPermissions: the client of a PROXY line is the one whose permissions count.
func TestPROXYDecidesPermissions(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, `
proxy_protocol_from: [127.0.0.1]
status_allowed: [192.0.2.0/24]
allow_remote_spool_changes: true
remote_spool_allowed: [192.0.2.0/24]
`)
	p := startDaemon(t, "-c", conf)
	for _, test := range []struct {
		line   string
		status int // of /status
		spool  int // of POST /spool
	}{
		{"", 200, 403}, // loopback may always read, as hastatus does
		{"PROXY TCP4 192.0.2.7 127.0.0.1 0 80\r\n", 200, 200},
		{"PROXY TCP4 198.51.100.7 127.0.0.1 1 80\r\n", 403, 403},
		{"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 80\r\n", 200, 200},
		{"PROXY TCP6 2001:db8::7 ::1 1 80\r\n", 403, 403},
		{"PROXY TCP4 192.0.02.7 127.0.0.1 1 80\r\n", 400, 400},
		{"PROXY TCP4 192.0.2.7 127.0.0.1 01 80\r\n", 400, 400},
		{"PROXY TCP4 192.0.2.7 127.0.0.1 65536 80\r\n", 400, 400},
		{"PROXY UNKNOWN 192.0.2.7 127.0.0.1 1 80\r\n", 200, 403},
	} {
		for request, want := range map[string]int{
			"GET /status HTTP/1.0\r\n\r\n":                  test.status,
			"POST /spool/web/0/?status=up HTTP/1.0\r\n\r\n": test.spool,
		} {
			if got := askAgent(p.addrs[0], test.line+request); !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.%d %d ", map[bool]int{true: 1}[want == 400], want)) {
				t.Errorf("%q: %.40q, want %d", test.line+request, got, want)
			}
		}
	}
}
