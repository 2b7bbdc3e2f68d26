package check_test

import (
	"bufio"
	"crypto/md5"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// digestParameter matches a parameter of an Authorization header.
var digestParameter = regexp.MustCompile(`(\w+)="?([^",]*)`)

// hasDigest reports whether a request has the login of operator, s3cret, for its own path and a nonce.
func hasDigest(req *http.Request, nonce string) bool {
	p := map[string]string{}
	for _, m := range digestParameter.FindAllStringSubmatch(req.Header.Get("Authorization"), -1) {
		p[m[1]] = m[2]
	}
	hash := func(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }
	uri := req.URL.RequestURI()
	key, request := hash("operator:pages:s3cret"), hash(req.Method+":"+uri)
	want := hash(key + ":" + nonce + ":" + request)
	if p["qop"] != "" {
		want = hash(strings.Join([]string{key, nonce, p["nc"], p["cnonce"], p["qop"], request}, ":"))
	}
	return p["nonce"] == nonce && p["uri"] == uri && p["response"] == want
}

// challenge returns an answer that asks for a login. more are further parameters.
func challenge(nonce, more string) string {
	return "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"pages\", nonce=\"" + nonce + "\"" + more + "\r\nContent-Length: 3\r\n\r\nno\n"
}

// TestDigestLogins: what servers and proxies do between the requests of a login.
func TestDigestLogins(t *testing.T) {
	const in, auth, stale = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ", qop=\"auth\"", ", qop=\"auth\", stale=TRUE"
	once := func(req *http.Request, _ int) string { // one login, with one nonce
		if hasDigest(req, "n") {
			return in
		}
		return challenge("n", auth)
	}
	for name, c := range map[string]struct {
		answer      func(req *http.Request, n int) string // n counts the requests from 0
		closes      bool                                  // after each answer, without a word
		code        int
		requests    int
		connections int
	}{
		"kept open":    {once, false, 200, 2, 1},
		"closed idle":  {once, true, 200, 2, 2},
		"qop is empty": {func(req *http.Request, n int) string { return strings.Replace(once(req, n), auth, `, qop=""`, 1) }, false, 200, 2, 1},
		"close is said": {func(req *http.Request, n int) string {
			return strings.Replace(once(req, n), "Content", "Connection: close\r\nContent", 1)
		}, true, 200, 2, 2},
		"stale": {func(req *http.Request, n int) string {
			switch {
			case hasDigest(req, "n1"):
				return in
			case hasDigest(req, "n0"):
				return challenge("n1", stale)
			}
			return challenge("n0", auth)
		}, false, 200, 3, 1},
		"always stale": {func(_ *http.Request, n int) string { return challenge(fmt.Sprint("n", n), stale) }, false, 503, 4, 1},
		"refused":      {func(_ *http.Request, n int) string { return challenge(fmt.Sprint("n", n), auth) }, false, 503, 2, 1},
		"a next nonce": {func(req *http.Request, n int) string {
			return strings.Replace(once(req, n), "200 OK\r\n", "200 OK\r\nAuthentication-Info: nextnonce=\"m\"\r\n", 1)
		}, false, 200, 2, 1},
		// The digest is for one URL: the page that the login leads to asks for another one.
		"redirects": {func(req *http.Request, _ int) string {
			switch {
			case !hasDigest(req, "n") && req.Header.Get("Authorization") != "":
				return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" // as Apache answers the digest of another path
			case !hasDigest(req, "n"):
				return challenge("n", auth)
			case req.URL.Path == "/":
				return "HTTP/1.1 302 Found\r\nLocation: /in?x=1\r\nContent-Length: 0\r\n\r\n"
			}
			return in
		}, false, 200, 4, 2},
	} {
		for _, layer := range []string{"plain", "TLS", "proxy", "tunnel"} {
			t.Run(name+", "+layer, func(t *testing.T) {
				var requests atomic.Int32
				certificate := issue(t, loopback(), nil)
				s := checktest.Serve(t, func(conn net.Conn) {
					if layer == "tunnel" { // of a proxy, which is the service itself here
						if req, err := http.ReadRequest(bufio.NewReader(conn)); err != nil || req.Method != http.MethodConnect {
							return
						}
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
					}
					if layer == "TLS" || layer == "tunnel" {
						conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
					}
					r := bufio.NewReader(conn)
					for {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						_, _ = io.WriteString(conn, c.answer(req, int(requests.Add(1))-1))
						if c.closes {
							_ = conn.Close()
							return
						}
					}
				})
				url := map[string]string{
					"plain": "http://" + s.Addr() + "/", "TLS": "https://" + s.Addr() + "/", "proxy": "http://app.example/", "tunnel": "https://app.example/",
				}[layer]
				options := map[string]any{"digest_auth": []any{"operator", "s3cret"}, "disable_tls_verification": true, "allow_redirects": true}
				if layer == "proxy" || layer == "tunnel" {
					options["proxy_url"] = "http://" + s.Addr()
				}
				r := httpCheck(t, check.Defaults{}, url, options).Check(t.Context(), check.Target{})
				connections := s.Settled(t)
				if got := int(requests.Load()); r.Code != c.code || got != c.requests || connections != c.connections {
					t.Errorf("%d %s, %d requests over %d connections; want %d, %d over %d", r.Code, r.Body, got, connections, c.code, c.requests, c.connections)
				}
			})
		}
	}
}
