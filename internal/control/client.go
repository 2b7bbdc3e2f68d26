package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
)

// The longest lines in bytes. A longer one ends the connection.
const (
	maxRequest = 256 << 10
	maxEvent   = 8 << 20
	maxReport  = 64 << 20 // of OpReport: a fleet of 5,000 hosts has some 20 MB
)

// The errors of Do when the daemon gave no answer. Do wraps them with the path of the socket.
var (
	ErrNoSocket   = errors.New("no daemon listens on the control socket")
	ErrPermission = errors.New("permission denied; use sudo, or join the group hacheck")
	ErrBroken     = errors.New("the daemon has closed the connection without an answer")
)

// Do sends r to the daemon and returns the last event of the answer. It calls progress, unless that is nil, for each
// event before. It blocks until the daemon has answered or ctx ends. When ctx ends, Do closes the connection, which
// withdraws the request, and returns the error of ctx.
//
// An error means that the daemon gave no answer: ErrNoSocket, also for an empty path, ErrPermission, ErrBroken, or
// another one. A request that the daemon has refused is an event with a Code.
func Do(ctx context.Context, socket string, r Request, progress func(Event)) (Event, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return Event{}, err
	}
	if len(line) >= maxRequest {
		return Event{}, fmt.Errorf("the request has %d bytes, more than the %d that the daemon reads", len(line), maxRequest)
	}
	conn, err := dial(ctx, socket)
	if err != nil {
		return Event{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	e, err := exchange(conn, append(line, '\n'), eventLimit(r.Op), progress)
	switch {
	case err == nil:
		return e, nil
	case ctx.Err() != nil:
		return Event{}, ctx.Err()
	}
	return Event{}, fmt.Errorf("control socket %s: %w", socket, err)
}

// eventLimit returns the longest event of an operation.
func eventLimit(op string) int {
	if op == OpReport {
		return maxReport
	}
	return maxEvent
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	if socket == "" {
		return nil, ErrNoSocket
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w %s", ErrNoSocket, socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("control socket %s: %w", socket, ErrPermission)
	}
	return nil, fmt.Errorf("control socket %s: %w", socket, withoutAddress(err))
}

// withoutAddress removes the operation and the address of an error of package net: the caller names the socket.
func withoutAddress(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// exchange sends the request and reads events until the last one.
func exchange(conn net.Conn, request []byte, limit int, progress func(Event)) (Event, error) {
	// The daemon may have answered and closed already, for example if it has too many connections.
	_, writeErr := conn.Write(request)
	in := bufio.NewReader(conn)
	for {
		line, err := readLine(in, limit)
		if errors.Is(err, errLongLine) {
			return Event{}, err
		}
		if err != nil {
			return Event{}, errors.Join(ErrBroken, withoutAddress(writeErr))
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return Event{}, fmt.Errorf("the answer cannot be read: %w", err)
		}
		if e.Done {
			return e, nil
		}
		if progress != nil {
			progress(e)
		}
	}
}

var errLongLine = errors.New("line is too long")

// readLine returns the next line without its end. A line of more than limit bytes is errLongLine.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errLongLine
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
