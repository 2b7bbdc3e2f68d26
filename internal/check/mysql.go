package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the protocol's
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/edwards25519"
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
	build: func(o *values, d Defaults) (*Configured, error) {
		l := mysqlLogin{o.login(d, 3306, 3306), o.plainText("database", "")}
		return l.newConfigured("mysql", "", "mysql:"+l.addr(), func(ctx context.Context, t Target) Result {
			return l.ask(ctx, t, l.check)
		}), nil
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
		return x.loginError("MySQL", err, func(text string) string { return oneLine(text, 300) })
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

// authResponse returns the response of a method to nonce. It is empty for an empty password.
func (l mysqlLogin) authResponse(method string, nonce []byte) ([]byte, error) {
	switch method {
	case "mysql_native_password", "":
		return scrambleNative(l.password, nonce), nil
	case "caching_sha2_password":
		return scrambleSHA2(l.password, nonce), nil
	case "sha256_password":
		if l.password == "" {
			return []byte{0}, nil
		}
		return []byte{sha256RequestKey}, nil
	case "client_ed25519":
		return signEd25519(l.password, nonce)
	case "mysql_clear_password", "dialog":
		return nil, malformed("it wants the password in clear (%s)", method)
	}
	return nil, malformed("it wants an authentication method that is not known here: %s", oneLine(method, 40))
}

// moreData returns the response to a packet of more authentication data, nil for no response.
func (l mysqlLogin) moreData(method string, nonce, data []byte) ([]byte, error) {
	switch {
	case method == "caching_sha2_password" && len(data) == 1 && data[0] == sha2Fast:
		return nil, nil
	case method == "caching_sha2_password" && len(data) == 1 && data[0] == sha2Full:
		return []byte{sha2RequestKey}, nil
	case method == "caching_sha2_password", method == "sha256_password":
		return encryptPassword(l.password, nonce, data)
	}
	return nil, malformed("more data than the method has")
}

// scrambleNative returns SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))).
func scrambleNative(password Secret, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha1.Sum([]byte(password))                    //nolint:gosec // the protocol's
	twice := sha1.Sum(once[:])                            //nolint:gosec // the protocol's
	mask := sha1.Sum(append(first20(nonce), twice[:]...)) //nolint:gosec // the protocol's
	for i := range once {
		once[i] ^= mask[i]
	}
	return once[:]
}

// scrambleSHA2 returns SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce).
func scrambleSHA2(password Secret, nonce []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha256.Sum256([]byte(password))
	twice := sha256.Sum256(once[:])
	mask := sha256.Sum256(append(twice[:], first20(nonce)...))
	for i := range once {
		once[i] ^= mask[i]
	}
	return once[:]
}

// first20 returns a copy of the part of a nonce that the scrambles use.
func first20(nonce []byte) []byte { return slices.Clone(nonce[:min(20, len(nonce))]) }

// encryptPassword returns the password, followed by a 0 and xored with the nonce, encrypted for an RSA key in PEM.
func encryptPassword(password Secret, nonce, key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || len(nonce) == 0 {
		return nil, malformed("a key that is none")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, malformed("a key that is none")
	}
	rsaKey, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, malformed("a key that is not RSA")
	}
	plain := append([]byte(password), 0)
	for i := range plain {
		plain[i] ^= nonce[i%min(20, len(nonce))]
	}
	secret, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, rsaKey, plain, nil) //nolint:gosec // the protocol's hash
	if err != nil {
		return nil, malformed("a key that is of no use: %s", oneLine(err.Error(), 100))
	}
	return secret, nil
}

// signEd25519 returns MariaDB's signature of the nonce. It is Ed25519 with the password instead of the seed.
// crypto/ed25519 cannot make it, because a password has any length.
func signEd25519(password Secret, nonce []byte) ([]byte, error) {
	if len(nonce) != 32 {
		return nil, malformed("a nonce of the wrong length")
	}
	hash := sha512.Sum512([]byte(password))
	private, err := edwards25519.NewScalar().SetBytesWithClamping(hash[:32])
	if err != nil {
		return nil, err
	}
	public := new(edwards25519.Point).ScalarBaseMult(private).Bytes()
	r, err := hashToScalar(hash[32:], nonce)
	if err != nil {
		return nil, err
	}
	commitment := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k, err := hashToScalar(commitment, public, nonce)
	if err != nil {
		return nil, err
	}
	return append(commitment, edwards25519.NewScalar().MultiplyAdd(k, private, r).Bytes()...), nil
}

func hashToScalar(parts ...[]byte) (*edwards25519.Scalar, error) {
	hash := sha512.Sum512(slices.Concat(parts...))
	return edwards25519.NewScalar().SetUniformBytes(hash[:])
}
