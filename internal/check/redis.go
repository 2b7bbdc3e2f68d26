package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// maxRedisLine is the longest line of an answer, in bytes: a status, an error or a length.
	maxRedisLine = 4 << 10
	// maxRedisBulk is the longest INFO that is read, in bytes. A real one has about 7,000.
	maxRedisBulk = 512 << 10
)

// redisClient speaks the part of RESP (redis.io/docs/reference/protocol-spec) that PING, AUTH and INFO use. That is one
// page of code. A Redis library adds a pool, retries, CLIENT SETINFO and goroutines to a connection for one command.
type redisClient struct {
	username string
	password Secret
	setting  string // name of the password in messages: the setting, or "the password" of a configured check
}

// newRedis returns the check of the URL protocols redis and sentinel: PING is answered with PONG.
func newRedis(o Options) Func {
	c := &redisClient{o.RedisUsername, o.RedisPassword, "redis_password"}
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result {
			return c.ping(x, bufio.NewReaderSize(x.conn, maxRedisLine))
		})
	}
}

// ping passes when the server answers PING with PONG.
func (c *redisClient) ping(x *exchange, r *bufio.Reader) Result {
	reply, result, ok := c.command(x, r, "PING")
	switch {
	case !ok:
		return result
	case reply.kind == '+' && string(reply.text) == "PONG":
		return Result{Code: 200, Body: []byte("Sent PING, got back +PONG")}
	}
	return x.unexpectedRedisReply("PING", reply)
}

// redisType and sentinelType are the configured checks. With a password they always log in, even if the server does not
// require it: the check proves that the login works, and without it the connection may belong to another user.
var (
	redisType    = newRedisType("redis", "a Redis server", 6379)
	sentinelType = newRedisType("sentinel", "a Redis Sentinel", 26379)
)

func newRedisType(name, server string, port uint16) Type {
	return Type{
		Name:    name,
		Doc:     server + " answers PING, and takes the password if there is one",
		Options: append([]Option{hostOption, portOption(port), usernameOption, passwordOption}, tlsOptions("false")...),
		build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
			return buildRedis(o, d, port), nil
		},
	}
}

func buildRedis(o *optionReader, d Defaults, port uint16) *ConfiguredCheck {
	l := o.login(d, port, port)
	c := &redisClient{l.username, l.password, "the password"}
	last := "connect"
	if l.password != "" {
		last = "connect with auth"
	} else if l.username != "" {
		o.addError("username", "needs a password")
	}
	return l.newConfigured(o.typ.Name, o.typ.Name+":"+l.addr()+":", last, func(x *exchange) Result {
		r := bufio.NewReaderSize(x.conn, maxRedisLine)
		if l.password != "" {
			if result, ok := c.login(x, r); !ok {
				return result
			}
		}
		return c.ping(x, r)
	})
}

// command sends a command without arguments and reads the reply. If the server requires a login, it logs in and sends
// the command again. So one configured password works for servers with and without a login, and only a server that
// requires a login receives it.
func (c *redisClient) command(x *exchange, r *bufio.Reader, name string) (redisReply, Result, bool) {
	reply, result, ok := x.redisCommand(r, name)
	if !ok || !reply.requiresLogin() {
		return reply, result, ok
	}
	if c.password == "" {
		res := x.unexpectedRedisReply(name, reply)
		res.Reason = ReasonConfig
		res.Body = append(res.Body, " (no "+strings.TrimPrefix(c.setting, "the ")+" is configured)"...)
		return reply, res, false
	}
	if result, ok = c.login(x, r); !ok {
		return reply, result, false
	}
	return x.redisCommand(r, name)
}

// login sends AUTH. If the server refuses it, login returns false and the result of the check.
func (c *redisClient) login(x *exchange, r *bufio.Reader) (Result, bool) {
	auth := []string{"AUTH", string(c.password)}
	if c.username != "" {
		auth = []string{"AUTH", c.username, string(c.password)}
	}
	reply, result, ok := x.redisCommand(r, auth...)
	if ok && reply.kind != '+' {
		// A server may repeat the arguments in its error, so only the kind of the error is shown.
		return x.serviceError(500, "%s refuses %s: %s", x.addr(), c.setting, reply.errorKind()), false
	}
	return result, ok
}

// unexpectedRedisReply returns the result for any reply but the expected one: for an error 500 with the server's text,
// as in uber's hacheck.
func (x *exchange) unexpectedRedisReply(name string, reply redisReply) Result {
	if reply.kind == '-' {
		return x.serviceError(500, "Sent %s, got back -%s", name, excerpt(reply.text, 200))
	}
	return x.protocolError("Sent %s, got back %c%s", name, reply.kind, excerpt(reply.text, 80))
}

// redisReply is a status (+), an error (-) or a bulk string ($).
type redisReply struct {
	kind byte
	text []byte
}

// requiresLogin reports whether r says that the server requires a login: NOAUTH, or ERR before Redis 2.8.
func (r redisReply) requiresLogin() bool {
	return r.kind == '-' && (bytes.HasPrefix(r.text, []byte("NOAUTH")) || bytes.HasPrefix(r.text, []byte("ERR operation not permitted")))
}

// errorKind returns the first word of an error if it is a known one.
func (r redisReply) errorKind() string {
	kind, _, _ := strings.Cut(string(r.text), " ")
	switch kind {
	case "ERR", "NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "READONLY":
		return kind
	}
	return "an unknown error"
}

// redisCommand sends a command and reads the reply. On failure the bool is false and the result says why.
func (x *exchange) redisCommand(r *bufio.Reader, command ...string) (redisReply, Result, bool) {
	request := fmt.Appendf(nil, "*%d\r\n", len(command))
	for _, arg := range command {
		request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	x.phase = phaseWait
	if err := x.send(request); err != nil {
		return redisReply{}, x.networkError(err), false
	}
	start, err := r.Peek(1)
	if err != nil {
		return redisReply{}, x.networkError(err), false
	}
	x.phase = phaseRead
	kind := start[0]
	if kind != '+' && kind != '-' && kind != '$' {
		if command[0] == "AUTH" {
			// The server may repeat the password.
			return redisReply{}, x.protocolError("Sent AUTH, got back something that is not Redis from %s", x.addr()), false
		}
		start, _ = r.Peek(r.Buffered())
		line, _, _ := bytes.Cut(start, []byte("\n"))
		return redisReply{}, x.protocolError("Sent %s, got back %q from %s", command[0], excerpt(line, 80), x.addr()), false
	}
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return redisReply{}, x.protocolError("The answer of %s has a line of more than %d bytes", x.addr(), maxRedisLine), false
	case err != nil:
		return redisReply{}, x.networkError(err), false
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))[1:]
	if kind != '$' {
		return redisReply{kind, bytes.Clone(line)}, Result{}, true
	}
	size, err := strconv.Atoi(string(line))
	if err != nil || size < 0 || size > maxRedisBulk {
		return redisReply{}, x.protocolError("The answer of %s has an impossible length", x.addr()), false
	}
	// The server may claim any length, so memory is allocated as the bytes arrive.
	var text bytes.Buffer
	if _, err := io.CopyN(&text, r, int64(size)+2); err != nil {
		return redisReply{}, x.networkError(err), false
	}
	if !bytes.HasSuffix(text.Bytes(), []byte("\r\n")) {
		return redisReply{}, x.protocolError("The answer of %s is longer than it says", x.addr()), false
	}
	text.Truncate(size)
	return redisReply{kind, text.Bytes()}, Result{}, true
}
