package check

import (
	"bufio"
	"slices"
	"strings"
	"time"
)

// redisClient is what a check asks a Redis server or a Sentinel. See resp.go for why no library does it.
type redisClient struct {
	username string
	password Secret
	setting  string // name of the password in messages: the setting, or "the password" of a configured check
	// always logs in to a server that requires no login too: the check proves that the login works, and without it the
	// connection may belong to another user.
	always bool

	role    wantedRole
	sources *Sources
	command []string // sent after PING; nil for none
	expect  *string  // what the reply to command has to be; nil for any
	redact  func(text string) string
}

// minRedisLag is the shortest lag that a replica can be asked for. An idle primary sends a ping every 10 s
// (repl-ping-replica-period).
const minRedisLag = 10 * time.Second

var redisRoles = []Role{
	{Name: "any", Doc: "it answers PING with PONG"},
	{Name: "primary", Doc: "INFO says role:master, no loading; in cluster mode cluster_state is ok and it has slots"},
	{
		Name: "replica", Params: []string{"lag", "alone"}, MinLag: minRedisLag,
		Doc: "INFO says role:slave, link up, no loading, no full sync; in cluster mode cluster_state is ok",
	},
}

// redisType and sentinelType are the configured checks.
var (
	redisType    = newRedisType("redis", "a Redis server", 6379, redisRoles)
	sentinelType = newRedisType("sentinel", "a Redis Sentinel", 26379, nil)
)

func newRedisType(name, server string, port uint16, roles []Role) Type {
	options := slices.Concat([]Option{socketHostOption, portOption(port), usernameOption, passwordOption}, tlsOptions("false"), []Option{
		{Name: "command", Want: "a command and its arguments, as a list of words or one text", Doc: "a command that is sent after PING, whose reply must be no error"},
		{Name: "expect", Want: "a text", Doc: "the reply to command, or one line of it"},
	})
	if roles != nil {
		options = append(options, roleOptions(roles)...)
	}
	return Type{
		Name:    name,
		Doc:     server + " answers PING, takes the password if there is one, and has the role if one is wanted",
		Options: options,
		Roles:   roles,
		build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
			l := o.login(d, port, port)
			if l.username != "" && l.password == "" {
				o.addError("username", "needs a password")
			}
			return l.redisCheck(o, d, redisClient{username: l.username, password: l.password, setting: "the password", always: true}), nil
		},
	}
}

// redisProtocol returns the URL protocol of a type. A service without a configured check is asked with redis_username and
// redis_password, which only a server that requires a login receives. So one password works for servers with and
// without a login.
func redisProtocol(o Options, typ *Type) entry {
	fallback := *typ
	fallback.build = func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		l := o.login(d, 0, 0)
		l.password = d.RedisPassword // for redact
		return l.redisCheck(o, d, redisClient{username: d.RedisUsername, password: d.RedisPassword, setting: "redis_password"}), nil
	}
	return configuredOr(o, typ.Name, typ, &fallback)
}

// redisCheck returns the check of a client over the connection of l.
func (l login) redisCheck(o *optionReader, d Defaults, c redisClient) *ConfiguredCheck {
	c.redact, c.sources = l.redact, d.sources()
	c.command = o.command("command")
	if text, set := o.written("expect"); set {
		c.expect = &text
		if c.command == nil {
			o.addError("expect", "needs command")
		}
	}
	if o.typ.Roles != nil {
		c.role = o.role()
	}
	last := "connect"
	if c.always && c.password != "" {
		last = "connect with auth"
	}
	return l.newConfigured(o.typ.Name, o.typ.Name+":"+l.addr()+":", last, c.check)
}

// check logs in, looks at the role and sends PING or the command. It sends PING after the role, because a server in the
// right role may refuse to serve (MISCONF, MASTERDOWN).
func (c *redisClient) check(x *exchange) Result {
	r := bufio.NewReaderSize(x.conn, maxRedisLine)
	if c.always && c.password != "" {
		if res, ok := c.login(x, r); !ok {
			return res
		}
	}
	var found Result
	if c.role.name == "primary" || c.role.name == "replica" {
		var ok bool
		if found, ok = c.checkRole(x, r); !ok {
			return found
		}
	}
	res := c.ping(x, r)
	if res.Code == 200 && c.command != nil {
		res = c.query(x, r)
	}
	res.Fields = found.Fields
	if res.Code == 200 && found.Body != nil {
		res.Body = found.Body
	}
	return res
}

// ping passes when the server answers PING with PONG.
func (c *redisClient) ping(x *exchange, r *bufio.Reader) Result {
	reply, res, ok := c.send(x, r, "PING")
	switch {
	case !ok:
		return res
	case reply.kind == '+' && string(reply.text) == "PONG":
		return Result{Code: 200, Body: []byte("Sent PING, got back +PONG")}
	}
	return x.unexpectedRedisReply("PING", reply)
}

// query sends the configured command. Of its words, a result shows only the first.
func (c *redisClient) query(x *exchange, r *bufio.Reader) Result {
	name := strings.ToUpper(excerpt(c.command[0], 40))
	reply, res, ok := x.redisCommand(r, anyRedisReply, c.command...)
	text, _, _ := strings.Cut(string(reply.text), ", with args beginning with: ") // of an unknown command
	switch got := c.redact(text); {
	case !ok:
		return res
	case reply.kind == '-':
		return x.serviceError(500, "Sent %s, got back -%s", name, got)
	case reply.hasError:
		return x.serviceError(500, "Sent %s, got back a list with an error: %s", name, got)
	case c.expect != nil && !reply.has(*c.expect):
		return x.serviceError(503, "Sent %s, got back %s; %s wanted", name, excerpt(got, 100), excerpt(*c.expect, 100))
	case c.expect != nil:
		return Result{Code: 200, Body: []byte("Sent " + name + ", got back what was wanted")}
	}
	return Result{Code: 200, Body: []byte("Sent " + name + ", got back no error")}
}

// send sends a command without arguments and reads the reply. If the server requires a login, it logs in and sends the
// command again.
func (c *redisClient) send(x *exchange, r *bufio.Reader, command ...string) (redisReply, Result, bool) {
	reply, res, ok := x.redisCommand(r, plainRedisReply, command...)
	if !ok || !reply.requiresLogin() {
		return reply, res, ok
	}
	if c.password == "" {
		res := x.unexpectedRedisReply(command[0], reply)
		res.Reason = ReasonConfig
		res.Body = append(res.Body, " (no "+strings.TrimPrefix(c.setting, "the ")+" is configured)"...)
		return reply, res, false
	}
	if res, ok = c.login(x, r); !ok {
		return reply, res, false
	}
	return x.redisCommand(r, plainRedisReply, command...)
}

// login sends AUTH. If the server refuses it, login returns false and the result of the check.
func (c *redisClient) login(x *exchange, r *bufio.Reader) (Result, bool) {
	auth := []string{"AUTH", string(c.password)}
	if c.username != "" {
		auth = []string{"AUTH", c.username, string(c.password)}
	}
	reply, res, ok := x.redisCommand(r, plainRedisReply, auth...)
	if ok && reply.kind != '+' {
		// A server may repeat the arguments in its error, so only the kind of the error is shown.
		return x.serviceError(500, "%s refuses %s: %s", x.addr(), c.setting, reply.errorKind()), false
	}
	return res, ok
}

// unexpectedRedisReply returns the result for any reply but the expected one: for an error 500 with the server's text,
// as in uber's hacheck.
func (x *exchange) unexpectedRedisReply(name string, reply redisReply) Result {
	if reply.kind == '-' {
		return x.serviceError(500, "Sent %s, got back -%s", name, excerpt(reply.text, 200))
	}
	return x.protocolError("Sent %s, got back %c%s", name, reply.kind, excerpt(reply.text, 80))
}
