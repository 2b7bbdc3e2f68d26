package check_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// smtpServer returns a server that greets, reads a line and answers it.
func smtpServer(greeting, answer string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := io.WriteString(conn, greeting); err != nil {
			return
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "QUIT\r\n" {
			return
		}
		_, _ = io.WriteString(conn, answer)
	}
}

func TestSMTP(t *testing.T) {
	for name, c := range map[string]struct {
		greeting, answer string
		code             int
		reason           check.Reason
		body             string // ADDR is replaced by the server's address
	}{
		"healthy":            {"220 mail\r\n", "221 bye\r\n", 200, 0, "Connected in "},
		"codes alone":        {"220\r\n", "221\r\n", 200, 0, "Connected in "},
		"bare line feeds":    {"220 mail\n", "221 bye\n", 200, 0, "Connected in "},
		"many lines":         {strings.Repeat("220-hello\r\n", 5000) + "220 mail\r\n", "221-a\r\n221 b\r\n", 200, 0, "Connected in "},
		"other 2xx greeting": {"250 mail\r\n", "221 bye\r\n", 200, 0, "Connected in "},
		"refuses":            {"554 go\x1b[2J away\r\n", "", 503, check.ReasonFailed, `ADDR greets with "554 go [2J away"`},
		"not yet":            {"421-wait\r\n421 later\r\n", "", 503, check.ReasonFailed, `ADDR greets with "421 later"`},
		"no goodbye":         {"220 mail\r\n", "500 what\r\n", 503, check.ReasonFailed, `ADDR answers QUIT with "500 what"`},
		"another code":       {"220-mail\r\n250 mail\r\n", "", 503, check.ReasonProtocol, `The answer of ADDR is not SMTP: "250 mail"`},
		"two digits":         {"22 mail\r\n", "", 503, check.ReasonProtocol, `The answer of ADDR is not SMTP: "22 mail"`},
		"code of HTTP":       {"120 mail\r\n", "", 503, check.ReasonProtocol, `The answer of ADDR is not SMTP: "120 mail"`},
		"no blank":           {"220mail\r\n", "", 503, check.ReasonProtocol, `The answer of ADDR is not SMTP: "220mail"`},
		"long line":          {"220 " + strings.Repeat("x", 2<<10) + "\r\n", "", 503, check.ReasonProtocol, "The answer of ADDR is not SMTP: a line of more than 2048 bytes"},
		"endless reply":      {strings.Repeat("220-hello\r\n", 100_000), "", 503, check.ReasonProtocol, "The answer of ADDR has more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, smtpServer(c.greeting, c.answer))
			r := ask(t, check.Options{}, check.Target{Protocol: "smtp", Host: s.Host, Port: s.Port})
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), strings.ReplaceAll(c.body, "ADDR", s.Addr())) {
				t.Errorf("%d %s %q, want %d %s %q", r.Code, r.Reason, r.Body, c.code, c.reason, c.body)
			}
		})
	}
}

// TestSMTPSendsQuitAfterError: the check sends QUIT also after an error, so that the server logs no lost connection.
func TestSMTPSendsQuitAfterError(t *testing.T) {
	said := make(chan string, 1)
	s := checktest.Serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "554 no\r\n")
		b, _ := io.ReadAll(conn)
		said <- string(b)
	})
	ask(t, check.Options{}, check.Target{Protocol: "smtp", Host: s.Host, Port: s.Port})
	if got := <-said; got != "QUIT\r\n" {
		t.Errorf("said %q", got)
	}
}

// TestExim: exim4 requires that clients wait for its greeting, which has several lines here.
func TestExim(t *testing.T) {
	s := servertest.Exim(t, "mail.example ESMTP\nno mail for strangers\nat all")
	r := ask(t, check.Options{}, check.Target{Protocol: "smtp", Host: servertest.Host, Port: s.Port})
	if r.Code != 200 {
		t.Errorf("%d %s %s\n%s", r.Code, r.Body, r.Err, s.Log())
	}
	s.Stop()
	r = ask(t, check.Options{}, check.Target{Protocol: "smtp", Host: servertest.Host, Port: s.Port})
	if r.Reason != check.ReasonRefused {
		t.Errorf("stopped: %d %s %s", r.Code, r.Reason, r.Body)
	}
}

func FuzzSMTPAnswer(f *testing.F) {
	f.Add([]byte("220-mail\r\n220 mail\r\n221 bye\r\n"))
	f.Add([]byte("554 no\r\n"))
	fuzzAnswers(f, "smtp")
}
