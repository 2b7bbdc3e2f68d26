package check

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"unicode"
)

// login is what the configured types that log in have in common: where, as whom, and whether over TLS.
type login struct {
	host     string
	port     uint16
	username string
	password Secret
	tls      *tls.Config // nil: TCP alone
}

// addr is "<host>:<port>" in the names of steps.
func (l login) addr() string { return hostPort(l.host, l.port) }

// ask has talk speak with the service over a connection of its own, and over TLS if that is wanted.
func (l login) ask(ctx context.Context, t Target, talk func(x *exchange) Result) Result {
	t.Host, t.Port = l.host, l.port
	return ask(ctx, t, func(x *exchange) Result {
		if l.tls == nil {
			return talk(x)
		}
		conn, r, ok := x.handshake(l.tls)
		if !ok {
			return r
		}
		if r = talk(x); r.Reason == ReasonOK {
			_ = conn.CloseWrite() // as https does
		}
		return r
	})
}

// steps are the ones before the login itself: the TCP connection, and TLS if that is wanted.
func (l login) steps(prefix string) []Step {
	steps := []Step{tcpStep(l.host, l.port)}
	if l.tls != nil {
		steps = append(steps, Step{Name: "tls:" + l.addr(), Info: l.addr(), Run: func(ctx context.Context, t Target) Result {
			return l.ask(ctx, t, func(x *exchange) Result { return x.healthy("TLS handshake") })
		}})
	}
	for i := range steps {
		steps[i].Name = prefix + steps[i].Name
	}
	return steps
}

// newConfigured is the check of the steps before the login and of the login.
func (l login) newConfigured(name, prefix, last string, run Func) *Configured {
	info := ""
	if l.username != "" && prefix == "" { // a name with a prefix says itself whether it is with a login
		info = "user " + l.username
	}
	return &Configured{
		Name:     name + ":" + l.addr(),
		Steps:    append(l.steps(prefix), Step{Name: prefix + last, Info: info, Run: run}),
		Endpoint: Endpoint{"tcp", l.host, l.port},
	}
}

// healthy is the result of a check that found what it looked for: "Logged in and quit in 0.01s".
func (x *exchange) healthy(what string) Result {
	return Result{Code: 200, Body: []byte(what + " in " + x.after())}
}

// redact are a server's own, fit to be shown. A server that was told a password may repeat it, so what
// contains it, as it is or in base64, is not shown at all: with a part of it in stars a text that one
// knows would tell the password.
func (l login) redact(text string) string {
	if l.password != "" {
		for _, said := range []string{string(l.password), base64.StdEncoding.EncodeToString([]byte(l.password)), l.saslPlain()} {
			if strings.Contains(text, said) {
				return "(its words are not shown, the password may be among them)"
			}
		}
	}
	return oneLine(text, 300)
}

// saslPlain is what the mechanism PLAIN says (RFC 4616), in base64.
func (l login) saslPlain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + l.username + "\x00" + string(l.password)))
}

// phaseLogin is a phase that many protocols have.
const phaseLogin = "logging in to"

// The options of types with a login.
var (
	usernameOption = Option{Name: "username", Want: "a user name without control characters", Doc: "who logs in"}
	passwordOption = Option{Name: "password", Want: "a password without a NUL byte", Secret: true, Doc: "their password"}
)

// required is the option as one that has to be given.
func (o Option) required() Option {
	o.Required, o.Default = true, ""
	return o
}

// tlsOptions are use_tls, with its default, and how TLS is spoken.
func tlsOptions(def string) []Option {
	return []Option{
		{Name: "use_tls", Want: "true or false", Default: def, Doc: "speak TLS from the first byte on; the login runs over it"},
		{Name: "disable_tls_verification", Want: "true or false", Default: "true, false with tls_verify: true", Doc: "accept any certificate"},
	}
}

// login reads the options that o's type has of those above; port 0 stands for the two default ports.
func (o *values) login(d Defaults, port, tlsPort uint16) login {
	l := login{host: o.host("host"), username: o.plainText("username", ""), password: o.password()}
	useTLS := false
	if o.hasOption("use_tls") {
		useTLS = o.flag("use_tls", o.option("use_tls").Default == "true")
	}
	if useTLS {
		port = tlsPort
		l.tls = tlsConfig(!o.flag("disable_tls_verification", !d.TLSVerify), d.TLSRoots)
	}
	l.port = o.port("port", port)
	return l
}

// hasOption tells whether the type has an option of that name.
func (o *values) hasOption(name string) bool {
	for _, opt := range o.typ.Options {
		if opt.Name == name {
			return true
		}
	}
	return false
}

// plainText returns text without control characters, which end a field or a line in most protocols.
// A type without such an option has the default.
func (o *values) plainText(name, def string) string {
	if !o.hasOption(name) {
		return def
	}
	s := o.text(name, def)
	if strings.ContainsFunc(s, unicode.IsControl) {
		o.unexpected(name, s)
	}
	return s
}

// password returns the option of that name. A NUL byte ends a password in most protocols.
func (o *values) password() Secret {
	if !o.hasOption("password") {
		return ""
	}
	s := o.secret("password")
	if strings.ContainsRune(string(s), 0) {
		o.unexpected("password", string(s))
	}
	return s
}
