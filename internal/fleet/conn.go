package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The times of a connection.
const (
	callTimeout  = 3 * time.Second // of one call to etcd
	keepAlive    = 10 * time.Second
	maxBackoff   = 15 * time.Second // between two attempts to connect; the first is after minBackoff
	minBackoff   = 100 * time.Millisecond
	confirmEvery = 3 // keep-alives per lease
)

// Credentials are the login and the TLS configuration of one connection to etcd.
type Credentials struct {
	Username, Password string
	TLS                *tls.Config // nil: without TLS
}

// errNotPresent is the error of an operation that needs the present key of this host.
var errNotPresent = errors.New("this host is not registered in etcd yet")

// conn is the connection to etcd with the registration of this host. run keeps it up; the other methods are safe for
// concurrent use and fail at once while there is no connection.
//
// The client library does not always recover by itself: with a password, every call can fail for ever after the token
// has expired. So conn closes the client and makes a new one whenever nothing was confirmed for half a lease.
type conn struct {
	o        *Options
	identity identity
	cluster  *clusterID

	// onSession is called by run after each registration, and after each connection without one. It must not block.
	onSession func()

	errors atomic.Uint64 // failed calls

	mu        sync.Mutex
	client    *clientv3.Client // nil: not connected
	session   session          // zero: not registered
	confirmed time.Duration    // bootTime of the last call that etcd answered
	problem   error            // why there is no client or no session
	since     time.Time        // of problem, or of the session
}

// session is a registration: the lease and the present key of this host.
type session struct {
	lease   clientv3.LeaseID
	created int64 // create revision of the present key
}

// etcd returns the client for reads and watches. The error says why there is none.
func (c *conn) etcd() (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil, &UnavailableError{Err: c.whyNot()}
	}
	return c.client, nil
}

func (c *conn) whyNot() error {
	if c.problem != nil {
		return c.problem
	}
	return errors.New("not connected yet")
}

// registration returns the session if its lease is certainly alive: etcd confirmed it less than a lease ago, by a clock
// that runs while the machine sleeps.
func (c *conn) registration() (session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.client == nil:
		return session{}, &UnavailableError{Err: c.whyNot()}
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

// get is a linearizable read.
func (c *conn) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	client, err := c.etcd()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := client.Get(ctx, key, opts...)
	if err == nil {
		err = c.cluster.check(r.Header)
	}
	if err != nil {
		c.errors.Add(1)
		return nil, &UnavailableError{Err: explain(err)}
	}
	return r, nil
}

// commit runs one transaction. An error that is not a definite refusal is an UnavailableError with Unknown: the
// transaction may have been applied, or may be applied later.
func (c *conn) commit(ctx context.Context, cmps []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	client, err := c.etcd()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := client.Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
	if err == nil {
		err = c.cluster.check(r.Header)
	}
	if err != nil {
		c.errors.Add(1)
		return nil, &UnavailableError{Err: explain(err), Unknown: !isDefinite(err)}
	}
	return r, nil
}

// isDefinite reports whether err says that etcd did not apply the request.
func isDefinite(err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrPermissionDenied),
		errors.Is(err, rpctypes.ErrTooManyRequests), errors.Is(err, rpctypes.ErrInvalidAuthToken),
		errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, rpctypes.ErrAuthFailed):
		return true
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.NotFound, codes.OutOfRange:
		return true
	}
	return false
}

// explain returns err in the words of etcd's own message, with what to do where that is known.
func explain(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return errors.New("etcd is full (NOSPACE); compact and defragment it, then disarm the alarm (etcdctl alarm disarm)")
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return errors.New("etcd denies access below the prefix; docs/security.md has the role that hacheck needs")
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return errors.New("etcd refuses the user name or the password; see username and password_file")
	case errors.Is(err, rpctypes.ErrNoLeader):
		return errors.New("etcd has no leader")
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("etcd did not answer within %v", callTimeout)
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return errors.New(s.Message())
	}
	return err
}

// clusterID remembers the cluster that every response has to come from.
type clusterID struct {
	id     atomic.Uint64 // 0: not known yet
	member atomic.Uint64
}

// errOtherCluster is the error of a response from another cluster than before.
type errOtherCluster struct{ want, got uint64 }

func (e *errOtherCluster) Error() string {
	return fmt.Sprintf("etcd answers with the cluster id %x, this host knows %x; nothing is taken from either. If the cluster was replaced on purpose, remove the copy in state_dir on every host", e.got, e.want)
}

func (c *clusterID) check(h *pb.ResponseHeader) error {
	if h == nil {
		return errors.New("etcd's answer has no header")
	}
	if c.id.CompareAndSwap(0, h.ClusterId) {
		return nil
	}
	if want := c.id.Load(); want != h.ClusterId {
		return &errOtherCluster{want, h.ClusterId}
	}
	return nil
}

// dial returns a client. It does not wait for a connection.
func (c *conn) dial(ctx context.Context) (*clientv3.Client, error) {
	credentials, err := c.o.Credentials()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Context:              ctx,
		Endpoints:            c.o.Endpoints,
		DialTimeout:          callTimeout,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: callTimeout,
		PermitWithoutStream:  true,
		RejectOldCluster:     false,
		TLS:                  credentials.TLS,
		Username:             credentials.Username,
		Password:             credentials.Password,
		Logger:               zap.NewNop(),
		MaxUnaryRetries:      1,
	})
}
