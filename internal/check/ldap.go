package check

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

const (
	// maxLDAPMessage is the longest message that is read, in bytes. The answer to a bind has about 20, and the text of
	// the server.
	maxLDAPMessage = 4 << 10
	// startTLSName is the name of the extended operation StartTLS (RFC 4511, 4.14.1).
	startTLSName = "1.3.6.1.4.1.1466.20037"
)

// ldapType is the check of a simple bind (RFC 4511, 4.2), which is anonymous without a user name, as HAProxy's
// option ldap-check. It is healthy if the result code is 0.
//
// Of go-ldap it uses the messages, and not the connection. That one reads and writes on goroutines of its own, and hides
// in its StartTLS why a certificate was not accepted. One request at a time needs neither.
var ldapType = Type{
	Name: "ldap",
	Doc:  "a bind at an LDAP directory works, anonymous or with a name and a password",
	Options: append([]Option{
		hostOption,
		{Name: "port", Want: "a port from 1 to 65535", Default: "389, 636 with use_tls: true", Doc: "its port"},
		{Name: "username", Want: "a name without control characters", Doc: "the name to bind with, mostly a distinguished name; without it the bind is anonymous"},
		passwordOption,
	}, startTLSOptions()...),
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		l := ldapLogin{login: o.login(d, 389, 636)}
		o.requireBoth(l.login) // a bind with a name alone succeeds as anonymous on many servers (RFC 4513, 5.1.2)
		return l.newConfigured("ldap", "", "ldap:"+l.addr(), l.check), nil
	},
}

// ldapLogin is a bind.
type ldapLogin struct{ login }

func (l ldapLogin) check(x *exchange) Result {
	c := &ldapConn{x: x, r: bufio.NewReaderSize(x.conn, 512)}
	if l.settings.mode == tlsStart {
		if r, ok := l.startTLS(c); !ok {
			return r
		}
	}
	x.phase = phaseLogin
	bind := ldapOperation(ldap.ApplicationBindRequest, ber.TypeConstructed)
	bind.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 3, "version"))
	bind.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, l.username, "name"))
	bind.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, string(l.password), "simple"))
	err := c.ask(bind, ldap.ApplicationBindResponse)
	c.unbind()
	if err != nil {
		return x.loginError("LDAP", err, l.redact)
	}
	if l.username == "" {
		return x.healthy("Bound anonymously and unbound")
	}
	return x.healthy("Bound and unbound")
}

// startTLS upgrades the connection to TLS. The password is never sent without it.
func (l ldapLogin) startTLS(c *ldapConn) (Result, bool) {
	x := c.x
	x.phase = "asking for TLS at"
	request := ldapOperation(ldap.ApplicationExtendedRequest, ber.TypeConstructed)
	request.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, startTLSName, "name"))
	if err := c.ask(request, ldap.ApplicationExtendedResponse); err != nil {
		c.unbind()
		var refused serverError
		if errors.As(err, &refused) {
			return x.serviceError(500, "%s refuses StartTLS: %s: %s", x.addr(), refused.code, l.redact(refused.text)), false
		}
		return x.loginError("LDAP", err, l.redact), false
	}
	if c.r.Buffered() > 0 {
		// This clear text would be taken for data received over TLS.
		return x.protocolError("%s goes on in clear after its answer to StartTLS", x.addr()), false
	}
	if r, ok := x.handshake(l.settings.config); !ok {
		return r, false
	}
	c.r.Reset(x.conn)
	return Result{}, true
}

// ldapOperation returns an operation without its arguments.
func ldapOperation(tag ber.Tag, typ ber.Type) *ber.Packet {
	return ber.Encode(ber.ClassApplication, typ, tag, nil, "")
}

// ldapConn sends requests one at a time and reads their responses.
type ldapConn struct {
	x  *exchange
	r  *bufio.Reader
	id int64 // of the last request
}

// send sends an operation with the next message ID.
func (c *ldapConn) send(operation *ber.Packet) error {
	c.id++
	message := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, c.id, "messageID"))
	message.AppendChild(operation)
	return c.x.send(message.Bytes())
}

// unbind sends the request Unbind, which a server does not answer. A server logs a client that closes without it.
func (c *ldapConn) unbind() {
	_ = c.send(ldapOperation(ldap.ApplicationUnbindRequest, ber.TypePrimitive))
}

// ask sends an operation and reads its response, which has to be of the type response. A result code other than 0 is a
// serverError.
func (c *ldapConn) ask(operation *ber.Packet, response ber.Tag) error {
	if err := c.send(operation); err != nil {
		return err
	}
	message, err := c.message()
	if err != nil {
		return err
	}
	if len(message.Children) < 2 || message.Children[0].Tag != ber.TagInteger {
		return malformed("a message without an ID and an operation")
	}
	id, op := message.Children[0].Value, message.Children[1]
	// A server that closes the connection says why in an extended response with the ID 0 (RFC 4511, 4.4).
	notice := id == int64(0) && op.Tag == ldap.ApplicationExtendedResponse
	if op.ClassType != ber.ClassApplication || !notice && (id != c.id || op.Tag != response) {
		return malformed("an operation %d with the ID %v where %d with %d has to be", op.Tag, id, response, c.id)
	}
	var result *ldap.Error
	switch err := ldap.GetLDAPError(message); {
	case err == nil && notice:
		return malformed("a message that was not asked for")
	case err == nil:
		return nil
	case !errors.As(err, &result) || result.ResultCode >= ldap.ErrorNetwork:
		return malformed("a result that cannot be read") // the codes from there on are the library's
	}
	text := cmp.Or(ldap.LDAPResultCodeMap[result.ResultCode], "unknown code")
	if result.Err != nil && result.Err.Error() != "" {
		text += ": " + result.Err.Error()
	}
	return serverError{fmt.Sprintf("LDAP error %d", result.ResultCode), text}
}

// message reads one message. It first checks the length of the message: a sequence (1 byte), a length of one byte
// or a number of bytes and then so many of them.
func (c *ldapConn) message() (*ber.Packet, error) {
	const sequence, long = 0x30, 0x80
	head, err := c.r.Peek(1)
	if err != nil {
		return nil, err
	}
	if head[0] != sequence {
		return nil, malformed("it begins with %#02x", head[0])
	}
	if head, err = c.r.Peek(2); err != nil {
		return nil, err
	}
	size, more := int64(head[1]), 0
	if size >= long {
		if more = int(size - long); more == 0 || more > 4 {
			return nil, malformed("a length of %d bytes", more)
		}
		if head, err = c.r.Peek(2 + more); err != nil {
			return nil, err
		}
		size = 0
		for _, b := range head[2:] {
			size = size<<8 | int64(b)
		}
	}
	if size > maxLDAPMessage {
		return nil, malformed("a message of %d bytes", size)
	}
	whole := make([]byte, 2+int64(more)+size)
	if _, err := io.ReadFull(c.r, whole); err != nil {
		return nil, err
	}
	message, err := ber.DecodePacketErr(whole)
	if err != nil {
		return nil, malformed("a message whose parts do not fit it")
	}
	return message, nil
}
