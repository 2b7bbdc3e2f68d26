package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rawCase is one line of a table in testdata.
type rawCase struct {
	line  int
	give  []string
	code  int
	wants []string
}

// readTable reads a table of testdata. A line has Go strings, "=>", a code and further Go strings.
func readTable(t *testing.T, file string, expand func(string) string) []rawCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var cases []rawCase
	line := 0
	for s := range strings.Lines(string(text)) {
		line++
		s = strings.TrimSpace(s)
		if s == "" || s[0] == '#' {
			continue
		}
		c := rawCase{line: line}
		given := true
		for s != "" {
			if q, err := strconv.QuotedPrefix(s); err == nil {
				u, err := strconv.Unquote(q)
				if err != nil {
					t.Fatalf("%s:%d: %v", file, line, err)
				}
				if u = expand(u); given {
					c.give = append(c.give, u)
				} else {
					c.wants = append(c.wants, u)
				}
				s = strings.TrimLeft(s[len(q):], " ")
				continue
			}
			var word string
			word, s, _ = strings.Cut(s, " ")
			if word == "=>" && given {
				given = false
				continue
			}
			if c.code, err = strconv.Atoi(word); err != nil || given {
				t.Fatalf("%s:%d: %q is neither quoted nor a code after =>", file, line, word)
			}
		}
		if c.code == 0 {
			t.Fatalf("%s:%d: no code", file, line)
		}
		cases = append(cases, c)
	}
	return cases
}

// rawAnswer is an HTTP answer, read without net/http.
type rawAnswer struct {
	code int
	head []string
	body string
}

// exchangeRaw sends bytes on a new connection and reads one answer. Further bytes are an error.
func exchangeRaw(addr, method, request string) (rawAnswer, error) {
	var a rawAnswer
	conn, err := dial(addr)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	// A server may answer and close before it has read the whole request. The answer counts.
	_, writeErr := io.WriteString(conn, request)
	var head strings.Builder
	r := bufio.NewReader(conn)
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return a, fmt.Errorf("read the head, after %q: %w", head.String(), errors.Join(err, writeErr))
		}
		head.WriteString(l)
		if strings.TrimSpace(l) == "" {
			break
		}
		a.head = append(a.head, strings.TrimRight(l, "\r\n"))
	}
	r = bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), r))
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, fmt.Errorf("read the body: %w", err)
	}
	a.code, a.body = resp.StatusCode, string(body)
	// On a keep-alive connection, a client would read an unexpected body as the next answer.
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		return a, fmt.Errorf("bytes after the answer: %q", rest)
	}
	return a, nil
}

// check compares an answer with what its case wants.
func (c rawCase) check(a rawAnswer) error {
	if a.code != c.code {
		return fmt.Errorf("got %d %q, want %d", a.code, a.body, c.code)
	}
	for i, want := range c.wants {
		if i == 0 {
			if !regexp.MustCompile(want).MatchString(a.body) {
				return fmt.Errorf("got body %q, want %q", a.body, want)
			}
			continue
		}
		expr, not := strings.CutPrefix(want, "!")
		re := regexp.MustCompile(expr)
		found := false
		for _, l := range a.head[1:] {
			found = found || re.MatchString(l)
		}
		if found == not {
			return fmt.Errorf("got headers %q, want %q", a.head[1:], want)
		}
	}
	return nil
}

// echoService is the service of testdata/requests.txt.
func echoService(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Toy", name)
		w.Header().Set("Set-Cookie", "a=b")
		switch {
		case r.URL.Path == "/host":
			_, _ = io.WriteString(w, r.Host)
			return
		case r.URL.Path == "/agent":
			_, _ = io.WriteString(w, r.UserAgent())
			return
		case strings.HasPrefix(r.URL.Path, "/code/"):
			code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/code/"))
			if err != nil {
				code = http.StatusBadRequest
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		}
		_, _ = io.WriteString(w, name+" "+r.Method+" "+r.RequestURI)
	}
}

// TestRequests replays testdata/requests.txt: the answers of the original, with the differences that the contract
// allows.
func TestRequests(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	one := startService(t, "127.0.0.1", 0, echoService("one"))
	two := startService(t, "127.0.0.2", 0, echoService("two"))
	repeat := regexp.MustCompile(`\{(.)\*([0-9]+)\}`)
	places := strings.NewReplacer("{web}", strconv.Itoa(one.port), "{two}", strconv.Itoa(two.port), "{closed}", strconv.Itoa(freePort(t)))
	cases := readTable(t, "requests.txt", func(s string) string {
		return repeat.ReplaceAllStringFunc(places.Replace(s), func(m string) string {
			g := repeat.FindStringSubmatch(m)
			n, _ := strconv.Atoi(g[2])
			return strings.Repeat(g[1], n)
		})
	})
	override := `{"reason": "by hand", "expiration": null, "creation": 1500000000.5}`
	if err := os.WriteFile(filepath.Join(d.spool, "downed"), []byte(override), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		method, _, _ := strings.Cut(c.give[0], " ")
		a, err := exchangeRaw(d.addr, method, strings.Join(c.give, "\r\n")+"\r\n\r\n")
		if err == nil {
			err = c.check(a)
		}
		if err != nil {
			t.Errorf("requests.txt:%d: %.300q: %v", c.line, c.give, err)
		}
		// HAProxy treats every 2xx and 3xx as healthy, so hacheck may send none of its own. A case lists those of the
		// service.
		if a.code/100 == 3 && c.code/100 != 3 {
			t.Errorf("requests.txt:%d: answered %d, which balancers take for healthy", c.line, a.code)
		}
	}
}

// paasta is how PaaSTA reads the answer of a service that is down; a body that does not match crashes it.
var paasta = regexp.MustCompile(`^Service (?P<service>.+) in (?P<state>.+) state(?: since (?P<since>[0-9.]+))?(?: until (?P<until>[0-9.]+))?(?:: (?P<reason>.*))?$`)

// TestOverrideFiles writes the files of testdata/overrides.txt into the spool directory. The next request shows each
// override, and the readers of the original can parse the answer to any file.
func TestOverrideFiles(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	for _, c := range readTable(t, "overrides.txt", func(s string) string { return s }) {
		var names []string
		for _, f := range c.give {
			name, content, _ := strings.Cut(f, "=")
			names = append(names, filepath.Join(d.spool, name))
			if err := os.WriteFile(names[len(names)-1], []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		a, err := exchangeRaw(d.addr, "GET", "GET /spool/web/80/ HTTP/1.0\r\n\r\n")
		if err == nil {
			err = c.check(a)
		}
		if err == nil && a.code != 200 && !paasta.MatchString(a.body) {
			err = fmt.Errorf("PaaSTA cannot read %q", a.body)
		}
		if err != nil {
			t.Errorf("overrides.txt:%d: %q: %v", c.line, c.give, err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil && !os.IsNotExist(err) { // the daemon removes expired ones itself
				t.Fatal(err)
			}
		}
	}
}
