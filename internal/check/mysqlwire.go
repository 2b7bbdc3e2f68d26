package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/go-sql-driver/mysql"

	"hacheck/internal/check/conn"
)

// mysqlState says which packet of the server is next.
type mysqlState uint8

const (
	mysqlGreeting mysqlState = iota
	mysqlHello               // none: the driver answers the greeting
	mysqlLogin               // of the authentication
	mysqlAnswer              // the first of an answer to a command
	mysqlRows                // the others
)

// mysqlWire is the connection under go-sql-driver/mysql. That driver trusts the server: it allocates what a packet
// claims, and panics in a login on a packet that is short, which leaves a goroutine for ever. Any process may listen on a
// port that is checked, so mysqlWire hands the driver whole packets that it can read. This also lets it
//
//   - do TLS itself, below the packets that it has to see (the driver takes it for the plain protocol);
//   - keep a nonce whole that ends in 0, as 1 of 256 of MariaDB's ed25519 plugin do: the driver would cut that off;
//   - follow MariaDB from one method to the next (IDENTIFIED VIA a OR b), of which the driver takes one (errMySQLSwitch).
type mysqlWire struct {
	*conn.Conn // for the deadlines alone
	x          *exchange
	r          *bufio.Reader
	settings   tlsSettings

	state         mysqlState
	greeting      []byte // as the driver gets it
	offersTLS     bool
	secure        bool // TLS is spoken, or will be when the driver answers the greeting
	wantsIdentity bool // the server asks for a certificate of the client
	method        string
	switches      int
	pending       []byte // a request for another method, for the next run of the driver

	in             []byte // what the driver has not read yet of a packet
	ours, driver   byte   // the next sequence numbers, of the connection and of the driver
	err            error  // the first error; the driver replaces it by one of its own
	handshakeError *Result
	grant          string // what to do, after "; ", where a privilege is missing
}

// errMySQLSwitch ends a run of the driver when the server asks for one more method. The next run, over the same
// connection, begins with that request.
var errMySQLSwitch = errors.New("the server asks for one more authentication method")

// errMySQLHandshake means that mysqlWire.handshakeError has the result.
var errMySQLHandshake = errors.New("no TLS")

func newMySQLWire(x *exchange, settings tlsSettings) *mysqlWire {
	return &mysqlWire{Conn: x.raw, x: x, r: bufio.NewReaderSize(x.conn, 4<<10), settings: settings}
}

// connect logs in with the driver. The caller closes the driver's connection, which sends COM_QUIT.
func (w *mysqlWire) connect(config *mysql.Config) (db driver.Conn, err error) {
	payload, err := w.receive()
	if err != nil {
		return nil, err
	}
	if w.greeting, err = w.accept(payload); err != nil {
		return nil, err
	}
	if w.settings.mode == tlsOn && !w.offersTLS && w.greeting[0] != mysqlError {
		r := w.x.serviceError(503, "%s offers no TLS: let it offer TLS, or set use_tls: prefer", w.x.addr())
		w.handshakeError = &r
		return nil, errMySQLHandshake
	}
	if w.secure || w.x.socket != "" {
		config.Net = "unix" // for this network the driver sends a password as servers want it over a secure connection
	}
	config.AllowCleartextPasswords = w.secure // see acceptSwitch
	for {
		w.state = mysqlGreeting
		dial := conn.Once(w)
		config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return dial() }
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return nil, err
		}
		// Not x.ctx, which the driver would watch with a goroutine of its own: it ends the reads and writes of x.conn.
		err = recovered(func() (err error) { db, err = connector.Connect(context.Background()); return err })
		switch {
		case err == nil && w.state == mysqlLogin:
			_ = db.Close()
			return nil, malformed("a login without an end")
		case err == nil:
			return db, nil
		case !errors.Is(w.err, errMySQLSwitch):
			return nil, w.cause(err)
		}
		w.in, w.err = nil, nil
	}
}

// cause returns the reason for an error of the driver.
func (w *mysqlWire) cause(err error) error {
	var answer *mysql.MySQLError
	var wrong malformedError
	switch {
	case errors.As(err, &answer):
		return err
	case w.err != nil:
		return w.err
	case errors.As(err, &wrong):
		return err
	}
	return malformed("%s", excerpt(err.Error(), 100))
}

// recovered runs f, a call of the driver, and turns a panic into an error.
func recovered(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = malformed("a packet that cannot be read")
		}
	}()
	return f()
}

// Read hands the driver a packet.
func (w *mysqlWire) Read(p []byte) (int, error) {
	if len(w.in) == 0 {
		if w.err == nil {
			w.err = w.next()
		}
		if w.err != nil {
			return 0, w.err
		}
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// Close does nothing: the connection is the exchange's.
func (w *mysqlWire) Close() error { return nil }

// Write sends a packet of the driver, which writes each with one call.
func (w *mysqlWire) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.send(bytes.Clone(p))
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *mysqlWire) send(packet []byte) error {
	w.driver = packet[3] + 1
	switch w.state {
	case mysqlHello:
		w.state = mysqlLogin
		if w.pending != nil {
			return nil // the server has this answer from the first run
		}
		if w.secure {
			if err := w.startTLS(packet); err != nil {
				return err
			}
		}
	case mysqlRows, mysqlAnswer:
		w.state, w.ours = mysqlAnswer, 0
	case mysqlGreeting, mysqlLogin:
	}
	packet[3] = w.ours
	w.ours++
	_, err := w.x.conn.Write(packet)
	return err
}

// startTLS sends the request for TLS, which is the beginning of the driver's answer to the greeting, and does the
// handshake.
func (w *mysqlWire) startTLS(packet []byte) error {
	packet[5] |= mysqlTLS >> 8
	request := append([]byte{32, 0, 0, w.ours}, packet[4:36]...)
	w.ours++
	if _, err := w.x.conn.Write(request); err != nil {
		return err
	}
	if w.r.Buffered() > 0 {
		return malformed("more than a greeting before TLS")
	}
	config := w.settings.config.Clone()
	own := config.GetClientCertificate
	config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if own != nil {
			return own(i)
		}
		w.wantsIdentity = true
		return &tls.Certificate{}, nil
	}
	if r, ok := w.x.handshake(config); !ok {
		w.handshakeError = &r
		return errMySQLHandshake
	}
	w.x.phase = phaseLogin
	w.r.Reset(w.x.conn)
	return nil
}

// next reads the next packet, and puts it into w.in as the driver shall see it.
func (w *mysqlWire) next() error {
	payload := w.greeting
	switch {
	case w.state == mysqlGreeting:
		w.state, w.driver = mysqlHello, 0
	case w.state == mysqlLogin && w.pending != nil:
		payload, w.pending = w.pending, nil
	default:
		var err error
		if payload, err = w.receive(); err != nil {
			return err
		}
		if payload, err = w.accept(payload); err != nil {
			return err
		}
	}
	n := len(payload)
	w.in = append([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.driver}, payload...)
	w.driver++
	return nil
}

// receive returns the payload of the next packet, at least one byte.
func (w *mysqlWire) receive() ([]byte, error) {
	limit := maxMySQLPacket
	if w.state <= mysqlLogin {
		limit = maxMySQLLogin
	}
	head, err := w.r.Peek(4)
	if err != nil {
		return nil, err
	}
	size, sequence := int(head[0])|int(head[1])<<8|int(head[2])<<16, head[3]
	switch {
	case size == 0:
		return nil, malformed("an empty packet")
	case size > limit:
		return nil, malformed("a packet of %d bytes", size)
	}
	// The first byte decides before the rest is awaited, which another protocol may never send.
	if head, err = w.r.Peek(5); err != nil {
		return nil, err
	}
	if sequence != w.ours && head[4] != mysqlError {
		// A server may send an error packet out of sequence, before the greeting for example.
		return nil, malformed("a packet out of turn")
	}
	w.ours = sequence + 1
	_, _ = w.r.Discard(4)
	payload := make([]byte, size)
	_, err = io.ReadFull(w.r, payload)
	return payload, err
}
