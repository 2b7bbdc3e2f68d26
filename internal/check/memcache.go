package check

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxMemcachedLine is the longest line of an answer, in bytes. A version has about 20.
const maxMemcachedLine = 1 << 10

// memcacheType is the configured check, under the name that conn-check uses. It stays by hand: the text protocol
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt) is two lines, and libraries for it are pools.
var memcacheType = Type{
	Name:    "memcache",
	Aliases: []string{"memcached"},
	Doc:     "a memcached server tells its version, after a login if it wants one",
	Options: append([]Option{socketHostOption, portOption(11211), usernameOption, passwordOption}, tlsOptions("false")...),
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		m := memcacheLogin{o.login(d, 11211, 11211)}
		o.requireBoth(m.login)
		if strings.Contains(m.username, " ") {
			o.addError("username", "expected a name without a space, at which memcached ends it")
		}
		c := m.newConfigured("memcache", "memcache:"+m.addr()+":", "connect", m.check)
		for i, s := range c.Steps {
			c.Steps[i].run = func(x *exchange) Result { return x.memcachedOverTLS(s.run(x)) }
		}
		return c, nil
	},
}

// memcacheLogin is a login to memcached, with the password file of its option -Y.
type memcacheLogin struct{ login }

// errMemcachedLogin is the answer of a memcached with a password file before the login.
const errMemcachedLogin = "CLIENT_ERROR unauthenticated"

// check passes when the server answers the command version, which conn-check sends too. It logs in only if the server
// wants a login: the login looks like the command set, and a server without passwords would store the password.
func (m memcacheLogin) check(x *exchange) Result {
	r := bufio.NewReaderSize(x.conn, maxMemcachedLine)
	if m.username == "" {
		return m.version(x, r)
	}
	answer, res, ok := x.memcached(r, "version\r\n")
	switch {
	case !ok:
		return res
	case answer != errMemcachedLogin:
		return m.versionResult(x, answer)
	}
	data := m.username + " " + string(m.password)
	answer, res, ok = x.memcached(r, fmt.Sprintf("set hacheck 0 0 %d\r\n%s\r\n", len(data), data))
	switch {
	case !ok:
		return res
	case answer != "STORED":
		return x.serviceError(503, "%s refuses the login: %s", x.addr(), m.redact(answer))
	}
	return m.version(x, r)
}

// version asks for the version and sends quit at once, because the server executes commands in order.
func (m memcacheLogin) version(x *exchange, r *bufio.Reader) Result {
	answer, res, ok := x.memcached(r, "version\r\nquit\r\n")
	if !ok {
		return res
	}
	return m.versionResult(x, answer)
}

// versionResult returns the result for the answer to version.
func (m memcacheLogin) versionResult(x *exchange, answer string) Result {
	switch {
	case strings.HasPrefix(answer, "VERSION "):
		return Result{Code: 200, Body: []byte("Sent version, got back " + m.redact(answer))}
	case answer == errMemcachedLogin && m.username == "":
		return x.serviceError(503, "Sent version, got back %s (no username is configured)", answer)
	case strings.HasPrefix(answer, "ERROR Too many open connections"):
		return x.memcachedFull()
	}
	return x.serviceError(503, "Sent version, got back %s", m.redact(answer))
}

// memcachedFull returns the result for a server that takes no more clients.
func (x *exchange) memcachedFull() Result {
	return x.serviceError(503, "%s has no free place for a client: ERROR Too many open connections (its option -c)", x.addr())
}

// memcachedOverTLS returns r, or what it means if memcached has answered a handshake in clear: it takes no more clients.
func (x *exchange) memcachedOverTLS(r Result) Result {
	var header tls.RecordHeaderError
	if errors.As(r.Err, &header) && string(header.RecordHeader[:]) == "ERROR" {
		return x.memcachedFull()
	}
	return r
}

// memcached sends a command and returns the first line of the answer without its end. On failure the bool is false and
// the result says why.
func (x *exchange) memcached(r *bufio.Reader, command string) (string, Result, bool) {
	x.phase = phaseWait
	if err := x.send([]byte(command)); err != nil {
		return "", x.networkError(err), false
	}
	// The first bytes identify another protocol, whose server may never complete a line.
	for n := 1; ; n++ {
		start, err := r.Peek(n)
		if err != nil {
			return "", x.networkError(err), false
		}
		if !mayBeMemcachedReply(start) {
			if strings.HasPrefix(command, "set ") { // the server may repeat the password
				return "", x.protocolError("The answer of %s to the login is not memcached's", x.addr()), false
			}
			start, _ = r.Peek(r.Buffered())
			line, _, _ := bytes.Cut(start, []byte("\n"))
			return "", x.protocolError("The answer of %s is not memcached's: %q", x.addr(), excerpt(line, 80)), false
		}
		if slices.Contains([]byte(" \r\n"), start[n-1]) {
			break
		}
		x.phase = phaseRead
	}
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", x.protocolError("The answer of %s has a line of more than %d bytes", x.addr(), maxMemcachedLine), false
	case err != nil:
		return "", x.networkError(err), false
	}
	return strings.TrimRight(string(line), "\r\n"), Result{}, true
}

// mayBeMemcachedReply reports whether start is the beginning of a reply, whole or in part.
func mayBeMemcachedReply(start []byte) bool {
	for _, word := range []string{"VERSION ", "STORED\r\n", "ERROR\r\n", "ERROR\n", "ERROR ", "CLIENT_ERROR ", "SERVER_ERROR "} {
		if n := min(len(start), len(word)); string(start[:n]) == word[:n] {
			return true
		}
	}
	return false
}
