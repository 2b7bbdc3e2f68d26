package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The times of a connection.
const (
	callTimeout = 3 * time.Second // of one call to etcd
	keepAlive   = 10 * time.Second
	minBackoff  = 100 * time.Millisecond // between two rounds over the endpoints
	maxBackoff  = 2 * time.Second        // when a member was reached and refused this host
	awayBackoff = 300 * time.Millisecond // when no member answered: a host obeys within 1 s when etcd is back
	dialTimeout = 500 * time.Millisecond // of one TCP connection, without the resolution of a name
	busyBackoff = 15 * time.Second       // when etcd answers that it has too many requests
	// confirmEvery is the number of keep-alives per lease. Half a lease without one ends the connection: the next
	// keep-alive is a third of a lease later, and it may take a sixth.
	confirmEvery = 3
	confirmLimit = 6
)

// Credentials are the login and the TLS configuration of one connection to etcd.
type Credentials struct {
	Username, Password string
	TLS                *tls.Config // nil: without TLS
}

// errNotPresent is the error of an operation that needs the present key of this host.
var errNotPresent = errors.New("this host is not registered in etcd yet")

// errNotConnected is why there is no client before the first attempt has ended.
var errNotConnected = errors.New("not connected yet")

// conn is the connection to etcd with the registration of this host. run keeps it up; the other methods are safe for
// concurrent use and fail at once while there is no connection.
//
// A client of the library has one endpoint and lives as long as its TCP connection. The library could balance over all
// endpoints and reconnect by itself, but then a learner or a stopped member fails every third call, and with a password
// calls and watches hang after the token has expired. So run closes the client and makes one for the next endpoint when
// the connection is cut, the token has expired, or half a lease has passed without a confirmation.
type conn struct {
	o        *Options
	identity identity
	cluster  *clusterID
	started  time.Time

	// onSession is called by run after each registration, and after each connection without one. It must not block.
	onSession func()
	// onLoss is called when keys of this host were deleted by hand. It must not block.
	onLoss func(reason string)

	errors  atomic.Uint64 // failed calls
	written atomic.Int64  // revision of etcd after the last change by this host
	verify  chan struct{} // asks run to verify the connection at once

	probedAt time.Time // when the endpoints were last compared; only run uses it

	mu              sync.Mutex
	changed         chan struct{}    // closed and replaced when client or session changes
	client          *clientv3.Client // nil: not connected
	session         session          // zero: not registered
	lease           clientv3.LeaseID // of session, kept while the connection is cut
	wasRegistered   bool             // this process has been registered
	refused         bool             // another instance has the name of this host
	confirmed       time.Duration    // bootTime before the last call that renewed lease
	answered        time.Time        // when etcd last answered
	problem         error            // why there is no client or no session
	isProblemLogged bool             // a problem was logged since the last registration
	since           time.Time        // of problem, or of the session
	expired         *clientv3.Client // client whose token has expired
	isRenewingLogin bool             // a client with a new token follows
}

// session is a registration: the lease and the present key of this host.
type session struct {
	lease   clientv3.LeaseID
	created int64 // create revision of the present key
}

func newConn(o *Options, id identity, cluster *clusterID) *conn {
	return &conn{
		o: o, identity: id, cluster: cluster, started: time.Now(), since: time.Now(),
		onSession: func() {}, onLoss: func(string) {},
		verify: make(chan struct{}, 1), changed: make(chan struct{}),
	}
}

// etcd returns the client for reads and watches. The error says why there is none.
func (c *conn) etcd() (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil, &UnavailableError{Err: c.noClientError()}
	}
	return c.client, nil
}

func (c *conn) noClientError() error {
	if c.problem != nil {
		return c.problem
	}
	return errNotConnected
}

// registration returns the session if its lease is certainly alive: etcd confirmed it less than a lease ago, by a clock
// that runs while the machine sleeps.
func (c *conn) registration() (session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.client == nil:
		return session{}, &UnavailableError{Err: c.noClientError()}
	case c.session.lease == 0 && c.problem != nil:
		return session{}, &UnavailableError{Err: c.problem}
	case c.session.lease == 0 || bootTime()-c.confirmed >= c.o.Lease:
		return session{}, &UnavailableError{Err: errNotPresent}
	}
	return c.session, nil
}

// status returns whether a client is connected, since when, and what is wrong.
func (c *conn) status() (connected bool, since time.Time, problem error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client != nil, c.since, c.problem
}

// isRefused reports whether another instance has the name of this host.
func (c *conn) isRefused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// lastAnswer returns when etcd last confirmed the connection, zero if it never has.
func (c *conn) lastAnswer() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// changeSignal returns a channel that is closed when the client or the session changes.
func (c *conn) changeSignal() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// broadcast tells the callers of wait. The caller holds c.mu.
func (c *conn) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// get is a linearizable read.
func (c *conn) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return call(ctx, c, func(ctx context.Context, client *clientv3.Client) (*clientv3.GetResponse, error) {
		r, err := client.Get(ctx, key, opts...)
		if err == nil {
			err = c.cluster.check(r.Header)
		}
		return r, err
	})
}

// commit runs one transaction. An error that is not a definite refusal is an UnavailableError with Unknown: the
// transaction may have been applied, or may be applied later.
func (c *conn) commit(ctx context.Context, cmps []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	r, err := call(ctx, c, func(ctx context.Context, client *clientv3.Client) (*clientv3.TxnResponse, error) {
		r, err := client.Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
		if err == nil {
			err = c.cluster.check(r.Header)
		}
		return r, err
	})
	var failed *failedCall
	if errors.As(err, &failed) {
		return nil, &UnavailableError{Err: failed, Unknown: !isDefinite(failed.err)}
	}
	if err == nil && r.Succeeded {
		c.written.Store(r.Header.Revision)
	}
	return r, err
}

// call runs f with the current client. If the token of the client has expired, it waits for the next client and runs f
// once more: etcd has not applied the first call.
func call[T any](parent context.Context, c *conn, f func(context.Context, *clientv3.Client) (T, error)) (T, error) {
	var none T
	client, err := c.etcd()
	if err != nil && c.isLoggingIn() {
		client, err = c.nextClient(parent, nil)
	}
	if err != nil {
		return none, err
	}
	r, err := limited(parent, client, f)
	if isTokenExpired(err) {
		c.requestLogin(client)
		if client, waitErr := c.nextClient(parent, client); waitErr == nil {
			r, err = limited(parent, client, f)
		}
	}
	if err == nil {
		return r, nil
	}
	if parent.Err() == nil {
		c.errors.Add(1)
	}
	if !isDefinite(err) {
		c.verifyNow()
	}
	return none, &UnavailableError{Err: &failedCall{err}}
}

// limited runs f for at most callTimeout.
func limited[T any](ctx context.Context, client *clientv3.Client, f func(context.Context, *clientv3.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f(ctx, client)
}

// requestLogin asks run to replace a client whose token has expired.
func (c *conn) requestLogin(old *clientv3.Client) {
	c.mu.Lock()
	c.expired = old
	c.mu.Unlock()
	c.verifyNow()
}

// nextClient waits for a client other than old, at most for callTimeout. It fails at once when there is a problem.
func (c *conn) nextClient(ctx context.Context, old *clientv3.Client) (*clientv3.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		changed := c.changeSignal()
		client, err := c.etcd()
		switch {
		case err == nil && client != old:
			return client, nil
		case err != nil && !c.isLoggingIn():
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &UnavailableError{Err: errors.New("the login at etcd takes too long")}
		}
	}
}

// isLoggingIn reports whether the client is being replaced because its token has expired.
func (c *conn) isLoggingIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isRenewingLogin
}

// verifyNow asks run to verify the connection at once.
func (c *conn) verifyNow() { wake(c.verify) }
