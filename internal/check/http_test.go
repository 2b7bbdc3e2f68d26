package check_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

func TestHTTPRequest(t *testing.T) {
	copied := func(pairs ...string) (f []check.Field) {
		for i := 0; i < len(pairs); i += 2 {
			f = append(f, check.Field{Name: pairs[i], Value: pairs[i+1]})
		}
		return f
	}
	for name, c := range map[string]struct {
		options check.Options
		host    string
		target  check.Target
		want    string // ADDR stands for the server's address
	}{
		"plain": {
			options: check.Options{Version: "1.2.3"},
			target:  check.Target{URI: "/status"},
			want:    "GET /status HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck/1.2.3\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"every byte of path and query": {
			target: check.Target{URI: "//a%20b%2Fc/../%66;p?x=%zz&&y=?/#\xff\xc3\xa9"},
			want:   "GET //a%20b%2Fc/../%66;p?x=%zz&&y=?/#\xff\xc3\xa9 HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"empty path": {
			want: "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"query alone": {
			target: check.Target{URI: "?x"},
			want:   "GET /?x HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"IPv6": {
			host:   "::1",
			target: check.Target{URI: "/"},
			want:   "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"copied headers": {
			target: check.Target{URI: "/", Header: copied("host", "web.example:81", "X-Trace", "a b\tc", "Cookie", "a=1", "Cookie", "b=2")},
			want:   "GET / HTTP/1.1\r\nHost: web.example:81\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nX-Trace: a b\tc\r\nCookie: a=1\r\nCookie: b=2\r\nConnection: close\r\n\r\n",
		},
		"copied user agent": {
			target: check.Target{URI: "/", Header: copied("User-Agent", "HAProxy")},
			want:   "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: HAProxy\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"headers that are never copied": {
			target: check.Target{URI: "/", Header: copied("x-hacheck-hops", "0", "Connection", "keep-alive", "Content-Length", "5", "transfer-encoding", "chunked", "Upgrade", "h2c",
				"TE", "trailers", "Trailer", "X", "Keep-Alive", "5", "Proxy-Connection", "close", "Expect", "100-continue", "Accept-Encoding", "gzip")},
			want: "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"headers that would break the head": {
			target: check.Target{URI: "/", Header: copied("Host", "a\r\nX: 1", "X-A", "b\nc", "X-B", "\x00", "X:C", "d", "", "e", "X D", "f", "User-Agent", "a\rb")},
			want:   "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"the hops of the request": {
			target: check.Target{URI: "/", Hops: 3},
			want:   "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 4\r\nConnection: close\r\n\r\n",
		},
		"hops as a service name header": {
			options: check.Options{ServiceNameHeader: "X-Hacheck-hops"},
			target:  check.Target{Service: "0", URI: "/"},
			want:    "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nConnection: close\r\n\r\n",
		},
		"service name header": {
			options: check.Options{ServiceNameHeader: "X-Service"},
			target:  check.Target{Service: "web.main", URI: "/", Header: copied("x-service", "other")},
			want:    "GET / HTTP/1.1\r\nHost: ADDR\r\nUser-Agent: hacheck\r\nX-Hacheck-Hops: 1\r\nX-Service: web.main\r\nConnection: close\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			if c.host == "" {
				c.host = "127.0.0.1"
			}
			s := checktest.ServeAt(t, c.host, func(conn net.Conn) {
				var head strings.Builder
				r := bufio.NewReader(conn)
				for !strings.HasSuffix(head.String(), "\r\n\r\n") {
					b, err := r.ReadByte()
					if err != nil {
						break
					}
					head.WriteByte(b)
				}
				got <- head.String()
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			})
			c.target.Protocol, c.target.Host, c.target.Port = "http", s.Host, s.Port
			if r := ask(t, c.options, c.target); r.Code != 204 {
				t.Errorf("code %d: %s", r.Code, r.Body)
			}
			if diff := cmp.Diff(strings.ReplaceAll(c.want, "ADDR", s.Addr()), <-got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTTPInvalidURI(t *testing.T) {
	for _, uri := range []string{"/a b", "/a\r\nX: y", "/\x00", "/\x7f", "/\t"} {
		s := checktest.Serve(t, func(conn net.Conn) {
			if b, _ := io.ReadAll(conn); len(b) > 0 {
				t.Errorf("sent %q", b)
			}
		})
		r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: uri})
		if r.Code != 400 || r.Reason != check.ReasonConfig {
			t.Errorf("%q: %d %s %q", uri, r.Code, r.Reason, r.Body)
		}
	}
}

func TestHTTPAnswer(t *testing.T) {
	full := strings.Repeat("0123456789abcdef", check.MaxBody/16)
	var bytewise strings.Builder // as many chunks as a body can have
	for i := range check.MaxBody {
		fmt.Fprintf(&bytewise, "1\r\n%c\r\n", full[i])
	}
	type answer struct {
		Code        int
		Body        string
		ContentType string
		Reason      check.Reason
	}
	for name, c := range map[string]struct {
		says string
		want answer
	}{
		"200":                       {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc", answer{200, "abc", "text/html", 0}},
		"binary body":               {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n", answer{200, "\x00\xff\r\n", "", 0}},
		"no reason phrase":          {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", answer{200, "", "", 0}},
		"bare line feeds":           {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", answer{200, "ok", "", 0}},
		"more than Content-Length":  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", answer{200, "ok", "", 0}},
		"until close":               {"HTTP/1.1 200 OK\r\n\r\nabc", answer{200, "abc", "", 0}},
		"HTTP/1.0":                  {"HTTP/1.0 200 OK\r\n\r\nabc", answer{200, "abc", "", 0}},
		"chunked":                   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n", answer{200, "abc", "", 0}},
		"chunked a byte each":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + bytewise.String() + "0\r\n\r\n", answer{200, full, "", 0}},
		"chunked, cut off":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"chunked, broken":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n", answer{503, "The answer of ADDR is not valid HTTP: invalid byte in chunk length", "", check.ReasonProtocol}},
		"201":                       {"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", answer{201, "x", "", 0}},
		"204":                       {"HTTP/1.1 204 No Content\r\n\r\nbody it must not have", answer{204, "", "", 0}},
		"304":                       {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", answer{304, "", "", 0}},
		"404":                       {"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", answer{404, "gone", "", 0}},
		"418":                       {"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n", answer{418, "", "", 0}},
		"500":                       {"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", answer{500, "oops", "", 0}},
		"599":                       {"HTTP/1.1 599 Mine\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\noops", answer{503, "oops", "a/b", check.ReasonFailed}},
		"999":                       {"HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n", answer{503, "", "", check.ReasonFailed}},
		"099":                       {"HTTP/1.1 099 ?\r\nContent-Length: 0\r\n\r\n", answer{503, "ADDR answered with status 099, which is none", "", check.ReasonProtocol}},
		"informational first":       {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", answer{200, "x", "", 0}},
		"informational only":        {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), answer{503, "ADDR sent more than 5 informational answers", "", check.ReasonProtocol}},
		"101":                       {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", answer{503, "ADDR answered 101 and left HTTP", "", check.ReasonProtocol}},
		"short body":                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"no body at all":            {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"negative length":           {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", answer{503, `The answer of ADDR is not valid HTTP: bad Content-Length "-5"`, "", check.ReasonProtocol}},
		"two lengths":               {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", answer{503, `The answer of ADDR is not valid HTTP: http: message cannot contain multiple Content-Length headers; got ["1" "2"]`, "", check.ReasonProtocol}},
		"unknown transfer encoding": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", answer{503, `The answer of ADDR is not valid HTTP: unsupported transfer encoding: "gzip"`, "", check.ReasonProtocol}},
		"line without colon":        {"HTTP/1.1 200 OK\r\nwhat\r\n\r\n", answer{503, `The answer of ADDR is not valid HTTP: malformed MIME header: missing colon: "what"`, "", check.ReasonProtocol}},
		"nothing":                   {"", answer{503, "Connection closed early (waiting for an answer from ADDR)", "", check.ReasonProtocol}},
		"half a head":               {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"half a line":               {"HTTP/1.1 200 OK\r\nContent-", answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"not HTTP":                  {"220 mail ESMTP\x1b[1m\r\n", answer{503, `The answer of ADDR is not HTTP: "220 mail ESMTP [1m"`, "", check.ReasonProtocol}},
		"TLS alert":                 {"\x15\x03\x01\x00\x02\x02\x46", answer{503, `The answer of ADDR is not HTTP: "F"`, "", check.ReasonProtocol}},
		"status line of the future": {"HTTP/3 200 OK\r\n\r\n", answer{503, `The answer of ADDR is not valid HTTP: malformed HTTP version "HTTP/3"`, "", check.ReasonProtocol}},
		"full body":                 {"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + full, answer{200, full, "", 0}},
		"long body":                 {"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n" + full + "x", answer{200, full, "", 0}},
		"long body until close":     {"HTTP/1.1 200 OK\r\n\r\n" + full + "x", answer{200, full, "", 0}},
		"full body, cut":            {"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + full[1:], answer{503, "Connection closed early (reading the answer of ADDR)", "", check.ReasonProtocol}},
		"head of 60 KB":             {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60<<10) + "\r\nContent-Length: 1\r\n\r\nx", answer{200, "x", "", 0}},
		"head of 1 MB":              {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\nContent-Length: 1\r\n\r\nx", answer{503, "The answer of ADDR has a head of more than 65536 bytes", "", check.ReasonProtocol}},
		"control character":         {"HTTP/1.1 200 OK\r\nContent-Type: a\x01b\r\n\r\n", answer{503, `The answer of ADDR is not valid HTTP: malformed MIME header line: "Content-Type: a\x01b"`, "", check.ReasonProtocol}},
		"long content type":         {"HTTP/1.1 200 OK\r\nContent-Type: " + strings.Repeat("x", 201) + "\r\nContent-Length: 1\r\n\r\nx", answer{200, "x", "", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := answering(t, c.says)
			r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: "/"})
			c.want.Body = strings.ReplaceAll(c.want.Body, "ADDR", s.Addr())
			if diff := cmp.Diff(c.want, answer{r.Code, string(r.Body), r.ContentType, r.Reason}); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// A redirect is the answer. Its target is not asked, because that is another check.
func TestHTTPRedirectNotFollowed(t *testing.T) {
	s := checktest.Serve(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: http://%s/other\r\nContent-Length: 0\r\n\r\n", conn.LocalAddr())
		}
	})
	r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: "/"})
	if n := s.Settled(t); r.Code != 302 || n != 1 {
		t.Errorf("code %d after %d requests", r.Code, n)
	}
}

// An answer counts although the service has not read the request.
func TestHTTPAnswersWithoutReading(t *testing.T) {
	s := checktest.Serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 500 Busy\r\nContent-Length: 4\r\n\r\nbusy")
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: "/"})
	if r.Code != 500 || string(r.Body) != "busy" {
		t.Errorf("%d %q", r.Code, r.Body)
	}
}

// Of 10 GB in the body, in chunk extensions or in a trailer, with a length or without, 64 KiB are kept and the rest is
// not read.
func TestHTTPEndless(t *testing.T) {
	block := bytes.Repeat([]byte("x"), 1<<20)
	for name, head := range map[string]string{
		"with length": "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n",
		"until close": "HTTP/1.1 200 OK\r\n\r\n",
		"one chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n280000000\r\n",
		"extension":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
		"trailer":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, func(conn net.Conn) {
				_, err := io.WriteString(conn, head)
				for range 10 << 10 {
					if err != nil {
						return
					}
					_, err = conn.Write(block)
				}
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port, URI: "/"})
			runtime.ReadMemStats(&after)
			switch name {
			case "extension", "trailer":
				if r.Reason != check.ReasonProtocol {
					t.Errorf("%d %s %.100q", r.Code, r.Reason, r.Body)
				}
			default:
				if r.Code != 200 || len(r.Body) != check.MaxBody {
					t.Errorf("%d with %d bytes", r.Code, len(r.Body))
				}
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
				t.Errorf("took %d bytes of memory", took)
			}
		})
	}
}

// The context bounds every phase, and the answer names the phase.
func TestHTTPTimeoutNamesPhase(t *testing.T) {
	for name, c := range map[string]struct {
		says, want string
	}{
		"silent":    {"", "waiting for an answer from"},
		"half head": {"HTTP/1.1 200 OK\r\nContent-", "reading the answer of"},
		"half body": {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "reading the answer of"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, c.says) })
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel()
			r := check.All(check.Options{})["http"].Check(ctx, check.Target{Host: s.Host, Port: s.Port, URI: "/"})
			want := fmt.Sprintf("Connection timed out after 0.06s (%s %s)", c.want, s.Addr())
			if got := string(r.Body); r.Reason != check.ReasonTimeout || got[:28] != want[:28] || got[31:] != want[31:] {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestRefusedSentence(t *testing.T) {
	port := checktest.ClosedPort(t)
	for _, protocol := range []string{"http", "tcp"} {
		r := ask(t, check.Options{}, check.Target{Protocol: protocol, Host: "127.0.0.1", Port: port})
		if want := fmt.Sprintf("Connection refused by 127.0.0.1:%d", port); string(r.Body) != want {
			t.Errorf("%s: %q, want %q", protocol, r.Body, want)
		}
	}
	r := ask(t, check.Options{}, check.Target{Protocol: "tcp", Host: "no..name", Port: 80})
	if want := "Cannot resolve no..name: no such host"; string(r.Body) != want {
		t.Errorf("%q, want %q", r.Body, want)
	}
}

// Without descriptors the answer is ReasonBusy and names the setting to raise. The test needs a process of its own,
// because the limit is one of a process.
func TestOutOfDescriptors(t *testing.T) {
	const child = "HACHECK_TEST_NO_DESCRIPTORS"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := answering(t, "HTTP/1.1 200 OK\r\n\r\n")
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	r := ask(t, check.Options{}, check.Target{Protocol: "http", Host: s.Host, Port: s.Port})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	want := "hacheck is out of file descriptors (see rlimit_nofile), " + s.Addr() + " was not asked"
	if r.Code != 503 || r.Reason != check.ReasonBusy || string(r.Body) != want {
		t.Errorf("%d %s %q, want %q", r.Code, r.Reason, r.Body, want)
	}
}

// FuzzHTTPAnswer sends anything to the check and closes: the check ends at once with a valid result.
func FuzzHTTPAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204\r\n\r\n"))
	fuzzAnswers(f, "http")
}

// BenchmarkHTTP compares the check with a bare client (a socket, a constant request, http.ReadResponse) and with
// http.Client, each on a new connection to one server. They take turns, so that other load on the machine slows all of
// them. x-bare is the check's rate divided by the bare client's.
func BenchmarkHTTP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "OK") })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	at := netip.MustParseAddrPort(l.Addr().String())

	f := check.Timeout(10 * time.Second)(check.NewLimiter(512).Wrap(check.All(check.Options{Version: "1.2.3"})["http"].Check))
	target := check.Target{Protocol: "http", Service: "web", Host: at.Addr().String(), Port: at.Port(), URI: "/status"}
	ours := func() {
		if r := f(b.Context(), target); r.Code != 200 || string(r.Body) != "OK" {
			b.Fatalf("%d %s", r.Code, r.Body)
		}
	}
	request := []byte("GET /status HTTP/1.1\r\nHost: " + at.String() + "\r\nUser-Agent: bare\r\nConnection: close\r\n\r\n")
	bare := func() {
		conn, err := net.DialTimeout("tcp", at.String(), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = conn.Write(request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.ReadAll(resp.Body)
		_ = conn.Close()
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	standard := func() {
		resp, err := client.Get("http://" + at.String() + "/status")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}

	b.Run("turns", func(b *testing.B) {
		var took [3]time.Duration
		for b.Loop() {
			for i, get := range []func(){ours, bare, standard} {
				start := time.Now()
				get()
				took[i] += time.Since(start)
			}
		}
		b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "x-bare")
		b.ReportMetric(took[2].Seconds()/took[0].Seconds(), "x-net/http")
		b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "us/check")
	})
	for name, get := range map[string]func(){"check": ours, "bare": bare, "net-http": standard} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				get()
			}
		})
	}
}
