package check_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// ldapResponse returns a message with a result.
func ldapResponse(id int64, tag ber.Tag, code int64, text string) string {
	message := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	result := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	result.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	result.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	result.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, text, ""))
	message.AppendChild(result)
	return string(message.Bytes())
}

// ldapServer is a fake directory that binds the operator, and clients without a name.
func ldapServer(conn net.Conn) {
	for {
		message, err := ber.ReadPacket(conn)
		if err != nil || len(message.Children) < 2 || message.Children[1].Tag != ldap.ApplicationBindRequest {
			return
		}
		id, bind := message.Children[0].Value.(int64), message.Children[1].Children
		code := int64(ldap.LDAPResultInvalidCredentials)
		if name, password := bind[1].Value, bind[2].Data.String(); name == "" && password == "" || name == "operator" && password == "s3cret" {
			code = ldap.LDAPResultSuccess
		}
		if _, err := io.WriteString(conn, ldapResponse(id, ldap.ApplicationBindResponse, code, "")); err != nil {
			return
		}
	}
}

// TestFakeLDAPServerWithDriver holds the fake directory to go-ldap.
func TestFakeLDAPServerWithDriver(t *testing.T) {
	s := checktest.Serve(t, ldapServer)
	for password, want := range map[string]bool{"s3cret": true, "wr0ng": false} {
		c, err := ldap.DialURL("ldap://" + s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Bind("operator", password); (err == nil) != want {
			t.Errorf("%s: %v", password, err)
		}
		_ = c.Close()
	}
}

func TestLDAPAnswers(t *testing.T) {
	bound := func(id, code int64, text string) string {
		return ldapResponse(id, ldap.ApplicationBindResponse, code, text)
	}
	not := "The answer of ADDR is not LDAP: "
	for name, c := range map[string]struct {
		answer string
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"refused":            {bound(1, 49, ""), 500, "LDAP error 49: Invalid Credentials"},
		"with a text":        {bound(1, 53, "no anonymous\nbind"), 500, "LDAP error 53: Unwilling To Perform: no anonymous bind"},
		"a new code":         {bound(1, 133, ""), 500, "LDAP error 133: unknown code"},
		"repeats":            {bound(1, 49, "not s3cret"), 500, "LDAP error 49: (its words are not shown, the password may be among them)"},
		"goes away":          {ldapResponse(0, ldap.ApplicationExtendedResponse, 52, "shutting down"), 500, "LDAP error 52: Unavailable: shutting down"},
		"notice of success":  {ldapResponse(0, ldap.ApplicationExtendedResponse, 0, ""), 503, not + "a message that was not asked for"},
		"another ID":         {bound(2, 0, ""), 503, not + "an operation 1 with the ID 2 where 1 with 1 has to be"},
		"another operation":  {ldapResponse(1, ldap.ApplicationExtendedResponse, 0, ""), 503, not + "an operation 24 with the ID 1 where 1 with 1 has to be"},
		"no sequence":        {"\x31\x00", 503, not + "it begins with 0x31"},
		"empty":              {"\x30\x00", 503, not + "a message without an ID and an operation"},
		"no result":          {"\x30\x05\x02\x01\x01\x61\x00", 503, not + "a result that cannot be read"},
		"parts too long":     {"\x30\x05\x02\x7f\x01\x61\x00", 503, not + "a message whose parts do not fit it"},
		"indefinite length":  {"\x30\x80", 503, not + "a length of 0 bytes"},
		"length of 16 MB":    {"\x30\x84\x01\x00\x00\x00", 503, not + "a message of 16777216 bytes"},
		"length of 16 bytes": {"\x30\x90", 503, not + "a length of 16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, c.answer) })
			r := configuredAt(t, "ldap", map[string]any{"username": "operator", "password": "s3cret"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
		})
	}
}

func TestLDAPOptions(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "ldap", "dir", 389), "tcp:AT", "ldap:AT")
	wantSteps(t, buildAt(t, check.Defaults{}, "ldap", "dir", 389, "use_tls", "starttls"), "tcp:AT", "ldap:AT")
	wantSteps(t, buildAt(t, check.Defaults{}, "ldap", "dir", 636, "use_tls", true), "tcp:AT", "tls:AT", "ldap:AT")
	for useTLS, port := range map[any]uint16{true: 636, false: 389, "starttls": 389} {
		c, err := check.Build(check.Spec{Type: "ldap", Options: map[string]any{"host": "dir", "use_tls": useTLS}}, check.Defaults{})
		if err != nil || c.Endpoint.Port != port {
			t.Errorf("use_tls %v: %+v %v", useTLS, c, err)
		}
	}
	wantOptionErrors(t, "ldap", map[string][]any{
		"username: a user name and a password need each other": {"host", "dir", "username", "cn=operator"},
		"use_tls: expected true, false or starttls":            {"host", "dir", "use_tls", "prefer"},
	})
	wantOptionErrors(t, "redis", map[string][]any{"use_tls: expected true or false": {"host", "cache", "use_tls", "starttls"}})
}

// TestLDAPStartTLS: the password is not sent if the server does not change to TLS.
func TestLDAPStartTLS(t *testing.T) {
	started := ldapResponse(1, ldap.ApplicationExtendedResponse, 0, "")
	for name, c := range map[string]struct {
		answer string
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"refused":  {ldapResponse(1, ldap.ApplicationExtendedResponse, 2, "unsupported"), 500, "ADDR refuses StartTLS: LDAP error 2: Protocol Error: unsupported"},
		"in clear": {started + ldapResponse(2, ldap.ApplicationBindResponse, 0, ""), 503, "ADDR goes on in clear after its answer to StartTLS"},
		"no TLS":   {started, 503, "Connection closed early (TLS handshake with ADDR)"},
		"no LDAP":  {"220 mail.example\r\n", 503, "The answer of ADDR is not LDAP: it begins with 0x32"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan string, 1)
			s := checktest.Serve(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				all, _ := io.ReadAll(conn)
				sent <- string(all)
			})
			options := map[string]any{"username": "operator", "password": "s3cret", "use_tls": "starttls"}
			r := configuredAt(t, "ldap", options)(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
			if all := <-sent; all == "" || strings.Contains(all, "s3cret") {
				t.Errorf("sent %q", all)
			}
		})
	}
}

// TestSlapd binds at OpenLDAP in every way.
func TestSlapd(t *testing.T) {
	a := newAuthority(t)
	s, tlsPort := servertest.Slapd(t, issue(t, loopback(), a), a.cert, "TLSVerifyClient demand")
	named := func(pairs ...any) []any {
		return append([]any{"username", "cn=operator", "password", "s3cret"}, pairs...)
	}
	cert, key := a.writeClientCertificate(t, "hacheck")
	client := []any{"cert_file", cert, "key_file", key, "ca_file", writePEM(t, "CERTIFICATE", a.cert.Raw)}
	with := func(pairs []any, more ...any) []any { return append(append([]any{}, pairs...), more...) }
	anonymous, in, failed := "Bound anonymously and unbound in ", "Bound and unbound in ", check.ReasonFailed
	const unwanted = "LDAP error 49: Invalid Credentials"
	tryLogins(t, check.Defaults{}, "ldap", s, map[string]loginCase{
		"anonymous":           {nil, 200, 0, anonymous},
		"named":               {named(), 200, 0, in},
		"LDAPS":               {with(named(client...), "use_tls", true, "port", int(tlsPort)), 200, 0, in},
		"StartTLS":            {with(named(client...), "use_tls", "starttls"), 200, 0, in},
		"wrong password":      {[]any{"username", "cn=operator", "password", "wr0ng"}, 500, failed, unwanted},
		"wrong name":          {[]any{"username", "cn=other", "password", "s3cret"}, 500, failed, unwanted},
		"no name at all":      {[]any{"username", "operator", "password", "s3cret"}, 500, failed, "LDAP error 34: Invalid DN Syntax: invalid DN"},
		"another name":        {with(client, "use_tls", "starttls", "server_name", "other.example"), 503, failed, "The certificate of "},
		"no certificate":      {[]any{"use_tls", "starttls"}, 503, check.ReasonProtocol, ""},
		"TLS to plain":        {[]any{"use_tls", true}, 503, check.ReasonProtocol, ""},
		"plain to TLS":        {[]any{"port", int(tlsPort)}, 503, check.ReasonProtocol, ""},
		"named, plain to TLS": {named("port", int(tlsPort)), 503, check.ReasonProtocol, ""},
	})
	if r := askService(t, "ldap", s.Port); r.Code != 200 || !strings.HasPrefix(string(r.Body), anonymous) {
		t.Errorf("by URL: %d %s", r.Code, r.Body)
	}
	wrong := build(t, check.Defaults{}, "ldap", map[string]any{"host": "192.0.2.1", "username": "cn=operator", "password": "wr0ng"})
	if r := askService(t, "ldap", s.Port, wrong); r.Code != 500 || string(r.Body) != unwanted {
		t.Errorf("by URL, configured: %d %s", r.Code, r.Body)
	}
	t.Run("unbinds", func(t *testing.T) {
		const n = 500
		closed := func() int { return strings.Count(s.Log(), " closed") }
		lost := func() int { return strings.Count(s.Log(), "connection lost") }
		wasClosed, wasLost := closed(), lost()
		c := buildAt(t, check.Defaults{}, "ldap", servertest.Host, s.Port, named()...)
		for range n {
			if r := c.Check(t.Context(), check.Target{}); r.Code != 200 {
				t.Fatalf("%d %s", r.Code, r.Body)
			}
		}
		eventually(t, fmt.Sprintf("%d closed connections", n), func() bool { return closed() >= wasClosed+n })
		if lost() != wasLost {
			t.Errorf("the server has lost connections:\n%s", tail(s.Log()))
		}
	})
	wantGone(t, check.Defaults{}, "ldap", s)
}

// TestSlapdStrict binds at servers that refuse some binds.
func TestSlapdStrict(t *testing.T) {
	a := newAuthority(t)
	s, _ := servertest.Slapd(t, issue(t, loopback(), a), a.cert, "disallow bind_anon\nsecurity simple_bind=128")
	named := []any{"username", "cn=operator", "password", "s3cret"}
	tryLogins(t, check.Defaults{}, "ldap", s, map[string]loginCase{
		"anonymous": {nil, 500, check.ReasonFailed, "LDAP error 48: Inappropriate Authentication: anonymous bind disallowed"},
		"in clear":  {named, 500, check.ReasonFailed, "LDAP error 13: Confidentiality Required: confidentiality required"},
		"StartTLS":  {append([]any{"use_tls", "starttls"}, named...), 200, 0, "Bound and unbound in "},
	})
}

func FuzzLDAPAnswer(f *testing.F) {
	f.Add([]byte(ldapResponse(1, ldap.ApplicationBindResponse, 49, "no")))
	f.Add([]byte(ldapResponse(0, ldap.ApplicationExtendedResponse, 52, "goes")))
	f.Add([]byte("\x30\x84\x00\x00\x00\x07\x02\x01\x01\x61\x02\x30\x00"))
	fuzzConfigured(f, "ldap", map[string]any{"username": "operator", "password": "s3cret"})
}
