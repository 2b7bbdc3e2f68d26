package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// controlLine is nasty without what no command line, file name or header can hold, or a check would refuse.
var controlLine = strings.NewReplacer("\n", " ", "\r", " ", "/", "_").Replace(controlText)

// TestTextOnTheTerminal: commands print text of files, services and their own command line without characters that a
// terminal obeys. Their JSON has the complete text.
func TestTextOnTheTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	evil := startControlTextService(t)
	yaml := strconv.QuoteToASCII // YAML has the same escapes
	checks := write("checks.yaml", "- {type: redis, host: 127.0.0.1, port: "+evil+"}\n"+
		"- {type: http, url: "+yaml("http://127.0.0.1:"+evil+"/\u202e\u009b")+", tags: ["+yaml(controlLine)+"]}\n"+
		"- {type: memcache, host: 127.0.0.1, port: "+evil+"}\n")
	wrong := write("wrong.yaml", yaml(controlLine)+": 1\ncache_time: "+yaml(controlLine)+"\nservices: {web: {checks: [{type: "+yaml(controlLine)+"}]}}\n")
	wrongChecks := write("wrong-checks.yaml", "- {type: "+yaml(controlLine)+", "+yaml(controlLine)+": 1}\n- {type: tcp, host: h, port: "+yaml(controlLine)+"}\n")
	nastyDir := filepath.Join(dir, controlLine)

	for _, c := range []struct {
		command  string
		lossless bool // its output is JSON and has the whole text
	}{
		{"hadown web -r NASTY", false},
		{"hadown other -r NASTY --json", true},
		{"hastatus web", false},
		{"hastatus --json web", true},
		{"hashowdowned", false},
		{"hashowdowned --json", true},
		{"hastatus", false},
		{"hastatus --json", true},
		{"hadown web -r NASTY --wait=1ms --json -p 127.0.0.1:1", false},
		{"haup web --json", false},
		{"hastatus NASTY", false},
		{"hastatus --NASTY", false},
		{"hastatus -a NASTY", false},
		{"hastatus -p NASTY", false},
		{"hastatus -p 127.0.0.1:1 --json", false},
		{"hastatus -H NASTY -P 1 web", false},
		{"hadown web --for NASTY", false},
		{"hadown web -e NASTY", false},
		{"hadown web --wait=NASTY", false},
		{"hastatus web --spool-root DIR", false},
		{"hadown web --spool-root DIR/no", false},
		{"hacheck --NASTY", false},
		{"hacheck -p NASTY", false},
		{"hacheck -B NASTY -p 1", false},
		{"hacheck NASTY --check-config", false},
		{"hacheck --check-config -c DIR", false},
		{"hacheck --check-config -c WRONG", false},
		{"hacheck -c WRONG", false},
		{"hacheck run CHECKS", false},
		{"hacheck run -v -d -t CHECKS", false},
		{"hacheck run --dry-run -v CHECKS", false},
		{"hacheck run --output json CHECKS", true},
		{"hacheck run --output nagios CHECKS", false},
		{"hacheck run --output junit CHECKS", false},
		{"hacheck run --output NASTY CHECKS", false},
		{"hacheck run --include-tags NASTY --output json CHECKS", false},
		{"hacheck run WRONGCHECKS", false},
		{"hacheck run --output nagios WRONGCHECKS", false},
		{"hacheck run DIR", false},
		{"hacheck firewall export CHECKS", false},
		{"hacheck firewall convert -t NASTY CHECKS", false},
		{"hacheck firewall convert -t ufw WRONGCHECKS", false},
		{"hacheck firewall NASTY", false},
		{"hacheck aggregate --port NASTY", false},
		{"hacheck aggregate --script NASTY --listener NASTY", false},
		{"hacheck aggregate --NASTY", false},
		{"hacheck beacon NASTY 2", false},
		{"hacheck beacon --service NASTY 1 2", false},
		{"hacheck beacon --spool-root /dev/null/NASTY 1 2", false},
	} {
		words := strings.Fields(c.command)
		for i := range words {
			words[i] = strings.NewReplacer("NASTY", controlLine, "DIR", nastyDir, "WRONGCHECKS", wrongChecks, "WRONG", wrong, "CHECKS", checks).Replace(words[i])
		}
		if words[0] != "hacheck" && !strings.Contains(c.command, "--spool-root") {
			words = append(words, "--spool-root", spool)
		}
		cmd := exec.Command(bin(t, words[0]), words[1:]...)
		cmd.SysProcAttr = killWithParent()
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // most of them fail, as they should
		if stdout.Len()+stderr.Len() == 0 && !strings.HasPrefix(c.command, "hadown web -r") && !strings.HasPrefix(c.command, "haup") {
			t.Errorf("%s says nothing", c.command)
		}
		expectPlainText(t, "stdout of "+c.command, stdout.String())
		expectPlainText(t, "stderr of "+c.command, stderr.String())
		if !utf8.ValidString(stdout.String() + stderr.String()) {
			t.Errorf("%s prints what is no UTF-8: %q%q", c.command, stdout.String(), stderr.String())
		}
		if c.lossless && !hasString(t, stdout.String(), controlLine) {
			t.Errorf("%s: its JSON has not the text as it was given: %s", c.command, stdout.String())
		}
	}
}

// startControlTextService starts a TCP service that sends control characters. It returns the port.
func startControlTextService(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "-"+controlLine+"\r\n"+controlText)
			c.Close()
		}
	}()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// hasString reports whether a JSON document, or one of several, has that string as a value.
func hasString(t *testing.T, text, want string) bool {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(text)); ; {
		token, err := dec.Token()
		if err == io.EOF {
			return false
		}
		if err != nil {
			t.Errorf("%v in %q", err, text)
			return false
		}
		if token == want {
			return true
		}
	}
}

// TestTextOfTheDaemon: the answers and the log of the daemon contain no character that a terminal obeys, with any
// text of clients, services and operators.
func TestTextOfTheDaemon(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			servicePort := startControlTextService(t)
			agent := freePort(t)
			script := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf '%s' '"+strings.ReplaceAll(controlText, "'", "")+"'; exit 1\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, fmt.Sprintf("log_format: %s\nallow_remote_spool_changes: true\nservices:\n  scripted:\n    checks: [{type: script, command: [%s]}]\n    agent_listen: 127.0.0.1:%d\n", format, script, agent))
			for name, content := range map[string]string{"web": controlText, controlLine: "x", "agent": `{"reason": "\u202e\u009b\u200f` + "\u061c" + `"}`, "scripted:80": `"` + controlLine[:20] + `"`} {
				if err := os.WriteFile(filepath.Join(d.spool, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			requests := []string{
				"GET /tcp/web2/80 HTTP/1.0\r\nX-Haproxy-Server-State: UP; port=" + controlLine + "; node=" + controlLine + "; name=be/" + controlLine + "\r\n",
				"GET /tcp/web2/80 HTTP/1.0\r\nX-Haproxy-Server-State: UP; address=" + controlLine + "\r\n",
				"GET /tcp/web2/80 HTTP/1.0\r\nX-Nerve-Check-IP: " + controlLine + "\r\n",
				"GET /tcp/web2/80 HTTP/1.0\r\nX-Nerve-Check-IP: \u202e\r\n",
				"GET /tcp/web2/80 HTTP/1.0\r\nX-Nerve-Check-IP: \u061c1.2.3.4\xff\r\n",
				"GET /tcp/\u202e/80 HTTP/1.0\r\n",
				"GET /\u009b/web/80 HTTP/1.0\r\n",
				"GET /http/web2/" + servicePort + "/\u202e HTTP/1.0\r\n",
				"GET /redis/web2/" + servicePort + "/ HTTP/1.0\r\n",
				"GET /checks/scripted/0/ HTTP/1.0\r\n",
				"GET /checks/scripted/0/ HTTP/1.0\r\nAccept: application/json\r\n",
				"GET /checks/scripted/80/ HTTP/1.0\r\nAccept: application/json\r\n",
				"GET /spool/web/0 HTTP/1.0\r\n",
				"POST /spool/posted/0/?status=\u202e HTTP/1.0\r\n",
				"POST /spool/posted/0/?status=down&\xff%ff=%ff HTTP/1.0\r\n",
				"POST /spool/posted/0/?status=down&%E2%80%AE%9b=%ff HTTP/1.0\r\n",
				"POST /spool/posted/0/?status=down&reason=%C2%9B%E2%80%AE%E2%80%8F HTTP/1.0\r\nUser-Agent: \u202e\u200f\r\n",
				"POST /spool/posted/0/?status=down&reason=a HTTP/1.0\r\nX-Nerve-Check-IP: \u200e\u061c\r\n",
				"GET /overview HTTP/1.0\r\n",
				"GET /overview HTTP/1.0\r\nAccept: application/json\r\n",
				"GET / HTTP/1.0\r\n",
				"GET / HTTP/1.0\r\nUser-Agent: curl/8\r\nHost: \u202e\r\n",
				"GET /recent HTTP/1.0\r\n",
				"GET /recent?threshold=%E2%80%AE HTTP/1.0\r\n",
				"GET /balancers HTTP/1.0\r\n",
				"GET /balancers?service=%E2%80%AE HTTP/1.0\r\n",
				"GET /status HTTP/1.0\r\n",
				"GET /status/count HTTP/1.0\r\n",
				"GET /metrics HTTP/1.0\r\n",
			}
			for _, r := range requests {
				answer := sendAndRead(t, d.addr, r+"\r\n")
				if !strings.HasPrefix(answer, "HTTP/1.") {
					t.Errorf("%q is answered %q", r, answer)
				}
				expectPlainText(t, "the answer of "+strconv.Quote(r), strings.ReplaceAll(answer, "\r\n", "\n"))
				if !utf8.ValidString(answer) {
					t.Errorf("the answer of %q is no UTF-8: %q", r, answer)
				}
			}
			for _, text := range []string{"web\n", "agent\n", "scripted:80\n", controlLine + "\n"} {
				expectPlainText(t, "the agent's answer", sendAndRead(t, fmt.Sprintf("127.0.0.1:%d", agent), text))
			}
			if a := sendRequest(t, client, http.MethodGet, d.url+"/overview", nil, "Accept: application/json"); !json.Valid([]byte(a.body)) {
				t.Errorf("/overview is no JSON: %s", a.body)
			}
			for _, want := range []string{"is ignored", "names no service", "not up", "remote spool change", "override set"} {
				eventually(t, func() error {
					if !strings.Contains(d.out.String(), want) {
						return fmt.Errorf("the log does not say %q", want)
					}
					return nil
				})
			}
			expectPlainText(t, "the log", d.out.String())
		})
	}
}

// sendAndRead sends a text and returns the whole answer.
func sendAndRead(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("%q: %v", text, err)
	}
	return string(answer)
}
