package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the protocol's
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The frontend/backend protocol of PostgreSQL, as far as a login goes; numbers as in
// https://www.postgresql.org/docs/current/protocol-message-formats.html.
const (
	postgresVersion    = 3 << 16
	postgresSSLRequest = 80877103

	postgresAuthOK        = 0
	postgresAuthClear     = 3
	postgresAuthMD5       = 5
	postgresAuthSASL      = 10
	postgresAuthSASLMore  = 11
	postgresAuthSASLFinal = 12

	// maxPostgresMessage is the longest message that is read, in bytes. Those of a login have some hundred.
	maxPostgresMessage = 64 << 10
	// maxPostgresMessages is how many messages a login may have; a real one has some 20.
	maxPostgresMessages = 1000
)

// postgresType is the configured check of the same name: log in to a database and quit, without a query.
//
// It is not jackc/pgx's pgconn. That one has no configuration but what it parses itself, and in parsing
// reads the PG* variables, service files and ~/.pgpass of whoever runs hacheck; and after an answer that it
// does not understand it goes on in the background and connects once more to cancel a query.
var postgresType = Type{
	Name:    "postgres",
	Aliases: []string{"postgresql"},
	Doc:     "a login to a PostgreSQL database works",
	Options: []Option{
		{Name: "host", Want: "an IP address, a host name or the absolute path of a Unix socket's directory", Required: true, Doc: "where the service is"},
		portOption(5432),
		usernameOption.required(),
		passwordOption,
		{Name: "database", Want: "a database name without control characters", Default: "the user's name", Doc: "the database to log in to"},
	},
	build: buildPostgres,
}

func buildPostgres(o *values, d Defaults) (*Configured, error) {
	p := postgresLogin{upgrade: tlsConfig(d.TLSVerify, d.TLSRoots), database: o.plainText("database", "")}
	p.port, p.username, p.password = o.port("port", 5432), o.plainText("username", ""), o.password()
	if dir := o.text("host", ""); strings.HasPrefix(dir, "/") {
		p.host, p.socket = o.plainText("host", ""), filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(int(p.port)))
	} else {
		p.host = o.host("host")
	}
	c := p.newConfigured("postgres", "", "postgres:"+p.addr(), p.check)
	if p.socket != "" {
		// Nothing goes over the network, and conn-check has no tcp step here either.
		c.Steps, c.Endpoint = c.Steps[len(c.Steps)-1:], Endpoint{}
	}
	return c, nil
}

// postgresLogin is who logs in, where and how.
type postgresLogin struct {
	login
	socket   string
	database string
	upgrade  *tls.Config // for a server that offers TLS
}

func (p postgresLogin) check(ctx context.Context, t Target) Result {
	t.Host, t.Port = p.host, p.port
	return askAt(ctx, t, p.socket, func(x *exchange) Result {
		secure, r, ok := p.requestTLS(x)
		if !ok {
			return r
		}
		c := &postgresConn{x: x, r: bufio.NewReaderSize(x.conn, 1<<10), secure: secure || p.socket != ""}
		err := c.login(p)
		var refused postgresRefusal
		var wrong malformedError
		switch {
		case err == nil:
			// A goodbye, or the server logs a lost connection at every check.
			_ = c.write('X', nil)
			if conn, ok := x.conn.(*tls.Conn); ok {
				_ = conn.CloseWrite()
			}
			return x.healthy("Logged in and quit")
		case errors.As(err, &refused):
			return x.failed(500, "PostgreSQL error %s: %s", oneLine(refused.code, 5), p.redact(refused.message))
		case errors.Is(err, errServerUnverified):
			return x.failed(500, "%s lets us in, but %s", x.addr(), err)
		case errors.As(err, &wrong):
			return x.protocol("The answer of %s is not PostgreSQL: %s", x.addr(), string(wrong))
		}
		return x.fail(err)
	})
}

// requestTLS asks the server whether it speaks TLS, and does so if it does. Over a Unix socket no server does.
func (p postgresLogin) requestTLS(x *exchange) (secure bool, r Result, ok bool) {
	if p.socket != "" {
		return false, Result{}, true
	}
	x.phase = phaseWait
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), postgresSSLRequest)
	if _, err := x.conn.Write(request); err != nil && x.ctx.Err() != nil {
		return false, x.fail(err), false
	}
	// One byte and no more: what comes in clear after it must never count as said over TLS.
	var answer [1]byte
	if _, err := io.ReadFull(x.conn, answer[:]); err != nil {
		return false, x.fail(err), false
	}
	switch answer[0] {
	case 'S':
		_, r, ok = x.handshake(p.upgrade)
		return true, r, ok
	case 'N':
		return false, Result{}, true
	case 'E':
		// A server that has no process left for us says so before it knows that we speak TLS. Nobody can
		// tell who said it, so its words are not shown.
		return false, x.failed(500, "%s answers the wish for TLS with an error", x.addr()), false
	}
	return false, x.protocol("The answer of %s is not PostgreSQL: %q where S or N has to be", x.addr(), oneLine(answer[:], 4)), false
}

// postgresRefusal is an error of the server.
type postgresRefusal struct{ code, message string }

func (e postgresRefusal) Error() string { return "error " + e.code + ": " + e.message }

// postgresConn reads and writes messages: a byte that says what it is, four bytes of length, the rest.
type postgresConn struct {
	x      *exchange
	r      *bufio.Reader
	secure bool // nobody reads along
}

func (c *postgresConn) write(kind byte, payload []byte) error {
	message := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)+4))
	_, err := c.x.conn.Write(append(message, payload...))
	return err
}

// read returns the next message. An error of the server is returned as an error.
func (c *postgresConn) read() (kind byte, payload []byte, err error) {
	start, err := c.r.Peek(1)
	if err != nil {
		return 0, nil, err
	}
	kind = start[0]
	// Another protocol is told by its first byte, before it is waited for the next.
	if !strings.ContainsRune("RENSKZv", rune(kind)) {
		return 0, nil, malformedError(fmt.Sprintf("a message of type %#02x in a login", kind))
	}
	head, err := c.r.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > maxPostgresMessage {
		return 0, nil, malformedError(fmt.Sprintf("a message of %d bytes", size))
	}
	_, _ = c.r.Discard(5)
	payload = make([]byte, size-4)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, err
	}
	if kind != 'E' {
		return kind, payload, nil
	}
	refused := postgresRefusal{code: "without a code"}
	for field := range bytes.SplitSeq(payload, []byte{0}) {
		switch {
		case len(field) == 0:
		case field[0] == 'C':
			refused.code = string(field[1:])
		case field[0] == 'M':
			refused.message = string(field[1:])
		}
	}
	return 0, nil, refused
}

// login goes from the first message to the server's being ready for a query.
func (c *postgresConn) login(p postgresLogin) error {
	c.x.phase = phaseLogin
	startup := binary.BigEndian.AppendUint32(make([]byte, 4), postgresVersion)
	parameters := []string{"user", p.username, "application_name", "hacheck", "client_encoding", "UTF8"}
	if p.database != "" {
		parameters = append(parameters, "database", p.database)
	}
	for _, s := range parameters {
		startup = append(append(startup, s...), 0)
	}
	startup = append(startup, 0)
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if _, err := c.x.conn.Write(startup); err != nil {
		return err
	}
	var s *scram
	proven, in := true, false
	for range maxPostgresMessages {
		kind, payload, err := c.read()
		if err != nil {
			return err
		}
		switch {
		case kind == 'Z' && in:
			return nil
		case kind == 'R' && !in && len(payload) >= 4:
		case (kind == 'S' || kind == 'K') && in, kind == 'N', kind == 'v':
			continue
		default:
			return malformedError(fmt.Sprintf("a message of type %q out of turn", kind))
		}
		method, data := binary.BigEndian.Uint32(payload), payload[4:]
		switch {
		case method == postgresAuthOK && !proven:
			return errServerUnverified
		case method == postgresAuthOK:
			in = true
		case method == postgresAuthClear && !c.secure:
			return malformedError("it wants the password in clear, and speaks no TLS")
		case method == postgresAuthClear:
			err = c.write('p', append([]byte(p.password), 0))
		case method == postgresAuthMD5 && len(data) == 4:
			inner := md5Hex(string(p.password) + p.username)
			err = c.write('p', append([]byte("md5"+md5Hex(inner+string(data))), 0))
		case method == postgresAuthSASL && s == nil:
			if !slices.Contains(strings.Split(string(data), "\x00"), "SCRAM-SHA-256") {
				return malformedError("it wants a SASL mechanism that is not known here")
			}
			// PostgreSQL takes the user's name from the first message and ignores SCRAM's.
			s, proven = newSCRAM(sha256.New, "", saslPrep(string(p.password))), false
			first := s.clientFirst()
			answer := binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(first)))
			err = c.write('p', append(answer, first...))
		case method == postgresAuthSASLMore && s != nil && !proven:
			var final string
			if final, err = s.clientFinal(c.x.ctx, string(data)); err == nil {
				err = c.write('p', []byte(final))
			}
		case method == postgresAuthSASLFinal && s != nil && !proven:
			err = s.verifyServerFinal(string(data))
			proven = err == nil
		default:
			return malformedError(fmt.Sprintf("it wants an authentication method that is not known here: %d", method))
		}
		if err != nil {
			return err
		}
	}
	return malformedError("a login without an end")
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // the protocol's
	return hex.EncodeToString(sum[:])
}
