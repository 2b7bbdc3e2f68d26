package daemon

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// canary is every password, header, cookie and body of TestPasswordsAreNeverShown.
const canary = "c4naryS3cretOfOurs"

// checksWithPassword are checks of every type that has a password, with the password in every place that can hold one.
// HOST and PORT are replaced by those of a service.
const checksWithPassword = `
- {type: amqp, host: HOST, port: PORT, username: u, password: CANARY, use_tls: false}
- {type: amqp, host: HOST, port: PORT, username: u, password: CANARY}
- {type: postgres, host: HOST, port: PORT, username: u, password: CANARY, database: d}
- {type: mysql, host: HOST, port: PORT, username: u, password: CANARY}
- {type: redis, host: HOST, port: PORT, password: CANARY}
- {type: redis, host: HOST, port: PORT, username: u, password: CANARY, use_tls: true}
- {type: sentinel, host: HOST, port: PORT, password: CANARY}
- {type: mongodb, host: HOST, port: PORT, username: u, password: CANARY}
- {type: smtp, host: HOST, port: PORT, username: u, password: CANARY, use_tls: false, from_address: a@b, to_address: c@d, helo_fallback: true}
- {type: smtp, host: HOST, port: PORT, username: u, password: CANARY}
- {type: http, url: "http://u:CANARY@HOST:PORT/url"}
- {type: http, url: "https://u:CANARY@HOST:PORT/tls"}
- {type: http, url: "http://HOST:PORT/auth", auth: [u, CANARY]}
- {type: http, url: "http://HOST:PORT/digest", digest_auth: [u, CANARY]}
- {type: http, url: "http://HOST:PORT/headers", headers: {Authorization: Bearer CANARY, X-Token: [CANARY, CANARY]}}
- {type: http, url: "http://HOST:PORT/cookies", cookies: {session: CANARY}}
- {type: http, url: "http://HOST:PORT/body", method: POST, body: '{"password": "CANARY"}'}
- {type: http, url: "http://HOST:PORT/params", params: {key: CANARY}, allow_redirects: true}
- {type: http, url: "http://u:CANARY@web.example.com/proxied", proxy_url: "http://u:CANARY@HOST:PORT"}
- {type: http, url: "https://web.example.com/tunnelled", proxy_url: "http://u:CANARY@HOST:PORT"}
- {type: script, command: [/bin/false, CANARY]}
- {type: script, command: "/no/such/program --password=CANARY"}
`

// serveFunc calls f for every connection.
func serveFunc(t *testing.T, f func(net.Conn)) (addr string) {
	t.Helper()
	ln := tcpListener(t)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// failingServices starts services that fail in different ways. Some send back what they received.
func failingServices(t *testing.T) map[string]string {
	t.Helper()
	refused := freeAddr(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dump, _ := httputil.DumpRequest(r, true)
		w.Header().Set("WWW-Authenticate", `Digest realm="r", nonce="n", qop="auth"`)
		if r.URL.Path == "/params" {
			w.Header().Set("Location", "http://"+r.Host+"/params?again="+r.URL.Query().Get("key"))
			w.WriteHeader(http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write(dump)
	}))
	t.Cleanup(page.Close)
	return map[string]string{
		"refused":   refused,
		"closes":    serveFunc(t, func(net.Conn) {}),
		"silent":    serveFunc(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
		"echoes":    serveFunc(t, func(c net.Conn) { _, _ = io.Copy(c, c) }),
		"greets":    serveFunc(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 "+canaryGreeting+"\r\n"); _, _ = io.Copy(c, c) }),
		"redis":     serveFunc(t, func(c net.Conn) { b := make([]byte, 4096); n, _ := c.Read(b); fmt.Fprintf(c, "-ERR %q\r\n", b[:n]) }),
		"http page": page.Listener.Addr().String(),
	}
}

// canaryGreeting is a greeting without the canary.
const canaryGreeting = "mail.example.com ESMTP"

// findCanary returns the encodings of the canary that a text contains.
func findCanary(text string) (found []string) {
	forms := []string{canary, strings.ToUpper(canary), url.QueryEscape(canary), fmt.Sprintf("%x", canary), fmt.Sprintf("%d", []byte(canary))}
	for i := range 3 { // base64, wherever in the text the password begins
		b := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("-", i) + canary))
		forms = append(forms, b[4:len(b)-4])
	}
	for _, f := range forms {
		if strings.Contains(text, f) {
			found = append(found, f)
		}
	}
	return found
}

// TestPasswordsAreNeverShown: failing checks of every type with a password, at every endpoint, show the password in no
// output, log line or answer.
func TestPasswordsAreNeverShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var checks strings.Builder
	for _, addr := range failingServices(t) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		checks.WriteString(strings.NewReplacer("HOST", host, "PORT", port, "CANARY", canary).Replace(checksWithPassword[1:]))
	}
	search := func(what, text string) {
		t.Helper()
		for _, form := range findCanary(text) {
			at := strings.Index(text, form)
			t.Errorf("%s shows the password: ...%s...", what, text[max(0, at-300):min(len(text), at+100)])
		}
	}

	file := filepath.Join(dir, "checks.yaml")
	writeFile(t, file, checks.String())
	for _, args := range []string{
		"run", "run -v -d -t", "run -U -v -d -t", "run --output json", "run --output junit", "run --output nagios",
		"run --dry-run", "run --dry-run --output json", "run --validate", "run -f 1 --max-timeout 0.5 -t", "firewall export",
	} {
		cmd := exec.Command(binary, append(strings.Fields(args), "--connect-timeout", "1", file)...)
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 0 && code != 2 {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		if bytes.Count(out, []byte("\n")) < 5 && !strings.Contains(args, "validate") {
			t.Errorf("%s says little: %s", args, out)
		}
		search(args, string(out))
	}
	// An error in the option next to the password.
	wrong := filepath.Join(dir, "wrong.yaml")
	writeFile(t, wrong, strings.ReplaceAll(checks.String(), "type: ", "colour: blue, timeout: -1, type: "))
	out, err := exec.Command(binary, "run", wrong).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("wrong.yaml:1: colour: ")) {
		t.Errorf("a wrong file: %v\n%s", err, out)
	}
	search("run of a wrong file", string(out))

	// The daemon with all checks in one service, and with the other passwords of the configuration.
	conf := filepath.Join(dir, "hacheck.yaml")
	writeFile(t, conf, "mysql_username: u\nmysql_password: "+canary+"\nremote_spool_token: "+canary+"\nallow_remote_spool_changes: true\nservices:\n  web:\n    checks:\n"+
		"      "+strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(checks.String(), "\n", "\n      "), "{type: ", "{timeout: 1, type: "))+"\n")
	p := startDaemon(t, "-v", "-c", conf)
	for _, accept := range []string{"", "application/json"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+p.addrs[0]+"/checks/web/0/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cache-Control", "no-cache")
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 503 || len(b) < 1000 {
			t.Errorf("/checks: %d %v %s", resp.StatusCode, err, b)
		}
		search("/checks as "+accept, string(b))
	}
	for _, path := range []string{"/", "/status", "/recent", "/status/count", "/metrics", "/balancers", "/postgres/web/5432/", "/amqp/web/5672/", "/mysql/web/3306/", "/mongodb/web/27017/"} {
		if _, body, err := p.get(path); err != nil {
			t.Error(err)
		} else {
			search(path, body)
		}
	}
	for _, name := range []string{"cmdline", "environ", "comm"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
		if err != nil && !errors.Is(err, fs.ErrPermission) { // only root can read the environment
			t.Error(err)
		}
		search("the daemon's "+name, string(text))
	}
	search("the daemon's log", p.log())
}
