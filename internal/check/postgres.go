package check

import (
	"encoding/binary"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// postgresSSLRequest is the request for TLS, before the startup message, see
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL.
const postgresSSLRequest = 80877103

// postgresType is the configured check: log in to a database, ask for the role or run a query, and quit.
var postgresType = Type{
	Name:    "postgres",
	Aliases: []string{"postgresql"},
	Doc:     "a login to a PostgreSQL database works, and the server has a role",
	Roles:   postgresRoles,
	Options: slices.Concat([]Option{
		{Name: "host", Want: "an IP address, a host name or the absolute path of a Unix socket's directory", Required: true, Doc: "the host of the service"},
		portOption(5432),
		usernameOption.required(),
		passwordOption,
		{Name: "database", Want: "a database name without control characters", Default: "the user's name", Doc: "the database to log in to"},
	}, tlsOptions("prefer"), roleOptions(postgresRoles), queryOptions, []Option{
		{Name: "lag_query", Want: "an SQL query", Doc: "returns the lag of a replica in seconds, from a heartbeat table for example"},
	}),
	build: buildPostgres,
}

func buildPostgres(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
	p := postgresLogin{
		database: o.plainText("database", ""), role: o.role(), query: o.sqlQuery(), lagQuery: o.text("lag_query", ""),
		sources: d.sources(),
	}
	p.drivers = d.Logins
	p.port, p.username, p.password = o.port("port", 5432), o.plainText("username", ""), o.password()
	p.settings = o.tls(d, d.TLSVerify)
	if dir := o.text("host", ""); strings.HasPrefix(dir, "/") {
		p.host, p.socket = o.plainText("host", ""), filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(int(p.port)))
		if len(p.socket) > maxSocketPath {
			o.addValueError("host", dir)
		}
	} else {
		p.host = o.host("host")
	}
	if _, err := postgresConfig(); err != nil {
		return nil, err
	}
	c := p.newConfigured("postgres", "", "postgres:"+p.addr(), p.check)
	if p.socket != "" {
		// Nothing is sent over the network. conn-check has no tcp step here either.
		c.Steps, c.Endpoint, c.socket = c.Steps[len(c.Steps)-1:], Endpoint{}, p.socket
	}
	return c, nil
}

// postgresLogin is a login to a database, over TCP or a Unix socket, and what the check asks then.
type postgresLogin struct {
	login
	socket   string // path of the Unix socket, "" for TCP
	database string // "" for the one named like the user
	role     wantedRole
	query    sqlQuery
	lagQuery string
	sources  *Sources
}

// check logs in, asks and quits. With use_tls: prefer it does what libpq does: if the handshake fails, or the rules of the
// server (pg_hba.conf) refuse the login over TLS, it connects once more without TLS.
func (p postgresLogin) check(x *exchange) Result {
	if p.socket != "" || p.settings.mode == tlsOff {
		r, _ := p.attempt(x, false)
		return r
	}
	r, again := p.attempt(x, true)
	if !again || p.settings.mode != tlsPrefer {
		return r
	}
	x.close(r)
	if r, ok := x.connect(); !ok {
		return r
	}
	without, _ := p.attempt(x, false)
	if without.Reason == ReasonFailed && without.Code != 200 {
		without.Body = []byte(excerpt(string(r.Body)+"; without TLS: "+string(without.Body), 700))
		without.Err = &failure{string(without.Body), without.Err}
	}
	return without
}

// attempt is the conversation over one connection, with or without TLS. again is true if a login over a connection
// without TLS may succeed.
func (p postgresLogin) attempt(x *exchange, overTLS bool) (r Result, again bool) {
	secure := p.socket != ""
	if overTLS {
		var ok bool
		if secure, r, ok = p.requestTLS(x); !ok {
			// A certificate that is not accepted, or one of hacheck's own that cannot be read, is no reason to go without.
			return r, r.Reason == ReasonProtocol && x.phase == phaseHandshake && x.ctx.Err() == nil
		}
	}
	c, err := p.connect(x, secure)
	if err != nil {
		return p.failure(x, err), secure && isPostgresCode(err, "28000")
	}
	defer c.quit(x)
	r, err = p.ask(x, c)
	if err != nil {
		return p.failure(x, err), false
	}
	return r, false
}

// requestTLS asks the server for TLS and makes the handshake if the server agrees. If ok is false, r is the result of the
// check.
func (p postgresLogin) requestTLS(x *exchange) (secure bool, r Result, ok bool) {
	x.phase = phaseWait
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), postgresSSLRequest)
	if err := x.send(request); err != nil {
		return false, x.networkError(err), false
	}
	// It reads exactly one byte, so that clear text after it is never taken for data received over TLS.
	var answer [1]byte
	if _, err := io.ReadFull(x.conn, answer[:]); err != nil {
		return false, x.networkError(err), false
	}
	switch {
	case answer[0] == 'S':
		r, ok = x.handshake(p.settings.config)
		return true, r, ok
	case answer[0] == 'N' && p.settings.mode == tlsOn:
		return false, x.protocolError("%s offers no TLS, which use_tls: true requires; use_tls: prefer does without", x.addr()), false
	case answer[0] == 'N':
		return false, Result{}, true
	case answer[0] == 'E':
		// A server without a free process replies with an error before TLS. Its text is not authenticated and not
		// shown.
		return false, x.serviceError(500, "%s answers the wish for TLS with an error", x.addr()), false
	}
	return false, x.protocolError("The answer of %s is not PostgreSQL: %q where S or N has to be", x.addr(), excerpt(answer[:], 4)), false
}

// ask asks for what the check wants to know: the role, the query, or SELECT 1.
func (p postgresLogin) ask(x *exchange, c *postgresConn) (Result, error) {
	x.phase = phaseQuery
	r := x.healthy("Logged in and quit")
	if p.role.name != "any" {
		state, err := p.readState(x, c)
		if err != nil {
			return Result{}, err
		}
		if r = p.evaluate(x, state); r.Code != 200 {
			return r, nil
		}
	} else if p.query.text == "" {
		// A pooler accepts logins on its own: only a query shows that a server is behind it.
		rows, err := c.query("SELECT 1")
		if err == nil && (len(rows) != 1 || len(rows[0]) != 1 || string(rows[0][0]) != "1") {
			err = malformed("another answer to SELECT 1 than 1")
		}
		return r, err
	}
	if p.query.text == "" {
		return r, nil
	}
	rows, err := c.query(p.query.text)
	if err != nil {
		return Result{}, err
	}
	found, null := "", false
	if len(rows) > 0 && len(rows[0]) > 0 {
		found, null = string(rows[0][0]), rows[0][0] == nil
	}
	if text := p.query.mismatch(len(rows), found, null); text != "" {
		return x.serviceError(503, "%s", p.redact(text)), nil
	}
	return r, nil
}
