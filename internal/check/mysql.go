package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The parts of the client/server protocol of MySQL and MariaDB that a login uses, see
// https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.
const (
	mysqlOK           = 0x00
	mysqlAuthMoreData = 0x01 // more authentication data
	mysqlAuthSwitch   = 0xfe
	mysqlError        = 0xff

	mysqlQuit = 0x01 // COM_QUIT

	sha2RequestKey = 0x02
	sha2Fast       = 0x03
	sha2Full       = 0x04

	sha256RequestKey = 0x01

	// The client's capabilities: protocol 4.1, long passwords, flags and scrambles, named authentication methods.
	// Neither TLS nor LOCAL INFILE, by which a server could ask for files.
	mysqlPluginAuth   = 1 << 19
	mysqlWithDatabase = 1 << 3 // only with a database
	mysqlProtocol41   = 1 << 9
	mysqlCapabilities = 1<<0 | 1<<2 | mysqlProtocol41 | 1<<13 | 1<<15 | mysqlPluginAuth

	mysqlUTF8 = 45 // utf8mb4_general_ci, known to MySQL since 5.5 and to MariaDB

	// maxMySQLPacket is the longest packet that is read, in bytes. A packet of a login has about a hundred.
	maxMySQLPacket = 64 << 10
	// maxMySQLSwitches is how often a server may ask for another method. MariaDB may offer several in turn.
	maxMySQLSwitches = 5
)

// newMySQL returns the check of a mysql URL: log in and quit, without a database and without a query. An error of the
// server (a wrong password, too many connections) is 500 with its text, as in the original.
//
// It does not use go-sql-driver/mysql, which trusts the server: it panics on short packets, and allocates 16 MB and
// waits if a packet claims that length. Any process may listen on a port that is checked.
func newMySQL(o Options) Func {
	l := mysqlLogin{login: login{username: o.MySQLUsername, password: o.MySQLPassword}}
	return func(ctx context.Context, t Target) Result {
		if l.username == "" {
			err := errors.New("no mysql_username is configured")
			return result(500, ReasonConfig, err, "No MySQL username/password in config file (mysql_username, mysql_password)")
		}
		return ask(ctx, t, l.check)
	}
}

// mysqlType is the configured check, which can log in to a database.
var mysqlType = Type{
	Name: "mysql",
	Doc:  "a login to a MySQL or MariaDB server works",
	Options: []Option{
		hostOption,
		portOption(3306),
		usernameOption.required(),
		passwordOption,
		{Name: "database", Want: "a database name without control characters", Doc: "the database to log in to; without it none is opened"},
	},
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		l := mysqlLogin{o.login(d, 3306, 3306), o.plainText("database", "")}
		return l.newConfigured("mysql", "", "mysql:"+l.addr(), l.check), nil
	},
}

// mysqlLogin is a login to a database, or to none if it is "".
type mysqlLogin struct {
	login
	database string
}

// check logs in and quits.
func (l mysqlLogin) check(x *exchange) Result {
	m := &mysqlConn{x: x, r: bufio.NewReaderSize(x.conn, 1<<10)}
	if err := m.login(l); err != nil {
		return x.loginError("MySQL", err, func(text string) string { return excerpt(text, 300) })
	}
	// Without COM_QUIT the server counts an aborted client for each check.
	m.sequence = 0
	_ = m.write([]byte{mysqlQuit})
	return x.healthy("Logged in and quit")
}

// mysqlConn reads and writes packets: length (3 bytes), sequence number (1), payload.
type mysqlConn struct {
	x        *exchange
	r        *bufio.Reader
	sequence byte
}

// read returns the payload of the next packet, at least one byte. It returns an error packet as a serverError.
func (m *mysqlConn) read() ([]byte, error) {
	head, err := m.r.Peek(5)
	if err != nil {
		return nil, err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	switch {
	case size == 0:
		return nil, malformed("an empty packet")
	case size > maxMySQLPacket:
		return nil, malformed("a packet of %d bytes", size)
	case head[3] != m.sequence && head[4] != mysqlError:
		// A server may send an error packet out of sequence, before the greeting for example.
		return nil, malformed("a packet out of turn")
	}
	m.sequence = head[3] + 1
	_, _ = m.r.Discard(4)
	payload := make([]byte, size)
	if _, err := io.ReadFull(m.r, payload); err != nil {
		return nil, err
	}
	if payload[0] != mysqlError {
		return payload, nil
	}
	// code (2), and since 4.1 '#' and an SQL state (5), message
	if size < 3 {
		return nil, malformed("an error without a number")
	}
	code, message := binary.LittleEndian.Uint16(payload[1:]), payload[3:]
	if len(message) >= 6 && message[0] == '#' {
		message = message[6:]
	}
	return nil, serverError{fmt.Sprintf("MySQL error %d", code), string(message)}
}

func (m *mysqlConn) write(payload []byte) error {
	n := len(payload)
	packet := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), m.sequence}, payload...)
	m.sequence++
	_, err := m.x.conn.Write(packet)
	return err
}

// login logs in: it reads the server's greeting and answers until the server's OK.
func (m *mysqlConn) login(l mysqlLogin) error {
	m.x.phase = "waiting for the greeting of"
	packet, err := m.read()
	if err != nil {
		return err
	}
	method, nonce, err := parseMySQLGreeting(packet)
	if err != nil {
		return err
	}
	m.x.phase = phaseLogin
	response, err := l.authResponse(method, nonce)
	if err != nil {
		// The greeting names the server's default method. The server asks for the user's method if that is another.
		method, response = "mysql_native_password", scrambleNative(l.password, nonce)
	}
	if err := m.write(l.handshakeResponse(method, response)); err != nil {
		return err
	}
	for range maxMySQLSwitches {
		method, nonce, err = m.readAuthReply(l, method, nonce)
		if err != nil || method == "" {
			return err
		}
		if response, err = l.authResponse(method, nonce); err != nil {
			return err
		}
		if err := m.write(response); err != nil {
			return err
		}
	}
	return malformed("more than %d authentication methods one after the other", maxMySQLSwitches)
}

// parseMySQLGreeting parses a handshake packet of version 10. It returns the server's default method and its nonce.
func parseMySQLGreeting(p []byte) (method string, nonce []byte, err error) {
	short := malformed("a greeting that is too short")
	if p[0] != 10 {
		return "", nil, malformed("a greeting of version %d", p[0])
	}
	_, p, ok := bytes.Cut(p[1:], []byte{0}) // the server's version
	// connection (4), nonce (8), filler (1), capabilities (2)
	if !ok || len(p) < 4+8+1+2 {
		return "", nil, short
	}
	nonce = slices.Clone(p[4:12])
	capabilities := uint32(binary.LittleEndian.Uint16(p[13:]))
	p = p[15:]
	// character set (1), status (2), capabilities (2), length of the whole nonce (1), reserved (10)
	if len(p) < 1+2+2+1+10 {
		return "", nil, short
	}
	capabilities |= uint32(binary.LittleEndian.Uint16(p[3:])) << 16
	size := int(p[5])
	p = p[16:]
	if capabilities&mysqlProtocol41 == 0 {
		return "", nil, malformed("a server older than 4.1")
	}
	// The rest of the nonce has at least 13 bytes. The last one is 0 and not part of the nonce.
	rest := max(13, size-8)
	if len(p) < rest {
		return "", nil, short
	}
	nonce = append(nonce, bytes.TrimSuffix(p[:rest], []byte{0})...)
	if capabilities&mysqlPluginAuth == 0 {
		return "mysql_native_password", nonce, nil
	}
	name, _, _ := bytes.Cut(p[rest:], []byte{0}) // some old versions omit the 0 at its end
	return string(name), nonce, nil
}

// handshakeResponse returns the handshake response packet.
func (l mysqlLogin) handshakeResponse(method string, response []byte) []byte {
	capabilities := uint32(mysqlCapabilities)
	if l.database != "" {
		capabilities |= mysqlWithDatabase
	}
	p := binary.LittleEndian.AppendUint32(nil, capabilities)
	p = binary.LittleEndian.AppendUint32(p, maxMySQLPacket)
	p = append(p, mysqlUTF8)
	p = append(p, make([]byte, 23)...)
	p = append(p, l.username...)
	p = append(p, 0, byte(len(response))) // no response has more than 64 bytes
	p = append(p, response...)
	if l.database != "" {
		p = append(append(p, l.database...), 0)
	}
	p = append(p, method...)
	return append(p, 0)
}

// readAuthReply reads the server's replies to a response. It returns the method and nonce that the server asks for
// next, or ("", nil, nil) after its OK.
func (m *mysqlConn) readAuthReply(l mysqlLogin, method string, nonce []byte) (string, []byte, error) {
	// caching_sha2_password needs one packet for its fast path, one for its full path and one for the OK.
	for range 3 {
		packet, err := m.read()
		if err != nil {
			return "", nil, err
		}
		switch packet[0] {
		case mysqlOK:
			return "", nil, nil
		case mysqlAuthSwitch:
			name, data, _ := bytes.Cut(packet[1:], []byte{0})
			if len(packet) == 1 {
				name = []byte("mysql_old_password") // from before methods had names
			}
			return string(name), switchNonce(data), nil
		case mysqlAuthMoreData:
			reply, err := l.moreData(method, nonce, packet[1:])
			if err != nil {
				return "", nil, err
			}
			if reply == nil {
				continue
			}
			if err := m.write(reply); err != nil {
				return "", nil, err
			}
		default:
			// This includes 0xfb, by which a server asks for a file.
			return "", nil, malformed("a packet of type %#02x in a login", packet[0])
		}
	}
	return "", nil, malformed("a login without an end")
}

// switchNonce returns the nonce in the data of an auth switch request: 20 or 32 bytes, usually followed by a 0.
// Without that 0 a last byte of 0 is part of the nonce. MariaDB sends such a nonce in 1 of 256 logins with Ed25519.
func switchNonce(data []byte) []byte {
	if n := len(data) - 1; (n == 20 || n == 32) && data[n] == 0 {
		data = data[:n]
	}
	return slices.Clone(data)
}
