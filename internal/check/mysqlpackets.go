package check

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"slices"
)

// The parts of the client/server protocol of MySQL and MariaDB that mysqlWire looks at, see
// https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.
const (
	mysqlOK       = 0x00
	mysqlMoreData = 0x01 // more authentication data
	mysqlFile     = 0xfb // a request for a file of the client (LOCAL INFILE)
	mysqlSwitch   = 0xfe // a request for another authentication method
	mysqlError    = 0xff

	mysqlLocalFiles = 1 << 7  // capability: the client may be asked for files
	mysqlProtocol41 = 1 << 9  // capability: the protocol since 4.1
	mysqlTLS        = 1 << 11 // capability: TLS after the greeting
	mysqlPluginAuth = 1 << 19 // capability: authentication methods have names

	// maxMySQLLogin and maxMySQLPacket are the longest packets that are read, in bytes: in a login, which has about a
	// hundred, and afterwards. A row of SHOW REPLICA STATUS has a list of GTIDs.
	maxMySQLLogin  = 64 << 10
	maxMySQLPacket = 256 << 10
	// maxMySQLColumns is how many columns a table can have. The driver allocates memory for as many as a server claims.
	maxMySQLColumns = 4096
	// maxMySQLSwitches is how often a server may ask for another method. MariaDB may offer several in turn.
	maxMySQLSwitches = 5
)

// accept returns a packet as the driver shall see it, or an error if the driver could not read it.
func (w *mysqlWire) accept(p []byte) ([]byte, error) {
	switch {
	case p[0] == mysqlError && (len(p) < 4 || p[3] == '#' && len(p) < 9):
		return nil, malformed("an error without a number")
	case p[0] == mysqlError:
		return p, nil
	case p[0] == mysqlOK && w.state != mysqlRows && len(p) < 7:
		return nil, malformed("an OK that is too short")
	}
	switch w.state {
	case mysqlGreeting:
		return w.acceptGreeting(p)
	case mysqlLogin:
		return w.acceptLogin(p)
	case mysqlAnswer:
		return p, w.acceptAnswer(p)
	case mysqlHello, mysqlRows:
	}
	return p, nil
}

// acceptAnswer accepts the beginning of an answer to a command: an OK, or a number of columns.
func (w *mysqlWire) acceptAnswer(p []byte) error {
	columns := int(p[0])
	switch {
	case p[0] == mysqlOK:
		return nil // further results may follow
	case p[0] == mysqlFile:
		return malformed("a request for a file")
	case p[0] == 0xfc && len(p) >= 3:
		columns = int(binary.LittleEndian.Uint16(p[1:]))
	case p[0] > mysqlFile:
		columns = maxMySQLColumns + 1
	}
	if columns > maxMySQLColumns {
		return malformed("a result of too many columns")
	}
	w.state = mysqlRows
	return nil
}

// acceptGreeting accepts a handshake packet of version 10. It passes the server's default method on only if the driver
// knows that method: a server asks for the user's method in any case.
func (w *mysqlWire) acceptGreeting(p []byte) ([]byte, error) {
	short := malformed("a greeting that is too short")
	if p[0] != 10 {
		return nil, malformed("a greeting of version %d", p[0])
	}
	// version: 10 (1), the server's (up to a 0), connection (4), nonce (8), filler (1), capabilities (2)
	at := bytes.IndexByte(p, 0) + 1
	low := at + 4 + 8 + 1
	// character set (1), status (2), capabilities (2), length of the whole nonce (1), reserved (10)
	high := low + 2 + 1 + 2
	nonce := high + 2 + 1 + 10
	if at == 0 || len(p) < nonce {
		return nil, short
	}
	capabilities := uint32(binary.LittleEndian.Uint16(p[low:])) | uint32(binary.LittleEndian.Uint16(p[high:]))<<16
	if capabilities&mysqlProtocol41 == 0 {
		return nil, malformed("a server older than 4.1")
	}
	// The rest of the nonce has at least 13 bytes.
	name := nonce + max(13, int(p[high+2])-8)
	if len(p) < name {
		return nil, short
	}
	w.offersTLS = capabilities&mysqlTLS != 0
	w.secure = w.offersTLS && w.settings.mode != tlsOff
	w.method = "mysql_native_password"
	if capabilities&mysqlPluginAuth != 0 {
		method, _, _ := bytes.Cut(p[name:], []byte{0}) // some old versions omit the 0 at its end
		if m := string(method); m == "caching_sha2_password" || m == "sha256_password" && !w.secure {
			w.method = m
		}
	}
	p[low] &^= mysqlLocalFiles
	w.x.phase = phaseLogin
	return append(append(slices.Clone(p[:nonce+13]), w.method...), 0), nil
}

// acceptLogin accepts a packet of the authentication.
func (w *mysqlWire) acceptLogin(p []byte) ([]byte, error) {
	switch p[0] {
	case mysqlOK:
		w.state = mysqlRows
		return p, nil
	case mysqlSwitch:
		request, err := w.acceptSwitch(p[1:])
		if err == nil && w.switches > 1 {
			w.pending, err = request, errMySQLSwitch
		}
		return request, err
	case mysqlMoreData:
		return p, w.acceptMoreData(p[1:])
	}
	// This includes mysqlFile.
	return nil, malformed("a packet of type %#02x in a login", p[0])
}

// acceptSwitch accepts a request for another authentication method. A method that sends the password in clear is
// refused, whatever the connection.
func (w *mysqlWire) acceptSwitch(p []byte) ([]byte, error) {
	if w.switches++; w.switches > maxMySQLSwitches {
		return nil, malformed("more than %d authentication methods one after the other", maxMySQLSwitches)
	}
	name, nonce, _ := bytes.Cut(p, []byte{0})
	// The nonce has 20 or 32 bytes and is usually followed by a 0. Without that a last byte of 0 is part of the nonce.
	if n := len(nonce) - 1; (n == 20 || n == 32) && nonce[n] == 0 {
		nonce = nonce[:n]
	}
	w.method = string(name)
	if len(p) == 0 {
		w.method = "mysql_old_password" // from before methods had names
	}
	method, size := w.method, 20
	switch w.method {
	case "mysql_native_password", "caching_sha2_password":
	case "sha256_password":
		if w.secure {
			method = "mysql_clear_password" // the same answer, which this method gives over TLS
		}
	case "client_ed25519":
		size = 32
	case "mysql_clear_password", "dialog":
		return nil, malformed("it wants the password in clear (%s)", w.method)
	default:
		return nil, malformed("it wants an authentication method that is not known here: %s", excerpt(w.method, 40))
	}
	if len(nonce) < size {
		return nil, malformed("a nonce of the wrong length")
	}
	// The driver cuts off one 0.
	return slices.Concat([]byte{mysqlSwitch}, []byte(method), []byte{0}, nonce[:size], []byte{0}), nil
}

// acceptMoreData accepts more data of a method: a word of caching_sha2_password, or a public key. The driver would take
// it from other methods for the end of the login.
func (w *mysqlWire) acceptMoreData(p []byte) error {
	const fast, full = 3, 4
	switch {
	case w.method == "caching_sha2_password" && len(p) == 1 && (p[0] == fast || p[0] == full):
		return nil
	case w.method != "caching_sha2_password" && w.method != "sha256_password":
		return malformed("more data than the method has")
	}
	block, _ := pem.Decode(p)
	if block == nil {
		return malformed("an invalid public key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return malformed("an invalid public key")
	}
	if _, ok := public.(*rsa.PublicKey); !ok {
		return malformed("a key that is not RSA")
	}
	return nil
}
