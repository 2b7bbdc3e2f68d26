package check

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	amqp "github.com/rabbitmq/amqp091-go"

	"hacheck/internal/check/conn"
)

// amqpType is the configured check: log in to a virtual host and close the connection.
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
		a.drivers = d.Logins
		return a.newConfigured("amqp", "", "amqp:"+a.addr(), a.check), nil
	},
}

// amqpLogin is a login to a virtual host.
type amqpLogin struct {
	login
	vhost string
}

func (a amqpLogin) check(x *exchange) Result {
	frames := &amqpFrames{}
	o := &observed{Conn: frames.bound(x.conn), x: x}
	c, err := a.session(x, o)
	lost := o.readError()
	if err != nil {
		// The driver's goroutines end with the connection, and with Close.
		_ = o.Close()
		_ = c.Close()
	}
	var refused *amqp.Error
	switch {
	case err == nil:
		return x.healthy("Logged in and closed")
	case x.ctx.Err() != nil:
		return x.networkError(x.ctx.Err()) // whatever the driver makes of it
	case errors.As(err, &refused) && refused.Server:
		err = serverError{fmt.Sprintf("AMQP error %d", refused.Code), refused.Reason}
	case errors.Is(err, amqp.ErrSASL):
		err = malformed("it does not offer the mechanism PLAIN")
	case frames.wrong != nil:
		err = frames.wrong
	case lost != nil:
		// The driver's own error says "username or password not allowed", whatever happened.
		err = lost
	default:
		err = malformed("a method that is wrong or does not belong here")
	}
	return x.loginError("AMQP 0-9-1", err, a.redact)
}

// session logs in, opens the virtual host and closes the connection. Brokers log a client that disconnects without Close
// or before CloseOK.
func (a amqpLogin) session(x *exchange, o *observed) (*amqp.Connection, error) {
	x.phase = phaseWait
	properties := amqp.Table{"product": "hacheck"}
	c, err := amqp.Open(o, amqp.Config{
		SASL:       []amqp.Authentication{amqpPlain{a, x, properties}},
		Vhost:      a.vhost,
		Locale:     "en_US",
		FrameSize:  maxAMQPFrame,
		ChannelMax: 1,
		Properties: properties,
	})
	if err != nil {
		return c, err
	}
	x.phase = "closing the connection to"
	return c, c.Close()
}

// amqpPlain is the SASL mechanism PLAIN.
type amqpPlain struct {
	amqpLogin
	x          *exchange
	properties amqp.Table // of the client, which the driver sends with the login
}

// Mechanism implements amqp.Authentication.
func (p amqpPlain) Mechanism() string { return "PLAIN" }

// Response implements amqp.Authentication. It also announces the capability authentication_failure_close, with which the
// broker says why it refuses a login. Without it RabbitMQ closes the connection after three seconds. The driver fills
// in the capabilities just before this call, and has no option for this one.
func (p amqpPlain) Response() string {
	p.x.phase = phaseLogin
	if capabilities, ok := p.properties["capabilities"].(amqp.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return "\x00" + p.username + "\x00" + string(p.password)
}

// maxAMQPFrame is the longest frame that is read, in bytes. The first one of RabbitMQ has about 500.
const maxAMQPFrame = 64 << 10

// amqpFrames lets the driver see only those frames that open and close a connection: methods and heartbeats on channel
// 0, so that its code for channels, which panics, never runs. A frame is type (1), channel (2), length (4), payload, end (1).
type amqpFrames struct {
	wrong error // why a frame was refused
}

func (f *amqpFrames) bound(c net.Conn) net.Conn { return conn.Frames(c, 7, f.size, maxAMQPFrame) }

// size returns the number of bytes after the header of a frame, or -1 and sets wrong.
func (f *amqpFrames) size(head []byte) int64 {
	const method, heartbeat = 1, 8
	size := int64(binary.BigEndian.Uint32(head[3:])) + 1
	switch {
	case string(head[:4]) == "AMQP":
		// The answer to a version that the server does not support.
		f.wrong = malformed("it wants version %d-%d", head[5], head[6])
	case head[0] == 'A':
		f.wrong = malformed("%q", excerpt(head, 20))
	case head[0] != method && head[0] != heartbeat:
		f.wrong = malformed("a frame of type %#02x", head[0])
	case head[1] != 0 || head[2] != 0:
		f.wrong = malformed("a frame on a channel that is not open")
	case size > maxAMQPFrame:
		f.wrong = malformed("a frame of %d bytes", size-1)
	default:
		return size
	}
	return -1
}
