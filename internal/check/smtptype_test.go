package check_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// smtpScript returns a server that answers each line by its longest listed prefix; "" is the greeting. It answers 502 to
// any other line. said, if set, receives every line.
func smtpScript(answers map[string]string, said func(string)) func(net.Conn) {
	return func(conn net.Conn) {
		r := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, answers[""])
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			if said != nil {
				said(line)
			}
			answer, longest := "502 what\r\n", 0
			for beginning, a := range answers {
				if beginning != "" && strings.HasPrefix(line, beginning) && len(beginning) > longest {
					answer, longest = a, len(beginning)
				}
			}
			if _, err := io.WriteString(conn, answer); err != nil || line == "QUIT" {
				return
			}
			if strings.HasPrefix(answer, "354") {
				for line != ".\r\n" {
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
					if said != nil {
						said(line)
					}
				}
				_, _ = io.WriteString(conn, answers["."])
			}
		}
	}
}

// plainBlob is the message of AUTH PLAIN for operator with the password s3cret.
var plainBlob = base64.StdEncoding.EncodeToString([]byte("\x00operator\x00s3cret"))

// mailServer returns the answers of a server that accepts the mail of operator.
func mailServer() map[string]string {
	return map[string]string{
		"":                        "220-mail.example\r\n220 ESMTP\r\n",
		"EHLO ":                   "250-mail.example\r\n250-SIZE 1000\r\n250 AUTH PLAIN LOGIN\r\n",
		"AUTH":                    "535 no\r\n",
		"AUTH PLAIN " + plainBlob: "235 come in\r\n",
		"MAIL FROM:<a@b.example>": "250 ok\r\n",
		"RCPT TO:<c@d.example>":   "250 ok\r\n",
		"DATA":                    "354 go on\r\n",
		".":                       "250 taken\r\n",
		"QUIT":                    "221 bye\r\n",
	}
}

var mailOptions = map[string]any{
	"username": "operator", "password": "s3cret", "from_address": "a@b.example", "to_address": "c@d.example", "use_tls": false,
}

func TestSMTPMailAnswers(t *testing.T) {
	with := func(pairs ...string) map[string]string {
		answers := mailServer()
		for i := 0; i < len(pairs); i += 2 {
			answers[pairs[i]] = pairs[i+1]
		}
		return answers
	}
	cramAnswer := func() string {
		mac := hmac.New(md5.New, []byte("s3cret"))
		mac.Write([]byte("<1@mail>"))
		return base64.StdEncoding.EncodeToString([]byte("operator " + hex.EncodeToString(mac.Sum(nil))))
	}()
	offers := func(mechanisms string) []string { return []string{"EHLO ", "250-mail\r\n250 " + mechanisms + "\r\n"} }
	hidden := "(its words are not shown, the password may be among them)"
	for name, c := range map[string]struct {
		answers map[string]string
		code    int
		body    string // ADDR is replaced by the server's address
	}{
		"healthy":                 {with(), 200, "Logged in, sent a mail and quit in 0."},
		"LOGIN":                   {with(append(offers("auth login"), "AUTH LOGIN", "334 VXNlcm5hbWU6\r\n", "b3BlcmF0b3I=", "334 UGFzc3dvcmQ6\r\n", "czNjcmV0", "235 in\r\n")...), 200, "Logged in, sent"},
		"CRAM-MD5 before others":  {with(append(offers("AUTH PLAIN CRAM-MD5"), "AUTH CRAM-MD5", "334 "+base64.StdEncoding.EncodeToString([]byte("<1@mail>"))+"\r\n", cramAnswer, "235 in\r\n")...), 200, "Logged in, sent"},
		"old way to offer":        {with(offers("AUTH=PLAIN")...), 200, "Logged in, sent"},
		"CRAM-MD5, no challenge":  {with(append(offers("AUTH CRAM-MD5"), "AUTH CRAM-MD5", "334 ???\r\n")...), 503, "The challenge of ADDR is not in base64"},
		"no login":                {with(offers("SIZE 1000")...), 503, "ADDR does not offer a login by PLAIN, LOGIN or CRAM-MD5"},
		"unknown login":           {with(offers("AUTH GSSAPI XOAUTH2")...), 503, "ADDR does not offer a login by PLAIN, LOGIN or CRAM-MD5"},
		"wrong password":          {with("AUTH PLAIN "+plainBlob, "535 wrong s3cret "+plainBlob+"\r\n"), 503, `ADDR answers AUTH with "535"`},
		"repeats the login":       {with("AUTH PLAIN "+plainBlob, "AUTH PLAIN "+plainBlob+"\r\n"), 503, "The answer of ADDR is not SMTP"},
		"repeats it later":        {with("MAIL", "550 no, s3cret\r\n", "MAIL FROM:<a@b.example>", "550 no, "+plainBlob+"\r\n"), 503, `ADDR answers MAIL with "` + hidden + `"`},
		"greets with a refusal":   {with("", "554 go\x1b away\r\n"), 503, `ADDR greets with "554 go  away"`},
		"no EHLO":                 {with("EHLO ", "502 what\r\n"), 503, `ADDR answers EHLO with "502 what"`},
		"no sender":               {with("MAIL FROM:<a@b.example>", "550 no\r\n"), 503, `ADDR answers MAIL with "550 no"`},
		"no recipient":            {with("RCPT TO:<c@d.example>", "550-no\r\n550 such user\r\n"), 503, `ADDR answers RCPT with "550 such user"`},
		"no mail":                 {with("DATA", "451 later\r\n"), 503, `ADDR answers DATA with "451 later"`},
		"mail refused":            {with(".", "554 spam\r\n"), 503, `ADDR answers the mail with "554 spam"`},
		"no goodbye":              {with("QUIT", "500 stay\r\n"), 503, `ADDR answers QUIT with "500 stay"`},
		"STARTTLS refused":        {with(append(offers("STARTTLS"), "STARTTLS", "454 not now\r\n")...), 503, `ADDR answers STARTTLS with "454 not now"`},
		"STARTTLS, more in clear": {with(append(offers("STARTTLS"), "STARTTLS", "220 go on\r\n250 in clear\r\n")...), 503, "ADDR goes on in clear after its answer to STARTTLS"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, smtpScript(c.answers, nil))
			r := configuredAt(t, "smtp", mailOptions)(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || !strings.HasPrefix(string(r.Body), want) {
				t.Errorf("%d %q (%v), want %d %q", r.Code, r.Body, r.Err, c.code, want)
			}
			if r.Err != nil && (strings.Contains(r.Err.Error(), "s3cret") || strings.Contains(r.Err.Error(), plainBlob)) {
				t.Errorf("shows the password: %v", r.Err)
			}
		})
	}
}

func TestSMTPHelo(t *testing.T) {
	answers := map[string]string{"": "220 old\r\n", "EHLO ": "500 what\r\n", "HELO [127.0.0.1]": "250 hello\r\n", "QUIT": "221 bye\r\n"}
	s := checktest.Serve(t, smtpScript(answers, nil))
	for fallback, want := range map[bool]string{true: "Greeted and quit in ", false: s.Addr() + ` answers EHLO with "500 what"`} {
		r := configuredAt(t, "smtp", map[string]any{"use_tls": false, "helo_fallback": fallback})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
		if !strings.HasPrefix(string(r.Body), want) {
			t.Errorf("helo_fallback %v: %d %s", fallback, r.Code, r.Body)
		}
	}
}

// TestSMTPMailText: a mail can be parsed by net/mail for any message and subject.
func TestSMTPMailText(t *testing.T) {
	const subject, message = "Grüße von hacheck", ".\r\nA line\n..two dots\nünïcode\n.\nQUIT\n" + "long "
	long := message + strings.Repeat("x", 2000)
	lines := make(chan string, 1000)
	s := checktest.Serve(t, smtpScript(mailServer(), func(line string) { lines <- line }))
	options := map[string]any{"subject": subject, "message": long}
	for name, v := range mailOptions {
		options[name] = v
	}
	if r := configuredAt(t, "smtp", options)(t.Context(), check.Target{Host: s.Host, Port: s.Port}); r.Code != 200 {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	var text strings.Builder
	for line := range lines {
		if line == "DATA" {
			break
		}
	}
	for line := range lines {
		if line == ".\r\n" {
			break
		}
		if len(line) > 200 || !strings.HasSuffix(line, "\r\n") {
			t.Errorf("a line %q", line)
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
	m, err := mail.ReadMessage(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || got != subject {
		t.Errorf("subject %q %v", got, err)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Errorf("date: %v", err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if want := strings.ReplaceAll(long, "\r\n", "\n"); err != nil || strings.TrimSpace(strings.ReplaceAll(string(body), "\r\n", "\n")) != want {
		t.Errorf("message %q %v", body, err)
	}
}

func TestSMTPOptions(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "smtp", "mail", 465), "tcp:AT", "tls:AT", "smtp:AT")
	wantSteps(t, buildAt(t, check.Defaults{}, "smtp", "mail", 25, "use_tls", false), "tcp:AT", "smtp:AT")
	for useTLS, port := range map[bool]uint16{true: 465, false: 25} {
		c, err := check.Build(check.Spec{Type: "smtp", Options: map[string]any{"host": "mail", "use_tls": useTLS}}, check.Defaults{})
		if err != nil || c.Endpoint.Port != port {
			t.Errorf("use_tls %v: %+v %v", useTLS, c, err)
		}
	}
	wantOptionErrors(t, "smtp", map[string][]any{
		"from_address: is required with to_address":        {"host", "mail", "to_address", "a@b.example"},
		"from_address: expected a mail address":            {"host", "mail", "from_address", "a@b.example>\r\nRCPT TO:<c@d.example"},
		"to_address: expected a mail address":              {"host", "mail", "from_address", "a@b.example", "to_address", "a b"},
		"subject: expected a text":                         {"host", "mail", "subject", "a\r\nBcc: x@y.example"},
		"username: a user name and a password need each":   {"host", "mail", "username", "operator"},
		"username: a user name and a password need each o": {"host", "mail", "password", "s3cret"},
	})
}

// TestEximQuiet: no check leaves a connection, or a line in exim's log, which has one for each client that disconnects
// without QUIT.
func TestEximQuiet(t *testing.T) {
	s, tlsPort := servertest.EximMail(t, issue(t, loopback(), newAuthority(t)))
	log := func() string {
		text, _ := os.ReadFile(filepath.Join(s.Dir, "mainlog"))
		return string(text)
	}
	// The connection by which the test has found it ready is the first such client.
	eventually(t, "the line of the first client", func() bool { return strings.Contains(log(), "daemon started") && strings.Count(log(), "\n") > 1 })
	for port, useTLS := range map[uint16]bool{s.Port: false, tlsPort: true} {
		checktest.RunQuiet(t, net.JoinHostPort(servertest.Host, fmt.Sprint(port)), log, 25, func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "smtp", host, port, "username", "operator", "password", "s3cret", "use_tls", useTLS).Check(t.Context(), check.Target{})
		})
	}
}

// TestEximMail logs in to exim4 over TLS, over STARTTLS and in clear, and sends mail.
func TestEximMail(t *testing.T) {
	a := newAuthority(t)
	s, tlsPort := servertest.EximMail(t, issue(t, loopback(), a))
	failed := check.ReasonFailed
	options := func(user, password, to string, more ...any) []any {
		return append([]any{"username", user, "password", password, "from_address", "ops@mail.example", "to_address", to, "subject", "hacheck was here", "message", "Hello.\n.\nBye."}, more...)
	}
	overTLS := []any{"port", int(tlsPort), "use_tls", true}
	startTLS := []any{"use_tls", false}
	const inbox = "in@inbox.example"
	sent := "Logged in, sent a mail and quit in "
	tryLogins(t, check.Defaults{}, "smtp", s, map[string]loginCase{
		"TLS":               {options("operator", "s3cret", inbox, overTLS...), 200, 0, sent},
		"STARTTLS":          {options("operator", "s3cret", inbox, startTLS...), 200, 0, sent},
		"login alone":       {[]any{"username", "operator", "password", "s3cret", "use_tls", false}, 200, 0, "Logged in and quit in "},
		"greeting alone":    {startTLS, 200, 0, "Greeted and quit in "},
		"wrong password":    {options("operator", "wr0ng", inbox, overTLS...), 503, failed, ""},
		"wrong user":        {options("nobody", "s3cret", inbox, startTLS...), 503, failed, s.Addr() + ` answers AUTH with "535"`},
		"no login":          {[]any{"from_address", "ops@mail.example", "to_address", inbox, "use_tls", false}, 503, failed, s.Addr() + ` answers RCPT with "550 log in first"`},
		"no such inbox":     {options("operator", "s3cret", "in@elsewhere.example", startTLS...), 503, failed, s.Addr() + ` answers RCPT with "550 relay not permitted"`},
		"TLS on plain port": {[]any{"use_tls", true}, 503, check.ReasonProtocol, s.Addr() + " does not speak TLS"},
		"plain on TLS port": {[]any{"port", int(tlsPort), "use_tls", false, "timeout", 0.3}, 503, check.ReasonTimeout, "Connection timed out"},
	})
	verify := check.Defaults{Options: check.Options{TLSVerify: true, TLSRoots: a.pool()}}
	tryLogins(t, verify, "smtp", s, map[string]loginCase{
		"TLS, verified":      {options("operator", "s3cret", inbox, overTLS...), 200, 0, sent},
		"STARTTLS, verified": {options("operator", "s3cret", inbox, startTLS...), 200, 0, sent},
	})
	verify.TLSRoots = newAuthority(t).pool()
	tryLogins(t, verify, "smtp", s, map[string]loginCase{
		"STARTTLS, another authority": {options("operator", "s3cret", inbox, startTLS...), 503, failed, "The certificate of " + s.Addr()},
	})
	mails, err := filepath.Glob(filepath.Join(s.Dir, "input", "*-D"))
	if err != nil || len(mails) != 4 {
		t.Errorf("mails in the spool: %v %v", mails, err)
	}
	for _, file := range mails {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "Hello.") || !slices.Contains(strings.Split(string(text), "\n"), ".") {
			t.Errorf("mail: %q %v", text, err)
		}
	}
	wantGone(t, check.Defaults{}, "smtp", s, "username", "operator", "password", "s3cret", "use_tls", false)
}

// TestSMTPStartTLSResetsSession: after STARTTLS the check sends EHLO again and forgets the extensions from before.
func TestSMTPStartTLSResetsSession(t *testing.T) {
	certificate := issue(t, loopback(), nil)
	greeted := make(chan string, 10)
	s := checktest.Serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "220 mail\r\n")
		for _, answer := range []string{"250-mail\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n", "220 go on\r\n"} {
			if line, err := r.ReadString('\n'); err == nil && strings.HasPrefix(line, "EHLO") {
				greeted <- line
			}
			_, _ = io.WriteString(conn, answer)
		}
		answers := mailServer()
		answers[""] = ""
		answers["EHLO "] = "250 mail\r\n"
		smtpScript(answers, func(line string) { greeted <- line })(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	})
	r := configuredAt(t, "smtp", map[string]any{"username": "operator", "password": "s3cret", "use_tls": false})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
	if want := s.Addr() + " does not offer a login by PLAIN, LOGIN or CRAM-MD5"; string(r.Body) != want {
		t.Errorf("%d %s, want %s", r.Code, r.Body, want)
	}
	if a, b := strings.TrimSpace(<-greeted), <-greeted; a != "EHLO [127.0.0.1]" || b != a {
		t.Errorf("said %q, then %q", a, b)
	}
}

func FuzzSMTPMailAnswer(f *testing.F) {
	f.Add([]byte("220 a\r\n250-a\r\n250 AUTH PLAIN\r\n535 no\r\n"))
	f.Add([]byte("220 a\r\n250 STARTTLS\r\n220 go\r\n"))
	fuzzConfigured(f, "smtp", mailOptions)
}
