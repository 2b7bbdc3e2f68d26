package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // the protocol's
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"strings"
	"time"
)

// smtpType is the configured check: greet, log in when there is a user name, send a mail when there is
// somebody to send it to, and say goodbye. Without use_tls it goes on over TLS if the server offers STARTTLS
// (RFC 3207), which conn-check cannot.
var smtpType = Type{
	Name: "smtp",
	Doc:  "an SMTP server greets, takes a login if there is one, and a mail if there is somebody to send it to",
	Options: append([]Option{
		hostOption,
		{Name: "port", Want: "a port from 1 to 65535", Default: "465, 25 without use_tls", Doc: "its port"},
		usernameOption,
		passwordOption,
		{Name: "from_address", Want: "a mail address", Doc: "who the mail is from; required with to_address"},
		{Name: "to_address", Want: "a mail address", Doc: "who gets a mail each time; without it none is sent"},
		{Name: "message", Want: "a text", Doc: "what the mail says"},
		{Name: "subject", Want: "a text of at most 200 bytes without control characters", Doc: "the mail's subject"},
		{Name: "helo_fallback", Want: "true or false", Default: "false", Doc: "say HELO to a server that does not take EHLO"},
	}, tlsOptions("true")...),
	build: func(o *values, d Defaults) (*Configured, error) {
		m := smtpMail{
			login: o.login(d, 25, 465),
			from:  o.address("from_address"), to: o.address("to_address"),
			subject: o.plainText("subject", ""), message: o.text("message", ""),
			fallback: o.flag("helo_fallback", false),
			upgrade:  tlsConfig(!o.flag("disable_tls_verification", !d.TLSVerify), d.TLSRoots),
		}
		if len(m.subject) > 200 {
			o.unexpected("subject", m.subject)
		}
		if m.to != "" && m.from == "" {
			o.wrong("from_address", "is required with to_address: a mail address")
		}
		if (m.username == "") != (m.password == "") {
			o.wrong("username", "a user name and a password need each other")
		}
		return m.newConfigured("smtp", "", "smtp:"+m.addr(), m.check), nil
	},
}

// address returns a mail address, "" when there is none. It is sent as it is, so it must not end the command
// that it stands in; SMTPUTF8 is not spoken.
func (o *values) address(name string) string {
	s := o.text(name, "")
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' || len(s) > 254 {
			o.unexpected(name, s)
			break
		}
	}
	return s
}

// smtpMail is who logs in, and the mail that is sent.
type smtpMail struct {
	login
	from, to, subject, message string
	fallback                   bool
	upgrade                    *tls.Config // for a server that offers STARTTLS
}

func (m smtpMail) check(ctx context.Context, t Target) Result {
	return m.ask(ctx, t, func(x *exchange) Result {
		c := &smtpConn{x: x, redact: m.redact}
		c.setConn(x.conn)
		r := m.session(c)
		conn, upgraded := x.conn.(*tls.Conn)
		switch {
		case r.Reason == ReasonFailed:
			// Goodbye also after a refusal, as the check in smtp.go does.
			_, _ = io.WriteString(x.conn, "QUIT\r\n")
		case r.Reason == ReasonOK && upgraded && m.tls == nil:
			_ = conn.CloseWrite()
		}
		return r
	})
}

// session goes from the greeting to the goodbye.
func (m smtpMail) session(c *smtpConn) Result {
	x := c.x
	did := "Greeted"
	x.phase = "waiting for the greeting of"
	if line, r, ok := c.reply(nil); !ok {
		return r
	} else if line[0] != '2' {
		return x.failed(503, "%s greets with %q", x.addr(), c.redact(line))
	}
	extensions, r, ok := c.hello(m.fallback)
	if !ok {
		return r
	}
	if _, offered := extensions["STARTTLS"]; offered && m.tls == nil {
		if r, ok := c.command("STARTTLS", '2', "STARTTLS"); !ok {
			return r
		}
		if c.r.Buffered() > 0 {
			// It would count as said over TLS.
			return x.protocol("%s goes on in clear after its answer to STARTTLS", x.addr())
		}
		conn, r, ok := x.handshake(m.upgrade)
		if !ok {
			return r
		}
		c.setConn(conn)
		if extensions, r, ok = c.hello(m.fallback); !ok {
			return r
		}
	}
	if m.username != "" {
		if r, ok := m.authenticate(c, extensions["AUTH"]); !ok {
			return r
		}
		did = "Logged in"
	}
	if m.to != "" {
		if r, ok := m.send(c); !ok {
			return r
		}
		did += ", sent a mail"
	}
	if r, ok := c.command("QUIT", '2', "QUIT"); !ok {
		return r
	}
	return x.healthy(did + " and quit")
}

// authenticate logs in by one of the mechanisms that the server offers. Of its answers only the code is
// shown, for they may repeat what it was told.
func (m smtpMail) authenticate(c *smtpConn, offered string) (Result, bool) {
	x := c.x
	c.redact = func(line string) string { return line[:3] }
	defer func() { c.redact = m.redact }()
	order := []string{"PLAIN", "LOGIN", "CRAM-MD5"}
	if _, secure := x.conn.(*tls.Conn); !secure {
		order = []string{"CRAM-MD5", "PLAIN", "LOGIN"} // the one that does not say the password comes first
	}
	has := map[string]bool{}
	for _, name := range strings.Fields(offered) {
		has[strings.ToUpper(name)] = true
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, name := range order {
		if !has[name] {
			continue
		}
		x.phase = phaseLogin
		switch name {
		case "PLAIN":
			return c.command("AUTH", '2', "AUTH PLAIN "+m.saslPlain())
		case "LOGIN":
			if r, ok := c.command("AUTH", '3', "AUTH LOGIN"); !ok {
				return r, ok
			}
			if r, ok := c.command("AUTH", '3', encode(m.username)); !ok {
				return r, ok
			}
			return c.command("AUTH", '2', encode(string(m.password)))
		}
		if r, ok := c.command("AUTH", '3', "AUTH CRAM-MD5"); !ok {
			return r, ok
		}
		challenge, err := base64.StdEncoding.DecodeString(c.text)
		if err != nil {
			return x.protocol("The challenge of %s is not in base64", x.addr()), false
		}
		mac := hmac.New(md5.New, []byte(m.password))
		mac.Write(challenge)
		return c.command("AUTH", '2', encode(m.username+" "+hex.EncodeToString(mac.Sum(nil))))
	}
	return x.failed(503, "%s does not offer a login by PLAIN, LOGIN or CRAM-MD5", x.addr()), false
}

// send sends the mail.
func (m smtpMail) send(c *smtpConn) (Result, bool) {
	for _, step := range []struct {
		name string
		want byte
		line string
	}{
		{"MAIL", '2', "MAIL FROM:<" + m.from + ">"},
		{"RCPT", '2', "RCPT TO:<" + m.to + ">"},
		{"DATA", '3', "DATA"},
	} {
		if r, ok := c.command(step.name, step.want, step.line); !ok {
			return r, false
		}
	}
	return c.command("the mail", '2', string(m.encode(time.Now()))+".")
}

// encode is the mail as it goes over the wire but for the dot at its end: lines of at most 76 bytes of ASCII,
// but for the addresses, which end with CRLF; where a dot comes first it is doubled.
func (m smtpMail) encode(now time.Time) []byte {
	_, domain, _ := strings.Cut(m.from, "@")
	if domain == "" {
		domain = "hacheck.invalid"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\n",
		m.from, m.to, mime.QEncoding.Encode("utf-8", m.subject), now.Format(time.RFC1123Z), rand.Text(), domain)
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nAuto-Submitted: auto-generated\r\n\r\n")
	w := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(w, strings.TrimRight(m.message, "\r\n")) // a buffer takes everything
	_ = w.Close()
	b.WriteString("\r\n")
	return bytes.ReplaceAll(b.Bytes(), []byte("\r\n."), []byte("\r\n.."))
}

// smtpConn is a conversation with an SMTP server.
type smtpConn struct {
	x       *exchange
	r       *bufio.Reader
	limited *io.LimitedReader
	text    string              // of the last reply's last line
	redact  func(string) string // how much of a reply is shown
}

// setConn has the conversation begin anew over conn.
func (c *smtpConn) setConn(conn net.Conn) {
	c.limited = &io.LimitedReader{R: conn}
	c.r = bufio.NewReaderSize(c.limited, maxSMTPLine)
}

// reply reads a reply and returns its last line.
func (c *smtpConn) reply(each func(string)) (string, Result, bool) {
	c.limited.N = maxSMTPReply
	line, r, ok := c.x.readSMTPReply(c.r, c.limited, each)
	if !ok {
		return "", r, false
	}
	c.text = string(line[min(4, len(line)):])
	return string(line), r, true
}

// command sends a line, and returns false and why unless the reply begins with want. name is what the line
// is called in messages.
func (c *smtpConn) command(name string, want byte, line string) (Result, bool) {
	if c.x.phase != phaseLogin || name != "AUTH" {
		c.x.phase = "waiting for the answer to " + name + " of"
	}
	if _, err := io.WriteString(c.x.conn, line+"\r\n"); err != nil && c.x.ctx.Err() != nil {
		return c.x.fail(err), false
	}
	answer, r, ok := c.reply(nil)
	if ok && answer[0] != want {
		return c.x.failed(503, "%s answers %s with %q", c.x.addr(), name, c.redact(answer)), false
	}
	return r, ok
}

// hello says EHLO, or HELO if that is wanted and EHLO is not known, and returns the extensions by name
// with what follows it. Who speaks is told by address: that is what a client without a name of its own does
// (RFC 5321, 4.1.3).
func (c *smtpConn) hello(fallback bool) (map[string]string, Result, bool) {
	me := "[127.0.0.1]"
	if at, ok := c.x.conn.LocalAddr().(*net.TCPAddr); ok {
		if me = "[" + at.IP.String() + "]"; at.IP.To4() == nil {
			me = "[IPv6:" + at.IP.String() + "]"
		}
	}
	c.x.phase = "waiting for the answer to EHLO of"
	if _, err := io.WriteString(c.x.conn, "EHLO "+me+"\r\n"); err != nil && c.x.ctx.Err() != nil {
		return nil, c.x.fail(err), false
	}
	extensions := map[string]string{}
	line, r, ok := c.reply(func(text string) {
		// "AUTH=PLAIN LOGIN" is how some wrote it before there was a standard.
		name, parameters, _ := strings.Cut(strings.Replace(text, "=", " ", 1), " ")
		extensions[strings.ToUpper(name)] = parameters
	})
	switch {
	case !ok:
		return nil, r, false
	case line[0] == '2':
		return extensions, r, true
	case line[0] == '5' && fallback:
		r, ok = c.command("HELO", '2', "HELO "+me)
		return nil, r, ok
	}
	return nil, c.x.failed(503, "%s answers EHLO with %q", c.x.addr(), c.redact(line)), false
}
