package check

import (
	"bufio"
	"bytes"
	"errors"
)

// maxMemcachedLine is the longest line of an answer, in bytes. A version has about 20.
const maxMemcachedLine = 1 << 10

// checkMemcached passes when the server answers the command version, which conn-check sends too
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt).
func checkMemcached(x *exchange) Result {
	x.phase = phaseWait
	// It sends quit at once, because the server executes commands in order.
	if err := x.send([]byte("version\r\nquit\r\n")); err != nil {
		return x.networkError(err)
	}
	r := bufio.NewReaderSize(x.conn, maxMemcachedLine)
	// The first bytes identify another protocol, whose server may never complete a line.
	for n := 1; ; n++ {
		start, err := r.Peek(n)
		if err != nil {
			return x.networkError(err)
		}
		if !mayBeMemcachedReply(start) {
			start, _ = r.Peek(r.Buffered())
			line, _, _ := bytes.Cut(start, []byte("\n"))
			return x.protocolError("The answer of %s is not memcached's: %q", x.addr(), excerpt(line, 80))
		}
		if start[n-1] == ' ' || start[n-1] == '\r' || start[n-1] == '\n' {
			break
		}
		x.phase = phaseRead
	}
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return x.protocolError("The answer of %s has a line of more than %d bytes", x.addr(), maxMemcachedLine)
	case err != nil:
		return x.networkError(err)
	case !bytes.HasPrefix(line, []byte("VERSION ")):
		return x.serviceError(503, "Sent version, got back %s", excerpt(line, 200))
	}
	return Result{Code: 200, Body: []byte("Sent version, got back " + excerpt(line, 200))}
}

// mayBeMemcachedReply reports whether start is the beginning of a reply, whole or in part.
func mayBeMemcachedReply(start []byte) bool {
	for _, word := range []string{"VERSION ", "ERROR\r\n", "ERROR\n", "CLIENT_ERROR ", "SERVER_ERROR "} {
		if n := min(len(start), len(word)); string(start[:n]) == word[:n] {
			return true
		}
	}
	return false
}

// memcacheType is the configured check, under the name that conn-check uses.
var memcacheType = Type{
	Name:    "memcache",
	Aliases: []string{"memcached"},
	Doc:     "a memcached server tells its version",
	Options: []Option{hostOption, portOption(11211)},
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		l := o.login(d, 11211, 11211)
		return l.newConfigured("memcache", "memcache:"+l.addr()+":", "connect", checkMemcached), nil
	},
}
