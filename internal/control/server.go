package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Handler does one request and returns the last event of its answer; Serve sets Done. send sends an event before; it is
// safe for concurrent use, and its error means that the caller is gone. ctx ends as soon as the caller has closed its
// connection or the server stops. The handler returns soon after that.
type Handler func(ctx context.Context, caller Caller, r Request, send func(Event) error) Event

// Options configure Serve. The zero value has the defaults.
type Options struct {
	Log            *slog.Logger  // optional
	MaxConns       int           // open connections of all users but root, default 256
	MaxUserConns   int           // open connections of one user, default 64
	RequestTimeout time.Duration // from the connection to the end of the request, default 5 s
	WriteTimeout   time.Duration // of one event, default 10 s; a caller that does not read is cut off
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConns == 0 {
		o.MaxConns = 256
	}
	if o.MaxUserConns == 0 {
		o.MaxUserConns = 64
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 5 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 10 * time.Second
	}
	return o
}

// The exit codes of events that the server itself sends; a Handler uses them too.
const (
	CodeRefused     = 1
	CodeUsage       = 2
	CodeTimeout     = 3 // the change is made, but not every host has applied it in time
	CodeUnavailable = 4
)

// Serve answers the connections of ln, each with one call of h, until ctx ends. It then closes ln, ends the contexts of
// the handlers, and returns nil after the last one has returned. It returns an error if ln fails.
func Serve(ctx context.Context, ln *net.UnixListener, h Handler, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{handler: h, o: o.withDefaults(), byUser: map[int]int{}}
	defer s.handlers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case err == nil:
			s.accept(ctx, conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.acceptFailed(ctx, err)
		}
	}
}

// server counts the connections of one Serve.
type server struct {
	handler  Handler
	o        Options
	handlers sync.WaitGroup
	logged   time.Time // of the last line of acceptFailed; only the accepting goroutine uses it

	mu     sync.Mutex
	open   int // of all users but root
	byUser map[int]int
}

const (
	acceptPause       = 100 * time.Millisecond // after an error, which is mostly a lack of descriptors
	acceptLogInterval = time.Minute
	refusalTimeout    = 100 * time.Millisecond // to send why a connection is refused; the socket's buffer is empty
)

func (s *server) acceptFailed(ctx context.Context, err error) {
	if now := time.Now(); now.Sub(s.logged) >= acceptLogInterval {
		s.logged = now
		s.o.Log.Error("cannot accept a connection on the control socket; trying again", "err", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(acceptPause):
	}
}

// accept starts a goroutine for conn, or refuses it.
func (s *server) accept(ctx context.Context, conn *net.UnixConn) {
	caller := callerOf(conn)
	if !s.enter(caller.UID) {
		c := &connection{UnixConn: conn, limit: maxEvent, timeout: refusalTimeout}
		_ = c.send(Event{Done: true, Code: CodeUnavailable, Error: "the daemon has too many control connections; try again later"})
		_ = conn.Close()
		return
	}
	s.handlers.Go(func() {
		defer s.leave(caller.UID)
		defer func() { _ = conn.Close() }() // the answer was sent or cannot be
		s.serve(ctx, conn, caller)
	})
}

// enter counts a connection of a user. It returns false if there are too many.
func (s *server) enter(uid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[uid] >= s.o.MaxUserConns || uid != 0 && s.open >= s.o.MaxConns {
		return false
	}
	s.byUser[uid]++
	if uid != 0 {
		s.open++
	}
	return true
}

func (s *server) leave(uid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser[uid]--; s.byUser[uid] == 0 {
		delete(s.byUser, uid)
	}
	if uid != 0 {
		s.open--
	}
}

// serve reads the request of a connection, and answers it.
func (s *server) serve(ctx context.Context, conn *net.UnixConn, caller Caller) {
	c := &connection{UnixConn: conn, limit: maxEvent, timeout: s.o.WriteTimeout}
	_ = conn.SetReadDeadline(time.Now().Add(s.o.RequestTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	in := bufio.NewReader(conn)
	line, err := readLine(in, maxRequest)
	if !stop() {
		return // the server stops
	}
	if err != nil {
		if errors.Is(err, errLongLine) {
			c.finish(Event{Code: CodeUsage, Error: fmt.Sprintf("the request is longer than %d bytes", maxRequest)})
		}
		return
	}
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		c.finish(Event{Code: CodeUsage, Error: "the request cannot be read: " + err.Error()})
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.limit = eventLimit(r.Op)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		// The caller has nothing more to send, so this read ends when the caller closes the connection.
		_, _ = in.ReadByte()
		cancel()
	}()
	c.finish(s.handle(ctx, caller, r, c.send))
	_ = conn.Close()
	<-watcher
}

// handle calls the handler. A panic of the handler is an answer too: the other requests go on.
func (s *server) handle(ctx context.Context, caller Caller, r Request, send func(Event) error) (e Event) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Log.Error("a request of the control socket panicked", "op", r.Op, "by", caller.By, "err", p, "stack", string(debug.Stack()))
			e = Event{Code: CodeUnavailable, Error: "the daemon could not finish the request because of an error of its own; see its log"}
		}
	}()
	return s.handler(ctx, caller, r, send)
}

// connection sends events.
type connection struct {
	*net.UnixConn
	limit   int // of an event in bytes
	timeout time.Duration

	mu  sync.Mutex
	err error // of the first send that failed; the caller is gone
}

var errLongEvent = errors.New("the event is too long")

func (c *connection) send(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(line) >= c.limit {
		return errLongEvent
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.timeout))
	if _, c.err = c.Write(append(line, '\n')); c.err != nil {
		_ = c.Close() // the watcher then ends the context of the handler
	}
	return c.err
}

// finish sends the last event.
func (c *connection) finish(e Event) {
	e.Done = true
	if errors.Is(c.send(e), errLongEvent) {
		_ = c.send(Event{Done: true, Code: CodeUnavailable, Error: fmt.Sprintf("the answer is longer than %d bytes", c.limit)})
	}
}
