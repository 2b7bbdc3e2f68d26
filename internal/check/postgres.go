package check

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // the protocol's
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The parts of the frontend/backend protocol of PostgreSQL that a login uses, see
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

	// maxPostgresMessage is the longest message that is read, in bytes. A message of a login has about a hundred.
	maxPostgresMessage = 64 << 10
	// maxPostgresMessages is how many messages a login may have. A real one has about 20.
	maxPostgresMessages = 1000
)

// postgresType is the configured check: log in to a database and quit, without a query.
//
// It does not use jackc/pgx's pgconn. Its parser of the configuration reads the PG* variables, service files and
// ~/.pgpass of the daemon's user. After an answer that it does not understand it connects once more in the background
// to cancel a query.
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

func buildPostgres(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
	p := postgresLogin{upgrade: tlsConfig(d.TLSVerify, d.TLSRoots), database: o.plainText("database", "")}
	p.port, p.username, p.password = o.port("port", 5432), o.plainText("username", ""), o.password()
	if dir := o.text("host", ""); strings.HasPrefix(dir, "/") {
		p.host, p.socket = o.plainText("host", ""), filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(int(p.port)))
	} else {
		p.host = o.host("host")
	}
	c := p.newConfigured("postgres", "", "postgres:"+p.addr(), p.check)
	if p.socket != "" {
		// Nothing is sent over the network. conn-check has no tcp step here either.
		c.Steps, c.Endpoint, c.socket = c.Steps[len(c.Steps)-1:], Endpoint{}, p.socket
	}
	return c, nil
}

// postgresLogin is a login to a database, over TCP or a Unix socket.
type postgresLogin struct {
	login
	socket   string      // path of the Unix socket, "" for TCP
	database string      // "" for the one named like the user
	upgrade  *tls.Config // used if the server offers TLS
}

// check logs in and quits.
func (p postgresLogin) check(x *exchange) Result {
	secure, r, ok := p.requestTLS(x)
	if !ok {
		return r
	}
	c := &postgresConn{x: x, r: bufio.NewReaderSize(x.conn, 1<<10), secure: secure || p.socket != ""}
	if err := c.login(p); err != nil {
		return x.loginError("PostgreSQL", err, p.redact)
	}
	// Without Terminate the server logs a lost connection for each check.
	_ = c.write('X', nil)
	return x.healthy("Logged in and quit")
}

// requestTLS asks the server for TLS and makes the handshake if the server agrees. It does nothing on a Unix socket,
// where no server speaks TLS. If ok is false, r is the result of the check.
func (p postgresLogin) requestTLS(x *exchange) (secure bool, r Result, ok bool) {
	if p.socket != "" {
		return false, Result{}, true
	}
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
	switch answer[0] {
	case 'S':
		r, ok = x.handshake(p.upgrade)
		return true, r, ok
	case 'N':
		return false, Result{}, true
	case 'E':
		// A server without a free process replies with an error before TLS. Its text is not authenticated and not
		// shown.
		return false, x.serviceError(500, "%s answers the wish for TLS with an error", x.addr()), false
	}
	return false, x.protocolError("The answer of %s is not PostgreSQL: %q where S or N has to be", x.addr(), excerpt(answer[:], 4)), false
}

// postgresConn reads and writes messages: type (1 byte), length (4), payload.
type postgresConn struct {
	x      *exchange
	r      *bufio.Reader
	secure bool // TLS or a Unix socket: the password may be sent in clear
}

func (c *postgresConn) write(kind byte, payload []byte) error {
	message := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)+4))
	_, err := c.x.conn.Write(append(message, payload...))
	return err
}

// read returns the next message. It returns an ErrorResponse as a serverError.
func (c *postgresConn) read() (kind byte, payload []byte, err error) {
	start, err := c.r.Peek(1)
	if err != nil {
		return 0, nil, err
	}
	kind = start[0]
	// The first byte identifies another protocol, whose server may never send a second one.
	if !strings.ContainsRune("RENSKZv", rune(kind)) {
		return 0, nil, malformed("a message of type %#02x in a login", kind)
	}
	head, err := c.r.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > maxPostgresMessage {
		return 0, nil, malformed("a message of %d bytes", size)
	}
	_, _ = c.r.Discard(5)
	payload = make([]byte, size-4)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, err
	}
	if kind != 'E' {
		return kind, payload, nil
	}
	code, text := "without a code", ""
	for field := range bytes.SplitSeq(payload, []byte{0}) {
		switch {
		case len(field) == 0:
		case field[0] == 'C':
			code = string(field[1:])
		case field[0] == 'M':
			text = string(field[1:])
		}
	}
	return 0, nil, serverError{"PostgreSQL error " + excerpt(code, 5), text}
}

// login logs in: it sends the startup message and answers until the server is ready for a query.
func (c *postgresConn) login(p postgresLogin) error {
	c.x.phase = phaseLogin
	if _, err := c.x.conn.Write(p.startup()); err != nil {
		return err
	}
	auth := postgresAuth{conn: c, login: p}
	for range maxPostgresMessages {
		kind, payload, err := c.read()
		if err != nil {
			return err
		}
		switch {
		case kind == 'Z' && auth.done:
			return nil
		case kind == 'R' && !auth.done && len(payload) >= 4:
			if err := auth.answer(binary.BigEndian.Uint32(payload), payload[4:]); err != nil {
				return err
			}
		case (kind == 'S' || kind == 'K') && auth.done, kind == 'N', kind == 'v':
		default:
			return malformed("a message of type %q out of turn", kind)
		}
	}
	return malformed("a login without an end")
}

// startup returns the startup message.
func (p postgresLogin) startup() []byte {
	message := binary.BigEndian.AppendUint32(make([]byte, 4), postgresVersion)
	parameters := []string{"user", p.username, "application_name", "hacheck", "client_encoding", "UTF8"}
	if p.database != "" {
		parameters = append(parameters, "database", p.database)
	}
	for _, s := range parameters {
		message = append(append(message, s...), 0)
	}
	message = append(message, 0)
	binary.BigEndian.PutUint32(message, uint32(len(message)))
	return message
}

// postgresAuth answers the authentication requests of one login.
type postgresAuth struct {
	conn     *postgresConn
	login    postgresLogin
	scram    *scram // nil unless the server asked for SCRAM
	verified bool   // by SCRAM, the server knows the password
	done     bool   // the server has accepted the login
}

// answer answers a request with its method and data.
func (a *postgresAuth) answer(method uint32, data []byte) error {
	p := a.login
	inSCRAM := a.scram != nil && !a.verified
	switch {
	case method == postgresAuthOK && inSCRAM:
		return errServerUnverified
	case method == postgresAuthOK:
		a.done = true
		return nil
	case method == postgresAuthClear && !a.conn.secure:
		return malformed("it wants the password in clear, and speaks no TLS")
	case method == postgresAuthClear:
		return a.conn.write('p', append([]byte(p.password), 0))
	case method == postgresAuthMD5 && len(data) == 4:
		inner := md5Hex(string(p.password) + p.username)
		return a.conn.write('p', append([]byte("md5"+md5Hex(inner+string(data))), 0))
	case method == postgresAuthSASL && a.scram == nil:
		if !slices.Contains(strings.Split(string(data), "\x00"), "SCRAM-SHA-256") {
			return malformed("it wants a SASL mechanism that is not known here")
		}
		// PostgreSQL takes the user name from the startup message and ignores the one of SCRAM.
		a.scram = newSCRAM(sha256.New, "", saslPrep(string(p.password)))
		first := a.scram.clientFirst()
		answer := binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(first)))
		return a.conn.write('p', append(answer, first...))
	case method == postgresAuthSASLMore && inSCRAM:
		final, err := a.scram.clientFinal(a.conn.x.ctx, string(data))
		if err != nil {
			return err
		}
		return a.conn.write('p', []byte(final))
	case method == postgresAuthSASLFinal && inSCRAM:
		err := a.scram.verifyServerFinal(string(data))
		a.verified = err == nil
		return err
	}
	return malformed("it wants an authentication method that is not known here: %d", method)
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // the protocol's
	return hex.EncodeToString(sum[:])
}
