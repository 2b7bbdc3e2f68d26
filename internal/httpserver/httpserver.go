// Package httpserver makes the net/http servers of all endpoints alike: HTTP/1 and HTTP/2, with a limit for everything
// that a client decides. It knows no URL and opens no port; package fastpath has the way of a connection to the server.
package httpserver

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"hacheck/internal/clients"
)

// Limits of every server. A balancer sends a request in one packet and reads the answer at once; a client that needs
// longer is broken or hostile.
const (
	// HeadTimeout is how long a request may take to arrive.
	HeadTimeout = 10 * time.Second
	// IdleTimeout is how long a connection may stay open between two requests.
	IdleTimeout = 75 * time.Second
	// maxHeadBytes bounds the head of a request.
	maxHeadBytes = 64 << 10
)

// Limits of HTTP/2. Balancers open a connection for each check, or keep one per target, so a few streams are enough.
// net/http closes a connection with 10,000 unsent control frames (floods of SETTINGS, PING and RST_STREAM), and one
// that opens and resets more than four times MaxConcurrentStreams while its handlers run.
const (
	maxStreams  = 16       // of one connection at once
	maxFrame    = 16 << 10 // bytes, the smallest that the protocol has
	maxBuffered = 64 << 10 // bytes of request bodies of one connection, the smallest that the protocol has
	pingAfter   = IdleTimeout / 2
	pingTimeout = HeadTimeout // a client that does not answer a PING has gone
	byteTimeout = HeadTimeout // a client that accepts no byte has gone
)

// Options are what the servers differ in.
type Options struct {
	Handler http.Handler
	// AnswerTimeout is how long an answer may take to be found. Writing it may take HeadTimeout more.
	AnswerTimeout time.Duration
	Log           *slog.Logger         // for what net/http says about broken connections, at level debug
	Conns         *clients.ConnLimiter // of the listeners; counts streams of HTTP/2 too
}

// New returns a server with every limit set. It speaks HTTP/1 and, by prior knowledge, HTTP/2: HAProxy asks in the
// protocol of the server that it checks, so a check of a "proto h2" server begins with the preface of HTTP/2.
func New(o Options) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:                      streamLimiter{o.Handler, o.Conns},
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true, // OPTIONS * must not look healthy
		ReadHeaderTimeout:            HeadTimeout,
		ReadTimeout:                  HeadTimeout,
		WriteTimeout:                 o.AnswerTimeout + 2*HeadTimeout, // the body may arrive for one, and be written for the other
		IdleTimeout:                  IdleTimeout,
		MaxHeaderBytes:               maxHeadBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: maxBuffered,
			MaxReceiveBufferPerStream:     maxBuffered,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              byteTimeout,
		},
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
}

// streamLimiter counts each open stream of HTTP/2 as one more connection of its client. A client cannot have more
// requests in flight by HTTP/2 than by HTTP/1.
type streamLimiter struct {
	http.Handler
	conns *clients.ConnLimiter
}

// ServeHTTP implements http.Handler.
func (l streamLimiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		slot := l.conns.Acquire(clients.AddrOrZero(clients.HostPart(r.RemoteAddr)), func() {})
		if slot == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "This client, or all clients together, have as many connections and streams as they may")
			return
		}
		slot.SetWaiting(false)
		defer slot.Release()
	}
	l.Handler.ServeHTTP(w, r)
}
