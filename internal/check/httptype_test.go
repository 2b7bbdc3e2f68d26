package check_test

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// httpCheck returns a check of type http for a URL.
func httpCheck(t testing.TB, d check.Defaults, url string, options map[string]any) *check.ConfiguredCheck {
	t.Helper()
	all := map[string]any{"url": url}
	for name, v := range options {
		all[name] = v
	}
	return build(t, d, "http", all)
}

// The request is the one that the options describe.
func TestHTTPConfiguredRequest(t *testing.T) {
	for name, c := range map[string]struct {
		path    string
		user    string // in the URL
		options map[string]any
		want    string
	}{
		"plain": {
			path: "/status?x=1#part",
			want: "GET /status?x=1 HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nX-Hacheck-Hops: 1\r\n\r\n",
		},
		"method and body": {
			path: "/", options: map[string]any{"method": "post", "body": "a=b"},
			want: "POST / HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nContent-Length: 3\r\nX-Hacheck-Hops: 1\r\n\r\na=b",
		},
		"headers": {
			path: "/", options: map[string]any{"headers": map[string]any{"X-One": "1", "X-Two": []any{"a", 2, true}, "User-Agent": "mine", "x-hacheck-hops": []any{"0", "x"}, "host": "web.example"}},
			want: "GET / HTTP/1.1\r\nHost: web.example\r\nUser-Agent: mine\r\nConnection: close\r\nX-Hacheck-Hops: 1\r\nX-One: 1\r\nX-Two: a\r\nX-Two: 2\r\nX-Two: true\r\n\r\n",
		},
		"headers in pairs": {
			path: "/", options: map[string]any{"headers": []any{[]any{"foo", "bar"}, []any{"X-One", 1}, []any{"foo", "baz"}}},
			want: "GET / HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nFoo: bar\r\nFoo: baz\r\nX-Hacheck-Hops: 1\r\nX-One: 1\r\n\r\n",
		},
		"params": {
			path: "/?x=1", options: map[string]any{"params": map[string]any{"q": "a b&c", "n": []any{1, 2}}},
			want: "GET /?x=1&n=1&n=2&q=a+b%26c HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nX-Hacheck-Hops: 1\r\n\r\n",
		},
		"cookies": {
			path: "/", options: map[string]any{"cookies": map[string]any{"session": "abc", "lang": "en"}},
			want: "GET / HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nCookie: lang=en; session=abc\r\nX-Hacheck-Hops: 1\r\n\r\n",
		},
		"auth": {
			path: "/", options: map[string]any{"auth": []any{"operator", "s3cret"}},
			want: "GET / HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nAuthorization: Basic b3BlcmF0b3I6czNjcmV0\r\nX-Hacheck-Hops: 1\r\n\r\n",
		},
		"auth in the URL": {
			path: "/", user: "operator:s3cret@",
			want: "GET / HTTP/1.1\r\nHost: AT\r\nUser-Agent: hacheck/1.2.3\r\nConnection: close\r\nAuthorization: Basic b3BlcmF0b3I6czNjcmV0\r\nX-Hacheck-Hops: 1\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			s := checktest.Serve(t, func(conn net.Conn) {
				var text strings.Builder
				r := bufio.NewReader(io.TeeReader(conn, &text))
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				got <- text.String()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			})
			// Checks ignore a proxy in the environment.
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			t.Setenv("http_proxy", "http://127.0.0.1:1")
			configured := httpCheck(t, check.Defaults{Options: check.Options{Version: "1.2.3"}}, "http://"+c.user+s.Addr()+c.path, c.options)
			// The last step makes one request; the first connects alone.
			r := configured.Check(t.Context(), check.Target{})
			if r.Code != 200 || !strings.Contains(string(r.Body), " answered 200 in 0.") || r.Took <= 0 {
				t.Fatalf("%d %s", r.Code, r.Body)
			}
			if diff := cmp.Diff(strings.ReplaceAll(c.want, "AT", s.Addr()), <-got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			shown := "http://" + map[bool]string{true: "***@"}[c.user != ""] + s.Addr() + c.path
			if diff := cmp.Diff([]string{"http:" + shown + ":tcp:" + s.Addr(), "http:" + shown + ":"}, stepNames(configured)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if configured.Endpoint != (check.Endpoint{Network: "tcp", Host: s.Host, Port: s.Port}) {
				t.Errorf("%+v", configured.Endpoint)
			}
		})
	}
}

func TestHTTPConfiguredEndpoints(t *testing.T) {
	for url, c := range map[string]struct {
		options map[string]any
		want    string // of the first step, after the URL
	}{
		"http://web.example":          {nil, "tcp:web.example:80"},
		"https://web.example/x":       {nil, "tcp:web.example:443"},
		"https://[::1]:8443/":         {nil, "tcp:::1:8443"},
		"https://web.example/proxied": {map[string]any{"proxy_host": "proxy.example"}, "tcp:proxy.example:8000"},
		"https://web.example/port":    {map[string]any{"proxy_host": "::1", "proxy_port": 3128}, "tcp:::1:3128"},
		"http://web.example/both":     {map[string]any{"proxy_url": "http://one.example", "proxy_host": "two.example", "proxy_port": 3128}, "tcp:one.example:80"},
		"http://web.example/by":       {map[string]any{"proxy_url": "http://u:s3cret@proxy.example"}, "tcp:proxy.example:80"},
	} {
		configured := httpCheck(t, check.Defaults{}, url, c.options)
		want := "http:" + url + ":" + c.want
		if got := configured.Steps[0].Name; got != want || configured.Endpoint.Network+":"+configured.Endpoint.Host+":"+fmt.Sprint(configured.Endpoint.Port) != c.want {
			t.Errorf("%s: %s, %v, want %s", url, got, configured.Endpoint, want)
		}
	}
}

func TestHTTPConfiguredOptions(t *testing.T) {
	const url = "http://operator:s3cret@web.example/"
	for name, options := range map[string]map[string]any{
		"url":           {"url": "web.example"},
		"url ":          {"url": "ftp://operator:s3cret@web.example/"},
		"url  ":         {"url": "http://operator:s3cret@/"},
		"url   ":        {"url": "http://operator:s3cret@web.example:0/"},
		"url    ":       {"url": "http://operator:s3cret@web.example:99999/"},
		"url     ":      {"url": ""},
		"method":        {"url": url, "method": "G ET"},
		"expected_code": {"url": url, "expected_code": 20},
		"headers":       {"url": url, "headers": map[string]any{"X-Secret": "s3cret\r\nX: y"}},
		"headers ":      {"url": url, "headers": map[string]any{"X Secret": "s3cret"}},
		"headers  ":     {"url": url, "headers": []any{"s3cret"}},
		"headers   ":    {"url": url, "headers": map[string]any{"X": map[string]any{"s3cret": 1}}},
		"params":        {"url": url, "params": "s3cret"},
		"cookies":       {"url": url, "cookies": "s3cret"},
		"auth":          {"url": url, "auth": "s3cret"},
		"auth ":         {"url": url, "auth": []any{"operator", "s3cret", "s3cret"}},
		"auth  ":        {"url": url, "auth": []any{"", "s3cret"}},
		"digest_auth":   {"url": url, "digest_auth": []any{"operator", []any{"s3cret"}}},
		"proxy_url":     {"url": url, "proxy_url": "ftp://u:s3cret@proxy.example"},
		"headers    ":   {"url": url, "headers": []any{[]any{"X", "s3cret", "s3cret"}}},
		"headers     ":  {"url": url, "headers": []any{[]any{"X", []any{"s3cret"}}}},
		"headers      ": {"url": url, "headers": []any{[]any{"X Secret", "s3cret"}}},
		"params ":       {"url": url, "params": []any{[]any{"q", "s3cret"}}},
		"cookies ":      {"url": url, "cookies": []any{[]any{"X", "s3cret"}}},
		"proxy_host ":   {"url": url, "proxy_host": "http://proxy.example"},
		"proxy_port":    {"url": url, "proxy_host": "proxy.example", "proxy_port": 0},
	} {
		_, err := check.Build(check.Spec{Type: "http", Options: options}, check.Defaults{})
		var option *check.OptionError
		if !errors.As(err, &option) || option.Option != strings.TrimSpace(name) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: shows a password: %v", name, err)
		}
	}
}

func TestHTTPConfiguredAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer  string
		options map[string]any
		code    int
		reason  check.Reason
		want    string
	}{
		"200":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", nil, 200, check.ReasonAnswered, "GET answered 200 in 0."},
		"until the close": {"HTTP/1.0 200 OK\r\n\r\nOK", nil, 200, check.ReasonAnswered, "GET answered 200 in 0."},
		"another code":    {"HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n", nil, 503, check.ReasonFailed, "Unexpected response code: 404 Not Found"},
		"expected":        {"HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n", map[string]any{"expected_code": 404}, 200, check.ReasonAnswered, "GET answered 404 in 0."},
		"not expected":    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", map[string]any{"expected_code": 404}, 503, check.ReasonFailed, "Unexpected response code: 200 OK"},
		"redirect":        {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", nil, 503, check.ReasonFailed, "Unexpected response code: 302 Found"},
		"for ever":        {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", map[string]any{"allow_redirects": true}, 503, check.ReasonFailed, "AT redirects more than 10 times"},
		"cut off":         {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nOK", nil, 503, check.ReasonProtocol, "Connection closed early (reading the answer of AT)"},
		"not HTTP":        {"SSH-2.0-x\r\n", nil, 503, check.ReasonProtocol, `The answer of AT is not HTTP: "SSH-2.0-x"`},
		"nothing":         {"", nil, 503, check.ReasonProtocol, "Connection closed early (waiting for an answer from AT)"},
		"no digest":       {"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"s3cret\"\r\nContent-Length: 0\r\n\r\n", map[string]any{"digest_auth": []any{"a", "s3cret"}}, 503, check.ReasonFailed, "AT cannot be logged in to: it asks for no digest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := answering(t, c.answer)
			r := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/", c.options).Check(t.Context(), check.Target{})
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), strings.ReplaceAll(c.want, "AT", s.Addr())) {
				t.Errorf("%d %s %s (%v)", r.Code, r.Reason, r.Body, r.Err)
			}
		})
	}
}

func TestHTTPConfiguredNginx(t *testing.T) {
	a := newAuthority(t)
	trusting := check.Defaults{Options: check.Options{TLSRoots: a.pool()}}
	site := `location / { return 200 "OK\n"; }
		location /moved { return 301 /here; }
		location = /large { root /nowhere; error_page 404 =200 /; }
		location = /post { if ($request_method != POST) { return 405; } return 201; }`
	plain := servertest.Nginx(t, "", site)
	secure := nginxTLS(t, issue(t, loopback(), a), site)
	open := servertest.Tinyproxy(t, "", "")
	closed := servertest.Tinyproxy(t, "operator", "s3cret")
	by := func(user string, s *servertest.Server) string { return "http://" + user + s.Addr() }
	proxied := map[string]any{"proxy_host": servertest.Host, "proxy_port": int(open.Port)}
	for name, c := range map[string]struct {
		defaults check.Defaults
		url      string
		options  map[string]any
		code     int
		want     string
	}{
		"plain":                       {trusting, "http://" + plain.Addr() + "/", nil, 200, "answered 200"},
		"post":                        {trusting, "http://" + plain.Addr() + "/post", map[string]any{"method": "POST", "body": "x", "expected_code": 201}, 200, "POST answered 201"},
		"redirect":                    {trusting, "http://" + plain.Addr() + "/moved", nil, 503, "Unexpected response code: 301"},
		"redirect expected":           {trusting, "http://" + plain.Addr() + "/moved", map[string]any{"expected_code": 301}, 200, "answered 301"},
		"redirect followed":           {trusting, "http://" + plain.Addr() + "/moved", map[string]any{"allow_redirects": true}, 200, "answered 200"},
		"TLS":                         {trusting, "https://" + secure.Addr() + "/", nil, 200, "answered 200"},
		"TLS, not trusted":            {check.Defaults{}, "https://" + secure.Addr() + "/", nil, 503, "The certificate of " + secure.Addr() + " was not accepted: x509: "},
		"TLS, not verified":           {check.Defaults{}, "https://" + secure.Addr() + "/", map[string]any{"disable_tls_verification": true}, 200, "answered 200"},
		"TLS to a plain port":         {trusting, "https://" + plain.Addr() + "/", nil, 503, plain.Addr() + " does not speak TLS"},
		"proxy":                       {trusting, "http://" + plain.Addr() + "/", proxied, 200, "answered 200"},
		"proxy, TLS":                  {trusting, "https://" + secure.Addr() + "/", proxied, 200, "answered 200"},
		"proxy, TLS, not trusted":     {check.Defaults{}, "https://" + secure.Addr() + "/", proxied, 503, "was not accepted: x509: "},
		"proxy by URL":                {trusting, "http://" + plain.Addr() + "/", map[string]any{"proxy_url": by("", open)}, 200, "answered 200"},
		"proxy with login":            {trusting, "http://" + plain.Addr() + "/", map[string]any{"proxy_url": by("operator:s3cret@", closed)}, 200, "answered 200"},
		"proxy with login, TLS":       {trusting, "https://" + secure.Addr() + "/", map[string]any{"proxy_url": by("operator:s3cret@", closed)}, 200, "answered 200"},
		"proxy, wrong password":       {trusting, "http://" + plain.Addr() + "/", map[string]any{"proxy_url": by("operator:wr0ng@", closed)}, 503, "Unexpected response code: 40"},
		"proxy, wrong password, TLS":  {trusting, "https://" + secure.Addr() + "/", map[string]any{"proxy_url": by("operator:wr0ng@", closed)}, 503, "The proxy " + closed.Addr() + " answers CONNECT with 40"},
		"proxy, no login":             {trusting, "http://" + plain.Addr() + "/", map[string]any{"proxy_url": by("", closed)}, 503, "Unexpected response code: 407"},
		"proxy gone":                  {trusting, "http://" + plain.Addr() + "/", map[string]any{"proxy_url": fmt.Sprint("http://u:s3cret@127.0.0.1:", checktest.ClosedPort(t))}, 503, "Connection refused by 127.0.0.1:"},
		"service gone":                {trusting, fmt.Sprintf("http://u:s3cret@127.0.0.1:%d/", checktest.ClosedPort(t)), nil, 503, "Connection refused by 127.0.0.1:"},
		"service gone behind a proxy": {trusting, fmt.Sprintf("http://127.0.0.1:%d/", checktest.ClosedPort(t)), proxied, 503, "Unexpected response code: 50"},
	} {
		t.Run(name, func(t *testing.T) {
			configured := httpCheck(t, c.defaults, c.url, c.options)
			for i, run := range []check.Func{configured.Check, lastAlone(configured)} {
				r := run(t.Context(), check.Target{})
				if r.Code != c.code || !strings.Contains(string(r.Body), c.want) {
					t.Errorf("%d: %d %s (%v)", i, r.Code, r.Body, r.Err)
				}
				for _, shown := range append(stepNames(configured), configured.Name, string(r.Body), fmt.Sprint(r.Err)) {
					for _, secret := range []string{"s3cret", "wr0ng", base64.StdEncoding.EncodeToString([]byte("operator:s3cret"))} {
						if strings.Contains(shown, secret) {
							t.Errorf("shows a password: %s", shown)
						}
					}
				}
			}
		})
	}
}

// The body of a redirect is not read to its end.
func TestHTTPConfiguredRedirectBody(t *testing.T) {
	first := make(chan struct{}, 1)
	s := checktest.Serve(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		select {
		case first <- struct{}{}:
			_, _ = io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 1000000\r\n\r\nmoved")
		default:
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	configured := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/", map[string]any{"allow_redirects": true})
	if r := configured.Check(t.Context(), check.Target{}); r.Code != 200 || r.Took > 10*time.Second {
		t.Errorf("%d %s after %v", r.Code, r.Body, r.Took)
	}
}

// After a redirect the failure names the server that it led to.
func TestHTTPConfiguredRedirectElsewhere(t *testing.T) {
	gone := checktest.ClosedPort(t)
	s := answering(t, fmt.Sprintf("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n", gone))
	r := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/", map[string]any{"allow_redirects": true}).Check(t.Context(), check.Target{})
	if want := fmt.Sprintf("Connection refused by 127.0.0.1:%d", gone); r.Reason != check.ReasonRefused || string(r.Body) != want {
		t.Errorf("%s %s, want %s", r.Reason, r.Body, want)
	}
}

// TestHTTPExpected: several codes, and a pattern for the body, over TCP and a Unix socket.
func TestHTTPExpected(t *testing.T) {
	serve := func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 15\r\n\r\nstate: ready 7\n")
		}
	}
	s := checktest.Serve(t, serve)
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	for name, c := range map[string]struct {
		options map[string]any
		code    int
		want    string
	}{
		"one of them":  {map[string]any{"expected_codes": []any{200, "202"}}, 200, "GET answered 202"},
		"none of them": {map[string]any{"expected_codes": []any{200, 204}}, 503, "Unexpected response code: 202 Accepted"},
		"body":         {map[string]any{"expected_code": 202, "expect_body": `ready \d$`}, 503, "the body does not match expect_body"},
		"body matches": {map[string]any{"expected_code": 202, "expect_body": `(?m)ready \d$`}, 200, "GET answered 202"},
	} {
		for _, socket := range []string{"", path} {
			url := "http://" + s.Addr() + "/"
			if socket != "" {
				url, c.options["socket"] = "http://app.example/", socket
			}
			configured := httpCheck(t, check.Defaults{}, url, c.options)
			if r := configured.Check(t.Context(), check.Target{}); r.Code != c.code || !strings.Contains(string(r.Body), c.want) {
				t.Errorf("%s, socket %q: %d %s", name, socket, r.Code, r.Body)
			}
			if socket != "" && (len(configured.Steps) != 1 || configured.Endpoint != (check.Endpoint{})) {
				t.Errorf("%v, %+v", stepNames(configured), configured.Endpoint)
			}
		}
	}
	wantOptionErrors(t, "http", map[string][]any{
		"expected_codes: excludes expected_code":        {"url", "http://h/", "expected_codes", []any{200}, "expected_code", 200},
		"expected_codes: expected at least one code":    {"url", "http://h/", "expected_codes", []any{}},
		"expected_codes: expected a list of whole":      {"url", "http://h/", "expected_codes", []any{99}},
		"socket: expected the absolute path":            {"url", "http://h/", "socket", "/" + strings.Repeat("x", 107)},
		"expect_body: expected a regular expression (R": {"url", "http://h/", "expect_body", "("},
	})
}
