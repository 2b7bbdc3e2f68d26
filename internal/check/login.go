package check

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"

	"hacheck/internal/check/conn"
)

// login holds the options that all configured checks with a login share.
type login struct {
	host     string
	port     uint16
	socket   string // path of a Unix socket, used instead of host and port; "" for none
	username string
	password Secret
	tls      *tls.Config // nil unless TLS is spoken from the first byte on
	settings tlsSettings
	drivers  *conn.Limit // how many logins with a driver run at once; nil: any number
}

// addr returns "<host>:<port>", or the path of the Unix socket, for the names of steps.
func (l login) addr() string {
	if l.socket != "" {
		return l.socket
	}
	return hostPort(l.host, l.port)
}

// newConfigured returns a check of TCP, of TLS if it is configured, and of the login, over one connection. The names of
// its steps begin with prefix; last is the step of the login, which talk does over the open connection.
func (l login) newConfigured(name, prefix, last string, talk func(x *exchange) Result) *ConfiguredCheck {
	steps := []Step{tcpStep(l.host, l.port)}
	if l.tls != nil {
		steps = append(steps, tlsStep(l.host, l.port, l.tls))
	}
	steps = append(steps, Step{Name: last, run: func(x *exchange) Result {
		if r, ok := x.open(l.tls); !ok {
			return r
		}
		return x.withDriver(l.drivers, func() Result { return talk(x) })
	}})
	for i := range steps {
		steps[i].Name = prefix + steps[i].Name
	}
	if l.username != "" && prefix == "" { // with a prefix the name itself says "connect with auth"
		steps[len(steps)-1].Info = "user " + l.username
	}
	c := &ConfiguredCheck{Name: name + ":" + l.addr(), Steps: steps, Endpoint: Endpoint{"tcp", l.host, l.port}}
	if l.socket != "" {
		c.Steps, c.Endpoint, c.socket = steps[len(steps)-1:], Endpoint{}, l.socket // nothing is sent over the network
	}
	return c
}

// errServerUnverified means that a server accepted the login without knowing the password.
var errServerUnverified = errors.New("it does not prove that it knows the password")

// loginError returns the result for an error of a login. redact makes the server's own text fit to be shown.
func (x *exchange) loginError(protocol string, err error, redact func(text string) string) Result {
	var refused serverError
	var wrong malformedError
	switch {
	case errors.As(err, &refused):
		return x.serviceError(500, "%s: %s", refused.code, redact(refused.text))
	case errors.Is(err, errServerUnverified):
		return x.serviceError(500, "%s lets us in, but %s", x.addr(), err)
	case errors.As(err, &wrong):
		return x.protocolError("The answer of %s is not %s: %s", x.addr(), protocol, wrong)
	}
	return x.networkError(err)
}

// requireBoth adds an error for a user name without a password, or the other way round.
func (o *optionReader) requireBoth(l login) {
	if (l.username == "") != (l.password == "") {
		o.addError("username", "a user name and a password need each other")
	}
}

// redact returns a server's text fit to be shown. A server may repeat the password. A text that contains it, as it is
// or in base64, is replaced as a whole: asterisks in a known text would show its length and place.
func (l login) redact(text string) string {
	if l.password != "" {
		for _, secret := range []string{string(l.password), base64.StdEncoding.EncodeToString([]byte(l.password)), l.saslPlain()} {
			if strings.Contains(text, secret) {
				return "(its words are not shown, the password may be among them)"
			}
		}
	}
	return excerpt(text, 300)
}

// saslPlain returns the message of the SASL mechanism PLAIN (RFC 4616) in base64.
func (l login) saslPlain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + l.username + "\x00" + string(l.password)))
}

// phaseLogin is a phase of several protocols, see exchange.phase.
const phaseLogin = "logging in to"

// login reads those of the options above that the type has. port and tlsPort are the default ports.
func (o *optionReader) login(d Defaults, port, tlsPort uint16) login {
	l := login{username: o.plainText("username", ""), password: o.password()}
	l.host, l.socket = o.hostOrSocket()
	l.settings = o.tls(d, d.TLSVerify)
	if l.settings.mode == tlsOn {
		port, l.tls = tlsPort, l.settings.config
	}
	l.port = o.port("port", port)
	return l
}
