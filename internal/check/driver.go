package check

import (
	"context"
	"net"
	"sync"

	"hacheck/internal/check/conn"
)

// withDriver runs a driver. It waits for one of the places of limit, Options.Logins, first.
func (x *exchange) withDriver(limit *conn.Limit, run func() Result) Result {
	if limit == nil {
		return run()
	}
	if !limit.Acquire(x.ctx) {
		if x.ctx.Err() == context.Canceled {
			return x.networkError(x.ctx.Err())
		}
		return result(503, ReasonBusy, x.ctx.Err(), "Too many checks with a login ran for %s, %s was not asked", x.after(), x.addr())
	}
	defer limit.Release()
	return run()
}

// observed is the connection of a driver that hides errors of the network behind errors of its own: it remembers the
// first error of a read. As exchange.send, Write returns an error only if the context has ended, because the server may
// have sent an answer before it closed the connection.
type observed struct {
	net.Conn
	x *exchange

	mu  sync.Mutex
	err error
}

func (o *observed) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

func (o *observed) Write(p []byte) (int, error) {
	if n, err := o.Conn.Write(p); err != nil && o.x.ctx.Err() != nil {
		return n, err
	}
	return len(p), nil
}

// readError returns the first error of a read, nil if there was none.
func (o *observed) readError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
