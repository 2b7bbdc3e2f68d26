package check

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The parts of AMQP 0-9-1 (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf) that open and close a connection.
// All methods are of the class connection, and all frames are on channel 0.
const (
	amqpHeader = "AMQP\x00\x00\x09\x01"

	amqpMethod    = 1    // frame type
	amqpHeartbeat = 8    // frame type
	amqpFrameEnd  = 0xce // last byte of a frame

	amqpConnection = 10 // the class
	amqpStart      = 10
	amqpStartOK    = 11
	amqpTune       = 30
	amqpTuneOK     = 31
	amqpOpen       = 40
	amqpOpenOK     = 41
	amqpClose      = 50
	amqpCloseOK    = 51

	// maxAMQPFrame is the longest frame that is read, in bytes. The first one of RabbitMQ has about 500.
	maxAMQPFrame = 64 << 10
	// maxAMQPFrames is how many heartbeats may come before an answer.
	maxAMQPFrames = 100
)

// amqpType is the configured check: log in to a virtual host and close the connection.
//
// It does not use rabbitmq/amqp091-go, which trusts the broker: it allocates as much memory as a frame claims, and its
// goroutines may outlive the check.
var amqpType = Type{
	Name: "amqp",
	Doc:  "a login to a virtual host of an AMQP 0-9-1 broker (RabbitMQ) works",
	Options: append([]Option{
		hostOption,
		{Name: "port", Want: "a port from 1 to 65535", Default: "5671, 5672 without use_tls", Doc: "its port"},
		usernameOption.required(),
		passwordOption.required(),
		{Name: "vhost", Want: "a virtual host of at most 255 bytes without control characters", Default: "/", Doc: "the virtual host to open"},
	}, tlsOptions("true")...),
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		a := amqpLogin{o.login(d, 5672, 5671), o.plainText("vhost", "/")}
		if len(a.vhost) > 255 {
			o.addValueError("vhost", a.vhost)
		}
		return a.newConfigured("amqp", "", "amqp:"+a.addr(), a.check), nil
	},
}

// amqpLogin is a login to a virtual host.
type amqpLogin struct {
	login
	vhost string
}

func (a amqpLogin) check(x *exchange) Result {
	if err := a.session(&amqpConn{x: x, r: bufio.NewReaderSize(x.conn, 1<<10)}); err != nil {
		return x.loginError("AMQP 0-9-1", err, a.redact)
	}
	return x.healthy("Logged in and closed")
}

// session logs in, opens the virtual host and closes the connection.
func (a amqpLogin) session(c *amqpConn) error {
	c.x.phase = phaseWait
	if err := c.x.send([]byte(amqpHeader)); err != nil {
		return err
	}
	args, err := c.read(amqpStart)
	if err != nil {
		return err
	}
	// version (2), properties of the server, mechanisms, locales
	args.next(2)
	args.longString()
	if mechanisms := strings.Fields(string(args.longString())); args.truncated || !slices.Contains(mechanisms, "PLAIN") {
		return malformed("it does not offer the mechanism PLAIN")
	}
	c.x.phase = phaseLogin
	if err := c.write(amqpStartOK, a.startOK()); err != nil {
		return err
	}
	if args, err = c.read(amqpTune); err != nil {
		return err
	}
	limits := args.next(2 + 4) // number of channels and length of a frame, as the server proposes them
	if args.truncated {
		return malformed("a method that is too short")
	}
	if err := c.write(amqpTuneOK, append(slices.Clone(limits), 0, 0)); err != nil { // no heartbeats
		return err
	}
	c.x.phase = "opening the virtual host of"
	if err := c.write(amqpOpen, append(amqpShortString(a.vhost), 0, 0)); err != nil {
		return err
	}
	if _, err := c.read(amqpOpenOK); err != nil {
		return err
	}
	// Brokers log a client that disconnects without Close or before CloseOK.
	c.x.phase = "closing the connection to"
	const success = 200
	reason := append(binary.BigEndian.AppendUint16(nil, success), amqpShortString("")...)
	if err := c.write(amqpClose, append(reason, 0, 0, 0, 0)); err != nil {
		return err
	}
	_, err = c.read(amqpCloseOK)
	return err
}

// startOK returns the arguments of the method that logs in. With the capability authentication_failure_close the
// broker says why it refuses a login instead of closing the connection.
func (a amqpLogin) startOK() []byte {
	capabilities := append(amqpShortString("authentication_failure_close"), 't', 1)
	properties := append(amqpShortString("product"), 'S')
	properties = append(properties, amqpLongString("hacheck")...)
	properties = append(append(properties, amqpShortString("capabilities")...), 'F')
	properties = append(properties, amqpLongString(string(capabilities))...)
	args := append(amqpLongString(string(properties)), amqpShortString("PLAIN")...)
	args = append(args, amqpLongString("\x00"+a.username+"\x00"+string(a.password))...)
	return append(args, amqpShortString("en_US")...)
}

// amqpShortString encodes a short string: length (1 byte), text.
func amqpShortString(s string) []byte { return append([]byte{byte(len(s))}, s...) }

// amqpLongString encodes a long string: length (4 bytes), text.
func amqpLongString(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// amqpConn reads and writes methods, each in a frame: type (1), channel (2), length (4), class (2), method
// (2), arguments, end (1).
type amqpConn struct {
	x *exchange
	r *bufio.Reader
}

func (c *amqpConn) write(method uint16, args []byte) error {
	frame := binary.BigEndian.AppendUint32([]byte{amqpMethod, 0, 0}, uint32(4+len(args)))
	frame = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(frame, amqpConnection), method)
	_, err := c.x.conn.Write(append(append(frame, args...), amqpFrameEnd))
	return err
}

// read returns the arguments of the next method, which must be want. If the server sends Close instead, read confirms
// it and returns a serverError.
func (c *amqpConn) read(want uint16) (*amqpArgs, error) {
	for range maxAMQPFrames {
		kind, payload, err := c.frame()
		if err != nil {
			return nil, err
		}
		if kind == amqpHeartbeat {
			continue
		}
		args := &amqpArgs{b: payload}
		class, method := args.uint16(), args.uint16()
		switch {
		case args.truncated || class != amqpConnection:
			return nil, malformed("a method of class %d", class)
		case method == want:
			return args, nil
		case method == amqpClose:
			code := args.uint16()
			text := args.shortString()
			if args.truncated {
				return nil, malformed("a method that is too short")
			}
			_ = c.write(amqpCloseOK, nil)
			return nil, serverError{fmt.Sprintf("AMQP error %d", code), string(text)}
		}
		return nil, malformed("method %d where %d has to be", method, want)
	}
	return nil, malformed("heartbeats and no answer")
}

// frame returns the next frame's type and payload.
func (c *amqpConn) frame() (kind byte, payload []byte, err error) {
	start, err := c.r.Peek(1)
	if err != nil {
		return 0, nil, err
	}
	// The first byte identifies another protocol, whose server may never send a second one. "AMQP" and a version is a
	// server's answer to a version that it does not support.
	switch start[0] {
	case amqpMethod, amqpHeartbeat:
	case 'A':
		if start, err = c.r.Peek(len(amqpHeader)); err != nil {
			return 0, nil, err
		}
		if string(start[:4]) == "AMQP" {
			return 0, nil, malformed("it wants version %d-%d-%d", start[5], start[6], start[7])
		}
		return 0, nil, malformed("%q", excerpt(start, 20))
	default:
		return 0, nil, malformed("a frame of type %#02x", start[0])
	}
	head, err := c.r.Peek(7)
	if err != nil {
		return 0, nil, err
	}
	kind = head[0]
	if !bytes.Equal(head[1:3], []byte{0, 0}) {
		return 0, nil, malformed("a frame on a channel that is not open")
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > maxAMQPFrame {
		return 0, nil, malformed("a frame of %d bytes", size)
	}
	_, _ = c.r.Discard(7)
	payload = make([]byte, size+1)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, err
	}
	if payload[size] != amqpFrameEnd {
		return 0, nil, malformed("a frame without its end")
	}
	return kind, payload[:size], nil
}

// amqpArgs reads arguments in order. truncated is set when there are fewer bytes than asked for.
type amqpArgs struct {
	b         []byte
	truncated bool
}

// next returns the next n bytes, nil if there are fewer.
func (a *amqpArgs) next(n int) []byte {
	if a.truncated || n < 0 || n > len(a.b) {
		a.truncated = true
		return nil
	}
	b := a.b[:n]
	a.b = a.b[n:]
	return b
}

func (a *amqpArgs) uint16() uint16 {
	if b := a.next(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (a *amqpArgs) shortString() []byte {
	if b := a.next(1); b != nil {
		return a.next(int(b[0]))
	}
	return nil
}

// longString returns a long string or a table, whose encoding begins alike.
func (a *amqpArgs) longString() []byte {
	if b := a.next(4); b != nil {
		return a.next(int(min(binary.BigEndian.Uint32(b), maxAMQPFrame+1)))
	}
	return nil
}
