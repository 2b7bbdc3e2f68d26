package check

import (
	"bufio"
	"bytes"
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

// smtpType is the configured check: greet, log in if there is a user name, send a mail if there is a to_address, and
// quit. Without use_tls it uses STARTTLS (RFC 3207) if the server offers it; conn-check does not.
//
// It does not use emersion/go-smtp, whose client has no STARTTLS on a connection that was already greeted, so none that
// depends on the offer. It also falls back to HELO without being asked, accepts no greeting but 220, reads only one
// spelling of AUTH, and knows no CRAM-MD5.
var smtpType = Type{
	Name: "smtp",
	Doc:  "an SMTP server greets, takes a login if username is set, and a mail if to_address is set",
	Options: append([]Option{
		hostOption,
		{Name: "port", Want: "a port from 1 to 65535", Default: "465, 25 without use_tls", Doc: "its port"},
		usernameOption,
		passwordOption,
		{Name: "from_address", Want: "a mail address", Doc: "the sender of the mail; required with to_address"},
		{Name: "to_address", Want: "a mail address", Doc: "the recipient of the mail that each run sends; without it none is sent"},
		{Name: "message", Want: "a text", Doc: "the text of the mail"},
		{Name: "subject", Want: "a text of at most 200 bytes without control characters", Doc: "the mail's subject"},
		{Name: "helo_fallback", Want: "true or false", Default: "false", Doc: "say HELO to a server that does not take EHLO"},
	}, tlsOptions("true")...),
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		m := smtpMail{
			login: o.login(d, 25, 465),
			from:  o.address("from_address"), to: o.address("to_address"),
			subject: o.plainText("subject", ""), message: o.text("message", ""),
			fallback: o.boolean("helo_fallback", false),
		}
		if len(m.subject) > 200 {
			o.addValueError("subject", m.subject)
		}
		if m.to != "" && m.from == "" {
			o.addError("from_address", "is required with to_address: a mail address")
		}
		o.requireBoth(m.login)
		return m.newConfigured("smtp", "", "smtp:"+m.addr(), m.check), nil
	},
}

// smtpMail is a login and the mail to send.
type smtpMail struct {
	login
	from, to, subject, message string
	fallback                   bool // to HELO
}

func (m smtpMail) check(x *exchange) Result {
	c := &smtpConn{x: x, redact: m.redact}
	c.setConn(x.conn)
	r := m.session(c)
	if r.Reason == ReasonFailed {
		// It sends QUIT also after an error, so that the server does not log a lost connection.
		_, _ = io.WriteString(x.conn, "QUIT\r\n")
	}
	return r
}

// session speaks with the server from the greeting to QUIT.
func (m smtpMail) session(c *smtpConn) Result {
	x := c.x
	done := "Greeted"
	x.phase = "waiting for the greeting of"
	if line, r, ok := c.reply(nil); !ok {
		return r
	} else if line[0] != '2' {
		return x.serviceError(503, "%s greets with %q", x.addr(), c.redact(line))
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
			// This clear text would be taken for data received over TLS.
			return x.protocolError("%s goes on in clear after its answer to STARTTLS", x.addr())
		}
		if r, ok := x.handshake(m.settings.config); !ok {
			return r
		}
		c.setConn(x.conn)
		if extensions, r, ok = c.hello(m.fallback); !ok {
			return r
		}
	}
	if m.username != "" {
		if r, ok := m.authenticate(c, extensions["AUTH"]); !ok {
			return r
		}
		done = "Logged in"
	}
	if m.to != "" {
		if r, ok := m.send(c); !ok {
			return r
		}
		done += ", sent a mail"
	}
	if r, ok := c.command("QUIT", '2', "QUIT"); !ok {
		return r
	}
	return x.healthy(done + " and quit")
}

// authenticate logs in by one of the mechanisms that the server offers. It shows only the code of the answers, which may
// repeat the password.
func (m smtpMail) authenticate(c *smtpConn, offered string) (Result, bool) {
	x := c.x
	c.redact = func(line string) string { return line[:3] }
	defer func() { c.redact = m.redact }()
	order := []string{"PLAIN", "LOGIN", "CRAM-MD5"}
	if _, secure := x.conn.(*tls.Conn); !secure {
		order = []string{"CRAM-MD5", "PLAIN", "LOGIN"} // first the one that does not send the password
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
			return x.protocolError("The challenge of %s is not in base64", x.addr()), false
		}
		mac := hmac.New(md5.New, []byte(m.password))
		mac.Write(challenge)
		return c.command("AUTH", '2', encode(m.username+" "+hex.EncodeToString(mac.Sum(nil))))
	}
	return x.serviceError(503, "%s does not offer a login by PLAIN, LOGIN or CRAM-MD5", x.addr()), false
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

// encode returns the mail as it is sent, without the dot at its end. Its lines end with CRLF and are at most 76 bytes of
// ASCII, apart from the addresses. A dot at the start of a line is doubled.
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
	_, _ = io.WriteString(w, strings.TrimRight(m.message, "\r\n")) // a buffer returns no error
	_ = w.Close()
	b.WriteString("\r\n")
	return bytes.ReplaceAll(b.Bytes(), []byte("\r\n."), []byte("\r\n.."))
}

// smtpConn sends commands to an SMTP server and reads its replies.
type smtpConn struct {
	x       *exchange
	r       *bufio.Reader
	limited *io.LimitedReader
	text    string              // the text of the last line of the last reply
	redact  func(string) string // makes a reply fit to be shown
}

// setConn makes c read from conn, without what was read ahead from the connection before.
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

// command sends a line. It returns false and the result of the check unless the reply begins with want. Messages call
// the line by name.
func (c *smtpConn) command(name string, want byte, line string) (Result, bool) {
	if c.x.phase != phaseLogin || name != "AUTH" {
		c.x.phase = "waiting for the answer to " + name + " of"
	}
	if err := c.x.send([]byte(line + "\r\n")); err != nil {
		return c.x.networkError(err), false
	}
	answer, r, ok := c.reply(nil)
	if ok && answer[0] != want {
		return c.x.serviceError(503, "%s answers %s with %q", c.x.addr(), name, c.redact(answer)), false
	}
	return r, ok
}

// hello sends EHLO, or HELO after it if fallback is set and the server does not know EHLO. It returns the parameters of
// each extension by its name. It introduces the client by its address, as RFC 5321 (4.1.3) says for one without a name.
func (c *smtpConn) hello(fallback bool) (map[string]string, Result, bool) {
	client := "[127.0.0.1]"
	if local, ok := c.x.conn.LocalAddr().(*net.TCPAddr); ok {
		if client = "[" + local.IP.String() + "]"; local.IP.To4() == nil {
			client = "[IPv6:" + local.IP.String() + "]"
		}
	}
	c.x.phase = "waiting for the answer to EHLO of"
	if err := c.x.send([]byte("EHLO " + client + "\r\n")); err != nil {
		return nil, c.x.networkError(err), false
	}
	extensions := map[string]string{}
	line, r, ok := c.reply(func(text string) {
		// Old servers write "AUTH=PLAIN LOGIN", from before the standard.
		name, parameters, _ := strings.Cut(strings.Replace(text, "=", " ", 1), " ")
		extensions[strings.ToUpper(name)] = parameters
	})
	switch {
	case !ok:
		return nil, r, false
	case line[0] == '2':
		return extensions, r, true
	case line[0] == '5' && fallback:
		r, ok = c.command("HELO", '2', "HELO "+client)
		return nil, r, ok
	}
	return nil, c.x.serviceError(503, "%s answers EHLO with %q", c.x.addr(), c.redact(line)), false
}
