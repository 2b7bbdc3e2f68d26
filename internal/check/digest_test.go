package check_test

import (
	"bufio"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// TestDigestExamples has the examples of RFC 7616, 3.9.1 and of RFC 2069, 2.4 (as corrected by its erratum).
func TestDigestExamples(t *testing.T) {
	const mufasa = `realm="http-auth@example.org", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", qop="auth, auth-int", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", algorithm=`
	for name, c := range map[string]struct {
		challenge, user, password, uri, nonce string
		want                                  []string
	}{
		"MD5": {
			"Digest " + mufasa + "MD5", "Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
			[]string{`response="8ca523f5e9506fed4657c9700eebdbec"`, `username="Mufasa"`, "qop=auth,", "nc=00000001", "algorithm=MD5", `opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`},
		},
		"SHA-256": {
			"Digest " + mufasa + "SHA-256", "Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
			[]string{`response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"`, "algorithm=SHA-256"},
		},
		"the best of two": {
			"Digest " + mufasa + "MD5, Digest " + mufasa + "SHA-256", "Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
			[]string{`response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"`},
		},
		"without qop": {
			`Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`,
			"Mufasa", "CircleOfLife", "/dir/index.html", "",
			[]string{`response="1949323746fe6a43ef61f9606e7febea"`},
		},
	} {
		got, err := check.DigestAnswer(c.challenge, "GET", c.uri, c.user, c.password, c.nonce)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s lacks %s", name, got, want)
			}
		}
		if c.nonce == "" && strings.Contains(got, "nonce=\"\"") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, challenge := range []string{"", "Basic realm=x", `Digest realm=x, nonce=y, algorithm=SHA-512`, `Digest realm=x, nonce=y, qop="auth-new"`} {
		if got, err := check.DigestAnswer(challenge, "GET", "/", "a", "b", "c"); err == nil {
			t.Errorf("%s: %s", challenge, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	for text, want := range map[string][]string{
		``:                                    nil,
		`,`:                                   nil,
		`realm="x"`:                           {"realm map[]"},
		`Basic realm="simple"`:                {"basic map[realm:simple]"},
		`Negotiate, Digest realm=a , nonce=b`: {"negotiate map[]", "digest map[nonce:b realm:a]"},
		`NTLM TlRM==, Basic realm="x"`:        {"ntlm map[]", "basic map[realm:x]"},
		`Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple"`: {`newauth map[realm:apps title:Login to "apps" type:1]`, "basic map[realm:simple]"},
		`Digest REALM="a", realm="b"`:     {"digest map[realm:a]"},
		`Digest realm="a, Basic realm=b`:  {"digest map[]"},
		`Digest realm = "a" ,, nonce="b"`: {"digest map[nonce:b realm:a]"},
	} {
		if diff := cmp.Diff(want, check.Challenges(text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple"`)
	f.Add(`NTLM TlRM==, Digest realm = "a" ,, nonce="b"`)
	f.Fuzz(func(t *testing.T, text string) {
		if got := check.Challenges(text); len(got) > len(text) {
			t.Errorf("%d challenges in %q", len(got), text)
		}
		answer, err := check.DigestAnswer(text, "GET", "/", "a", "b", "c")
		if err == nil && strings.Count(strings.ReplaceAll(strings.ReplaceAll(answer, `\\`, ""), `\"`, ""), `"`)%2 != 0 {
			t.Errorf("%q is answered with %q", text, answer)
		}
	})
}

// TestHTTPConfiguredDigest logs in to a server that computes the expected response itself.
func TestHTTPConfiguredDigest(t *testing.T) {
	for _, c := range []struct{ algorithm, qop string }{
		{"MD5", "auth"},
		{"SHA-256", "auth"},
		{"MD5-sess", "auth"},
		{"SHA-256-sess", "auth-int, auth"},
		{"SHA-512-256", "auth"},
		{"MD5", "auth-int"},
	} {
		algorithm := c.algorithm
		hash := func(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }
		switch strings.TrimSuffix(algorithm, "-sess") {
		case "SHA-256":
			hash = func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
		case "SHA-512-256":
			hash = func(text string) string { return fmt.Sprintf("%x", sha512.Sum512_256([]byte(text))) }
		}
		s := checktest.Serve(t, func(conn net.Conn) {
			reader := bufio.NewReader(conn)
			for {
				req, err := http.ReadRequest(reader)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				given := check.Challenges(req.Header.Get("Authorization"))
				ok := false
				if len(given) == 1 && string(body) == "x" {
					_, cnonce, _ := strings.Cut(given[0], "cnonce:")
					cnonce, _, _ = strings.Cut(cnonce, " ")
					key, request, qop := hash("operator:my realm:s3cret"), "POST:/in?x=1", "auth"
					if strings.HasSuffix(algorithm, "-sess") {
						key = hash(key + ":n0nce:" + cnonce)
					}
					if c.qop == "auth-int" {
						qop, request = c.qop, request+":"+hash("x")
					}
					response := hash(key + ":n0nce:00000001:" + cnonce + ":" + qop + ":" + hash(request))
					ok = cnonce != "" && strings.Contains(given[0], "response:"+response+" ") && strings.Contains(given[0], "username:operator")
				}
				if !ok {
					_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Digest realm=\"my realm\", nonce=\"n0nce\", qop=\""+c.qop+"\", algorithm="+algorithm+"\r\nContent-Length: 3\r\n\r\nno\n")
					continue
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		for password, code := range map[string]int{"s3cret": 200, "wr0ng": 503} {
			options := map[string]any{"digest_auth": []any{"operator", password}, "method": "POST", "body": "x"}
			r := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/in?x=1", options).Check(t.Context(), check.Target{})
			if r.Code != code || code != 200 && !strings.HasPrefix(string(r.Body), "Unexpected response code: 401") {
				t.Errorf("%s, %s with %s: %d %s", algorithm, c.qop, password, r.Code, r.Body)
			}
		}
	}
}
