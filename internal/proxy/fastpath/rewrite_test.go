package fastpath

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/clients"
)

// rewriteAll feeds stream to a headRewriter in pieces of the given sizes (repeated; 0 counts as 1).
func rewriteAll(stream []byte, sizes []byte) []byte {
	var h headRewriter
	var out []byte
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(sizes) > 0 {
			n = min(n, max(1, int(sizes[i%len(sizes)])))
		}
		piece := make([]byte, n, n+i%40) // now with room for the insertion, now without
		copy(piece, stream)
		out = append(out, h.rewrite(piece)...)
		stream = stream[n:]
	}
	return out
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"no host", "GET /x HTTP/1.1\r\n\r\n", "GET /x HTTP/1.1\r\nHost:\r\n\r\n"},
		{"no host, other headers", "GET /x HTTP/1.1\r\nA: b\r\n\r\n", "GET /x HTTP/1.1\r\nA: b\r\nHost:\r\n\r\n"},
		{"host", "GET /x HTTP/1.1\r\nhOsT: a\r\n\r\n", "GET /x HTTP/1.1\r\nhOsT: a\r\n\r\n"},
		{"empty host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", "GET /x HTTP/1.1\r\nHost:\r\n\r\n"},
		{"almost host", "GET /x HTTP/1.1\r\nHosts: a\r\nXHost: b\r\n\r\n", "GET /x HTTP/1.1\r\nHosts: a\r\nXHost: b\r\nHost:\r\n\r\n"},
		{"folded line is no host", "GET /x HTTP/1.1\r\nA: b\r\n Host: c\r\n\r\n", "GET /x HTTP/1.1\r\nA: b\r\n Host: c\r\nHost:\r\n\r\n"},
		{
			"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04GET / HTTP/1.1\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04GET / HTTP/1.1\r\n\r\n",
		},
		{"almost HTTP/2", "PRI * HTTP/2.1\r\n\r\n", "PRI * HTTP/2.1\r\nHost:\r\n\r\n"},
		{"bare newlines", "GET /x HTTP/1.0\nA: b\n\n", "GET /x HTTP/1.0\nA: b\nHost:\r\n\n"},
		{
			"pipelined", "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
			"GET /1 HTTP/1.1\r\nHost:\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost:\r\n\r\n",
		},
		{
			"empty lines before", "\r\n\r\n\nGET /1 HTTP/1.1\r\n\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
			"GET /1 HTTP/1.1\r\nHost:\r\n\r\nGET /2 HTTP/1.1\r\nHost:\r\n\r\n",
		},
		{
			"no body", "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nContent-Length: 0\r\nHost:\r\n\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n",
		},
		{
			"body ends the connection", "POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nA: b\r\n\r\nC: d\r\n\r\n....",
			"POST / HTTP/1.1\r\nContent-Length: 20\r\nHost:\r\nConnection: close\r\n\r\nA: b\r\n\r\nC: d\r\n\r\n....",
		},
		{
			"chunks end the connection", "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, sizes := range [][]byte{nil, {1}, {2}, {3, 1}, {7}, {17}} {
				if got := string(rewriteAll([]byte(c.in), sizes)); got != c.want {
					t.Errorf("in pieces of %v:\n%s", sizes, cmp.Diff(c.want, got))
				}
			}
		})
	}
}

// FuzzRewrite holds the rewriter against net/http: whatever net/http reads from a stream of heads, it
// reads from the rewritten stream too, however that came in pieces, and the Host line is always there.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte("GET /x HTTP/1.1\r\n\r\nGET /y HTTP/1.1\r\nhost: a\r\n\r\n"), []byte{3})
	f.Add([]byte("OPTIONS / HTTP/1.0\r\nA: b\r\n c\r\n\r\n"), []byte{1, 40})
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"), []byte{})
	f.Add([]byte("\r\n\nGET / HTTP/1.1\nHost:\n\n\rx"), []byte{2})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		out := rewriteAll(stream, sizes)
		if whole := rewriteAll(stream, nil); !bytes.Equal(out, whole) {
			t.Fatalf("in pieces of %v:\n%q\nat once:\n%q", sizes, out, whole)
		}
		given, rewritten := bufio.NewReader(bytes.NewReader(stream)), bufio.NewReader(bytes.NewReader(out))
		for {
			skipEmptyLines(given)
			want, errWant := http.ReadRequest(given)
			got, errGot := http.ReadRequest(rewritten)
			if (errWant == nil) != (errGot == nil) {
				t.Fatalf("given: %v\nrewritten: %v\n%q\n%q", errWant, errGot, stream, out)
			}
			if errWant != nil {
				return
			}
			last := want.ContentLength != 0
			if last {
				if !got.Close {
					t.Fatalf("a request with a body does not end the connection: %q", out)
				}
				want.Header.Del("Connection")
				got.Header.Del("Connection")
			}
			if d := cmp.Diff(want.Header, got.Header); d != "" || want.RequestURI != got.RequestURI || want.Host != got.Host || want.Method != got.Method {
				t.Fatalf("%s %s %q, rewritten %s %s %q\n%s", want.Method, want.RequestURI, want.Host, got.Method, got.RequestURI, got.Host, d)
			}
			if last {
				a, _ := io.ReadAll(want.Body)
				b, _ := io.ReadAll(got.Body)
				if !bytes.Equal(a, b) {
					t.Fatalf("body %q became %q", a, b)
				}
				return
			}
		}
	})
}

func skipEmptyLines(r *bufio.Reader) {
	for {
		b, err := r.Peek(1)
		if err != nil || b[0] != '\r' && b[0] != '\n' {
			return
		}
		_, _ = r.Discard(1)
	}
}

// hostServer is a real net/http server behind Listener that answers with what it read.
func hostServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s host=%q body=%q", r.RequestURI, r.Host, body)
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	done := make(chan struct{})
	go func() {
		_ = srv.Serve(ListenPlain(ln, Options{Conns: clients.NewConnLimiter(clients.ConnLimits{})}))
		close(done)
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// TestListenerOnARealServer sends heads without Host through net/http itself, in one piece, byte by byte,
// pipelined and on a kept connection, with more of them than fit a buffer.
func TestListenerOnARealServer(t *testing.T) {
	addr := hostServer(t)
	for name, c := range map[string]struct {
		send []string
		want []string
	}{
		"one":             {[]string{"GET /1 HTTP/1.1\r\n\r\n"}, []string{`/1 host="" body=""`}},
		"kept connection": {[]string{"GET /1 HTTP/1.1\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /3 HTTP/1.1\r\n\r\n"}, []string{`/1 host="" body=""`, `/2 host="h" body=""`, `/3 host="" body=""`}},
		"leading newline": {[]string{"\r\nGET /1 HTTP/1.1\r\n\r\n"}, []string{`/1 host="" body=""`}},
		"with a body":     {[]string{"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"}, []string{`/1 host="" body="abc"`}},
		"chunked":         {[]string{"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"}, []string{`/1 host="" body="abc"`}},
		"byte by byte":    {strings.Split("GET /1 HTTP/1.1\r\nX: y\r\n\r\n", ""), []string{`/1 host="" body=""`}},
		"pipelined": {
			[]string{strings.Repeat("GET /1 HTTP/1.1\r\n\r\n", 1000)},
			slices.Repeat([]string{`/1 host="" body=""`}, 1000),
		},
	} {
		t.Run(name, func(t *testing.T) {
			c1, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c1.Close()
			_ = c1.SetDeadline(time.Now().Add(20 * time.Second))
			go func() {
				for _, s := range c.send {
					if _, err := io.WriteString(c1, s); err != nil {
						return
					}
				}
			}()
			br := bufio.NewReader(c1)
			for i, want := range c.want {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != 200 || string(body) != want {
					t.Fatalf("answer %d: %d %s, want 200 %s", i, resp.StatusCode, body, want)
				}
			}
		})
	}
}

func BenchmarkRewrite(b *testing.B) {
	head := []byte("GET /http/web/8080/status HTTP/1.1\r\n\r\n")
	buf := make([]byte, 4096)
	var h headRewriter
	b.ReportAllocs()
	for b.Loop() {
		n := copy(buf, head)
		h.rewrite(buf[:n])
	}
}
